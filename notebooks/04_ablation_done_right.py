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
# # Ablation done right: what removing a head shows
#
# **Question.** Head 0.1 of `zoo:mixed-0` looks from every $y_i$ back at $x_i$ (notebook 3). Does the model need it to
# learn in context, compared with what, and which sentence may one write about it?
#
# Everything below is an **effect**: the share of the way from the intact model's error to the no-context optimum. 0 is
# no harm, 1 is no use of the context left, and what exceeds 1 is damage of another kind.

# %%
import math

import pandas as pd

from interp import ablate, load, parse_heads, pooled, score
from interp.display.axes import MODES, row_of_axes
from interp.model.heads import show
from interp.statistics.seeds import independent_seeds

checkpoint = load("zoo:mixed-0")
chosen = score(checkpoint, ["linear"], stream="selection", intervals=False)
head = parse_heads("top:1", 3, 8, scores=chosen.values["linear"].tolist)
print(show(head[0]))

# %% [markdown]
# ## Three ways to remove a head
#
# A removed head has to give something. *Zero* gives nothing, which the model has never seen. *Mean* gives, at every
# position, what the head gives on average over prompts. *Resample* gives what it gave in another prompt: a plausible
# output, with the wrong content.

# %%
removed = ablate(checkpoint, head, ["linear", "quadratic"], n_prompts=512, matches=("layer",))
_ = removed.plot_curves()

# %%
effects = removed.table.set_index(["function_class", "mode"])["effect"].unstack()[["zero", "mean", "resample"]]
effects.round(2)

# %% [markdown]
# Under each, the use of the context is gone. But only *mean* ends near the no-context optimum (dotted): zero and
# resample overshoot it, so a part of *their* rise is not lost learning but damage of another kind. Zero alone could
# not have told the two apart.
#
# For other sets even the answer depends on the replacement. Two that disagree:

# %%
others = {"zoo:mixed-0": "layer:1", "zoo:mixed-2": "0.2"}
disagree = pd.concat(
    ablate(load(name), parse_heads(text, 3, 8), ["linear"], n_prompts=256, matches=()).table.assign(
        model=name, set=text
    )
    for name, text in others.items()
)
disagree.pivot(index=["model", "set"], columns="mode", values="effect")[["zero", "mean", "resample"]].round(2)

# %%
of_set = disagree.set_index(["set", "mode"])["effect"]
assert (effects > 0.9).all(axis=None)
assert abs(effects.loc["linear", "mean"] - 0.97) < 0.05
assert (effects.loc["linear", ["zero", "resample"]] > 1.2).all()
assert of_set["layer:1", "mean"] < 0.35 < 1 < of_set["layer:1", "resample"]
assert of_set["0.2", "mean"] < 0.75 < 1 < of_set["0.2", "resample"]

# %% [markdown]
# *Removing layer 1 costs a quarter of the gain* and *removing layer 1 costs all of it* are both measured, with the mean
# and with another prompt's output. A claim that holds under one replacement only is a claim about that replacement.
#
# ## Compared with what?
#
# The paper compared its heads with **one** fixed set, spread over other layers. Here is head 0.2, which nobody
# suspects, beside one fixed control from another layer, 2.7. Then beside *all* other single heads: of its own layer,
# and of the model.

# %%
suspect = ablate(checkpoint, parse_heads("0.2", 3, 8) + parse_heads("2.7", 3, 8), ["linear"], modes=["mean"],
                 n_prompts=256, matches=("layer", "size")).table.set_index("heads")  # fmt: skip
print(f"0.2 costs {suspect.loc['0.2', 'effect']:.3f}, the fixed control 2.7 costs {suspect.loc['2.7', 'effect']:.4f}")
suspect.loc[["0.2"], ["effect", "ci_low", "ci_high", "p_value", "size_p_value", "n_controls", "size_n_controls"]].round(
    3
)

# %% [markdown]
# The effect is many times that of the control, and its interval over prompts excludes 0. Yet against the other heads
# of its layer it is the second of eight, p = 2/8. A ratio to one control, or an interval over prompts, says nothing
# about how unusual a head is: it depends on which control was picked.
#
# Now the head that we chose, beside all seven others of its layer (grey):

# %%
_ = removed.plot()

# %%
columns = ["effect", "control_effect", "control_max", "n_controls", "p_value", "smallest_p", "p_holm"]
removed.table.set_index(["function_class", "mode"])[columns].round(3)

# %% [markdown]
# It stands far above every other, and still p is 1/8. With $n$ other sets, p is $(k+1)/(n+1)$, where $k$ of them do at
# least as much: had the head been drawn blindly, it would be the first of eight once in eight times. **One head in a
# layer of eight allows no smaller p**, however large the effect and however many the prompts; `smallest_p` says so.

