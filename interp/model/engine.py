"""Runs a model with components removed, exactly, doing only the work that a removal makes necessary.

1. `trace` runs a batch once and keeps every layer's resid_pre and z.
2. `predict_without` starts from the trace at the first layer that changes, for many sets of components at once: what
   comes before is shared, in that layer only the removed heads' z W_O is exchanged, and in the last layer only the
   tokens whose predictions are measured are computed.
3. `direct_without` changes nothing but the final residual stream: what the removed components write to it themselves.

The general path for any site is `model(prompt, edits)`; all must agree with each other and with HookedTransformer's
hooks (tests/interp/model/test_engine.py).

Equal bits are promised for the same computation only. Predictions that are computed in other shapes (more variants in a
pass, another first layer, fewer pairs) differ by rounding, at most 1e-6 of the largest (concepts/limits.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.model.heads import MLP, HeadSet
from training.common.errors import one_of
from training.model.norms import Norm
from training.model.sites import UNTOUCHED, Edit, Sites
from training.model.transformer import EVERY, Block, Transformer
from training.tasks.prompts import Positions

Site = Literal["z", "pattern", "value"]
SITES: Mapping[Site, str] = {
    "z": "the head's output before W_O",
    "pattern": "its attention only: uniform over what it may see, its own values",
    "value": "its values only: its own attention",
}


def check_site(name: str) -> Site:
    """The site behind `--site NAME`.

    Raises:
        UserError: there is none.
    """
    if name not in SITES:
        raise one_of("--site", name, SITES)
    return cast(Site, name)


@dataclass(frozen=True)
class Trace:
    """What one pass leaves behind.

    Attributes:
        resid_pre: by layer, the residual stream before it, at all tokens but the last y, which no prediction needs.
        z: by layer, each head's mix of values, at the same tokens; in the last layer at the x tokens only.
        resid_mid: by layer, the residual stream between attention and MLP, at the tokens of its z.
        resid_post: after the last layer, at the x tokens.
        norms: by layer, those before attention and before the MLP (None without one).
    """

    resid_pre: list[Float[Tensor, "batch pos d_model"]]
    z: list[Float[Tensor, "batch _ head d_head"]]
    resid_mid: list[Float[Tensor, "batch _ d_model"]]
    resid_post: Float[Tensor, "batch point d_model"]
    norms: Sequence[tuple[Norm, Norm | None]]

    @cached_property
    def scales(self) -> list[tuple[Float[Tensor, "batch pos 1"], Float[Tensor, "batch _ 1"] | None]]:
        """By layer, what the norms before attention and before the MLP divide by, at the tokens of their input."""
        return [
            (before.scale(pre), between and between.scale(mid))
            for (before, between), pre, mid in zip(self.norms, self.resid_pre, self.resid_mid, strict=True)
        ]


class Substitutes(NamedTuple):
    """By layer, what removed components give instead, at the tokens of `Trace.resid_pre`; axes of 1 are broadcast.

    Attributes:
        heads: z or, at the site `value`, v; not read at the site `pattern`.
        mlps: mlp_out; may be empty where no MLP is removed.
    """

    heads: Sequence[Float[Tensor, "#variant #batch #pos head d_head"]]
    mlps: Sequence[Float[Tensor, "#variant #batch #pos d_model"]] = ()


@torch.no_grad()
def trace(model: Transformer, tokens: Float[Tensor, "batch pos dim"]) -> Trace:
    """Run the model and keep what removals start from."""
    resid = model.read_in(model.needed(tokens))
    resid_pre, zs, resid_mid = [], [], []
    for layer, block in enumerate(model.layers):
        positions = queries(model, layer, resid)
        z = block.mix(resid, queries=positions)
        resid_pre.append(resid)
        zs.append(z)
        resid_mid.append(resid[:, positions] + block.attn.write(z))
        resid = block.transform(resid_mid[-1])
    norms = [(block.ln1, block.ln2 if block.has_mlp else None) for block in model.layers]
    return Trace(resid_pre, zs, resid_mid, resid, norms)


def predictions_of(model: Transformer, run: Trace) -> Float[Tensor, "batch point"]:
    """The intact predictions."""
    return model.read_out(run.resid_post)


@dataclass(frozen=True)
class Removal:
    """Which components are removed, in several variants at once, and how.

    Attributes:
        heads: by layer, which heads; layers without any are left out.
        mlps: by layer, in which variants its MLP.
        n_variants: how many.
        site: of heads.
        tokens: at which tokens; None is all. At the site `pattern` these are the queries, at `value` the keys.
    """

    heads: Mapping[int, Bool[Tensor, "variant head"]]
    mlps: Mapping[int, Bool[Tensor, " variant"]]
    n_variants: int
    site: Site = "z"
    tokens: Bool[Tensor, " pos"] | None = None

    @property
    def first(self) -> int | None:
        """The first layer that changes; None if nothing is removed."""
        return min([*self.heads, *self.mlps], default=None)

    def acting(self, mask: Bool[Tensor, "variant ..."], positions: Positions, axes: str) -> Bool[Tensor, "..."]:
        """The mask with an axis `pos` for the tokens at which the removal acts, rearranged to `axes`."""
        everywhere = torch.ones(1, dtype=torch.bool, device=mask.device)
        tokens = everywhere if self.tokens is None else self.tokens[positions]
        return rearrange(mask[..., None] & tokens, axes)


def removal(
    model: Transformer, sets: Sequence[HeadSet], site: Site = "z", tokens: Bool[Tensor, " pos"] | None = None
) -> Removal:
    """The removal of each of these sets, as masks."""
    heads: dict[int, Tensor] = {}
    mlps: dict[int, Tensor] = {}
    for variant, components in enumerate(sets):
        for layer, number in components:
            if number == MLP:
                mlps.setdefault(layer, torch.zeros(len(sets), dtype=torch.bool))[variant] = True
            else:
                empty = torch.zeros(len(sets), model.config.n_heads, dtype=torch.bool)
                heads.setdefault(layer, empty)[variant, number] = True
    on_device = [{layer: mask.to(model.device) for layer, mask in masks.items()} for masks in (heads, mlps)]
    return Removal(on_device[0], on_device[1], len(sets), site, None if tokens is None else tokens.to(model.device))


def predict_without(
    model: Transformer,
    run: Trace,
    removed: Removal,
    given: Substitutes,
    *,
    points: slice = EVERY,
    freeze_ln: bool = False,
) -> Float[Tensor, "variant batch point"]:
    """The predictions when components give `given` instead of their own output; the others react to it.

    Args:
        model: the transformer behind `run`.
        run: its trace on some prompts.
        removed: the components.
        given: what they give instead.
        points: the pairs whose predictions are wanted.
        freeze_ln: keep every later norm's scale as in the intact run (Rushing & Nanda, arXiv 2402.15390); a model
            without norms has none, so there it changes nothing.
    """
    first, n_variants = removed.first, removed.n_variants
    if first is None:
        return predictions_of(model, run)[None, :, points].expand(n_variants, -1, -1)
    resid = run.resid_pre[first]
    for layer in range(first, model.config.n_layers):
        block, positions = model.layers[layer], queries(model, layer, run.resid_pre[0], points)
        at = Sites(layer_edits(model, run, removed, given, layer, points, freeze_ln))
        if layer == first and removed.site == "z":
            resid_mid = exchanged(block, run, removed, given, layer, positions, points)
        else:
            if layer == first:
                resid = stacked(resid, n_variants)
            resid_mid = resid[:, positions] + block.attn.write(block.mix(resid, at, positions))
        resid = block.transform(resid_mid, at)
    at = UNTOUCHED
    if freeze_ln and model.ln_final.scaled:
        at = Sites({"ln_final.hook_scale": fixed(model.ln_final.scale(run.resid_post[:, points]), n_variants)})
    return model.read_out(resid, at).unflatten(0, (n_variants, -1))


def direct_without(
    model: Transformer, run: Trace, removed: Removal, given: Substitutes, *, points: slice = EVERY
) -> Float[Tensor, "variant batch point"]:
    """The predictions when only what the components write into the final residual stream changes.

    Every other component gives what it gives in the intact run, so nothing can make up for the loss; the final
    LayerNorm sees the change.
    """
    n_variants = removed.n_variants
    x_tokens = queries(model, model.config.n_layers - 1, run.resid_pre[0], points)
    resid = stacked(run.resid_post[:, points], n_variants)
    for layer in sorted({*removed.heads, *removed.mlps}):
        block = model.layers[layer]
        at = Sites(layer_edits(model, run, removed, given, layer, points, freeze_ln=False, positions=x_tokens))
        if layer in removed.heads:
            z = at_points(model, run.z, layer, points)
            if removed.site == "z":
                changed = at("attn.hook_z", stacked(z, n_variants))
            else:
                changed = block.mix(stacked(run.resid_pre[layer], n_variants), at, x_tokens)
            resid = resid + block.attn.write(changed) - stacked(block.attn.write(z), n_variants)
        if layer in removed.mlps:
            mlp_out = stacked(block.mlp_out(at_points(model, run.resid_mid, layer, points)), n_variants)
            resid = resid + at("hook_mlp_out", mlp_out) - mlp_out
    return model.read_out(resid).unflatten(0, (n_variants, -1))


def at_points(
    model: Transformer, by_layer: Sequence[Float[Tensor, "batch _ *rest"]], layer: int, points: slice
) -> Float[Tensor, "batch _ *rest"]:
    """One layer's activations, as a trace keeps them, at the x tokens of these pairs."""
    last = model.config.n_layers - 1
    return by_layer[layer][:, points if layer == last else queries(model, last, by_layer[0], points)]


