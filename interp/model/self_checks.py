"""Self-checks of removals: a removal changes what it should, nothing else, and equals the model's own forward pass.

Two computations of the same predictions may differ by rounding. Where they differ by more than `TOLERANCE` in float32,
both are repeated in float64: a defect of the engine remains, rounding does not.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.model.engine import (
    EVERY,
    HOOKS,
    Site,
    Substitutes,
    predict_without,
    predictions_of,
    read_sites,
    removal,
    trace,
    uniform,
)
from interp.model.heads import MLP, Head, HeadSet, all_heads
from training.common.errors import CheckError
from training.model.sites import Edit
from training.model.transformer import Transformer

CHECKED = 32
"""Number of prompts on which interventions are checked."""
TOLERANCE = 1e-5
"""Largest relative difference between the engine and the model's own forward pass in float32."""
TOLERANCE_FLOAT64 = 1e-9
"""The same in float64."""
AMPLIFIED = 10
"""A float32 difference is explained by rounding up to so many times the forward pass's own rounding."""
ROUNDING = 1e-4
"""Relative difference between float32 and float64 that is accepted without further comparison."""
IMPRECISE = 1e-2
"""The same, above which float32 results are not reported, whatever the reason."""


class Comparison(NamedTuple):
    """Predictions that should agree.

    Attributes:
        computed: by the engine.
        expected: by the model's own forward pass.
        intact: by the intact model; differences are relative to the larger of expected and intact predictions.
    """

    computed: Float[Tensor, "batch point"]
    expected: Float[Tensor, "batch point"]
    intact: Float[Tensor, "batch point"]

    @property
    def difference(self) -> float:
        return relative_difference(*self)


@runtime_checkable
class HasTwin(Protocol):
    """The inputs of a check, which can be converted to float64."""

    def in_float64(self) -> Any: ...


AnySetup = TypeVar("AnySetup", bound=HasTwin)


@dataclass(frozen=True)
class Setup:
    """The inputs of a check of removals.

    Attributes:
        model: the transformer.
        tokens: of a few prompts.
        replacements: the replacement values by mode.
        site: where heads are removed.
        at: mask of the tokens at which components are removed; None means all.
    """

    model: Transformer
    tokens: Float[Tensor, "batch pos dim"]
    replacements: Mapping[str, Substitutes]
    site: Site
    at: Bool[Tensor, " needed"] | None

    def in_float64(self) -> "Setup":
        replacements = {mode: in_float64(values) for mode, values in self.replacements.items()}
        return Setup(copy.deepcopy(self.model).double(), self.tokens.double(), replacements, self.site, self.at)


def in_float64(replacements: Substitutes) -> Substitutes:
    return Substitutes(*([values.double() for values in part] for part in replacements))


def check_removal(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    components: HeadSet,
    replacements: Mapping[str, Substitutes],
    site: Site,
    at: Bool[Tensor, " needed"] | None,
) -> dict[str, frozenset[Head]]:
    """Check on a few prompts that removing `components` acts under every mode, and only where it should.

    Returns:
        By mode, the components whose output already equals their replacement (pruned or constant heads), so that
        removing them changes nothing.

    Raises:
        CheckError: removing no head or patching a run with itself changes the predictions, a component's activation
            stays the same although its replacement differs, or the engine differs from the model's own forward pass
            with the same edits.
    """
    setup = Setup(model, tokens, replacements, site, at)
    unvarying = {}
    with torch.no_grad():
        require_agreement(compare_empty_removal, setup, "removing no head changes the predictions")
        require_agreement(compare_self_patch, setup, "patching a run with itself changes it")
        for mode in replacements:
            unvarying[mode] = frozenset(
                component for component in components if not changes_output(setup, component, mode)
            )
            require_agreement(
                lambda twin, mode=mode: compare_removal(twin, components, mode),
                setup,
                f"{mode} ablation in the engine is not that of the forward pass",
            )
    return unvarying


