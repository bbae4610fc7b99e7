# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Patching and paths: what a head carries, and who reads it
#
# **Question.** Without head 0.1 `zoo:mixed-0` makes no use of its examples (notebook 4). What does the head carry: the
# $x$ of a pair, its $y$, the function? And which component reads what it writes?
#
# Removing a head says that something is missing. **Patching** says what: one run is given an activation of another run
# that differs from it in a known way.

# %%
from functools import partial

import numpy as np
import pandas as pd
import torch

from analyses.studies.trace.measures import group_readers
from interp import attribute, load, parse_heads, patch, path_effects, prompt_pairs, score
from interp.display.axes import row_of_axes
from interp.model.heads import EMBED
from interp.patching.path_receivers import parse_receivers
from interp.patching.prompt_pairs import CORRUPTIONS
from training.evaluation.evaluate import predictions

N = 256  # prompts of every measurement
checkpoint = load("zoo:mixed-0")
ask = partial(patch, checkpoint, ["linear"], n_prompts=N)
(head,) = parse_heads("0.1", 3, 8)

# %% [markdown]
# ## Two prompts, one question
#
# A *clean* and a *corrupt* prompt share their last $x$, the query, at which the prediction is read. What stands before
# it differs, in one of seven ways. Look at which tokens change from the first column to the others: under *function*,
# *permuted* and *noise* every $x$ stays and the $y$ change; under *inputs* both change and the function stays; *pair*
# exchanges one pair, by default the last. (Shown is the first coordinate of a token; pairs are counted from 0.)

# %%
pairs = {name: prompt_pairs(checkpoint.config, "linear", name, n_prompts=N, seed=0) for name in CORRUPTIONS}
prompts = {"clean": pairs["function"].clean} | {name: both.corrupt for name, both in pairs.items()}
tokens = pd.DataFrame({name: one.tokens[0, :31, 0] for name, one in prompts.items()})
tokens.index = [f"{kind}{i}" for i in range(16) for kind in "xy"][:31]
tokens.loc[["x0", "y0", "x1", "y1", "x14", "y14", "x15"]].round(2)

# %%
assert (tokens.loc["x15"] == tokens.loc["x15", "clean"]).all()
keeps_x = [name for name in CORRUPTIONS if torch.equal(pairs[name].clean.xs, pairs[name].corrupt.xs)]
assert keeps_x == ["function", "class", "permuted", "noise"]

# %% [markdown]
# ## What a corruption can find
#
# Now the clean run, with the output of 0.1 taken from the corrupt run (`direction="noise"`). Errors are NMSE to the
# clean answer. First look at *corrupt*, the error of the corrupt run: how much there is to find. Then at the last two
# columns: what of it comes through 0.1. An **effect** is the share of the way from the one run's prediction to the
# other's: 0 nothing happened, 1 as if everything had been patched.

# %%
rows = {}
for name in CORRUPTIONS:
    found = ask(heads="0.1", corrupt=name, direction="noise")
    rows[name] = found.baseline_errors.iloc[0, 1:].tolist() + found.table.iloc[0][["nmse", "effect"]].tolist()
by_corruption = pd.DataFrame(rows, index=["clean", "corrupt", "no context", "gap", "0.1: nmse", "0.1: effect"]).T
by_corruption.astype(float).round(3)

# %% [markdown]
# All four corruptions that keep $x$ find **nothing** at 0.1, even though they ruin the prediction. Had we tried these
# alone, we would have called 0.1 unimportant. The two that change every $x$ find nearly everything. So 0.1 carries
# $x$, and neither $y$ nor the function. Two more things to see:
#
# - *pair* has no gap to speak of: the model does not use its last pair, so this corruption can find nothing anywhere.
# - *inputs* keeps the answer: clean and corrupt run are both right, and the way between them is short (gap 0.08). An
#   effect on it is a ratio of two small numbers. **Look at the error instead**: from 0.04 to 1.4.

# %%
at_head = by_corruption["0.1: nmse"] - by_corruption["clean"]
assert (by_corruption.loc[keeps_x, "corrupt"] > 0.5).all()
assert (at_head[keeps_x] < 0.01).all()
assert (at_head[["inputs", "prompt"]] > 1.2).all()
assert by_corruption.loc["pair", "gap"] < 0.01
assert by_corruption.loc["inputs", "gap"] < 0.15
assert by_corruption.loc["inputs", "corrupt"] < 0.1

# %% [markdown]
# ## Every head, under two corruptions
#
# The same for each of 24 heads alone. Under *function*, look at which row has colour; 0.1 has none. Under *inputs*
# look for the one cell that stands out (white is the clean run's error).