# %%
assert suspect.loc["0.2", "effect"] > 20 * abs(suspect.loc["2.7", "effect"])
assert suspect.loc["0.2", "ci_low"] > 0.05
assert (suspect.loc["0.2", "p_value"], suspect.loc["0.2", "size_p_value"]) == (2 / 8, 2 / 24)
assert (removed.table["effect"] > 3 * removed.table["control_max"]).all()
assert (removed.table["p_value"] == 1 / 8).all()
assert (removed.table["smallest_p"] == 1 / 8).all()

# %% [markdown]
# ## More seeds, not more prompts
#
# Five runs of the same curriculum, independent in initial weights, data and choice of class. In each, the head with
# the highest score is chosen on prompts of its own, and removed. Blind luck would have to find the first of eight five
# times.

# %%
runs = [load(f"zoo:mixed-{seed}") for seed in range(5)]
picks = [score(run, ["linear"], stream="selection", n_prompts=256, intervals=False).values["linear"] for run in runs]
sets = [parse_heads("top:1", 3, 8, scores=of_run.tolist)[0] for of_run in picks]
ablations = [
    ablate(run, [one], ["linear"], n_prompts=256, matches=("layer",)) for run, one in zip(runs, sets, strict=True)
]
table = pooled(runs, ablations, sets, "top:1").set_index("mode")
print("heads:", [show(one) for one in sets], "independent seeds:", len(independent_seeds(runs)))
table[["effect", "ci_low", "ci_high", "t_low", "t_high", "effect_min", "effect_max", "p_value", "n_seeds"]].round(4)

# %% [markdown]
# Now p is small, and the sentence is about the curriculum, no longer about one model. It compares the mean effect with
# that of one set per run, drawn together; there are $8^5$ combinations, of which 10,000 are tried. Two intervals over
# seeds: a bootstrap (`ci`), and a t-interval, which is wider with few seeds. Look at `effect_min` too: in one run,
# removing the head costs only six tenths of the gain under zero and mean.
#
# Seeds must be independent. `zoo:inherited` shares its random streams with `zoo:mixed-0`, so the two would count once:

# %%
related = independent_seeds([runs[0], runs[1], load("zoo:inherited")])
print("places that count as one seed:", related)

# %%
assert (table["n_seeds"] == 5).all()
assert (table["p_value"] < 0.001).all()
assert (table["t_low"] > 0.5).all()
assert table.loc["mean", "effect_min"] < 0.75
assert related == [[0, 2], [1]]

# %% [markdown]
# ## Direct and total effect
#
# The *total* effect lets all later components react. The *direct* one changes only what the set itself writes into the
# final residual stream. Look at the two rows: they differ in opposite ways.

# %%
texts = ["0.1", "layer:1"]
paths = ablate(checkpoint, [parse_heads(text, 3, 8)[0] for text in texts], ["linear"], modes=["mean"],
               n_prompts=512, matches=("layer",)).table.assign(set=texts).set_index("set")  # fmt: skip
paths[["direct_effect", "effect", "p_value", "n_controls"]].round(2)

# %% [markdown]
# Head 0.1 writes nothing that the read-out uses: all of its effect goes through later components. For layer 1 the
# total is a quarter of the direct effect: what it writes is worth nearly the whole gain, and when it is gone, later
# components make up for most of it (*self-repair*), if the mean is put in its place. The total effect alone would have
# called layer 1 a minor matter. (There is no other set of eight heads in that layer, so no p.)

# %%
assert abs(paths.loc["0.1", "direct_effect"]) < 0.02 < 0.9 < paths.loc["0.1", "effect"]
assert paths.loc["layer:1", "direct_effect"] > 0.8 > 0.35 > paths.loc["layer:1", "effect"]
assert math.isnan(paths.loc["layer:1", "p_value"])

# %% [markdown]
# ## Is it enough? Keep only
#
# Needed is not sufficient. `design="keep"` removes every head *but* the set. Here 0 is good: nothing was lost.

# %%
layers_1_2 = ",".join(f"{layer}.{number}" for layer in (1, 2) for number in range(8))
kept = {
    "0.1": "0.1",
    "0.1, 0.2": "0.1,0.2",
    "layers 1, 2": layers_1_2,
    "0.1, 0.2, layers 1, 2": f"0.1,0.2,{layers_1_2}",
}
keep = ablate(checkpoint, [parse_heads(text, 3, 8)[0] for text in kept.values()], ["linear"], modes=["mean"],
              design="keep", n_prompts=256, matches=()).table.assign(kept=list(kept)).set_index("kept")  # fmt: skip
keep[["effect", "ci_low", "ci_high"]].round(2)

# %% [markdown]
# Alone it keeps nothing: somebody has to read what it writes. With all heads of the later layers, 0.1 and 0.2 are
# nearly enough: six of the eight heads of layer 0 are hardly needed. Without the two, the later layers keep nothing
# either.

