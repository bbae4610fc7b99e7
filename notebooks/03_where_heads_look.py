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
# # Where heads look: what an attention score tells, and what it does not
#
# **Question.** Which heads look from each $y_i$ back at its own $x_i$ (*retrospective* heads), how high must a score be
# to mean anything, and does a high score make a head important?
#
# Heads are written `layer.head`, both from 0.

# %%
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd

from interp import ablate, load, parse_heads, patterns, score
from interp.display.axes import row_of_axes
from interp.scores.kinds import SCORES
from interp.scores.score import Measure, score_all
from training.checkpoints.checkpoint import snapshot_steps, zoo_path
from training.evaluation.evaluate import evaluation_prompts, predictions
from training.loop.state import new_state

CLASSES = ["linear", "quadratic", "cubic"]
checkpoint = load("zoo:mixed-0")
print(checkpoint.name, "step", checkpoint.step, checkpoint.config.model)

# %% [markdown]
# ## One prompt
#
# Rows are queries, columns are keys; nothing looks ahead. Look at the rows of the $y$ tokens: nearly all of their
# attention goes one step left of the diagonal, to the $x$ of the same pair.

# %%
pattern = patterns(checkpoint, "0.1", "linear")
_ = pattern.plot(points="0-7")

# %%
own_x = pattern.values[0, 1::2, 0::2].diagonal()
assert own_x[:6].mean() > 0.9

# %% [markdown]
# ## Many prompts, and what chance would give
#
# The retrospective score is the mean of that attention over all pairs and many prompts. A head without any preference
# spreads its attention evenly: $y_i$ is token $2i$ and sees $2i$ tokens, so it gives $1/2i$ to its $x_i$. That is the
# chance level, and it depends on the length of the prompt. Look for what stands out from it, on every class.

# %%
scores = score(checkpoint, CLASSES, n_prompts=512)
_ = scores.plot()

# %%
assert abs(scores.chance - np.mean([1 / (2 * i) for i in range(1, 17)])) < 1e-6
for name in CLASSES:
    assert abs(scores.values[name][0, 1] - 0.81) < 0.02
    assert np.delete(scores.values[name].ravel(), 1).max() < 0.2

# %% [markdown]
# **A mean hides what it is a mean of.** The same score for each pair alone: 0.1 looks at the own $x$ of the first 13
# pairs, nearly always, and of the last three, never. Its 0.81 is 13/16. In `zoo:random-0` the highest head also does
# all or nothing, on ten pairs. Head 1.2 of `mixed-0` is no such head: after the first few pairs it stays near chance.

# %%
single = [Measure(SCORES["retrospective"], slice(pair, pair + 1)) for pair in range(16)]
by_pair = {}
for name, head in (("zoo:mixed-0", (0, 1)), ("zoo:random-0", (0, 1)), ("zoo:mixed-0", (1, 2))):
    one_by_one = score_all(load(name), ["linear"], measures=single, n_prompts=256, intervals=False)
    by_pair[f"{name} {head[0]}.{head[1]}"] = [one.values["linear"][head] for one in one_by_one]
by_pair = pd.DataFrame(by_pair | {"chance": [one.chance for one in one_by_one]})
ax = by_pair.plot(style=["o-", "s-", ".-", ":"], figsize=(6.5, 2.8), xlabel="pair, counted from 0", ylabel="attention")
_ = ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

# %%
assert (by_pair["zoo:mixed-0 0.1"][:13] > 0.95).all()
assert (by_pair["zoo:mixed-0 0.1"][13:] < 0.05).all()
assert (by_pair["zoo:random-0 0.1"] > 0.95).sum() == 10
assert (by_pair["zoo:mixed-0 1.2"][6:] < 1.5 * by_pair["chance"][6:]).all()

# %% [markdown]
# ## The published number reads six pairs
#
# The paper's heat maps sum over the first six pairs of one prompt and divide by 12, so that their maximum is 0.5. Early
# tokens have few places to look at: even a head without any preference reaches a fifth of the maximum. Over all 100
# pairs of the paper's prompts it would reach a fortieth.

# %%
level = pd.DataFrame(
    {f"{n} pairs": {kind: SCORES[kind].chance(n) / SCORES[kind].best for kind in ("paper", "retrospective")}
     for n in (16, 100)}
)  # fmt: skip
level.round(3)

# %%
published = score(checkpoint, ["linear"], kind="paper", n_prompts=512)
_ = published.plot(score(checkpoint, ["linear"], n_prompts=512))

# %% [markdown]
# The highest head stays the same, but four heads of layer 1 now reach about a third of the maximum. The plot of single
# pairs says why: it is the first pair or two, where chance itself is a half and a quarter.

# %%
early, whole = published.values["linear"] / 0.5, scores.values["linear"]
assert abs(level.loc["paper", "100 pairs"] - 0.204) < 1e-3
assert abs(level.loc["retrospective", "100 pairs"] - 0.026) < 1e-3
assert (early > 0.27).sum() >= 4
assert (whole > 0.27).sum() == 1

