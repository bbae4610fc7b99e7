"""A patch proves that it acted, before any effect is reported (see `interp.model.self_checks`)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.model.self_checks import TOLERANCE, Comparison, require_agreement
from interp.patching.engine import Run, predict_patched, recorded, run_on
from interp.patching.sites import Given, Patch, Patches, Variant, patches_of
from training.common.errors import CheckError
from training.model.sites import Edit
from training.model.transformer import EVERY, Transformer

CHECKED = 16  # prompts
PLAIN = 12  # variants that are run on their own and through the plain forward pass too


class Acting(NamedTuple):
    """Where patching can act.

    Attributes:
        differs: by variant, whether anything that is patched in differs from what was there.
        varies: by variant, whether anything that is patched differs between prompts of the same run by more than
            rounding; all of them if there is a single prompt.
    """

    differs: Bool[Tensor, " variant"]
    varies: Bool[Tensor, " variant"]


@dataclass(frozen=True)
class Setup:
    """Everything that a check computes from, in one precision.

    Attributes:
        model: the transformer.
        base: tokens of the run that is patched.
        source: tokens of the run that activations come from.
        given: what is patched in.
    """

    model: Transformer
    base: Float[Tensor, "batch pos dim"]
    source: Float[Tensor, "batch pos dim"]
    given: Given

    def in_float64(self) -> "Setup":
        given = {key: values.double() for key, values in self.given.items()}
        return Setup(copy.deepcopy(self.model).double(), self.base.double(), self.source.double(), given)

    @cached_property
    def run(self) -> Run:
        return run_on(self.model, self.base)

    @cached_property
    def intact(self) -> Float[Tensor, "batch 1"]:
        return self.model.predict(self.base)[:, -1:]

    @cached_property
    def own(self) -> Given:
        """The base run's activations wherever something is patched in."""
        return recorded(self.model, self.base, self.given)

    @cached_property
    def source_streams(self) -> Given:
        """The source run's residual stream before every layer."""
        return recorded(self.model, self.source, [(layer, "resid_pre") for layer in range(self.model.config.n_layers)])

    def patches(self, variants: Sequence[Variant]) -> Patches:
        return patches_of(variants, self.base.shape[1], self.model.config.n_heads, self.base.device)

    def patched(self, variant: Variant, given: Given) -> Float[Tensor, "batch 1"]:
        return predict_patched(self.model, self.run, self.patches([variant]), given)[0][:, None]


def check_patches(
    model: Transformer,
    base: Float[Tensor, "batch pos dim"],
    source: Float[Tensor, "batch pos dim"],
    variants: Sequence[Variant],
    given: Given,
    n_plain: int = PLAIN,
) -> Acting:
    """Prove on a few prompts that patching acts only where it should, and say where it can act at all.

    Args:
        model: the transformer.
        base: tokens of the run that is patched.
        source: tokens of the run that activations come from.
        variants: every patch that will be reported.
        given: what is patched in, on these prompts.
        n_plain: about how many variants are run on their own and through the plain forward pass too.

    Returns:
        By variant, whether anything that is patched in differs from what was there, and whether it varies at all.

    Raises:
        CheckError: the empty patch or patching a run with itself changes the predictions, the whole stream of another
            run does not give that run's prediction, or the engine differs from the model's own forward pass with the
            same edits.
    """
    setup = Setup(model, base, source, given)
    require_agreement(read_query, setup, "reading the prediction at the query changes it")
    require_agreement(patch_nothing, setup, "the empty patch changes the predictions")
    for layer in range(model.config.n_layers):
        failure = f"patching the whole stream before layer {layer} is not the run"
        require_agreement(partial(patch_whole_stream, layer=layer), setup, failure)
    for variant in variants[:: max(1, len(variants) // n_plain)]:
        itself, other = (partial(patch, variant=variant) for patch in (patch_with_itself, patch_from_source))
        require_agreement(itself, setup, "patching a run with itself changes it")
        require_agreement(other, setup, "a patch in the engine is not that of the forward pass")
    patches = setup.patches(variants)
    differs = differing(patches, setup.own, given)
    if len(base) == 1:
        return Acting(differs, torch.ones_like(differs))
    others = {key: own.roll(1, 0) for key, own in setup.own.items()}
    return Acting(differs, differing(patches, setup.own, others, TOLERANCE))


def read_query(setup: Setup) -> Comparison:
    return Comparison(setup.run.prediction[:, None], setup.intact, setup.intact)


def patch_nothing(setup: Setup) -> Comparison:
    return Comparison(setup.patched((), setup.given), setup.intact, setup.intact)


def patch_whole_stream(setup: Setup, layer: int) -> Comparison:
    """The whole residual stream of another run gives that run's prediction."""
    expected = setup.model.predict(setup.source)[:, -1:]
    return Comparison(setup.patched((Patch("resid_pre", layer),), setup.source_streams), expected, expected)


def patch_with_itself(setup: Setup, variant: Variant) -> Comparison:
    return Comparison(setup.patched(variant, setup.own), setup.intact, setup.intact)


def patch_from_source(setup: Setup, variant: Variant) -> Comparison:
    plain = plain_prediction(setup.model, setup.base, setup.patches([variant]), setup.given)[:, None]
    return Comparison(setup.patched(variant, setup.given), plain, setup.intact)


def require_difference(acting: Acting, variants: Sequence[Variant]) -> None:
    """Refuse a sweep in which nothing can act although everything varies.

    Components whose activation is the same on every prompt (pruned heads) have an effect of 0, which is a result.

    Raises:
        CheckError: nothing that is patched in differs from what was there.
    """
    if not (acting.differs | ~acting.varies).any():
        sites = ", ".join(sorted({patch.site for variant in variants for patch in variant}))
        raise CheckError(f"self-check: clean and corrupt prompts give the same {sites} wherever it is patched")


def differing(patches: Patches, own: Given, given: Given, tolerance: float = 0.0) -> Bool[Tensor, " variant"]:
    """By variant, whether anything that is patched in differs from what was there.

    Args:
        patches: where.
        own: what was there.
        given: what is patched in.
        tolerance: differences up to this share of the largest value that was there, of each head, are none.
    """
    found = torch.zeros(patches.n_variants, dtype=torch.bool, device=next(iter(own.values())).device)
    for key, mask in patches.masks.items():
        all_but_heads = (0, 2, 3) if key[1] == "pattern" else (0, 1, -1)
        largest = own[key].abs().amax(dim=all_but_heads, keepdim=True)
        changed = (own[key] - given[key]).abs() > tolerance * largest
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