def compare_empty_removal(setup: Setup) -> Comparison:
    intact = setup.model.predict(setup.tokens)
    return Comparison(predictions_of(setup.model, trace(setup.model, setup.tokens)), intact, intact)


def compare_self_patch(setup: Setup) -> Comparison:
    """Every head's z replaced by itself, read with hooks of the model's own forward pass."""
    model, config = setup.model, setup.model.config
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(config.n_layers)]
    z = read_sites(model, model.needed(setup.tokens), sites)
    every_head = removal(model, [all_heads(config.n_layers, config.n_heads)])
    replacements = Substitutes([z[site][None] for site in sites])
    intact = model.predict(setup.tokens)
    return Comparison(predict_without(model, trace(model, setup.tokens), every_head, replacements)[0], intact, intact)


def compare_removal(setup: Setup, components: HeadSet, mode: str) -> Comparison:
    model, replacements = setup.model, setup.replacements[mode]
    removed = removal(model, [components], setup.site, setup.at)
    computed = predict_without(model, trace(model, setup.tokens), removed, replacements)[0]
    edits = plain_edits(components, replacements, setup.site, setup.at)
    return Comparison(computed, plain_predictions(model, setup.tokens, edits), model.predict(setup.tokens))


def changes_output(setup: Setup, component: Head, mode: str) -> bool:
    """Whether the mode changes the component's output (at the site `z`: what it writes into the stream).

    Raises:
        CheckError: its activation stays the same although its replacement differs.
    """
    model, site, (layer, number) = setup.model, setup.site, component
    edits = plain_edits((component,), setup.replacements[mode], site, setup.at)
    ((hook, edit),) = edits.items()
    activation = read_sites(model, model.needed(setup.tokens), [hook])[hook]
    before, after = (select_component(values, number, site) for values in (activation, edit(activation)))
    if torch.equal(before, after) and not torch.equal(before, expected_output(setup, component, mode, before)):
        what = f"head {layer}.{number}" if number != MLP else f"the MLP of layer {layer}"
        verb = {"z": "writes (z)", "pattern": "attends to", "value": "reads (v)"}[site] if number != MLP else "writes"
        raise CheckError(f"self-check: {mode} ablation leaves what {what} {verb} as it was")
    if site == "z" and number != MLP:
        before, after = (values @ model.layers[layer].attn.W_O[number] for values in (before, after))
    return bool((after - before).abs().max() > TOLERANCE * before.abs().max())


def select_component(activation: Float[Tensor, "..."], number: int, site: Site) -> Float[Tensor, "..."]:
    """One head's part of an activation; the whole activation of an MLP."""
    return activation if number == MLP else activation.select(1 if site == "pattern" else 2, number)


def expected_output(
    setup: Setup, component: Head, mode: str, before: Float[Tensor, "batch needed ..."]
) -> Float[Tensor, "batch needed ..."]:
    """A removed component's output, computed without the edits that are checked."""
    layer, number = component
    if setup.site == "pattern" and number != MLP:
        replacement = uniform(before, EVERY)
    else:
        heads, mlps = setup.replacements[mode]
        replacement = mlps[layer][0] if number == MLP else heads[layer][0][:, :, number]
    return replace_at(before, replacement, setup.at)


def replace_at(
    activation: Float[Tensor, "batch needed ..."], replacement: Float[Tensor, "..."], at: Bool[Tensor, " needed"] | None
) -> Float[Tensor, "batch needed ..."]:
    """The activation with the replacement at some tokens; None means all."""
    if at is None:
        return replacement.expand_as(activation)
    return torch.where(at.view(1, -1, *[1] * (activation.ndim - 2)), replacement, activation)