# %% [markdown]
# ## Other things to look at
#
# Nine scores in one pass. Each has its own chance level and they overlap: 0.1 also stands out on `previous_token`,
# because for a $y$ the token before *is* its own $x$. Look for the head that a score raises furthest above chance. Some
# heads of layer 1 give a third of a query's attention to the $y$ of the most similar earlier $x$ (`lookup`).

# %%
every = score_all(checkpoint, ["linear"], n_prompts=256)
pd.DataFrame(
    {
        "chance": {one.kind.name: one.chance for one in every},
        "0.1": {one.kind.name: one.values["linear"][0, 1] for one in every},
        "highest": {one.kind.name: one.values["linear"].max() for one in every},
        "head": {one.kind.name: "{}.{}".format(*divmod(int(one.values["linear"].argmax()), 8)) for one in every},
    }
).round(2)

# %%
found = {one.kind.name: one for one in every}
assert found["previous_token"].values["linear"].argmax() == found["retrospective"].values["linear"].argmax() == 1
assert found["lookup"].values["linear"].max() > 3 * found["lookup"].chance

# %% [markdown]
# ## Pitfall 1: compare with a model that has learned nothing
#
# The same architecture and the same initial weights as `zoo:mixed-0`, before the first step: every head is at chance.
# So the 0.81 is not a property of the architecture or of the prompts.

# %%
initial = new_state(checkpoint.config, "cpu").model.requires_grad_(False).eval()
untrained = replace(checkpoint, name="untrained twin", step=0, model=initial)
at_start = score(untrained, ["linear"], n_prompts=256)
lowest, highest = at_start.values["linear"].min(), at_start.values["linear"].max()
print(f"chance {at_start.chance:.3f}, heads {lowest:.3f} to {highest:.3f}")

# %%
assert abs(at_start.values["linear"] - at_start.chance).max() < 0.03

# %% [markdown]
# ## Pitfall 2: a head can look and write nothing
#
# We plant decoys. In a copy of the model, head 0.5 gets the queries, keys and values of 0.1, and an output matrix
# of zeros; in a second copy, a thousandth of that of 0.1.

# %%
silent, faint = (replace(checkpoint, name=name, model=deepcopy(checkpoint.model)) for name in ("silent", "faint"))
for copy, loudness in ((silent, 0.0), (faint, 1e-3)):
    attention = copy.model.layers[0].attn
    for weights in (attention.W_Q, attention.W_K, attention.W_V, attention.b_Q, attention.b_K, attention.b_V):
        weights[5] = weights[1]
    attention.W_O[5] = loudness * attention.W_O[1]

# %% [markdown]
# The pattern cannot tell a decoy from the head that it imitates. A score that weighs attention by the length of what it
# moves (`by="value"`) finds the silent one; but it is a share of what *this head* moves, so the faint one still passes.
# What removal costs (mean ablation: 0 no harm, 1 no use of the context left) tells both.

# %%
rows = {}
for copy in (silent, faint):
    by_pattern = score(copy, ["linear"], n_prompts=256).values["linear"]
    by_value = score(copy, ["linear"], by="value", n_prompts=256).values["linear"]
    removed = ablate(copy, parse_heads("each", 3, 8), ["linear"], modes=["mean"], n_prompts=256, matches=())
    for head in (1, 5):
        rows[copy.name, f"0.{head}"] = (by_pattern[0, head], by_value[0, head], removed.table["effect"][head])
decoys = pd.DataFrame(rows, index=["pattern", "by value", "removal costs"]).T
decoys.round(2)

# %%
assert (abs(decoys["pattern"] - 0.81) < 0.02).all()
assert decoys.loc[("silent", "0.5"), "by value"] == 0
assert decoys.loc[("faint", "0.5"), "by value"] > 0.7
assert (decoys.loc[[("silent", "0.1"), ("faint", "0.1")], "removal costs"] > 0.8).all()
assert (abs(decoys.loc[[("silent", "0.5"), ("faint", "0.5")], "removal costs"]) < 0.01).all()

# %% [markdown]
# ## Where the score is a good guide, and where it is not
#
# Planted decoys prove that it can fail; does it? Every head of three trained models: score against what removing the
# head alone costs. Look for dots away from the lower left and the upper right corner.

# %%
MODELS = ["zoo:mixed-0", "zoo:mixed-2", "zoo:random-0"]
tables = []
for model in map(load, MODELS):
    alone = ablate(model, parse_heads("each", 3, 8), ["linear"], modes=["mean"], n_prompts=256, matches=()).table
    looks = score(model, ["linear"], n_prompts=256, stream="selection").values["linear"].ravel()
    tables.append(alone[["heads", "effect"]].assign(model=model.name, score=looks))
heads = pd.concat(tables).set_index(["model", "heads"])
heads.query("score > 0.4 or effect > 0.15").round(2)

# %%
for ax, name in zip(row_of_axes(3, width=2.6, height=2.5), MODELS, strict=True):
    ax.plot(heads.loc[name, "score"], heads.loc[name, "effect"], "o", ms=4)
    for head, row in heads.loc[name].query("score > 0.4 or effect > 0.15").iterrows():
        ax.annotate(head, (row["score"], row["effect"]), xytext=(3, 3), textcoords="offset points", fontsize=8)
    ax.axvline(0.5, color="#b9c0c7", ls=":", lw=0.8)
    ax.set(title=name, xlabel="retrospective score", xlim=(0, 1), ylim=(-0.1, 1.5))