# %%
assert keep.loc["0.1", "effect"] > 0.95
assert keep.loc["layers 1, 2", "effect"] > 0.9
assert keep.loc["0.1, 0.2, layers 1, 2", "effect"] < 0.15

# %% [markdown]
# ## Dose and response
#
# If the head puts $x_i$ beside $y_i$ for the use of later layers, then the harm should grow with the number of pairs
# whose $y$ loses it, and removing it at the $x$ tokens should do nothing.

# %%
DOSES = {1: "y:0-0", 2: "y:0-1", 4: "y:0-3", 8: "y:0-7", 12: "y:0-11", 13: "y:0-12", 15: "y:0-14"}
rows = [
    ablate(checkpoint, head, ["linear"], tokens=tokens, n_prompts=256, matches=()).table.assign(pairs=dose)
    for dose, tokens in DOSES.items()
]
dose = pd.concat(rows).pivot(index="pairs", columns="mode", values="effect")[["zero", "mean", "resample"]]
(ax,) = row_of_axes(1, width=4.2, height=2.6)
dose.plot(ax=ax, marker="o", color=MODES, ylabel="effect", xlabel="pairs whose y lost the head", ylim=(0, 1.5))
at_x = (
    ablate(checkpoint, head, ["linear"], tokens="x", modes=["mean"], n_prompts=256, matches=()).table["effect"].item()
)
print(f"removed at all x tokens: {at_x:.3f}")

# %% [markdown]
# The response rises with the dose and stops at 13 pairs: on the last three the head does not look at $x_i$ at all
# (notebook 3), and removing it there as well adds nothing. At the $x$ tokens the head is worth nothing. At low doses
# zero costs least, for all pairs it costs more than mean: the replacements disagree again.

# %%
assert (dose["mean"].diff().dropna() > -0.01).all()
assert dose.loc[4, "mean"] < 0.4 < 0.9 < dose.loc[13, "mean"]
assert abs(dose.loc[15] - dose.loc[13]).max() < 0.01
assert (dose.loc[4:8, "zero"] < dose.loc[4:8, "mean"]).all()
assert dose.loc[13, "zero"] > dose.loc[13, "mean"]
assert abs(at_x) < 0.02

# %% [markdown]
# ## What one may write
#
# **Yes**, each with the cell that carries it:
#
# - *In five of five independent runs of the mixed curriculum, removing the head with the highest retrospective score
#   costs more of the in-context gain on linear functions than removing any other head of its layer, under zero, mean
#   and resample ablation (mean ablation 0.90 [0.70, 1.10] over seeds, p < 0.001).*
# - *In `zoo:mixed-0` the effect passes through later components alone (direct effect 0.00), and arises at the $y$
#   tokens of the pairs that the head attends to.*
#
# **No:**
#
# - *The head is significant (p < 0.05)*, of one model: one head of eight cannot be.
# - *It costs many times as much as the control*: the control was picked.
# - *The head is responsible for 150 % of in-context learning*: what exceeds 1 is damage.
# - *The head implements in-context learning*: kept alone, it does nothing.
# - *Layer 1 does not matter*: later components made up for it, and only under one replacement.
# - *Retrospective heads cause in-context learning in transformers*: these are models of three layers on one family of
#   functions, and in other runs the score misses heads that matter (notebook 3).

# %%
best_of_layer = [
    one.table["effect"].gt(one.null.groupby("mode")["effect"].max().loc[one.table["mode"]].to_numpy()).all()
    for one in ablations
]
assert best_of_layer == [True] * 5
assert (abs(table.loc["mean", ["effect", "t_low", "t_high"]] - [0.90, 0.70, 1.10]) < 0.03).all()

# %% [markdown]
# **Exercise.** How many heads must a set have so that, in one model with eight heads per layer, a layer-matched test
# of a set within one layer can reach p < 0.05? Check it on heads 0.2 and 0.5 of `zoo:mixed-2`. The answer is below.

# %% jupyter={"source_hidden": true} tags=["answer"]
smallest = {size: 1 / math.comb(8, size) for size in (1, 2, 3, 4)}
print({size: round(p, 3) for size, p in smallest.items()})
both = ablate(load("zoo:mixed-2"), parse_heads("0.2,0.5", 3, 8), ["linear"], n_prompts=256, matches=("layer",)).table
p_values = both.set_index("mode")["p_value"]
print(p_values.round(3).to_dict())
assert smallest[1] > 0.05 > smallest[2]
assert p_values["zero"] == p_values["mean"] == smallest[2]
assert p_values["resample"] == 2 * smallest[2]

# %% [markdown]
# Two: there are 28 pairs in a layer of eight. Note what a p of 1/28 says: that this *pair* costs more than any other
# pair of the layer, the 12 that share a head with it included. Under resample ablation one other pair costs more.
