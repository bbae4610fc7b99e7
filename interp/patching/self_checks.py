"""Self-checks of patching, made before any effect is reported (tolerances: `interp.model.self_checks`)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.model.self_checks import TOLERANCE, Comparison, require_agreement
from interp.patching.engine import Run, predict_patched, read_activations, record_run
from interp.patching.sites import Activations, Patch, Patches, Variant, stack_patches
from training.common.errors import CheckError
from training.model.transformer import EVERY, Transformer

CHECKED = 16  # prompts
PLAIN = 12  # variants that are also run alone and through the model's own forward pass


@dataclass(frozen=True)
class Setup:
    """What the checks compute from, in one precision.

    Attributes:
        model: the transformer.
        base: tokens of the run that is patched.
        source: tokens of the run that activations come from.
        given: the activations to patch in.
    """

    model: Transformer
    base: Float[Tensor, "batch pos dim"]
    source: Float[Tensor, "batch pos dim"]
    given: Activations

    def in_float64(self) -> "Setup":
        given = {key: values.double() for key, values in self.given.items()}
        return Setup(copy.deepcopy(self.model).double(), self.base.double(), self.source.double(), given)

    @cached_property
    def run(self) -> Run:
        return record_run(self.model, self.base)

    @cached_property
    def intact(self) -> Float[Tensor, "batch 1"]:
        return self.model.predict(self.base)[:, -1:]

    @cached_property
    def base_activations(self) -> Activations:
        """The base run's activations at every site that is patched."""
        return read_activations(self.model, self.base, self.given)

    @cached_property
    def source_streams(self) -> Activations:
        """The source run's residual stream before every layer."""
        layers = range(self.model.config.n_layers)
        return read_activations(self.model, self.source, [(layer, "resid_pre") for layer in layers])

    def patches(self, variants: Sequence[Variant]) -> Patches:
        return stack_patches(variants, self.base.shape[1], self.model.config.n_heads, self.base.device)

    def predict(self, variant: Variant, activations: Activations) -> Float[Tensor, "batch 1"]:
        return predict_patched(self.model, self.run, self.patches([variant]), activations)[0][:, None]


def check_patches(
    model: Transformer,
    base: Float[Tensor, "batch pos dim"],
    source: Float[Tensor, "batch pos dim"],
    variants: Sequence[Variant],
    given: Activations,
    n_plain: int = PLAIN,
) -> tuple[Bool[Tensor, " variant"], Bool[Tensor, " variant"]]:
    """Check on a few prompts that patches change what they should change and nothing else.

    Args:
        model: the transformer.
        base: tokens of the run that is patched.
        source: tokens of the run that activations come from.
        variants: every patch that will be reported.
        given: the activations to patch in, for these prompts.
        n_plain: about how many variants are also run alone and through the model's own forward pass.

    Returns:
        By variant, whether any patched activation differs from the base run's, and whether any differs between prompts
        of the base run (True for all if there is a single prompt), both by more than rounding.

    Raises:
        CheckError: the empty patch, or patching a run with its own activations, changes the predictions; patching in
            another run's whole stream does not give that run's prediction; or the engine differs from the model's own
            forward pass with the same edits.
    """
    setup = Setup(model, base, source, given)
    require_agreement(read_query, setup, "reading the prediction at the query changes it")
    require_agreement(patch_nothing, setup, "the empty patch changes the predictions")
    for layer in range(model.config.n_layers):
        failure = f"patching the whole stream before layer {layer} does not give the source run's prediction"
        require_agreement(partial(patch_whole_stream, layer=layer), setup, failure)
    for variant in variants[:: max(1, len(variants) // n_plain)]:
        itself, other = (partial(patch, variant=variant) for patch in (patch_with_itself, patch_from_source))
        require_agreement(itself, setup, "patching a run with its own activations changes it")
        require_agreement(other, setup, "the engine's patched run differs from the model's own forward pass")
    patches = setup.patches(variants)
    changed = find_differences(patches, setup.base_activations, given, TOLERANCE)
    if len(base) == 1:
        return changed, torch.ones_like(changed)
    other_prompts = {key: values.roll(1, 0) for key, values in setup.base_activations.items()}
    return changed, find_differences(patches, setup.base_activations, other_prompts, TOLERANCE)


def read_query(setup: Setup) -> Comparison:
    return Comparison(setup.run.prediction[:, None], setup.intact, setup.intact)


def patch_nothing(setup: Setup) -> Comparison:
    return Comparison(setup.predict((), setup.given), setup.intact, setup.intact)


def patch_whole_stream(setup: Setup, layer: int) -> Comparison:
    expected = setup.model.predict(setup.source)[:, -1:]
    return Comparison(setup.predict((Patch("resid_pre", layer),), setup.source_streams), expected, expected)


def patch_with_itself(setup: Setup, variant: Variant) -> Comparison:
    return Comparison(setup.predict(variant, setup.base_activations), setup.intact, setup.intact)


def patch_from_source(setup: Setup, variant: Variant) -> Comparison:
    patches = setup.patches([variant])
    edits = {
        f"blocks.{layer}.{hook}": edit
        for layer in {patch.layer for patch in variant}
        for hook, edit in patches.layer_edits(layer, 0, EVERY, setup.given).items()
    }
    return Comparison(setup.predict(variant, setup.given), setup.model(setup.base, edits)[:, -1:], setup.intact)


def require_difference(
    changed: Bool[Tensor, " variant"], varies: Bool[Tensor, " variant"], variants: Sequence[Variant]
) -> None:
    """Refuse a map in which no patch changes an activation although the activations vary between prompts.

    Components whose activation is the same on every prompt (pruned heads) have an effect of 0, which is a result.

    Raises:
        CheckError: no patched activation differs between the clean and the corrupt run.
    """
    if not (changed | ~varies).any():
        sites = ", ".join(sorted({patch.site for variant in variants for patch in variant}))
        raise CheckError(f"self-check: clean and corrupt prompts give the same {sites} wherever it is patched")


def find_differences(
    patches: Patches, base: Activations, other: Activations, tolerance: float = 0.0
) -> Bool[Tensor, " variant"]:
    """By variant, whether any activation that it patches differs between two runs.

    Args:
        patches: where.
        base: activations of the first run.
        other: activations of the second run.
        tolerance: differences up to this share of the head's largest activation do not count.
    """
    differs = torch.zeros(patches.n_variants, dtype=torch.bool, device=next(iter(base.values())).device)
    for key, mask in patches.masks.items():
        is_pattern = key[1] == "pattern"
        largest = base[key].abs().amax(dim=(0, 2, 3) if is_pattern else (0, 1, -1), keepdim=True)
        changed = ((base[key] - other[key]).abs() > tolerance * largest).any(dim=-1).any(dim=0)
        by_token = changed.T if is_pattern else changed.view(len(mask[0]), -1)
        differs |= (mask & by_token).any(dim=2).any(dim=1)
    return differs
