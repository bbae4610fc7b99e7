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
# # Any model: induction heads in a token model of your own
#
# **Question.** A model that this package did not train reads tokens that repeat, and predicts them the second time.
# Which heads make it do so, and do they cause it?
#
# Nothing here needs a checkpoint: the model is a plain torch module, trained below in under a minute, and
# `interp.attach` opens it. [The page](concepts/any_model.md) says what else can be attached.

# %%
import math

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from interp import ablate, attach, patch, score

torch.set_num_threads(1)
torch.manual_seed(0)
N_TOKENS, LENGTH, WIDTH, N_HEADS = 24, 33, 64, 8


class Attention(nn.Module):
    """As in nanoGPT."""

    def __init__(self):
        super().__init__()
        self.n_head = N_HEADS
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        parts = self.c_attn(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (N_HEADS, -1)).transpose(1, 2) for part in parts)
        z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(z.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, and nothing else."""

    def __init__(self):
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(WIDTH), Attention()

    def forward(self, x):
        return x + self.attn(self.norm(x))


class Model(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(N_TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.norm, self.unembed = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, N_TOKENS, bias=False)

    def forward(self, ids):
        x = self.embed(ids) + self.position.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.unembed(self.norm(x))


# %% [markdown]
# ## The task
#
# Different tokens in random order, which repeat after a random period of 8 to 16, so that no fixed distance says where
# to look. From the second period on every token follows from the earlier ones; in the first, none does.


# %%
def sequences(n_examples, generator):
    order = torch.rand(n_examples, N_TOKENS, generator=generator).argsort(1)
    period = torch.randint(8, 17, (n_examples, 1), generator=generator)
    return order.gather(1, torch.arange(LENGTH) % period)


def loss(logits, ids):
    """Mean cross-entropy of the last 16 tokens, which have all been seen before."""
    return functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")[:, 16:].mean(1)


sequences(2, torch.Generator().manual_seed(0))[:, :20]

# %% [markdown]
# ## Train it

# %%
model, generator = Model(), torch.Generator().manual_seed(0)
for parameter in model.parameters():
    if parameter.ndim > 1:
        nn.init.normal_(parameter, 0, 0.1)
n_steps = 300
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps, pct_start=0.05)
for step in range(n_steps):
    ids = sequences(64, generator)
    error = loss(model(ids), ids).mean()
    optimizer.zero_grad()
    error.backward()
    optimizer.step()
    schedule.step()
    if step % 100 == 0 or step == n_steps - 1:
        print(f"step {step}: loss {error.item():.2f} (guessing: {math.log(N_TOKENS):.2f})")
_ = model.eval()

# %%
assert error.item() < 0.5

# %% [markdown]
# ## Open it
#
# Examples, the loss of each, and other examples for reference: means and partners come from them, and heads are chosen
# on them. A predictor that ignores the context can only guess, so its loss is $\log 24$ on every example: effects are
# shares of the gain over it. For patching, corrupt examples: other sequences.

# %%
examples, reference, others = (sequences(128, torch.Generator().manual_seed(seed)) for seed in (1, 2, 3))
attached = attach(
    model,
    examples,
    loss,
    reference=reference,
    no_context=[math.log(N_TOKENS)] * 128,
    corrupt=others,
    qkv="layers.*.attn.c_attn",  # this model returns no attention: computed, and checked against the heads' output
    name="induction",
)
attached

# %% [markdown]
# ## Where do its heads attend?
#
# An induction head attends from a token to the one that *followed its last occurrence*. A head that attends to the
# token before makes that possible. Look at which layer has which.

# %%
induction, previous = (score(attached, kind=kind) for kind in ("induction", "previous_token"))
_ = induction.plot(previous)

# %%
by_head, earlier = (result.values["all examples"] for result in (induction, previous))
print(f"chance: induction {induction.chance:.2f}, previous token {previous.chance:.2f}")
assert by_head[1].max() > 0.3 > by_head[0].max()
assert earlier[0].max() > 0.2 > earlier[1].max()

# %% [markdown]
# Induction heads are in the second layer, and most of its heads are some; heads that attend to the token before are in
# the first.
#
# ## Do they cause it?
#
# Remove the four heads with the highest induction score, chosen on the reference examples. Control sets are all other
# sets of four heads of the same layer, so the question is not whether the layer matters, but whether these heads do.

# %%
highest = ablate(attached, "top:4", matches=["layer"])
highest

# %%
print(*highest.sentences())
_ = highest.plot()
mean = highest.table.set_index("mode").loc["mean"]
assert mean["effect"] > 3 * abs(mean["control_effect"])
assert mean["p_value"] < 0.1
assert mean["n_controls"] == 69

# %% [markdown]
# The four heads together cost a part of the gain; the four that are left, the only control set without any of them, far
# less. How does the loss depend on how many are removed, the highest first?

# %%
dose = [ablate(attached, f"top:{k}", modes=["mean"], matches=[]).table for k in range(1, N_HEADS + 1)]
effects = pd.concat(dose).set_index("heads")["effect"]
effects.round(2)

# %%
assert effects.iloc[0] < 0.2
assert effects.iloc[-1] > 0.8
assert effects.iloc[3] > 2 * effects.iloc[0]

# %% [markdown]
# One head alone costs next to nothing, all eight cost the whole gain: the others stand in for one that is missing. A
# test of single heads would have called each of them unimportant.
#
# ## And the heads that attend to the token before?
#
# Remove the one of the first layer that does so most.

# %%
before = ablate(attached, f"0.{earlier[0].argmax()}", matches=["layer"])
print(*before.sentences())
by_mode = before.table.set_index("mode")["effect"]
assert by_mode["mean"] < 0.3
assert by_mode["resample"] > by_mode["mean"]

# %% [markdown]
# Its mean in its place costs little, since other heads of its layer attend to the token before as well. Its output on
# another sequence (resample) costs more: that misleads the second layer instead of informing it less.
#
# ## What do they carry?
#
# Patch each head's output from the clean into the corrupt run, which is another sequence: how far does that bring back
# the answers of the clean one?

# %%
carried = patch(attached, direction="denoise")
_ = carried.plot()
print(*carried.sentences())

# %%
by_layer = carried.table.groupby("layer")["effect"].max()
assert by_layer[1] > 0.2

# %% [markdown]
# All of it runs from the command line as well: a file with a function that returns the attached model, and
# `interp score --ckpt FILE.py:NAME`, `ablate`, `patch`, `report`. `interp init FILE.py` writes one to start from. What
# a language model of 135 million parameters gives is on [the page of results](concepts/results.md).
