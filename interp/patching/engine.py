"""Runs a model with activations patched in from another run, exactly, doing only the work that a patch makes necessary.

1. `run_on` runs prompts once and keeps every layer's resid_pre, keys and values.
2. `predict_patched` starts at the first layer and the first token that change: earlier layers are shared, and earlier
   tokens, which see nothing of a patch, give only their recorded keys and values. In the last layer only the query is
   computed, since the prediction is read there.

The plain path for the same thing is `model(tokens, edits)`; both must agree with each other and with HookedTransformer
(tests/interp/patching).
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model.engine import read_sites, repeat_for_variants
from interp.patching.sites import Given, Patches, hook_of
from training.model.sites import Sites
from training.model.transformer import EVERY, Past, Transformer

QUERY = slice(-1, None)
"""The last token, at which the prediction is read."""


class Run(NamedTuple):
    """What one pass over prompts that end in their query leaves behind.

    Attributes:
        resid_pre: by layer, the residual stream before it.
        past: by layer, keys and values of all tokens.
        prediction: at the query.
    """

    resid_pre: list[Float[Tensor, "batch pos d_model"]]
    past: list[Past]
    prediction: Float[Tensor, " batch"]


@torch.no_grad()
def run_on(model: Transformer, tokens: Float[Tensor, "batch pos dim"]) -> Run:
    """Run the model over prompts that end in their query, and keep what patches start from."""
    layers = range(model.config.n_layers)
    names = ("resid_pre", "k", "v")
    seen = read_sites(model, tokens, [hook_of(name, layer) for name in names for layer in layers])
    resid_pre, keys, values = ([seen[hook_of(name, layer)] for layer in layers] for name in names)
    last = model.layers[-1]
    prediction = model.read_out(last.write(resid_pre[-1][:, QUERY], last.mix(resid_pre[-1], queries=QUERY)))[:, -1]
    return Run(resid_pre, [Past(k, v) for k, v in zip(keys, values, strict=True)], prediction)


def recorded(model: Transformer, tokens: Float[Tensor, "batch pos dim"], keys: Iterable[tuple[int, str]]) -> Given:
    """The activations at these layers and sites."""
    wanted = list(keys)
    seen = read_sites(model, tokens, [hook_of(site, layer) for layer, site in wanted])
    return {(layer, site): seen[hook_of(site, layer)] for layer, site in wanted}


@torch.no_grad()
def predict_patched(model: Transformer, base: Run, patches: Patches, given: Given) -> Float[Tensor, "variant batch"]:
    """The predictions at the query when every variant's patches act and everything after them reacts.

    Args:
        model: the transformer behind `base`.
        base: the run that is patched.
        patches: where.
        given: what is patched in, at least at the layers and sites of `patches`.
    """
    n_variants, first = patches.n_variants, patches.first
    if first is None:
        return base.prediction.expand(n_variants, -1)
    start, last = patches.start, model.config.n_layers - 1
    resid = repeat_for_variants(base.resid_pre[first][:, start:], n_variants)
    for layer in range(first, last + 1):
        block, queries = model.layers[layer], QUERY if layer == last else EVERY
        at = Sites(patches.edits(layer, start, queries, given))
        resid = at("hook_resid_pre", resid)
        z = block.mix(resid, at, queries, past_of(base, layer, start, n_variants))
        resid = block.write(resid[:, queries], z, at)
    return model.read_out(resid)[:, -1].unflatten(0, (n_variants, -1))


def past_of(base: Run, layer: int, start: int, n_variants: int) -> Past | None:
    """Keys and values of the tokens before `start`, which are the same in every variant."""
    if start == 0:
        return None
    return Past(*(repeat_for_variants(one[:, :start], n_variants) for one in base.past[layer]))
