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
# # Lens and probes: what a model knows at every depth, and what of it is used
#
# **Question.** After which layer is the answer there, and which known predictor does it resemble on the way? What else
# can be decoded from the residual stream, and does the model use what we can decode?
#
# Places in the stream are called after what has been added last: `embed`, `0.mid` (attention of layer 0), `0.post` (its
# MLP), `1.mid` and so on.

# %%
import numpy as np
import pandas as pd

from interp import decode_heads, lens, load, parse_heads, patterns, probe, swap
from interp.readouts.lens import implied_predictions, tuned_readouts
from interp.readouts.stream import model_stages
from interp.scores.kinds import SCORES
from interp.scores.score import Measure, score_all
from training.evaluation.evaluate import evaluation_prompts
from training.tasks.baselines.plain import gradient_descent, least_squares, ridge

checkpoint = load("zoo:mixed-0")
(head,) = parse_heads("0.1", 3, 8)

# %% [markdown]
# ## The lens: what the model would predict if it ended here
#
# The *plain* lens applies the model's own read-out to the stream at every stage. The *tuned* lens fits a read-out for
# each stage to what the model predicts in the end, on other prompts. Look at the **gain**: 0 is the no-context optimum,
# the best that can be said without examples, 1 is the model's own prediction. Where does each curve leave 0?

# %%
read = lens(checkpoint, ["linear"], n_prompts=512)
gains = read.depth.query("reference == 'target'").pivot(index="stage", columns="kind", values="gain")
gains = gains.loc[read.depth["stage"].unique()]
ax = gains.plot(marker="o", figsize=(5, 2.6), color=["#e0a458", "#1b6ca8"], ylabel="share of the model's gain")
for level in (0, 1):
    ax.axhline(level, color="#b9c0c7", ls=":", lw=0.8, zorder=0)

# %% [markdown]
# The tuned lens: nothing in layer 0, then nearly nine tenths after a single sublayer, the attention of layer 1. The
# plain lens says less everywhere, and before layer 1 it does *worse than nothing*: it reads early layers with a
# read-out that was made for the last. Its low values are no evidence that the answer is not there.

# %%
assert gains.loc[:"0.post", "tuned"].abs().max() < 0.05
assert gains.loc["1.mid", "tuned"] > 0.8
assert (gains["plain"] < gains["tuned"] + 0.01).all()
assert gains.loc["0.mid", "plain"] < -0.1
assert gains.loc["1.mid", "plain"] < 0.65
assert (gains.loc["2.post"] > 0.99).all()

# %% [markdown]
# ## Which predictor is it?
#
# Above: the error of the tuned lens by number of examples, darker with depth. Below: its squared distance to predictors
# that know the method: `GD k` are $k$ steps of gradient descent. Look at how the orange mark, the nearest, moves with
# depth.

# %%
_ = read.plot()

# %%
distance = read.depth.query("kind == 'tuned'").pivot(index="reference", columns="stage", values="distance")
predictors = distance.drop(["target", "model"])
print(*read.sentences())

# %%
assert predictors["0.post"].idxmin() == "no_context"
assert predictors["1.post"].idxmin() in ("gradient_descent_2", "gradient_descent_4")
assert predictors["2.post"].idxmin() in ("gradient_descent_8", "gradient_descent_16")
assert distance.loc["gradient_descent_4", "1.post"] < 0.6 * distance.loc["least_squares", "1.post"]

# %% [markdown]
# "After layer 1 the model has done four steps of gradient descent"? **That does not follow.** Few steps give a
# prediction that is *smaller* than that of least squares. So does a ridge penalty, and so does a lens that reads
# imperfectly, since it hedges. (The `ridge` above has the penalty that predicts $y$ best, which here is none to speak
# of.) Give these the same chance: least squares times the best constant, ridge with penalty 2.

# %%
config, model = checkpoint.config, checkpoint.model
fitted_on = evaluation_prompts(config, "linear", n_prompts=512, seed=0, stream="reference")
prompts = evaluation_prompts(config, "linear", n_prompts=512, seed=0)
after_1 = [stage for stage in model_stages(3) if str(stage) == "1.post"]
implied = implied_predictions(model, prompts, after_1, tuned_readouts(model, fitted_on, after_1))[0, 1, :, 12:]
others = {f"gradient descent, {k} steps": gradient_descent(prompts, k) for k in (2, 4, 16)}
others |= {"ridge, penalty 2": ridge(prompts, 2.0), "least squares": least_squares(prompts)}
others = {name: one[:, 12:].double().numpy() for name, one in others.items()}
whole = others["least squares"]
others["least squares, scaled"] = whole * (implied * whole).sum() / np.square(whole).sum()
near = pd.Series({name: np.square(implied - one).mean() for name, one in others.items()}, name="distance, 1.post")
near.sort_values().round(3).to_frame()

