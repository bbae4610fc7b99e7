"""Runs a model under head interventions, exactly, doing only the work that an intervention makes necessary.

1. `trace` runs a batch once and keeps every layer's resid_pre and z.
2. `predict_with` starts from the trace at the first layer whose z changes: what comes before is shared by every head
   set, and in the last layer only the x tokens, where predictions are read, are computed.

The general path for any other site is `model(prompt, edits)`; both must agree with each other and with
HookedTransformer's hooks (tests/interp/test_engine.py).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.heads import HeadSet
from training.prompts import Positions
from training.transformer import EVERY, Edit, Transformer


class Trace(NamedTuple):
    """What one pass leaves behind, by layer.

    Attributes:
        resid_pre: residual stream before each layer, at all tokens but the last y, which influences no prediction.
        z: each head's mix of values, at the same tokens; in the last layer at the x tokens only.
    """

    resid_pre: list[Float[Tensor, "batch pos d_model"]]
    z: list[Float[Tensor, "batch _ head d_head"]]


@torch.no_grad()
def trace(model: Transformer, tokens: Float[Tensor, "batch pos dim"]) -> Trace:
    """Run the model up to the last layer's z and keep what interventions start from."""
    resid = model.read_in(model.needed(tokens))
    run = Trace([], [])
    for layer, block in enumerate(model.layers):
        z = block.mix(resid, queries=queries(model, layer, resid))
        run.resid_pre.append(resid)
        run.z.append(z)
        if layer < model.config.n_layers - 1:
            resid = block.write(resid, z)
    return run


@torch.no_grad()
def predict_with(
    model: Transformer,
    run: Trace,
    heads: HeadSet,
    replacements: Sequence[Float[Tensor, "#batch _ head d_head"]],
) -> Float[Tensor, "batch point"]:
    """The predictions when `heads` write `replacements[layer]` instead of their z; the others react to it.

    Args:
        model: the transformer behind `run`.
        run: its trace on some prompts.
        heads: whose z is replaced; none gives the intact predictions.
        replacements: by layer, for all heads of it, broadcast over prompts and positions.
    """
    removed = head_masks(heads, model.config.n_heads, run.resid_pre[0].device)
    last = model.config.n_layers - 1
    first = min(removed, default=last)
    resid, z = run.resid_pre[first], replaced(run.z[first], first, removed, replacements)
    for layer in range(first, last):
        resid = model.layers[layer].write(resid, z)
        z = model.layers[layer + 1].mix(resid, queries=queries(model, layer + 1, resid))
        z = replaced(z, layer + 1, removed, replacements)
    return model.finish(resid, z)


def replaced(
    z: Float[Tensor, "batch pos head d_head"],
    layer: int,
    removed: Mapping[int, Bool[Tensor, "head 1"]],
    replacements: Sequence[Float[Tensor, "#batch _ head d_head"]],
) -> Float[Tensor, "batch pos head d_head"]:
    return torch.where(removed[layer], replacements[layer], z) if layer in removed else z


def head_masks(heads: HeadSet, n_heads: int, device: torch.device) -> Mapping[int, Bool[Tensor, "head 1"]]:
    """By layer, which of its heads are in the set; layers without any are left out."""
    masks: dict[int, Tensor] = {}
    for head in heads:
        masks.setdefault(head.layer, torch.zeros(n_heads, 1, dtype=torch.bool, device=device))[head.number] = True
    return masks


def queries(model: Transformer, layer: int, stream: Float[Tensor, "batch pos *rest"]) -> Positions:
    """The positions at which a layer's z is needed."""
    return model.x_tokens(stream) if layer == model.config.n_layers - 1 else EVERY


def read_sites(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"], sites: list[str]
) -> dict[str, Float[Tensor, "..."]]:
    """The activations at named sites.

    Raises:
        ValueError: there is no such site.
    """
    seen: dict[str, Tensor] = {}

    def keep(site: str) -> Edit:
        def edit(activation: Tensor) -> Tensor:
            seen[site] = activation
            return activation

        return edit

    with torch.no_grad():
        model(tokens, {site: keep(site) for site in sites})
    return seen
