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
# # With TransformerLens: the same model, the same numbers, other tools
#
# **Question.** You work with TransformerLens. Does a model from here give the same numbers there, what of your tools
# works on it, and which tool is the better one for what?
#
# `hooked` gives the weights of a checkpoint as a `HookedTransformer` that reads prompts of real vectors,
# `[batch pos dim]`, instead of token ids.

# %%
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformer_lens import HookedTransformer, patching

from interp import ablate, composition, hooked, load, parse_heads, patch, patterns, prompt_pairs, score
from interp.display.axes import row_of_axes
from interp.model.engine import read_sites
from training.checkpoints.checkpoint import WEIGHTS, write_config, write_weights
from training.evaluation.evaluate import evaluation_prompts, predictions
from training.model.sites import site_names
from training.model.transformer import Transformer

checkpoint = load("zoo:mixed-0")
model = hooked(checkpoint)
prompts = evaluation_prompts(checkpoint.config, "linear", n_prompts=128, seed=0)
print(isinstance(model, HookedTransformer), model(prompts.tokens).shape)

# %% [markdown]
# One number comes out at every token; at $x_i$ it is the prediction of $y_i$. So predictions are `[:, ::2, 0]`.
#
# ## The same numbers at every site
#
# The compact model of this package calls its activations by TransformerLens' names. Look at the largest difference over
# all of them, relative to the size of the activation.

# %%
model.set_use_attn_result(True)  # hook_result is off by default
_, cache = model.run_with_cache(prompts.tokens)
model.set_use_attn_result(False)
sites = site_names(checkpoint.config.model.n_layers)
ours = read_sites(checkpoint.model, prompts.tokens, sites)
rows = []
for site in sites:
    finite = cache[site].isfinite()  # attention scores are -inf where a token may not look
    difference = (ours[site] - cache[site])[finite].abs().max() / cache[site][finite].abs().max()
    rows.append({"site": site, "shape": tuple(cache[site].shape), "difference": difference.item()})
same = pd.DataFrame(rows).set_index("site")
same.loc[["hook_embed", "blocks.0.attn.hook_pattern", "blocks.1.attn.hook_z", "blocks.2.hook_resid_post"]]

# %%
print(f"{len(sites)} sites, largest difference {same['difference'].max():.1e}")
print("in the cache alone:", sorted(set(cache) - set(sites)))

# %%
assert same["difference"].max() < 1e-5
assert len(sites) == 58
assert torch.allclose(model(prompts.tokens)[:, ::2, 0], predictions(checkpoint.model, prompts), atol=1e-4)

# %% [markdown]
# ## Patterns from the cache
#
# The retrospective score in one line: queries at $y$ tokens, keys at $x$ tokens, the diagonal of that. Beside it
# `score`, and in the assertions the mean pattern of `patterns`.

# %%
attention = torch.stack([cache["pattern", layer] for layer in range(3)])  # [layer batch head query_pos key_pos]
by_hand = attention[..., 1::2, 0::2].diagonal(dim1=-2, dim2=-1).mean((1, 3)).numpy()
scored = score(checkpoint, ["linear"], n_prompts=128, intervals=False).values["linear"]
print("head 0.1:", by_hand[0, 1].round(4), scored[0, 1].round(4))

# %%
seen = patterns(checkpoint, "0.1", "linear", n_prompts=128)
assert abs(by_hand - scored).max() < 1e-5
assert abs(attention[0, :, 1].mean(0).numpy() - seen.values[0]).max() < 1e-5

# %% [markdown]
# ## Ablation with hooks
#
# Three ways to remove head 0.1 with `run_with_hooks`, beside `ablate`. What replaces it comes from other prompts
# (`stream="reference"`): the mean over 4,096 of them at every token, or one prompt each.


# %%
def z_of_reference_prompts(n_prompts):
    others = evaluation_prompts(checkpoint.config, "linear", n_prompts=n_prompts, seed=0, stream="reference")
    return model.run_with_cache(others.tokens, names_filter=lambda name: name.endswith("hook_z"))[1]


elsewhere, partners = z_of_reference_prompts(4096), z_of_reference_prompts(128)