# %% [markdown]
# Scaling alone explains a part of the difference and not all. But ridge with penalty 2 comes as near as two steps of
# gradient descent. So what the lens reads is like a **shrunken** least-squares prediction, shrunk more in directions in
# which the examples vary little. That is what ridge has in common with gradient descent stopped early, and it does not
# say which of them, or what else, the model computes.

# %%
assert near["gradient descent, 4 steps"] < near["least squares, scaled"] < near["least squares"]
assert abs(near["ridge, penalty 2"] - near["gradient descent, 2 steps"]) < 0.015

# %% [markdown]
# ## What can be decoded, where
#
# A **probe** is a ridge regression from the stream to something that we know and the model was not told: the function's
# weights $w$, the sum $X'y$, the value $t = w \cdot x$ of the token's own pair, the function class. It is judged on
# other prompts than it is fitted on. The number is R² (for the class, accuracy); the **colour** is what of it exceeds
# two controls: shuffled targets, and an untrained model of the same shape. Look for numbers without colour.

# %%
prompts = {"n_prompts": 256, "n_fit": 1024}
decoded = probe(checkpoint, "linear", targets="w,xty,t,class", examples=[15], **prompts)
_ = decoded.plot()

# %%
known = decoded.table.set_index(["target", "token", "stage"])[["value", "untrained", "shuffled", "above"]]
known.loc[[("t", "y", "0.post"), ("class", "y", "1.post"), ("w", "x", "0.post"), ("w", "x", "1.post")]].round(2)

# %% [markdown]
# - $t$ at $y$ tokens: R² 1.00 everywhere and no colour. On linear functions $y = t$, and the token holds $y$.
# - The class is named in 9 of 10 cases, but in 7 of 10 from an untrained model too: the values of $y$ alone give it
#   away. What training has added is a fifth.
# - $w$, $X'y$ and, at the query, $t$ appear with the attention of layer 1, where the lens sees the answer. The
#   untrained model has none of it.

# %%
assert known.loc[("t", "y", "0.post"), "value"] > 0.98
assert abs(known.loc[("t", "y", "0.post"), "above"]) < 0.02
assert known.loc[("class", "y", "1.post"), "untrained"] > 0.6
assert 0.1 < known.loc[("class", "y", "1.post"), "above"] < 0.3
for target in ("w", "xty", "t"):
    assert known.loc[(target, "x", "0.post"), "above"] < 0.05 < 0.6 < known.loc[(target, "x", "1.mid"), "above"]

# %% [markdown]
# ## Decoded is not used
#
# At the query $w$ has an R² of 0.7. Does the model predict from it? **Swap** what the probe reads between two prompts
# with other functions and the same inputs, and leave the rest of the stream. An effect of 1: the prediction follows to
# that of the other function. Two subspaces belong to a probe: its *weights*, and its *pattern*, where the stream goes
# when the target changes. Grey: random subspaces of the same dimension, drawn evenly, and drawn as the stream varies
# (darker); the bar: the whole stream. Look at whether the red dots, the patterns, stand out from the grey ones.

# %%
swapped = swap(checkpoint, "linear", targets="w,t", tokens=["x"], examples=15, n_controls=99, **prompts)
_ = swapped.plot()

# %%
swapped

# %% [markdown]
# Look at the rows of layer 1. (After layer 2 nothing but the read-out follows: there $t$ *is* the answer.) What the
# probe of $w$ reads moves the prediction no more than subspaces drawn evenly (p = 0.09), and less than any that is
# drawn as the stream varies. What the probe of $t$ reads, **one** direction of 64, moves it nearly as far as the whole
# stream. At the query the model goes on with $w \cdot x$ and not with $w$: decodable, not used.
#
# Note the squares. The weights of the same probe of $t$, with an R² of 0.8, move little. They also cancel whatever else
# varies, in directions in which the stream hardly moves. A swap in a probe's weights that does little shows little.