def exchanged(
    block: Block,
    run: Trace,
    removed: Removal,
    given: Substitutes,
    layer: int,
    positions: Positions,
    points: slice,
) -> Float[Tensor, "variant_batch pos d_model"]:
    """resid_mid of the first layer that changes: the intact one, with the removed heads' z W_O exchanged."""
    kept = EVERY if positions is EVERY else points
    z, intact = run.z[layer][:, kept], run.resid_mid[layer][:, kept]
    if layer not in removed.heads:
        return stacked(intact, removed.n_variants)
    numbers, used = padded(removed.heads[layer])
    variants = torch.arange(len(numbers), device=numbers.device)[:, None]
    own = z.movedim(2, 0)[numbers]  # variant slot batch pos d_head
    other = at_positions(given.heads[layer], positions, 2).expand(len(numbers), -1, -1, -1, -1)
    change = other.movedim(3, 1)[variants, numbers] - own
    if removed.tokens is not None:
        change = change * removed.tokens[positions][:, None]
    changed = torch.baddbmm(
        intact.flatten(0, 1).expand(len(numbers), -1, -1),
        rearrange(change, "variant slot batch pos d_head -> variant (batch pos) (slot d_head)"),
        (block.attn.W_O[numbers] * used[..., None, None]).flatten(1, 2),
    )
    return changed.view(-1, *intact.shape[1:])