# %%
other_function = ask(corrupt="function", direction="noise")
_ = other_function.plot()

# %%
other_inputs = ask(corrupt="inputs", direction="noise")
_ = other_inputs.plot("nmse")

# %%
needed = other_function.table.set_index("heads")["effect"]
errors = other_inputs.table.set_index("heads")["nmse"]
assert abs(needed["0.1"]) < 0.02
assert needed[needed > 0.1].index.tolist() == ["0.2", "1.2", "1.3", "1.5", "1.6", "1.7", "2.4"]
assert errors["0.1"] > 1.2
assert errors.drop("0.1").max() < 0.35

# %% [markdown]
# ## Denoise and noise ask different questions
#
# *Noise* puts corrupt activations into the clean run: what is **needed**? *Denoise* puts clean ones into the corrupt
# run: what is **enough**? Where two components must come together, each is needed and none is enough; where either
# will do, each is enough and none is needed. Look at the first row. (Under *function*, as above.)

# %%
restored = ask(corrupt="function", direction="denoise")
both_ways = pd.DataFrame({"noise": needed, "denoise": restored.table.set_index("heads")["effect"]})
both_ways[both_ways.max(axis=1) > 0.1].round(2)

# %% [markdown]
# Head 0.2 is needed and not enough: alone it restores next to nothing. The heads of layer 1 do as much in one
# direction as in the other. They act side by side and write into one sum, so that here single effects add up:

# %%
layer_1 = ask(heads="layer:1", corrupt="function", direction="noise")
together, summed = layer_1.table["effect"].item(), needed.filter(regex="^1").sum()
print(f"heads of layer 1 (noise): sum of eight effects {summed:.2f}, all eight together {together:.2f}")

# %%
assert abs(summed - together) < 0.1
assert both_ways.loc["0.2", "noise"] > 0.12
assert both_ways.loc["0.2", "denoise"] < 0.06
assert (abs(both_ways.loc["1.2":"1.7", "noise"] - both_ways.loc["1.2":"1.7", "denoise"]) < 0.08).all()

# %% [markdown]
# ## Trap: an effect of one half may be nothing but destruction
#
# Under *prompt* the examples of the corrupt run have other inputs and another function. There 0.1 has an effect of
# about one half in **both** directions. Is it half of the answer? Fit the patched prediction by the two answers that
# it could give, $a \cdot$ clean $+\ b \cdot$ corrupt. Look at $a$ and $b$, with the query's stream before the last
# layer as a place that does hold an answer.


# %%
def answers(found):
    outcomes = found.outcomes["linear"]
    both = np.stack([outcomes.clean, outcomes.corrupt], axis=1)
    return np.linalg.lstsq(both, outcomes.patched[-1], rcond=None)[0]


rows = {}
for direction in ("noise", "denoise"):
    asked = {"corrupt": "prompt", "direction": direction}
    places = {"0.1": ask(heads="0.1", **asked)}
    places["query before layer 2"] = ask(site="resid_pre", tokens="query", **asked)
    for place, found in places.items():
        rows[place, direction] = [*found.table[["effect", "nmse"]].iloc[-1], *answers(found)]
halves = pd.DataFrame(rows, index=["effect", "nmse", "a (clean)", "b (corrupt)"]).T.sort_index()
halves.round(2)

# %% [markdown]
# With another prompt's 0.1 the model gives **neither** answer. The two answers have nothing to do with one another, and
# a prediction that has to do with neither lies half-way between them. Always predicting 0 would do:

# %%
outcomes = found.outcomes["linear"]
way = outcomes.clean - outcomes.corrupt
of_zero = ((0 - outcomes.corrupt) * way).mean() / np.square(way).mean()
print(f"effect of predicting 0 (denoise): {of_zero:.2f}")

# %% [markdown]
# The error tells them apart: with 0.1 denoised it stays above 1. So "0.1 restores half of the answer" is false, and an
# effect near one half is to be read with the error beside it.

# %%
assert abs(of_zero - 0.5) < 0.05
assert (abs(halves.loc["0.1", "effect"] - 0.5) < 0.1).all()
assert (abs(halves.loc["0.1", ["a (clean)", "b (corrupt)"]]) < 0.15).all(axis=None)
assert (halves.loc["0.1", "nmse"] > 1.1).all()
assert halves.loc[("query before layer 2", "denoise"), "a (clean)"] > 0.75

# %% [markdown]
# ## The test of a claim: predict what the patched run will do
#
# The claim is that 0.1 brings $x_i$ to $y_i$, nothing else, and that the $x$ of the examples reach the prediction in no
# other way. Then the clean run with 0.1 from other inputs must do what the intact model does on a **chimera**: the $x$
# of the corrupt prompt beside the $y$ of the clean one. Nothing is fitted here. Each dot is a prompt; look at how close
# the dots on the right lie to the diagonal.