# %%
after = swapped.table.query("stage == '1.post'").set_index(["target", "subspace"])
assert after.loc[("t", "pattern"), "effect"] > 0.9 * after.loc[("t", "pattern"), "full"] > 0.7
assert after.loc[("t", "pattern"), "p_matched"] < 0.05
assert after.loc[("w", "pattern"), "effect"] < 0.5 * after.loc[("w", "pattern"), "matched"]
assert after.loc[("w", "pattern"), "p_value"] > 0.05
assert after.loc[("w", "pattern"), "p_matched"] > 0.9
assert after.loc[("t", "weights"), "effect"] < 0.6 * after.loc[("t", "pattern"), "effect"]
assert known.loc[("w", "x", "1.post"), "value"] > 0.6

# %% [markdown]
# ## What head 0.1 writes
#
# Notebook 5 says that 0.1 brings $x_i$ to $y_i$. Can it be read from what the head writes there? Each dot is a head:
# R² of $x_i$ against its attention to $x_i$. Look at the corner on the upper right, and at who is high on the left.

# %%
written = decode_heads(checkpoint, "linear", **prompts)
_ = written.plot()

# %% [markdown]
# 0.1 looks at $x_i$ and writes it. But 1.5 writes it too and does not look at it. Where does it look, in the rows of
# the $y$ tokens (those without a name)?

# %%
looks = patterns(checkpoint, "0.1,1.5", "linear", n_prompts=64)
_ = looks.plot("0-7")

# %% [markdown]
# At $y_i$ itself (the diagonal), which by layer 1 holds $x_i$. So "writes $x_i$" does not make a head retrospective,
# and over all heads score and R² have nothing to do with one another. Is 0.1 where the others have it from? Below,
# $x_i$ in the stream at $y_i$, with the head and without (mean-ablated), after 4, 8, 12 and 15 examples. Look at the
# gap between the lines, and at the dotted one.

# %%
copies = probe(checkpoint, "linear", targets="x", tokens=["y"], examples=[4, 8, 12, 15], without=head, **prompts)
_ = copies.plot_without("x")

# %%
by_head = written.table.set_index(["layer", "head"])
copy = copies.table.set_index(["condition", "examples", "stage"])["value"]
alone = copies.table.set_index(["condition", "examples", "stage"])["untrained"]
assert by_head["value"].idxmax() == (0, 1)
assert by_head.loc[(0, 1), ["value", "score"]].min() > 0.75
assert by_head.loc[(1, 5), "score"] < 0.05 < 0.6 < by_head.loc[(1, 5), "value"]
assert looks.values[1, range(5, 26, 2), range(5, 26, 2)].mean() > 0.6  # 1.5 from y2 to y12, at themselves
assert abs(written.agreement["rho"].item()) < 0.2
for k in (8, 12):
    assert copy["intact", k, "0.post"] > 0.9 > 0.4 > copy["without 0.1", k, "0.post"]
for k in (4, 8, 12):
    assert copy["without 0.1", k, "1.post"] < alone["without 0.1", k, "1.post"] + 0.06
assert alone["intact", 4, "0.mid"] > 0.4
assert copy["intact", 15, "0.post"] < 0.15

# %% [markdown]
# Without 0.1 most of the copy is gone, and from layer 1 on all that an untrained model does not have: with few
# examples before it, any head that spreads its attention passes on a part of $x_i$. At the last pair there is no copy
# to begin with: there 0.1 does not look at its $x$ (notebook 3). And what becomes of the answer's ingredients without
# the copies?

# %%
downstream = probe(checkpoint, "linear", targets="w,xty,t", tokens=["x"], examples=[15], without=head, **prompts)
lost = downstream.table.query("stage == '2.post'").pivot(index="target", columns="condition", values="value")
lost.round(2)

# %%
assert (lost["intact"] > 0.6).all()
assert (lost["without 0.1"] < 0.1).all()

# %% [markdown]
# ## What a failed model lacks
#
# `zoo:cubic-0` was trained on cubic functions alone and never left the plateau. Does it know what is needed and make no
# use of it, or does it not know it? Beside it `zoo:mixed-0`, which learned cubic functions to some extent. The same
# probes, above their controls and on cubic functions for both, after 8 examples. Look for anything on the left.

# %%
models = {name: load(name) for name in ("zoo:cubic-0", "zoo:mixed-0")}
found = {
    name: probe(model, "cubic", targets="x,xty,w,t", examples=[8], **prompts).table for name, model in models.items()
}
best = {name: table.groupby(["target", "token"], sort=False)["above"].max() for name, table in found.items()}
ingredients = pd.DataFrame(best)
ingredients.round(2)

