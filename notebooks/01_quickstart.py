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
# # Quickstart: find a head, remove it, see what it caused
#
# **Question.** A small transformer reads prompts $x_1, y_1, x_2, y_2, \dots$ and predicts each $y_i$ from the pairs
# before it. Which attention head binds $x_i$ to $y_i$, and does the model need it?
#
# Everything here runs on two CPU cores in well under a minute. Heads are written `layer.head`, both from 0.

# %%
from interp import ablate, hooked, load, parse_heads, patterns, score
from interp.display.error_curves import plot_error_curves
from training.evaluation.evaluate import error_curves, evaluation_prompts

checkpoint = load("zoo:mixed-0")
checkpoint

# %% [markdown]
# ## It learns in context
#
# The error falls with the number of examples, far below the *no-context optimum* $E[y \mid x]$ (dotted), the best that
# anyone can do without reading the examples. Where the blue line touches the dotted one, nothing is learned in context.

# %%
curves = error_curves(checkpoint, ["linear", "quadratic", "cubic"], n_prompts=1024, seed=0, class_baseline=False)
_ = plot_error_curves(curves)
# %%
last = curves[curves["examples"] == 15].set_index(["function_class", "predictor"])["error"]
for name in ("linear", "quadratic", "cubic"):
    assert last[name, "model"] < 0.75 * last[name, "no_context"]

# %% [markdown]
# ## One prompt, one pattern
#
# Rows are queries, columns are keys. A retrospective head has its weight just left of the diagonal, in the rows of the
# $y$ tokens: each $y_i$ looks back at its own $x_i$.

# %%
_ = patterns(checkpoint, "0.1", "linear").plot(points="0-5")
# %% [markdown]
# ## Score every head
#
# The retrospective score is the mean attention from $y_i$ to $x_i$ over all pairs and many prompts. Always read it
# beside its chance level: the value under uniform causal attention.

# %%
selection = score(checkpoint, n_prompts=1024, stream="selection")
selection
# %% [markdown]
# ## Remove what scores above one half
#
# Three replacements, because each is wrong in its own way: *zero* pushes the model off its distribution, *mean* writes
# what the head writes on average, *resample* writes what it wrote on another prompt. The heads were chosen on other
# prompts (`stream="selection"`) than the ones they are tested on, and every set from the same layers is tried too.

# %%
mean_score = selection.mean(checkpoint.config.trained_classes)
found = parse_heads("above:0.5", *mean_score.shape, scores=mean_score.tolist)
result = ablate(checkpoint, found, n_prompts=1024, matches=("layer",))
result

# %%
_ = result.plot_curves()
# %%
_ = result.plot()
# %% [markdown]
# An effect of 0 is no harm, 1 is no use of the context left, and what exceeds 1 is damage of another kind. The head
# takes everything; its neighbours take nearly nothing. With one head in a layer of eight there are only seven other
# sets, so no p-value can fall below 1/8: `smallest_p` says so. More seeds, not more prompts, would change that.

# %%
assert [str(head) for head in found[0]] == ["0.1"]
assert (result.table["ci_low"] > 0.5).all()
assert (result.table["control_max"] < 0.25).all()
assert (result.table["p_value"] == 1 / 8).all()

# %% [markdown]
# ## The same with TransformerLens
#
# `hooked` gives the same weights as a real `HookedTransformer`: your hooks work on it and give the same numbers.

# %%
model = hooked(checkpoint)
prompts = evaluation_prompts(checkpoint.config, "linear", n_prompts=1024, seed=0)


def remove_head(z, hook):
    z[:, :, 1] = 0
    return z


intact = model(prompts.tokens)[:, ::2, 0]
ablated = model.run_with_hooks(prompts.tokens, fwd_hooks=[("blocks.0.attn.hook_z", remove_head)])[:, ::2, 0]
before, after = ((p - prompts.ys).square()[:, 12:].mean().item() for p in (intact, ablated))
print(f"linear, last quarter: {before:.3f} -> {after:.3f}")

# %%
ours = result.table.set_index(["function_class", "mode"]).loc[("linear", "zero")]
assert abs(before - ours["nmse_before"]) < 1e-5
assert abs(after - ours["nmse_after"]) < 1e-4

# %% [markdown]
# **Exercise.** Does the model trained on cubic functions alone (`zoo:cubic-0`) have a retrospective head? Has it
# learned anything in context? Run the two cells below to check your answer.

# %%
failed = load("zoo:cubic-0")
print("highest score:", score(failed, n_prompts=256).mean(["cubic"]).max().round(2))

# %%
failed_curves = error_curves(failed, ["cubic"], n_prompts=256, seed=0, class_baseline=False)
error = failed_curves.query("examples == 15").set_index("predictor")["error"]
assert score(failed, n_prompts=256).mean(["cubic"]).max() < 0.2  # no such head ...
assert error["model"] > 0.8 * error["no_context"]  # ... and no use of the context
