"""A patch proves that it acted, before any effect is reported (see `interp.model.self_checks`)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.model.self_checks import require_equal
from interp.patching.engine import Run, predict_patched, recorded, run_on
from interp.patching.sites import Given, Patch, Patches, Variant, patches_of
from training.common.errors import CheckError
from training.model.transformer import EVERY, Edit, Transformer

CHECKED = 16  # prompts
PLAIN = 12  # variants that are run on their own and through the plain forward pass too


def check_patches(
    model: Transformer,
    base: Float[Tensor, "batch pos dim"],
    source: Float[Tensor, "batch pos dim"],
    variants: Sequence[Variant],
    given: Given,
    n_plain: int = PLAIN,
) -> Bool[Tensor, " variant"]:
    """Prove on a few prompts that patching acts only where it should, and say where it can act at all.

    Args:
        model: the transformer.
        base: tokens of the run that is patched.
        source: tokens of the run that activations come from.
        variants: every patch that will be reported.
        given: what is patched in, on these prompts.
        n_plain: about how many variants are run on their own and through the plain forward pass too.

    Returns:
        By variant, whether anything that is patched in differs from what was there.

    Raises:
        CheckError: the empty patch or patching a run with itself changes the predictions, the whole stream of another
            run does not give that run's prediction, or the engine differs from the model's own forward pass with the
            same edits.
    """
    run, intact = run_on(model, base), model.predict(base)[:, -1:]
    n_tokens, n_heads = base.shape[1], model.config.n_heads
    patches = patches_of(variants, n_tokens, n_heads, base.device)
    require_equal(run.prediction[:, None], intact, intact, "reading the prediction at the query changes it")
    nothing = predict_patched(model, run, patches_of([()], n_tokens, n_heads, base.device), given)[0]
    require_equal(nothing[:, None], intact, intact, "the empty patch changes the predictions")
    own = recorded(model, base, patches.masks)
    require_whole_stream(model, run, source)
    for variant in variants[:: max(1, len(variants) // n_plain)]:
        one = patches_of([variant], n_tokens, n_heads, base.device)
        itself = predict_patched(model, run, one, own)[0]
        require_equal(itself[:, None], intact, intact, "patching a run with itself changes it")
        engine = predict_patched(model, run, one, given)[0]
        plain = plain_prediction(model, base, one, given)
        require_equal(engine[:, None], plain[:, None], intact, "a patch in the engine is not that of the forward pass")
    return differing(patches, own, given)


def require_difference(differs: Bool[np.ndarray, " variant"], variants: Sequence[Variant]) -> None:
    """Refuse a sweep in which nothing can act.

    Raises:
        CheckError: nothing that is patched in differs from what was there.
    """
    if not differs.any():
        sites = ", ".join(sorted({patch.site for variant in variants for patch in variant}))
        raise CheckError(f"self-check: clean and corrupt prompts give the same {sites} wherever it is patched")


def require_whole_stream(model: Transformer, run: Run, source: Float[Tensor, "batch pos dim"]) -> None:
    """The whole residual stream of another run gives that run's prediction, from every layer on."""
    n_layers, n_tokens = model.config.n_layers, source.shape[1]
    wanted = model.predict(source)[:, -1:]
    streams = recorded(model, source, [(layer, "resid_pre") for layer in range(n_layers)])
    for layer in range(n_layers):
        patches = patches_of([(Patch("resid_pre", layer),)], n_tokens, model.config.n_heads, source.device)
        found = predict_patched(model, run, patches, streams)[0]
        require_equal(found[:, None], wanted, wanted, f"patching the whole stream before layer {layer} is not the run")


def differing(patches: Patches, own: Given, given: Given) -> Bool[Tensor, " variant"]:
    """By variant, whether anything that is patched in differs from what was there."""
    found = torch.zeros(patches.n_variants, dtype=torch.bool, device=next(iter(own.values())).device)
    for key, mask in patches.masks.items():
        changed = own[key] != given[key]
        if key[1] == "pattern":
            by_token = changed.any(dim=3).any(dim=0).T
        else:
            by_token = changed.any(dim=-1).any(dim=0).view(len(mask[0]), -1)
        found |= (mask & by_token).any(dim=2).any(dim=1)
    return found


def plain_edits(patches: Patches, given: Given) -> dict[str, Edit]:
    """The patches as edits of the model's own forward pass over all tokens."""
    layers = {layer for layer, _ in patches.masks}
    return {
        f"blocks.{layer}.{hook}": edit
        for layer in layers
        for hook, edit in patches.edits(layer, 0, EVERY, given).items()
    }


@torch.no_grad()
def plain_prediction(
    model: Transformer, base: Float[Tensor, "batch pos dim"], patches: Patches, given: Given
) -> Float[Tensor, " batch"]:
    """The prediction at the query through nothing but the model's forward pass, for a single variant."""
    return model(base, plain_edits(patches, given))[:, -1]
