"""Self-checks of removals: what should act acts, what should not act does not, and the engine is the forward pass.

Two computations of the same predictions may differ by rounding. Where they differ by more than `TOLERANCE` in float32,
both are repeated in float64: a defect of the engine remains, rounding does not.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.model.engine import (
    EVERY,
    Site,
    Substitutes,
    at_positions,
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

CHECKED = 32  # prompts
TOLERANCE = 1e-5  # relative: the engine against the model's own forward pass
TOLERANCE_FLOAT64 = 1e-9  # the same in float64
AMPLIFIED = 10  # times the rounding of the forward pass: the largest difference in float32 that rounding explains
ROUNDING = 1e-4  # relative: float32 against float64
IMPRECISE = 1e-2  # the same: beyond this float32 results are not reported, whatever the reason

HOOKS: Mapping[Site, str] = {"z": "attn.hook_z", "pattern": "attn.hook_pattern", "value": "attn.hook_v"}


class Comparison(NamedTuple):
    """Predictions that should agree.

    Attributes:
        given: the engine's.
        expected: those of the model's own forward pass.
        intact: of the intact model; differences are relative to the larger of the two.
    """

    given: Float[Tensor, "batch point"]
    expected: Float[Tensor, "batch point"]
    intact: Float[Tensor, "batch point"]

    @property
    def difference(self) -> float:
        return relative_difference(*self)


@runtime_checkable
class HasTwin(Protocol):
    """Everything that a check computes from, which has a twin in float64."""

    def in_float64(self) -> Any: ...


AnySetup = TypeVar("AnySetup", bound=HasTwin)


@dataclass(frozen=True)
class Setup:
    """Everything that a check computes from, in one precision.

    Attributes:
        model: the transformer.
        tokens: of a few prompts.
        given: by mode, the replacement values.
    """

    model: Transformer
    tokens: Float[Tensor, "batch pos dim"]
    given: Mapping[str, Substitutes]

    def in_float64(self) -> "Setup":
        given = {name: in_float64(substitutes) for name, substitutes in self.given.items()}
        return Setup(copy.deepcopy(self.model).double(), self.tokens.double(), given)


def in_float64(substitutes: Substitutes) -> Substitutes:
    return Substitutes(
        [values.double() for values in substitutes.heads], [values.double() for values in substitutes.mlps]
    )


def check_removal(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    components: HeadSet,
    given: Mapping[str, Substitutes],
    site: Site,
    at: Bool[Tensor, " needed"] | None,
) -> dict[str, frozenset[Head]]:
    """Prove on a few prompts that removing `components` acts under every mode, and acts only where it should.

    Returns:
        By mode, the components whose output is already what the mode puts in its place (pruned or constant heads):
        removing these changes nothing.

    Raises:
        CheckError: the empty set or patching a run with itself changes the predictions, a component stays as it was
            although its replacement differs, or the engine differs from the model's own forward pass with the same
            edits.
    """
    setup = Setup(model, tokens, given)
    unvarying = {}
    with torch.no_grad():
        require_agreement(remove_nothing, setup, "removing no head changes the predictions")
        require_agreement(patch_with_itself, setup, "patching a run with itself changes it")
        for name in given:
            unvarying[name] = frozenset(
                component for component in components if not is_changed(setup, component, name, site, at)
            )
            require_agreement(
                lambda twin, name=name: remove(twin, components, name, site, at),
                setup,
                f"{name} ablation in the engine is not that of the forward pass",
            )
    return unvarying


def remove_nothing(setup: Setup) -> Comparison:
    intact = setup.model.predict(setup.tokens)
    return Comparison(predictions_of(setup.model, trace(setup.model, setup.tokens)), intact, intact)


def patch_with_itself(setup: Setup) -> Comparison:
    model, intact = setup.model, setup.model.predict(setup.tokens)
    itself = Substitutes([z[None] for z in own_z(model, setup.tokens)])
    everything = removal(model, [all_heads(model.config.n_layers, model.config.n_heads)])
    patched = predict_without(model, trace(model, setup.tokens), everything, itself)[0]
    return Comparison(patched, intact, intact)


def remove(setup: Setup, components: HeadSet, mode: str, site: Site, at: Bool[Tensor, " needed"] | None) -> Comparison:
    model, substitutes = setup.model, setup.given[mode]
    run = trace(model, setup.tokens)
    engine = predict_without(model, run, removal(model, [components], site, at), substitutes)[0]
    plain = plain_predictions(model, setup.tokens, plain_edits(components, substitutes, site, at))
    return Comparison(engine, plain, model.predict(setup.tokens))


def own_z(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"]
) -> list[Float[Tensor, "batch needed head d_head"]]:
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(model.config.n_layers)]
    seen = read_sites(model, model.needed(tokens), sites)
    return [seen[site] for site in sites]


def is_changed(setup: Setup, component: Head, mode: str, site: Site, at: Bool[Tensor, " needed"] | None) -> bool:
    """Whether the mode changes the component's output (at the site `z`: what it writes into the stream).

    Raises:
        CheckError: its activation stays as it was although the replacement differs from it.
    """
    model, (layer, number) = setup.model, component
    edits = plain_edits((component,), setup.given[mode], site, at)
    ((hook, edit),) = edits.items()
    activation = read_sites(model, model.needed(setup.tokens), [hook])[hook]
    before, after = (of_component(values, number, site) for values in (activation, edit(activation)))
    if torch.equal(before, after) and not torch.equal(before, wanted(setup, component, mode, site, at, before)):
        what = f"head {layer}.{number}" if number != MLP else f"the MLP of layer {layer}"
        written = {"z": "writes (z)", "pattern": "attends to", "value": "reads (v)"}[site]
        written = written if number != MLP else "writes"
        raise CheckError(f"self-check: {mode} ablation leaves what {what} {written} as it was")
    if site == "z" and number != MLP:
        before, after = (values @ model.layers[layer].attn.W_O[number] for values in (before, after))
    return bool((after - before).abs().max() > TOLERANCE * before.abs().max())


def of_component(activation: Float[Tensor, "..."], number: int, site: Site) -> Float[Tensor, "..."]:
    """One head's part of an activation; all of an MLP's."""
    return activation if number == MLP else activation.select(1 if site == "pattern" else 2, number)


def wanted(
    setup: Setup,
    component: Head,
    mode: str,
    site: Site,
    at: Bool[Tensor, " needed"] | None,
    before: Float[Tensor, "batch needed ..."],
) -> Float[Tensor, "batch needed ..."]:
    """What a component should give once it is removed, without the edits that are checked."""
    layer, number = component
    if site == "pattern" and number != MLP:
        replacement = uniform(before, EVERY).expand_as(before)
    else:
        given = setup.given[mode].mlps[layer][0] if number == MLP else setup.given[mode].heads[layer][0][:, :, number]
        replacement = given.expand_as(before)
    if at is None:
        return replacement
    return torch.where(at.view(1, -1, *[1] * (before.ndim - 2)), replacement, before)


def plain_edits(
    components: HeadSet, given: Substitutes, site: Site, at: Bool[Tensor, " needed"] | None
) -> dict[str, Edit]:
    """The removal as edits of the model's own forward pass over the tokens that predictions need."""
    edits: dict[str, Edit] = {}
    for layer in sorted({component.layer for component in components}):
        numbers = [component.number for component in components if component.layer == layer]
        heads = [number for number in numbers if number != MLP]
        if heads:
            substitute = None if site == "pattern" else given.heads[layer][0]
            edits[f"blocks.{layer}.{HOOKS[site]}"] = replace_heads(heads, substitute, at)
        if MLP in numbers:
            edits[f"blocks.{layer}.hook_mlp_out"] = replace_all(given.mlps[layer][0], at)
    return edits