def plain_edits(
    components: HeadSet, replacements: Substitutes, site: Site, at: Bool[Tensor, " needed"] | None
) -> dict[str, Edit]:
    """The removal as edits of the model's own forward pass over the tokens that predictions need."""
    edits: dict[str, Edit] = {}
    for layer in sorted({component.layer for component in components}):
        numbers = [component.number for component in components if component.layer == layer]
        heads = [number for number in numbers if number != MLP]
        if heads:
            values = None if site == "pattern" else replacements.heads[layer][0]
            edits[f"blocks.{layer}.{HOOKS[site]}"] = head_edit(heads, values, at)
        if MLP in numbers:
            edits[f"blocks.{layer}.hook_mlp_out"] = partial(replace_at, replacement=replacements.mlps[layer][0], at=at)
    return edits


def head_edit(
    heads: Sequence[int], replacement: Float[Tensor, "..."] | None, at: Bool[Tensor, " needed"] | None
) -> Edit:
    """An edit that replaces some heads of an activation, or makes their attention patterns uniform if None is given."""

    def edit(activation: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        edited = activation.clone()
        for head in heads:
            if replacement is None:
                edited[:, head] = replace_at(activation[:, head], uniform(activation[:, 0], EVERY), at)
            else:
                edited[:, :, head] = replace_at(activation[:, :, head], replacement[:, :, head], at)
        return edited

    return edit


def plain_predictions(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"], edits: Mapping[str, Edit]
) -> Float[Tensor, "batch point"]:
    """Predictions by the model's own forward pass."""
    needed = model.needed(tokens)
    return model(needed, edits)[:, model.x_tokens(needed)]


@torch.no_grad()
def spot_check(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    components: HeadSet,
    replacements: Substitutes,
    site: Site,
    at: Bool[Tensor, " needed"] | None,
    label: str,
) -> float:
    """The relative difference between the engine in float32 and the model's own forward pass in float64.

    Raises:
        CheckError: it is larger than rounding explains, judged by the forward pass in float32 against itself in
            float64; the message starts with `label`.
    """
    run = trace(model, tokens)
    computed = predict_without(model, run, removal(model, [components], site, at), replacements)[0].double()
    twin = copy.deepcopy(model).double()
    expected = plain_predictions(twin, tokens.double(), plain_edits(components, in_float64(replacements), site, at))
    intact = predictions_of(model, run)
    difference = relative_difference(computed, expected, intact)
    if difference <= ROUNDING:
        return difference
    single = plain_predictions(model, tokens, plain_edits(components, replacements, site, at)).double()
    if not difference <= min(IMPRECISE, AMPLIFIED * relative_difference(single, expected, intact)):
        raise CheckError(f"self-check: {label} differs from its float64 result by {difference:.1e}, relative")
    return difference


def require_agreement(compare: Callable[[AnySetup], Comparison], setup: AnySetup, failure: str) -> None:
    """Refuse predictions that differ by more than rounding.

    A difference above `TOLERANCE` in float32 is accepted only if the predictions agree in float64 (`TOLERANCE_FLOAT64`)
    and it is at most `AMPLIFIED` times the difference of the forward pass in float32 from itself in float64.

    Raises:
        CheckError: they differ by more.
    """
    single = compare(setup)
    if single.difference <= TOLERANCE:
        return
    if single.computed.dtype == torch.float32:
        twin = compare(setup.in_float64())
        rounding = relative_difference(single.expected.double(), twin.expected, twin.intact)
        if twin.difference <= TOLERANCE_FLOAT64 and single.difference <= AMPLIFIED * rounding:
            return
    raise CheckError(f"self-check: {failure} (relative difference {single.difference:.1e})")


def relative_difference(
    computed: Float[Tensor, "batch point"],
    expected: Float[Tensor, "batch point"],
    intact: Float[Tensor, "batch point"],
) -> float:
    """The largest difference over the largest expected or intact prediction.

    Predictions of an ablated model can be small, but their rounding errors are as large as those of the intact model.
    """
    return ((computed - expected).abs().max() / torch.maximum(expected.abs().max(), intact.abs().max())).item()