# %%
inputs = pairs["inputs"]
chimera = predictions(checkpoint.model, inputs.clean._replace(xs=inputs.corrupt.xs))[:, -1].numpy()
outcomes = ask(heads="0.1", corrupt="inputs", direction="noise").outcomes
patched = outcomes["linear"].patched[0]
candidates = {"clean prompt": outcomes["linear"].clean, "chimera: other x, same y": chimera}
for ax, (name, expected) in zip(row_of_axes(2, width=2.9, height=2.9), candidates.items(), strict=True):
    ax.plot(expected, patched, "o", ms=2.5, alpha=0.6)
    ax.axline((0, 0), slope=1, color="#b9c0c7", lw=0.8, zorder=0)
    ax.set(xlabel=f"prediction for the {name}", xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
_ = ax.figure.axes[0].set_ylabel("patched: 0.1 from other inputs")

# %%
agreement = {name: np.corrcoef(expected, patched)[0, 1] for name, expected in candidates.items()}
print({name: round(float(value), 2) for name, value in agreement.items()})
assert agreement["chimera: other x, same y"] > 0.95
assert abs(agreement["clean prompt"]) < 0.25

# %% [markdown]
# Prompt by prompt the patched model predicts what pairs that do not belong together make it predict. A patch puts
# together what no prompt of the class has together, and one has to ask whether what follows says anything about the
# model on its own distribution. Its error **above 1**, worse than predicting 0, looks like mere damage. Here it is not:
# given such pairs as a prompt, the intact model errs as much.

# %%
errs = {name: np.square(one - outcomes["linear"].answer).mean() for name, one in (("0.1", patched), ("x", chimera))}
print({name: round(value.item(), 2) for name, value in errs.items()})
assert min(errs.values()) > 1.2
assert abs(errs["0.1"] - errs["x"]) < 0.15

# %% [markdown]
# ## Which part of the head, and at which tokens
#
# A head has queries, keys, values, a pattern and an output. Look at which of them takes the error up when it comes from
# other inputs, and at which tokens. (*changed*: the patched activation differs between the two runs; where it does not,
# an unchanged error shows nothing.)

# %%
places = {"q": ["all"], "k": ["all"], "pattern": ["all"], "v": ["x", "y"], "z": ["x", "y:0-12", "y:13-14"]}
rows = {
    (site, at): ask(site=site, tokens=at, heads="0.1", corrupt="inputs", direction="noise").table.iloc[0]
    for site, tokens in places.items()
    for at in tokens
}
parts = pd.DataFrame(rows).T[["nmse", "changed"]].rename_axis(["site", "at"])
parts.assign(nmse=parts["nmse"].astype(float).round(3))

# %% [markdown]
# Where it looks does not depend on what is there: another prompt's pattern changes nothing. What it moves are the
# values of the $x$ tokens, and they matter at the $y$ of the first 13 pairs. At the last two it does not look back
# (notebook 3), and there is nothing to find.

# %%
carries = parts["nmse"] > 1.2
assert carries[carries].index.tolist() == [("v", "x"), ("z", "y:0-12")]
assert parts.loc[~carries, "nmse"].max() < 0.06

# %% [markdown]
# ## Where the answer is
#
# The whole residual stream, before each layer and at each token (*function*, denoise). Look at how the colour moves:
# from the $y$ tokens, before layers 0 and 1, to the last column, the query, before layer 2. The last two pairs hold
# nothing.

# %%
stream = ask(site="resid_pre")
(ax,) = stream.plot()
ax.figure.set_size_inches(9.5, 2)

# %% [markdown]
# **Trap: single effects do not add up.** Each of 13 $y$ tokens carries a tenth. All of them together:

# %%
single = stream.table.pivot(index="layer", columns="tokens", values="effect")
jointly = ask(site="resid_pre", tokens="y").table.set_index("layer")["effect"]
columns = {"sum over y tokens": single.filter(like="y").sum(axis=1), "jointly": jointly, "query": single["x15"]}
pd.DataFrame(columns).round(2)

# %%
assert single.loc[2, "x15"] > 0.75
assert single.loc[[0, 1], "x15"].abs().max() < 0.02
assert single[["y13", "y14"]].abs().max(axis=None) < 0.01
assert abs(jointly[0] - 1) < 0.01
assert single.loc[0].sum() > 1.15

# %% [markdown]
# Together they are the whole answer, and their sum is a quarter more. Each is measured with twelve wrong pairs around
# it. So "each pair carries a tenth" is a statement about one pair changed alone, and no share of a whole.
#
# ## Who reads it: paths
#
# A **path** ends at one input of one later component: that input alone sees what 0.1 writes in the corrupt run; what
# lies between stays as it was, what comes after reacts. Look at the bar below *everything*. (Under *prompt*; effects
# near one half are destruction, as we saw, which is what is asked here: whose reading is needed?)

# %%
paths = path_effects(checkpoint, [head], parse_receivers("each", 3, 8), ["linear"], n_prompts=N)
_ = paths.plot()

# %%
share = paths.table.set_index("receiver")["share"]
assert share["0.mlp"] > 0.7
assert share.drop(["all", "0.mlp"]).abs().max() < 0.1
assert abs(share["out"]) < 0.005

# %% [markdown]
# The MLP of its own layer reads it: four fifths of the effect pass through that one input. The *direct* path, to the
# read-out (`out`), carries nothing: everything that 0.1 does is **mediated**.
#
# What does the MLP want with it? At $y_i$ it sees $y_i$ itself (from the read-in, `embed`) and $x_i$ from 0.1. Give it
# the clean version of one of them, of the other, of both, in a run that is otherwise corrupt. Look at the error.

# %%
mlp = parse_receivers("0.mlp", 3, 8)
joined = path_effects(checkpoint, [head, (EMBED,), (EMBED, *head)], mlp, ["linear"], direction="denoise", n_prompts=N)
meets = joined.table.query("receiver == '0.mlp'").set_index("sender")[["effect", "nmse"]]
baseline = joined.baseline_errors.iloc[0]
print(f"corrupt {baseline['nmse_corrupt']:.2f}, clean {baseline['nmse_clean']:.2f}")
meets.round(2)

# %% [markdown]
# One alone leaves the error above that of knowing nothing; both together bring most of the answer back, through this
# single input. The *effects* would have hidden it: 0.38 and 0.28 make 0.66, about what both have (0.69), as if each had
# brought its part. And what the MLP makes of the two is nearly all that later layers need, at the $y$ tokens:

# %%
written = {at: ask(site="mlp_out", tokens=at, corrupt="prompt").table.iloc[0] for at in ("x", "y")}
pd.DataFrame(written).loc[["effect", "nmse"]].astype(float).round(2)

# %%
assert written["y"]["effect"] > 0.85
assert written["y"]["nmse"] < 0.2
assert abs(written["x"]["effect"]) < 0.02
assert (meets.loc[["0.1", "embed"], "nmse"] > 1.2).all()
assert meets.loc["embed,0.1", "nmse"] < 0.75
assert abs(meets.loc["embed,0.1", "effect"] - meets.loc[["0.1", "embed"], "effect"].sum()) < 0.1

# %% [markdown]
# ## The same head, another reader
#
# `zoo:random-0` has such a head too, in the same place. It passes the same test:

# %%
random_0 = load("zoo:random-0")
outcomes = patch(random_0, ["linear"], heads="0.1", corrupt="inputs", direction="noise", n_prompts=N).outcomes["linear"]
inputs = prompt_pairs(random_0.config, "linear", "inputs", n_prompts=N, seed=0)
chimera = predictions(random_0.model, inputs.clean._replace(xs=inputs.corrupt.xs))[:, -1].numpy()
in_random_0 = np.corrcoef(chimera, outcomes.patched[0])[0, 1]
print(f"random-0: correlation with the chimera {in_random_0:.2f}")

# %% [markdown]
# Who reads it there? Readers in groups, each group together: the share of the head's whole effect that passes through
# it. Look at where the longest bar of each colour is.

# %%
shares = {}
for model in (checkpoint, random_0):
    groups = group_readers(model, head[0])
    groups["all but own mlp"] = tuple(one for key, group in groups.items() if key != "own mlp" for one in group)
    found = path_effects(model, [head], list(groups.values()), ["linear"], n_prompts=N)
    shares[model.name] = dict(zip(groups, found.table["share"][1:], strict=True))
shares = pd.DataFrame(shares)
ax = shares[::-1].plot.barh(figsize=(5.5, 2.8), color=["#1b6ca8", "#c8553d"], xlabel="share of the head's effect")
ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
_ = ax.axvline(0, color="#666666", lw=0.8)

# %% [markdown]
# In `mixed-0` the MLP, in `random-0` hardly: there the keys of later heads. And **shares need not add up**: in
# `random-0` its readers make a third when each group sees the change alone, and three quarters when all but the MLP
# see it together.

# %%
assert in_random_0 > 0.9
assert shares.loc["own mlp", "zoo:mixed-0"] > 0.7
assert abs(shares.loc["own mlp", "zoo:random-0"]) < 0.15
assert shares["zoo:random-0"].drop("all but own mlp").idxmax() == "keys"
assert shares.loc["all but own mlp", "zoo:random-0"] > 0.6
assert shares["zoo:random-0"].drop("all but own mlp").sum() < 0.5

# %% [markdown]
# ## Can a gradient do it?
#
# Patching takes one run for each location. A gradient estimates all of them from a few runs, and a **validation**
# compares the estimates with exact patching on the same prompts. Look at 0.1 in both panels: a dot on the dotted line
# is right.

# %%
estimates = attribute(checkpoint, ["linear"], methods=["gradient", "ig-activations"], corrupt="prompt",
                      direction="noise", n_prompts=N, n_validate=N)  # fmt: skip
_ = estimates.plot_validation()

# %%
estimates

# %% [markdown]
# The gradient misses the head that matters most, by the wrong sign, while its overlap of the top five is complete. The
# model is far from linear in what 0.1 writes: $x$ and $y$ are multiplied. Integrating along the way from the one output
# to the other (*ig-activations*) finds it. Trust estimates as far as their validation goes, and look at the worst one.

# %%
validation = estimates.validation.set_index("method")
assert validation.loc["gradient", "worst"] == "z of 0.1"
assert validation.loc["gradient", "worst_approximate"] < 0 < 0.4 < validation.loc["gradient", "worst_exact"]
assert validation.loc["ig-activations", "spearman"] > 0.9
of_head = estimates.validation_pairs.query("name == 'z of 0.1' and method == 'ig-activations'").iloc[0]
assert abs(of_head["exact"] - of_head["approximate"]) < 0.15

# %% [markdown]
# ## What one may write
#
# **Yes**, each with the cell that carries it:
#
# - *On linear functions head 0.1 of `zoo:mixed-0` brings $x_i$ to $y_i$: with its output from a prompt with other
#   inputs, the model predicts what it predicts for those inputs beside the same $y$ (correlation 0.98 over prompts).*
# - *Most of its effect passes through the MLP of its layer (share 0.82), where $x_i$ meets $y_i$; none of it goes to
#   the read-out directly. What that MLP writes at the $y$ tokens is nearly enough (error 0.10 in a run with another
#   prompt's examples).*
#
# **No:**
#
# - *0.1 does not matter (effect 0.00)*: of a corruption that keeps $x$.
# - *0.1 restores half of the answer*: it gives neither; the error stays above 1.
# - *0.1 carries 86 % of what the inputs change*: both runs answer alike, and the ratio has an interval from 0.3 to 1.4.
# - *Each pair carries a tenth of the answer*: single effects do not add up.
# - *Retrospective heads are read by the MLP*: in `random-0` they are not.
# - *0.1 and the MLP are the circuit*: all of layers 1 and 2 was there to read them (`interp circuit` cuts away and
#   measures).

# %%
ratio = other_inputs.table.set_index("heads").loc["0.1"]
assert abs(ratio["effect"] - 0.86) < 0.1
assert ratio["ci_high"] - ratio["ci_low"] > 0.7
assert abs(agreement["chimera: other x, same y"] - 0.98) < 0.02
assert abs(share["0.mlp"] - 0.82) < 0.05

# %% [markdown]
# **Exercise.** Is the MLP of its layer the reader of the highest head in all five runs of the mixed curriculum? Choose
# each run's head by its score on selection prompts, and patch its paths to `group_readers`. The answer is below.

# %% jupyter={"source_hidden": true} tags=["answer"]
found = {}
for name in (f"zoo:mixed-{seed}" for seed in range(5)):
    run = load(name)
    looks = score(run, ["linear"], stream="selection", n_prompts=N, intervals=False).values["linear"]
    (top,) = parse_heads("top:1", 3, 8, scores=looks.tolist)
    groups = group_readers(run, top[0])
    table = path_effects(run, [top], list(groups.values()), ["linear"], n_prompts=N).table
    found[name] = dict(zip(groups, table["share"][1:], strict=True))
found = pd.DataFrame(found)
print(found.round(2))
assert (found.loc["own mlp"] > 0.7).sum() == 4
assert found.loc["own mlp", "zoo:mixed-2"] < 0.5
assert found.loc["keys", "zoo:mixed-2"] > 0.2

# %% [markdown]
# In four of five. In `mixed-2` a third of the effect passes through the MLP and nearly as much through the keys of
# later heads. One kind of head, more than one circuit: what was found in one model is a hypothesis about the next.