def replace_heads(
    heads: list[int], substitute: Float[Tensor, "..."] | None, at: Bool[Tensor, " needed"] | None
) -> Edit:
    """Put the substitute, or a uniform pattern where there is none, in place of some heads of an activation."""

    def edit(activation: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        edited = activation.clone()
        if substitute is None:
            rows = slice(None) if at is None else at
            even = uniform(activation[:, 0], EVERY)
            for head in heads:
                edited[:, head, rows] = even[rows].expand_as(edited[:, head, rows])
            return edited
        rows = slice(None) if at is None else at
        for head in heads:
            other = at_positions(substitute[:, :, head], EVERY, 1).expand_as(activation[:, :, head])
            edited[:, rows, head] = other[:, rows]
        return edited

    return edit


def replace_all(substitute: Float[Tensor, "..."], at: Bool[Tensor, " needed"] | None) -> Edit:
    def edit(activation: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        other = substitute.expand_as(activation)
        return other if at is None else torch.where(at[:, None], other, activation)

    return edit


def plain_predictions(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"], edits: Mapping[str, Edit]
) -> Float[Tensor, "batch point"]:
    """Predictions through nothing but the model's forward pass."""
    needed = model.needed(tokens)
    return model(needed, edits)[:, model.x_tokens(needed)]


@torch.no_grad()
def spot_check(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    components: HeadSet,
    given: Substitutes,
    site: Site,
    at: Bool[Tensor, " needed"] | None,
    what: str,
) -> float:
    """The relative difference between the engine in float32 and the plain forward pass in float64.

    Raises:
        CheckError: it is larger than rounding explains, the forward pass's own distance from its float64 twin.
    """
    run = trace(model, tokens)
    engine = predict_without(model, run, removal(model, [components], site, at), given)[0].double()
    twin = copy.deepcopy(model).double()
    plain = plain_predictions(twin, tokens.double(), plain_edits(components, in_float64(given), site, at))
    intact = predictions_of(model, run)
    difference = relative_difference(engine, plain, intact)
    if difference <= ROUNDING:
        return difference
    single = plain_predictions(model, tokens, plain_edits(components, given, site, at)).double()
    if not difference <= min(IMPRECISE, AMPLIFIED * relative_difference(single, plain, intact)):
        raise CheckError(f"self-check: {what} differs from its float64 result by {difference:.1e}, relative")
    return difference


def require_agreement(compare: Callable[[AnySetup], Comparison], setup: AnySetup, failure: str) -> None:
    """Refuse predictions that differ by more than rounding.

    Where they differ by more than `TOLERANCE` in float32, they have to agree in float64 (`TOLERANCE_FLOAT64`), and the
    difference in float32 must not exceed `AMPLIFIED` times the rounding of the forward pass, its distance from its own
    float64 twin.

    Raises:
        CheckError: they do.
    """
    single = compare(setup)
    if single.difference <= TOLERANCE:
        return
    if single.given.dtype == torch.float32:
        twin = compare(setup.in_float64())
        rounding = relative_difference(single.expected.double(), twin.expected, twin.intact)
        if twin.difference <= TOLERANCE_FLOAT64 and single.difference <= AMPLIFIED * rounding:
            return
    raise CheckError(f"self-check: {failure} (relative difference {single.difference:.1e})")


def relative_difference(
    given: Float[Tensor, "batch point"],
    wanted: Float[Tensor, "batch point"],
    intact: Float[Tensor, "batch point"],
) -> float:
    """The largest, beside what was computed: what a removal silences is small, and rounding is not relative to that."""
    return ((given - wanted).abs().max() / torch.maximum(wanted.abs().max(), intact.abs().max())).item()