# %% [markdown]
# Nothing above the controls, at any stage. And the lens: how far is what it implies from the no-context optimum, which
# looks at no example?

# %%
failed = lens(models["zoo:cubic-0"], ["cubic"], n_prompts=256).depth.query("kind == 'tuned'")
to_optimum = failed.query("reference == 'no_context'").set_index("stage")["distance"]
to_optimum.round(4).to_frame("distance to the no-context optimum")

# %%
assert ingredients["zoo:cubic-0"].max() < 0.08
assert ingredients.loc[("x", "y"), "zoo:mixed-0"] > 0.6
assert ingredients.loc[("t", "x"), "zoo:mixed-0"] > 0.2
assert (to_optimum["0.post":] < 0.005).all()

# %% [markdown]
# From the first MLP on it *is* that optimum, and nothing is added later. So as far as linear probes tell, the model
# lacks the ingredients, the copy of $x$ at $y$ first of all. This is one failed model beside one that learned, and
# they differ in curriculum too; `interp study success` compares six with fourteen on cubic functions. Nor does a
# linear probe see everything: what is stored in another form is missed.
#
# ## What one may write
#
# **Yes**, each with the cell that carries it:
#
# - *In `zoo:mixed-0` on linear functions a tuned lens finds nothing of the in-context gain before the attention of
#   layer 1, and 0.88 of it after.*
# - *At the query after layer 1 the model predicts from $w \cdot x$: exchanging that one direction moves the prediction
#   0.82 of the way, the whole stream 0.87 (p = 0.03 after Holm).*
# - *$x$ is decodable at the eighth $y$ with R² 0.98, and with 0.21 without head 0.1; an untrained model has 0.15.*
#
# **No:**
#
# - *Layer 1 takes four steps of gradient descent*: ridge comes as near as two.
# - *Half of the answer is missing after the attention of layer 1 (plain lens 0.47)*: that read-out belongs to the end.
# - *The model infers the class with 92 % accuracy*: compare with the untrained one.
# - *The model computes $w$ and multiplies it by $x$, since $w$ is decodable*: swapping it does nothing special.
# - *The model does not use $w$ anywhere*: it was swapped at the query, as a linear probe sees it.
# - *Models that fail lack a retrospective head, and so they fail*: that they lack it says nothing about the order.

# %%
assert abs(gains.loc["1.mid", "tuned"] - 0.88) < 0.03
assert abs(gains.loc["1.mid", "plain"] - 0.47) < 0.05
assert abs(after.loc[("t", "pattern"), "effect"] - 0.82) < 0.06
assert abs(after.loc[("t", "pattern"), "full"] - 0.87) < 0.06
assert abs(after.loc[("t", "pattern"), "p_matched"] - 0.01) < 1e-9
assert abs(copy["intact", 8, "0.post"] - 0.98) < 0.03
assert abs(copy["without 0.1", 8, "0.post"] - 0.21) < 0.06
assert abs(alone["intact", 8, "0.post"] - 0.15) < 0.06

# %% [markdown]
# **Exercise.** In `zoo:random-0` head 0.1 looks at its own $x$ on ten pairs alone (notebook 3). Predict from its
# attention at which $y$ tokens $x$ can be decoded after layer 0, then check all of them. The answer is below.

# %% jupyter={"source_hidden": true} tags=["answer"]
ten_pairs = load("zoo:random-0")
each = [Measure(SCORES["retrospective"], slice(pair, pair + 1)) for pair in range(15)]
attention = score_all(ten_pairs, ["linear"], measures=each, n_prompts=256, intervals=False)
decodable = probe(ten_pairs, "linear", targets="x", tokens=["y"], examples=range(1, 16), **prompts).table
decodable = decodable.query("stage == '0.post'")
by_pair = pd.DataFrame({"attention of 0.1 to its x": [one.values["linear"][0, 1] for one in attention]})
by_pair["R² of x after layer 0"] = decodable["value"].to_numpy()
by_pair.plot(style=["o-", "s--"], figsize=(5, 2.4), xlabel="pair, counted from 0", ylim=(-0.05, 1.05))
assert by_pair[(by_pair > 0.9).all(axis=1)].index.tolist() == [*range(9), 11]
assert (by_pair.drop([*range(9), 11]) < 0.15).all(axis=None)

# %% [markdown]
# At those ten and at no other. Here attention predicts what can be decoded, pair by pair, since a single head does the
# copying. Whether the model makes use of each copy is again another question.