def padded(heads: Bool[Tensor, "variant head"]) -> tuple[Int[Tensor, "variant slot"], Bool[Tensor, "variant slot"]]:
    """The heads' numbers, as many slots as the largest set has, and which slots are used.

    >>> padded(torch.tensor([[False, True, True], [True, False, False]]))
    (tensor([[1, 2],
            [0, 1]]), tensor([[ True,  True],
            [ True, False]]))
    """
    n_slots = max(1, int(heads.sum(1).max()))
    order = heads.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n_slots]
    return order, heads.gather(1, order)


def layer_edits(
    model: Transformer,
    run: Trace,
    removed: Removal,
    given: Substitutes,
    layer: int,
    points: slice,
    freeze_ln: bool,
    positions: Positions | None = None,
) -> dict[str, Edit]:
    """The removal inside one layer as edits of its sites, on a batch of stacked variants."""
    edits: dict[str, Edit] = {}
    if positions is None:
        positions = queries(model, layer, run.resid_pre[0], points)
    n_variants = removed.n_variants
    if layer in removed.heads:
        heads = removed.heads[layer]
        if removed.site == "pattern":
            mask = removed.acting(heads, positions, "variant head pos -> variant 1 head pos 1")
            edits["attn.hook_pattern"] = replaced(mask, uniform(run.resid_pre[layer], positions), n_variants)
        else:
            where = EVERY if removed.site == "value" else positions
            mask = removed.acting(heads, where, "variant head pos -> variant 1 pos head 1")
            substitute = at_positions(given.heads[layer], where, 2)
            edits["attn.hook_v" if removed.site == "value" else "attn.hook_z"] = replaced(mask, substitute, n_variants)
    if layer in removed.mlps:
        mask = removed.acting(removed.mlps[layer], positions, "variant pos -> variant 1 pos 1")
        edits["hook_mlp_out"] = replaced(mask, at_positions(given.mlps[layer], positions, 2), n_variants)
    if freeze_ln and model.ln_final.scaled:
        before, between = run.scales[layer]
        edits["ln1.hook_scale"] = fixed(before, n_variants)
        if between is not None:
            last = layer == model.config.n_layers - 1
            edits["ln2.hook_scale"] = fixed(between[:, points] if last else between, n_variants)
    return edits


def replaced(mask: Bool[Tensor, "variant ..."], substitute: Float[Tensor, "..."], n_variants: int) -> Edit:
    """Contiguous, because the layout chooses the product behind it: one, or one per prompt, rounded otherwise."""

    def edit(activation: Float[Tensor, "variant_batch ..."]) -> Float[Tensor, "variant_batch ..."]:
        return torch.where(mask, substitute, activation.unflatten(0, (n_variants, -1))).flatten(0, 1).contiguous()

    return edit


def fixed(value: Float[Tensor, "batch ..."], n_variants: int) -> Edit:
    return lambda _: stacked(value, n_variants)


def stacked(activation: Float[Tensor, "batch ..."], n_variants: int) -> Float[Tensor, "variant_batch ..."]:
    """The same for every variant."""
    return activation.expand(n_variants, *activation.shape).flatten(0, 1)


def at_positions(activation: Float[Tensor, "..."], positions: Positions, axis: int) -> Float[Tensor, "..."]:
    """The activation at these tokens; a single one stands for all."""
    if positions is EVERY or activation.shape[axis] == 1:
        return activation
    return activation[(slice(None),) * axis + (positions,)]


def uniform(resid: Float[Tensor, "batch pos d_model"], positions: Positions) -> Float[Tensor, "query_pos key_pos"]:
    """Equal attention to every token that a query may see."""
    n_pos = resid.shape[1]
    visible = resid.new_ones(n_pos, n_pos).tril()
    return (visible / visible.sum(1, keepdim=True))[positions]


def queries(
    model: Transformer, layer: int, stream: Float[Tensor, "batch pos *rest"], points: slice = EVERY
) -> Positions:
    """The positions at which a layer's z is needed: all, in the last layer the x tokens of the measured pairs."""
    if layer < model.config.n_layers - 1:
        return EVERY
    x_tokens = model.x_tokens(stream)
    return x_tokens if points is EVERY else torch.arange(stream.shape[1], device=stream.device)[x_tokens][points]


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
