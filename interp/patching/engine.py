"""Runs a model with activations patched in from another run, exactly, and computes only what a patch can change.

1. `record_run` runs prompts once and keeps every layer's resid_pre, keys and values.
2. `predict_patched` starts at the first patched layer and the first patched token: earlier layers are shared between
   variants, and of earlier tokens only the recorded keys and values are used. In the last layer only the query token is
   computed, since the prediction is read there.

The same computation through the model's own forward pass is `model(tokens, edits)`; both must agree with each other and
with HookedTransformer (tests/interp/patching).
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model.engine import read_sites, repeat_for_variants
from interp.patching.sites import Activations, Patches, hook_of
from training.model.sites import Sites
from training.model.transformer import EVERY, Past, Transformer

QUERY = slice(-1, None)
"""The last token, at which the prediction is read."""


class Run(NamedTuple):
    """What is kept of a run over prompts that end in their query.

    Attributes:
        resid_pre: by layer, the residual stream before it.
        past: by layer, keys and values of all tokens.
        prediction: at the query.
    """

    resid_pre: list[Float[Tensor, "batch pos d_model"]]
    past: list[Past]
    prediction: Float[Tensor, " batch"]


@torch.no_grad()
def record_run(model: Transformer, tokens: Float[Tensor, "batch pos dim"]) -> Run:
    """Run the model over prompts that end in their query, and keep what patched runs start from."""
    sites = ("resid_pre", "k", "v")
    layers = range(model.config.n_layers)
    activations = read_activations(model, tokens, [(layer, site) for site in sites for layer in layers])
    resid_pre, keys, values = ([activations[layer, site] for layer in layers] for site in sites)
    prediction = model.read_out(model.run_layers(resid_pre[-1], first=layers[-1], queries=QUERY))[:, -1]
    return Run(resid_pre, [Past(k, v) for k, v in zip(keys, values, strict=True)], prediction)


def read_activations(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"], keys: Iterable[tuple[int, str]]
) -> Activations:
    """The activations at these layers and sites."""
    hooks = {(layer, site): hook_of(site, layer) for layer, site in keys}
    activations = read_sites(model, tokens, list(hooks.values()))
    return {key: activations[hook] for key, hook in hooks.items()}


@torch.no_grad()
def predict_patched(
    model: Transformer, base: Run, patches: Patches, source: Activations
) -> Float[Tensor, "variant batch"]:
    """The predictions at the query under every variant's patches; everything after a patch is recomputed.

    Args:
        model: the transformer that made `base`.
        base: the run that is patched.
        patches: where.
        source: the activations to patch in, at least at the layers and sites of `patches`.
    """
    n_variants, first_layer = patches.n_variants, patches.first_layer
    if first_layer is None:
        return base.prediction.expand(n_variants, -1)
    start, last = patches.first_token, model.config.n_layers - 1
    resid = repeat_for_variants(base.resid_pre[first_layer][:, start:], n_variants)
    resid = model.run_layers(
        resid,
        lambda layer: Sites(patches.layer_edits(layer, start, QUERY if layer == last else EVERY, source)),
        first=first_layer,
        queries=QUERY,
        past=lambda layer: past_of(base, layer, start, n_variants),
    )
    return model.read_out(resid)[:, -1].unflatten(0, (n_variants, -1))


def past_of(base: Run, layer: int, start: int, n_variants: int) -> Past | None:
    """Keys and values of the tokens before `start`, which are the same in every variant."""
    if start == 0:
        return None
    return Past(*(repeat_for_variants(values[:, :start], n_variants) for values in base.past[layer]))