_ = ax.figure.axes[0].set_ylabel("effect of removing it")

# %% [markdown]
# In all three the head with the highest score is the one that costs most. But in `mixed-2` head 0.5 scores 0.59 and
# its removal costs nothing, and in `random-0` head 0.7 scores below chance and takes two fifths of the gain with it.
# So: the score is good at naming a first candidate. It says neither that a head matters nor that no other head does.

# %%
for name in MODELS:
    assert heads.loc[name, "score"].idxmax() == heads.loc[name, "effect"].idxmax()
assert heads.loc[("zoo:mixed-2", "0.5"), "score"] > 0.5 > 0.05 > abs(heads.loc[("zoo:mixed-2", "0.5"), "effect"])
assert heads.loc[("zoo:random-0", "0.7"), "score"] < 0.106 < 0.3 < heads.loc[("zoo:random-0", "0.7"), "effect"]

# %% [markdown]
# ## Pitfall 3: choose on one stream, judge on another
#
# The highest of 24 noisy numbers is too high. Choose the best `lookup` head on two prompts, twenty times, and look at
# the score that made it win, beside its score on 1,024 prompts that took no part in the choice (`stream="selection"`
# and `"test"` share nothing).

# %%
judged = score(checkpoint, ["linear"], kind="lookup", n_prompts=1024).values["linear"].ravel()
won, fair = [], []
for seed in range(20):
    tried = score(checkpoint, ["linear"], kind="lookup", n_prompts=2, seed=seed, stream="selection", intervals=False)
    won.append(tried.values["linear"].max())
    fair.append(judged[tried.values["linear"].argmax()])
print(f"when chosen {np.mean(won):.2f}, on other prompts {np.mean(fair):.2f}")

# %%
assert np.mean(won) > np.mean(fair) + 0.03

# %% [markdown]
# ## The head appears while the model trains
#
# `zoo:mixed-0` and `zoo:random-0` keep snapshots of their weights. In each: the score of 0.1, and the model's error on
# linear after 12 to 15 examples. Look at where the two lines cross.

# %%
prompts = evaluation_prompts(checkpoint.config, "linear", n_prompts=256, seed=0)
course = []
for name in ("zoo:mixed-0", "zoo:random-0"):
    for step in snapshot_steps(zoo_path(name.removeprefix("zoo:"))):
        then = load(f"{name}@{step}")
        of_head = score(then, ["linear"], n_prompts=256, intervals=False).values["linear"][0, 1]
        error = (predictions(then.model, prompts) - prompts.ys)[:, 12:].square().mean().item()  # E[y²] is 1
        course.append({"model": name, "step": step, "score of 0.1": of_head, "error on linear": error})
course = pd.DataFrame(course)
course.query("150 < step < 400").round(2)

# %%
for ax, (name, run) in zip(row_of_axes(2, width=3.6, height=2.5), course.groupby("model"), strict=True):
    run.plot(
        x="step", y=["score of 0.1", "error on linear"], ax=ax, marker=".", logx=True, legend=name == "zoo:mixed-0"
    )
    ax.axhline(0.106, color="#b9c0c7", ls=":", lw=1)
    ax.set(title=name, ylim=(0, 1.2))

# %% [markdown]
# In both runs the head appears while the error leaves its plateau at 1, earlier in the run that has linear functions
# alone at first. That they happen together is all that this shows: which causes which is a question for interventions,
# and the next notebook removes the head.

# %%
at = course.set_index(["model", "step"])
for name, before, after in (("zoo:mixed-0", 117, 275), ("zoo:random-0", 196, 545)):
    assert at.loc[(name, before), "score of 0.1"] < 0.2 < 0.85 < at.loc[(name, before), "error on linear"]
    assert at.loc[(name, after), "score of 0.1"] > 0.5 > at.loc[(name, after), "error on linear"]

# %% [markdown]
# **Exercise.** In `zoo:mixed-2` head 0.5 attends with 0.59 and its removal alone costs nothing. Is it a decoy like the
# planted ones, or does what it writes matter once another head is gone? Find an ablation that decides. The answer is
# below.

# %% jupyter={"source_hidden": true} tags=["answer"]
sets = [parse_heads(text, 3, 8)[0] for text in ("0.5", "0.2", "0.2,0.5")]
both = ablate(load("zoo:mixed-2"), sets, ["linear"], modes=["mean"], n_prompts=256, matches=()).table
cost = both.set_index("heads")["effect"]
print(cost.round(2).to_dict())
assert cost["0.2,0.5"] > cost["0.2"] + cost["0.5"] + 0.2

# %% [markdown]
# Removed together with 0.2, it costs a third of the gain more than 0.2 alone. So it is no decoy, which would have added
# nothing: what 0.5 writes matters once 0.2 is gone. Whether it writes what 0.2 wrote, a joint cost cannot tell. A head
# that costs nothing alone may still be part of the answer.