def without(layer, head, value, tokens=slice(None)):
    def hook(z, hook):
        z[:, tokens, head] = value
        return z

    return model.run_with_hooks(prompts.tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", hook)])[:, ::2, 0]


def error(predicted):
    return (predicted - prompts.ys)[:, 12:].square().mean().item()  # the last quarter; E[y²] is 1


# %%
mean = elsewhere["z", 0][:, :, 1].mean(0)
by_hooks = {"zero": 0.0, "mean": mean, "resample": partners["z", 0][:, :, 1]}
removed = ablate(checkpoint, parse_heads("0.1", 3, 8), ["linear"], n_prompts=128, matches=())
both = removed.table.set_index("mode")[["nmse_before", "nmse_after", "effect"]]
both.insert(2, "with hooks", [error(without(0, 1, by_hooks[mode])) for mode in both.index])
both.round(4)

# %%
assert (abs(both["with hooks"] / both["nmse_after"] - 1) < 1e-5).all()

# %% [markdown]
# **A hook that does nothing says nothing.** A filter with a slip in it matches no site, and TransformerLens runs the
# intact model. Here a misspelt site is refused, and `ablate` proves on some prompts that every removal acted before it
# reports an effect.

# %%
nothing = (lambda name: name.endswith("attn.z"), lambda z, **_: 0 * z)  # it is called hook_z
slip = model.run_with_hooks(prompts.tokens, fwd_hooks=[nothing])
print("changed by the hook:", not torch.equal(slip, model(prompts.tokens)))
try:
    checkpoint.model(prompts.tokens, {"blocks.0.attn.z": lambda z: 0 * z})
except ValueError as refused:
    print("here:", refused)

# %%
assert torch.equal(slip, model(prompts.tokens))

# %% [markdown]
# ## Who writes the answer
#
# The cache takes the final residual stream apart: what every head, every MLP and the embedding have written, seen
# through the final LayerNorm and the read-out. The parts add up to the prediction. Their shares in it, after 12
# examples or more; look at which layer the highest are from.

# %%
_, cached = model.run_with_cache(prompts.tokens)
parts, labels = cached.get_full_resid_decomposition(expand_neurons=False, return_labels=True)
scaled = cached.apply_ln_to_stack(parts, layer=-1)
written = (scaled @ (model.ln_final.w[:, None] * model.W_U))[..., 0]  # [part batch pos]
predicted = model(prompts.tokens)[..., 0]
constant = model.ln_final.b @ model.W_U + model.b_U
late, answers = written[:, :, 24::2], predicted[:, 24::2]
shares = pd.Series(((late * answers).mean((1, 2)) / answers.square().mean()).numpy(), index=labels, name="share")
shares.sort_values(ascending=False).head(8).round(2).to_frame().T

# %% [markdown]
# Layer 1 writes most of it, and 0.1, without which nothing is left, writes none. The direct effect of `ablate` says the
# same about 0.1: whatever it does, it does through later components.

# %%
assert torch.allclose(written.sum(0) + constant, predicted, atol=1e-4)
assert shares.filter(like="L1H").sum() > 0.8
assert abs(shares["L0H1"]) < 0.01
assert (abs(removed.table["direct_effect"]) < 0.02).all()

# %% [markdown]
# ## Activation patching
#
# `transformer_lens.patching` takes a metric of yours. Here are clean prompts, and corrupt ones that ask the same last
# $x$ (the query) of the same function after *other inputs*. Activations of the corrupt run are patched into the clean
# run, a head at a time. Both runs answer alike, so the metric is the squared error to the answer (in NMSE, since
# $E[y^2]$ is 1 on linear functions).

# %%
pairs = prompt_pairs(checkpoint.config, "linear", "inputs", n_prompts=64, seed=0)
clean, corrupt = (checkpoint.model.needed(side.tokens) for side in pairs)  # up to the query: nothing later is read
_, source = model.run_with_cache(corrupt)


def squared_error(logits):
    return (logits[:, -1, 0] - pairs.answer).square().mean()


patching.tqdm = lambda cells, **_: cells  # its progress bars cannot be turned off otherwise
theirs = patching.get_act_patch_attn_head_all_pos_every(model, clean, source, squared_error)
print(f"clean {squared_error(model(clean)):.3f}, corrupt {squared_error(model(corrupt)):.3f};", tuple(theirs.shape))

# %% [markdown]
# Five maps in one call: layers downwards, heads to the right, light is the intact error. Look at head 0.1: which of its
# parts does the damage?

# %%
places = ("z", "q", "k", "v", "pattern")
for ax, place, errors in zip(row_of_axes(5, width=2.1, height=1.5), places, theirs, strict=True):
    cells = ax.imshow(errors, vmin=0, vmax=1, cmap="mako_r")
    ax.set(title=place, xlabel="head", xticks=range(8), yticks=range(3))
_ = ax.figure.colorbar(cells, label="error")

# %% [markdown]
# Its values do all the damage, its queries, keys and pattern none: after other inputs it looks at the same places and
# finds something else there. The same from `patch`, with intervals.

# %%
maps = [
    patch(checkpoint, ["linear"], site=place, corrupt="inputs", direction="noise", n_prompts=64).table
    for place in places
]
mine = np.stack([table["nmse"].to_numpy().reshape(3, 8) for table in maps])
print(f"largest difference {abs(mine - theirs.numpy()).max():.0e}")
pd.concat([table.iloc[[1]] for table in maps])[["site", "heads", "nmse", "nmse_low", "nmse_high"]].round(2)

# %%
of_head = dict(zip(places, mine[:, 0, 1], strict=True))
assert abs(mine - theirs.numpy()).max() < 1e-5
assert min(of_head["z"], of_head["v"]) > 0.8
assert max(of_head[place] for place in ("q", "k", "pattern")) < 0.1
assert np.delete(mine[0], 1).max() < 0.3

# %% [markdown]
# **A pitfall.** Sweeps over tokens in `transformer_lens.patching` (`get_act_patch_resid_pre` and all that end in
# `_by_pos`) take the number of tokens from the last axis of the prompt. Here that is the width of a token, 4: they
# patch the first four tokens and say nothing. Name the cells yourself with `generic_activation_patch`.
#
# Now the examples are of *another function*. The two runs answer differently, and the metric can be the share of the
# way from the corrupt answer to the clean one.

# %%
pairs = prompt_pairs(checkpoint.config, "linear", "function", n_prompts=64, seed=0)
clean, corrupt = (checkpoint.model.needed(side.tokens) for side in pairs)
_, source = model.run_with_cache(clean)
start, end = (model(tokens)[:, -1, 0] for tokens in (corrupt, clean))


def share(logits):
    return ((logits[:, -1, 0] - start) * (end - start)).mean() / (end - start).square().mean()


cells = pd.DataFrame([(layer, pos) for layer in range(3) for pos in range(clean.shape[1])], columns=["layer", "pos"])
stream = patching.generic_activation_patch(
    model, corrupt, source, share, patching.layer_pos_patch_setter, "resid_pre", index_df=cells
)
short = patching.get_act_patch_resid_pre(model, corrupt, source, share)
print("by cells:", len(stream), "effects; by_pos:", tuple(short.shape))

# %% [markdown]
# The same map from `patch`. Look at where the answer is: at many tokens a little before layer 0, and before layer 2 at
# one.

# %%
answer = patch(checkpoint, ["linear"], site="resid_pre", corrupt="function", direction="denoise", n_prompts=64)
_ = answer.plot()

# %%
by_token = answer.table["effect"].to_numpy().reshape(3, -1)
assert abs(by_token.ravel() - stream.numpy()).max() < 1e-5
assert short.shape == (3, 4)
assert by_token[2, -1] > 0.6 > 0.3 > by_token[2, :-1].max()
assert abs(by_token[0, 0::2]).max() < 1e-5  # the x tokens are the same in both runs

# %% [markdown]
# ## Circuits in the weights
#
# Here TransformerLens is ahead: `QK` and `OV` of every head as factored matrices. Does 0.1 find its $x$ by content or
# by position? The positions alone, put through its QK circuit, give a pattern without any prompt. Look at whether it
# has what the mean pattern over prompts has.

# %%
positions = model.blocks[0].ln1(model.W_pos)
queries, keys = (positions @ w[0, 1] + b[0, 1] for w, b in ((model.W_Q, model.b_Q), (model.W_K, model.b_K)))
visible = torch.ones(32, 32, dtype=torch.bool).tril()
alone = (queries @ keys.T / model.cfg.d_head**0.5).masked_fill(~visible, -torch.inf).softmax(-1)
shown = {"positions alone": alone, "mean over prompts": attention[0, :, 1].mean(0)}
for ax, (title, pattern) in zip(row_of_axes(2, width=2.8, height=2.9), shown.items(), strict=True):
    ax.imshow(pattern, vmin=0, vmax=1, cmap="mako_r")
    ax.set(title=title, xlabel="key", ylabel="query")
own_x = {title: pattern[1::2, 0::2].diagonal() for title, pattern in shown.items()}
print({title: round(one.mean().item(), 3) for title, one in own_x.items()})

# %% [markdown]
# By position, and the last three pairs (queries 27, 29, 31) are missing in the weights already. What does it move? The
# read-in of the four coordinates of $x$ through its OV circuit: singular values near one another mean that every
# direction of $x$ is copied alike, and large ones that it is copied loudly. Look at the smallest of each head.

# %%
gains = pd.DataFrame(
    {f"0.{head}": torch.linalg.svdvals(model.W_E @ model.OV[0, head].AB).numpy() for head in range(8)},
    index=pd.Index(range(1, 5), name="singular value"),
)
gains.round(2)

# %%
assert (own_x["positions alone"][:13] > 0.99).all()
assert (own_x["positions alone"][13:] < 0.01).all()
assert gains["0.1"].min() > 0.85
assert gains["0.1"].max() / gains["0.1"].min() < 1.2
assert gains.drop(columns="0.1").min().max() < 0.6 * gains["0.1"].min()

# %% [markdown]
# So the head can be read off its weights: *look one token back, copy all of x*. (Up to LayerNorm, which also sees the
# prompt; that is why the left panel had to be compared with the right one.)
#
# Who reads it? Composition scores say who could. TransformerLens gives the norm ratios; ours fold in LayerNorm and
# give each its level under random rotations. K-composition of 0.1 with the heads of layer 1:

# %%
folded = composition(checkpoint, "0.1").table.set_index("receiver").filter(regex=r"^1\..\.k$", axis=0)
folded["TransformerLens"] = model.all_composition_scores("K")[0, 1, 1].numpy()
folded[["TransformerLens", "score", "chance", "p_value"]].round(2)

# %% [markdown]
# All eight lie above chance: layer 1 can read what 0.1 writes. Whether it does, weights cannot say. Path patching finds
# that four fifths of the effect go through the MLP of its own layer (`interp path`, `analyses/LOG.md`).

# %%
assert abs(folded["TransformerLens"] - folded["score"]).max() < 0.1
assert (folded["score"] > folded["chance"]).all()
assert (folded["p_value"] < 0.1).all()

# %% [markdown]
# ## A sweep, both ways
#
# Remove every head in turn (mean ablation): a loop of `run_with_hooks`, and `ablate`, which runs the layers before a
# head once for all. `ablate` does more in its time: the direct effect, the effect with LayerNorm frozen, intervals, and
# proofs that each removal acted.

# %%
began = time.perf_counter()
loop = [
    error(without(layer, head, elsewhere["z", layer][:, :, head].mean(0))) for layer in range(3) for head in range(8)
]
between = time.perf_counter()
swept = ablate(checkpoint, parse_heads("each", 3, 8), ["linear"], modes=["mean"], n_prompts=128, matches=())
ended = time.perf_counter()
print(f"the loop takes {(between - began) / (ended - between):.1f} times as long")

# %%
assert (abs(swept.table["nmse_after"] / loop - 1) < 1e-5).all()

# %% [markdown]
# A ratio of this machine and moment. For the sweep alone, without what `ablate` adds, it is 3 to 5
# ([results](concepts/results.md), `make bench`), and null sets in the hundreds are such sweeps.
#
# ## The other way: a HookedTransformer of yours in these analyses
#
# This works for one kind of model: one that reads prompts $x_1, y_1, \dots$ of this package through `prompt @ W_E` and
# has its architecture: learned positions, pre-LayerNorm with weights, `gelu_new`, `d_head = d_model / n_heads`,
# `d_mlp = 4 d_model`, eps 1e-5, one output. Then the state dict fits as it is. It does **not** work for language models
# or whatever else reads token ids (there are no function classes to test them on), nor after `fold_ln`.
#
# As an example a HookedTransformer that somebody has changed: heads 1 and 5 of layer 0 have swapped places.

# %%
yours = hooked(checkpoint)
order = [0, 5, 2, 3, 4, 1, 6, 7]
for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
    parameter = getattr(yours.blocks[0].attn, name)
    parameter.data = parameter.data[order]

# %%
back = Transformer(checkpoint.config.model)
weights = yours.state_dict()  # besides parameters it holds masks, which stay behind
back.load_state_dict({name: weights[name] for name in back.state_dict()})
changed = replace(checkpoint, name="yours", model=back.requires_grad_(False).eval())

# %% [markdown]
# Some settings have no weights (the activation function, eps), so that loading cannot notice when they differ. Compare
# predictions before anything else. Then everything works:

# %%
mine, theirs = predictions(back, prompts), yours(prompts.tokens)[:, ::2, 0]
print(f"largest difference {(mine - theirs).abs().max() / theirs.abs().max():.0e}")
highest = parse_heads("top:1", 3, 8, scores=score(changed, ["linear"], n_prompts=128).values["linear"].tolist)
moved = ablate(changed, highest, ["linear"], n_prompts=128, matches=()).table.set_index("mode")
moved[["heads", "effect"]].round(3)

# %%
assert (mine - theirs).abs().max() < 1e-5 * theirs.abs().max()
assert (moved["heads"] == "0.5").all()
assert (abs(moved["effect"] - both["effect"]) < 1e-4).all()

# %% [markdown]
# For the command line it needs a directory. The configuration names the function classes and seeds of its training; for
# a model that was trained elsewhere, write what it was trained on.

# %%
directory = Path(tempfile.mkdtemp()) / "yours"
write_config(directory, changed.config)
write_weights(directory / WEIGHTS, changed.model, step=changed.step)
again = load(directory)  # interp score --ckpt DIRECTORY
assert torch.equal(predictions(again.model, prompts), predictions(changed.model, prompts))

# %% [markdown]
# ## Which tool for what
#
# | TransformerLens | this package |
# |---|---|
# | a hook that computes anything, in the middle of a pass | effects with intervals, null sets, independent seeds |
# | the residual stream taken apart, QK and OV as matrices | sweeps of hundreds of sets that share prefixes |
# | any transformer that it supports, language models first | reference prompts, corruptions of prompts |
# | what everybody reads and knows | a refusal where an intervention would not act |
#
# Both name activations alike, so a question may begin on one side and end on the other.
#
# ## TransformerLens 4
#
# Version 4 removed `HookedTransformer`; this package pins 3.x. The weights of a checkpoint load there too, through its
# own conversion. This is what `tests/interp/model/test_transformer_lens_4.py` runs in an environment with 4.x, and its
# numbers equal ours within 1e-5. It is **not run here**; arguments are the checkpoint's directory, prompts as a
# safetensors file, an output file and the sites.
#
# ```python
# import json, sys
# from pathlib import Path
# from safetensors.torch import load_file, save_file
# from transformer_lens.model_bridge import TransformerBridge
# from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint
#
# checkpoint, prompts, out, *sites = sys.argv[1:]
# sizes = json.loads(Path(checkpoint, "config.json").read_text())["run"]["model"]
# config = {key: sizes[key] for key in ("n_layers", "n_heads", "d_model", "n_ctx")}
# config |= {"d_head": sizes["d_model"] // sizes["n_heads"], "d_mlp": 4 * sizes["d_model"]}
# config |= {"d_vocab": sizes["n_dims"], "d_vocab_out": 1}
# config |= {"act_fn": "gelu_new", "normalization_type": "LN", "eps": 1e-5}
# model = TransformerBridge.boot_native(config)
# weights = load_file(Path(checkpoint, "model.safetensors"))
# model.load_state_dict(convert_tl_checkpoint(weights, model.cfg), strict=True)
# output, cache = model.run_with_cache(load_file(prompts)["tokens"] @ weights["embed.W_E"])
# kept = {"output": output[..., 0]} | {site: cache[site] for site in sites}
# save_file({name: tensor.detach().contiguous() for name, tensor in kept.items()}, out)
# ```
#
# In 4.x the model reads embeddings: `prompt @ W_E` goes in where tokens would.

# %% [markdown]
# **Exercise.** Is 0.1 needed at the $x$ tokens, or at the $y$ tokens? Answer with hooks, and check against `ablate`
# (its option `tokens`). The answer is below.

# %% jupyter={"source_hidden": true} tags=["answer"]
kinds = {"x": slice(0, None, 2), "y": slice(1, None, 2)}
errors = {at: error(without(0, 1, mean[where], where)) for at, where in kinds.items()}
print({at: round(value, 3) for at, value in errors.items()}, "intact", round(both["nmse_before"].iloc[0], 3))
for at, value in errors.items():
    table = ablate(
        checkpoint, parse_heads("0.1", 3, 8), ["linear"], tokens=at, modes=["mean"], n_prompts=128, matches=()
    )
    assert abs(table.table["nmse_after"].item() / value - 1) < 1e-5
assert errors["x"] < 1.1 * both["nmse_before"].iloc[0]
assert errors["y"] > 10 * both["nmse_before"].iloc[0]

# %% [markdown]
# At the $y$ tokens: there the head puts $x_i$ beside $y_i$. At the $x$ tokens it may be taken away.
