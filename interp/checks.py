"""An intervention proves that it acted. Silent no-ops are this field's commonest bug (peers.md, section 1)."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine import head_masks, predict_with, queries, trace
from interp.heads import HeadSet, all_heads
from interp.interventions import Reference, Value
from training.errors import CheckError
from training.prompts import Positions
from training.transformer import Edit, Transformer

TOLERANCE = 1e-5  # relative: the engine against the model's own forward pass


def check_ablation(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    reference: Sequence[Reference],
    heads: HeadSet,
    values: Mapping[str, Value],
) -> None:
    """Prove on a few prompts that removing `heads` acts, and acts only where it should.

    Raises:
        CheckError: the empty set or patching a run with itself changes the predictions, a head's z stays as it was, or
            the engine differs from the model's own forward pass with the same edits.
    """
    run, intact = trace(model, tokens), model.predict(tokens)
    everything = all_heads(model.config.n_layers, model.config.n_heads)
    require_equal(predict_with(model, run, (), []), intact, "removing no head changes the predictions")
    require_equal(predict_with(model, run, everything, run.z), intact, "patching a run with itself changes it")
    for name, value in values.items():
        replacements = [value.replacement(layer) for layer in reference]
        for layer, number in heads:
            before, after = run.z[layer][:, :, number], replacements[layer][:, :, number]
            if torch.equal(before, after.expand_as(before)):
                raise CheckError(f"self-check: {name} ablation leaves what head {layer}.{number} writes (z) as it was")
        engine = predict_with(model, run, heads, replacements)
        tokens = model.needed(tokens)
        plain = model(tokens, z_edits(model, heads, replacements, tokens))[:, model.x_tokens(tokens)]
        require_equal(engine, plain, f"{name} ablation in the engine is not that of the forward pass")


def z_edits(
    model: Transformer,
    heads: HeadSet,
    replacements: Sequence[Float[Tensor, "#batch _ head d_head"]],
    tokens: Float[Tensor, "batch pos dim"],
) -> dict[str, Edit]:
    """The engine's intervention as edits of `hook_z`, for the model's own forward pass."""
    masks = head_masks(heads, model.config.n_heads, model.device)
    return {
        f"blocks.{layer}.attn.hook_z": replace_heads(mask, replacements[layer], queries(model, layer, tokens))
        for layer, mask in masks.items()
    }


def replace_heads(
    mask: Bool[Tensor, "head 1"], replacement: Float[Tensor, "#batch #pos head d_head"], positions: Positions
) -> Edit:
    def edit(z: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos head d_head"]:
        edited = z.clone()
        edited[:, positions] = torch.where(mask, replacement, z[:, positions])
        return edited

    return edit


def require_equal(given: Float[Tensor, "batch point"], wanted: Float[Tensor, "batch point"], failure: str) -> None:
    difference = ((given - wanted).abs().max() / wanted.abs().max()).item()
    if not difference <= TOLERANCE:
        raise CheckError(f"self-check: {failure} (relative difference {difference:.1e})")
