"""A removal proves that it acted. Silent no-ops are this field's commonest bug (peers.md, section 1)."""

import copy
from collections.abc import Mapping

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
from interp.model.heads import MLP, HeadSet, all_heads
from training.common.errors import CheckError
from training.model.transformer import Edit, Transformer

CHECKED = 32  # prompts
TOLERANCE = 1e-5  # relative: the engine against the model's own forward pass
ROUNDING = 1e-4  # relative: float32 against float64

HOOKS: Mapping[Site, str] = {"z": "attn.hook_z", "pattern": "attn.hook_pattern", "value": "attn.hook_v"}


def check_removal(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    components: HeadSet,
    given: Mapping[str, Substitutes],
    site: Site,
    at: Bool[Tensor, " needed"] | None,
) -> None:
    """Prove on a few prompts that removing `components` acts under every mode, and acts only where it should.

    Raises:
        CheckError: the empty set or patching a run with itself changes the predictions, a component stays as it was, or
            the engine differs from the model's own forward pass with the same edits.
    """
    run, intact = trace(model, tokens), model.predict(tokens)
    everything = all_heads(model.config.n_layers, model.config.n_heads)
    with torch.no_grad():
        require_equal(predictions_of(model, run), intact, intact, "removing no head changes the predictions")
        itself = Substitutes([z[None] for z in own_z(model, tokens)])
        patched = predict_without(model, run, removal(model, [everything]), itself)[0]
        require_equal(patched, intact, intact, "patching a run with itself changes it")
        for name, substitutes in given.items():
            edits = plain_edits(components, substitutes, site, at)
            for component in components:
                require_change(model, tokens, component, edits, name, site)
            engine = predict_without(model, run, removal(model, [components], site, at), substitutes)[0]
            plain = plain_predictions(model, tokens, edits)
            require_equal(engine, plain, intact, f"{name} ablation in the engine is not that of the forward pass")


def own_z(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"]
) -> list[Float[Tensor, "batch needed head d_head"]]:
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(model.config.n_layers)]
    seen = read_sites(model, model.needed(tokens), sites)
    return [seen[site] for site in sites]


def require_change(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    component: tuple[int, int],
    edits: Mapping[str, Edit],
    name: str,
    site: Site,
) -> None:
    """What the component gives has to differ from what it gave."""
    layer, number = component
    hook = "hook_mlp_out" if number == MLP else HOOKS[site]
    place = f"blocks.{layer}.{hook}"
    before = read_sites(model, model.needed(tokens), [place])[place]
    after = edits[place](before)
    if number != MLP:
        axis = 1 if site == "pattern" else 2
        before, after = before.select(axis, number), after.select(axis, number)
    if torch.equal(before, after):
        what = f"head {layer}.{number}" if number != MLP else f"the MLP of layer {layer}"
        written = (
            {"z": "writes (z)", "pattern": "attends to", "value": "reads (v)"}[site] if number != MLP else "writes"
        )
        raise CheckError(f"self-check: {name} ablation leaves what {what} {written} as it was")


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
        CheckError: it is larger than rounding explains.
    """
    run = trace(model, tokens)
    engine = predict_without(model, run, removal(model, [components], site, at), given)[0].double()
    exact = Substitutes([one.double() for one in given.heads], [one.double() for one in given.mlps])
    twin = copy.deepcopy(model).double()
    plain = plain_predictions(twin, tokens.double(), plain_edits(components, exact, site, at))
    difference = relative_difference(engine, plain, predictions_of(model, run))
    if not difference <= ROUNDING:
        raise CheckError(f"self-check: {what} differs from its float64 result by {difference:.1e}, relative")
    return difference


def require_equal(
    given: Float[Tensor, "batch point"],
    wanted: Float[Tensor, "batch point"],
    intact: Float[Tensor, "batch point"],
    failure: str,
) -> None:
    difference = relative_difference(given, wanted, intact)
    if not difference <= TOLERANCE:
        raise CheckError(f"self-check: {failure} (relative difference {difference:.1e})")


def relative_difference(
    given: Float[Tensor, "batch point"],
    wanted: Float[Tensor, "batch point"],
    intact: Float[Tensor, "batch point"],
) -> float:
    """The largest, beside what was computed: what a removal silences is small, and rounding is not relative to that."""
    return ((given - wanted).abs().max() / torch.maximum(wanted.abs().max(), intact.abs().max())).item()
