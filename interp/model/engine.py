"""Predictions of a model with components removed, computed exactly and only as far as the removal changes them.

1. `trace` runs a batch once and keeps every layer's resid_pre and z.
2. `predict_without` starts from the trace at the first changed layer, for many sets of components at once: earlier
   layers are shared, in the first changed layer only z W_O of the removed heads is replaced, and in the last layer only
   the tokens with a measured prediction are computed.
3. `direct_without` changes only what the removed components themselves write into the final residual stream.

`model(prompt, edits)` is the general path for any site. All of them must agree with each other and with
HookedTransformer's hooks (tests/interp/model/test_engine.py).

Only the same computation gives the same bits. Predictions computed in other shapes (more variants in a pass, another
first layer, fewer pairs) differ by rounding, at most 1e-6 of the largest (concepts/limits.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
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
    "pattern": "its attention pattern only, made uniform over visible tokens; its values stay",
    "value": "its values only; its attention pattern stays",
}
HOOKS: Mapping[Site, str] = {"z": "attn.hook_z", "pattern": "attn.hook_pattern", "value": "attn.hook_v"}


def check_site(name: str) -> Site:
    """The site that `--site NAME` names.

    Raises:
        UserError: there is no such site.
    """
    if name not in SITES:
        raise one_of("--site", name, SITES)
    return cast(Site, name)


@dataclass(frozen=True)
class Trace:
    """Activations recorded in one forward pass.

    Attributes:
        resid_pre: by layer, the residual stream before it, at all tokens except the last y, which no prediction needs.
        z: by layer, each head's weighted sum of values, at the same tokens; in the last layer at the x tokens only.
        resid_mid: by layer, the residual stream between attention and MLP, at the tokens of its z.
        resid_post: the residual stream after the last layer, at the x tokens.
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
    """Replacement values of removed components by layer, at the tokens of `Trace.resid_pre`; axes of 1 are broadcast.

    Attributes:
        heads: replacements of z or, at the site `value`, of v; unused at the site `pattern`.
        mlps: replacements of mlp_out; may be empty if no MLP is removed.
    """

    heads: Sequence[Float[Tensor, "#variant #batch #pos head d_head"]]
    mlps: Sequence[Float[Tensor, "#variant #batch #pos d_model"]] = ()


@torch.no_grad()
def trace(model: Transformer, tokens: Float[Tensor, "batch pos dim"]) -> Trace:
    """Run the model once and record the activations from which removals start."""
    recorded: dict[str, list[Tensor]] = {"hook_resid_pre": [], "attn.hook_z": [], "hook_resid_mid": []}
    record = Sites({site: partial(append_to, activations) for site, activations in recorded.items()})
    resid = model.read_in(model.needed(tokens))
    resid = model.run_layers(resid, lambda _: record, queries=model.x_tokens(resid))
    norms = [(block.ln1, block.ln2 if block.has_mlp else None) for block in model.layers]
    resid_pre, z, resid_mid = recorded.values()
    return Trace(resid_pre, z, resid_mid, resid, norms)


def append_to(recorded: list[Tensor], activation: Tensor) -> Tensor:
    """An edit that changes nothing and keeps the activation."""
    recorded.append(activation)
    return activation


def predictions_of(model: Transformer, run: Trace) -> Float[Tensor, "batch point"]:
    """The predictions of the intact model, from its trace."""
    return model.read_out(run.resid_post)


@dataclass(frozen=True)
class Removal:
    """Which components are removed in each of several variants, at which site and tokens.

    Attributes:
        heads: masks of removed heads by layer; layers without any are left out.
        mlps: masks of the variants in which a layer's MLP is removed, by layer; layers without any are left out.
        n_variants: number of variants.
        site: where heads are removed.
        tokens: mask of the tokens at which components are removed; None means all. At the site `pattern` these are the
            query tokens, at `value` the key tokens.
    """

    heads: Mapping[int, Bool[Tensor, "variant head"]]
    mlps: Mapping[int, Bool[Tensor, " variant"]]
    n_variants: int
    site: Site = "z"
    tokens: Bool[Tensor, " pos"] | None = None

    @property
    def first(self) -> int | None:
        """The first layer with a removed component; None if there is none."""
        return min([*self.heads, *self.mlps], default=None)

    def mask_at(self, mask: Bool[Tensor, "variant ..."], positions: Positions, axes: str) -> Bool[Tensor, "..."]:
        """The mask with an added axis `pos` for the tokens of the removal, rearranged to `axes`."""
        everywhere = torch.ones(1, dtype=torch.bool, device=mask.device)
        tokens = everywhere if self.tokens is None else self.tokens[positions]
        return rearrange(mask[..., None] & tokens, axes)


def removal(
    model: Transformer, sets: Sequence[HeadSet], site: Site = "z", tokens: Bool[Tensor, " pos"] | None = None
) -> Removal:
    """The removal of each of these sets as one variant."""
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
    """The predictions with components removed; later components are recomputed from the changed stream.

    Args:
        model: the transformer that gave `run`.
        run: its trace on some prompts.
        removed: the components to remove.
        given: their replacement values.
        points: the pairs to predict.
        freeze_ln: keep every later norm's scale as in the intact run (Rushing & Nanda, arXiv 2402.15390); a model
            without norms has none, so there it changes nothing.
    """
    first, n_variants = removed.first, removed.n_variants
    if first is None:
        return predictions_of(model, run)[None, :, points].expand(n_variants, -1, -1)

    def sites(layer: int) -> Sites:
        return Sites(layer_edits(model, run, removed, given, layer, points, freeze_ln))

    if removed.site == "z":
        block, positions = model.layers[first], needed_positions(model, first, run.resid_pre[0], points)
        resid_mid = resid_mid_with_replaced_heads(block, run, removed, given, first, positions, points)
        resid = block.transform(resid_mid, sites(first))
        first += 1
    else:
        resid = repeat_for_variants(run.resid_pre[first], n_variants)
    x_tokens = needed_positions(model, model.config.n_layers - 1, run.resid_pre[0], points)
    resid = model.run_layers(resid, sites, first=first, queries=x_tokens)
    at = UNTOUCHED
    if freeze_ln and model.ln_final.scaled:
        scale = model.ln_final.scale(run.resid_post[:, points])
        at = Sites({"ln_final.hook_scale": constant_edit(scale, n_variants)})
    return model.read_out(resid, at).unflatten(0, (n_variants, -1))


def direct_without(
    model: Transformer, run: Trace, removed: Removal, given: Substitutes, *, points: slice = EVERY
) -> Float[Tensor, "variant batch point"]:
    """The predictions if removed components change the final residual stream only (the direct effect).

    Every other component keeps its output of the intact run, so that none can compensate; the final LayerNorm is
    applied to the changed stream.
    """
    n_variants = removed.n_variants
    x_tokens = needed_positions(model, model.config.n_layers - 1, run.resid_pre[0], points)
    resid = repeat_for_variants(run.resid_post[:, points], n_variants)
    for layer in sorted({*removed.heads, *removed.mlps}):
        block = model.layers[layer]
        at = Sites(layer_edits(model, run, removed, given, layer, points, freeze_ln=False, positions=x_tokens))
        if layer in removed.heads:
            z = select_points(model, run.z, layer, points)
            if removed.site == "z":
                changed = at("attn.hook_z", repeat_for_variants(z, n_variants))
            else:
                changed = block.mix(repeat_for_variants(run.resid_pre[layer], n_variants), at, x_tokens)
            resid = resid + block.attn.write(changed) - repeat_for_variants(block.attn.write(z), n_variants)
        if layer in removed.mlps:
            resid_mid = select_points(model, run.resid_mid, layer, points)
            mlp_out = repeat_for_variants(block.mlp_out(resid_mid), n_variants)
            resid = resid + at("hook_mlp_out", mlp_out) - mlp_out
    return model.read_out(resid).unflatten(0, (n_variants, -1))


def select_points(
    model: Transformer, by_layer: Sequence[Float[Tensor, "batch _ *rest"]], layer: int, points: slice
) -> Float[Tensor, "batch _ *rest"]:
    """One layer's activations in a trace, at the x tokens of these pairs."""
    last = model.config.n_layers - 1
    return by_layer[layer][:, points if layer == last else needed_positions(model, last, by_layer[0], points)]


def resid_mid_with_replaced_heads(
    block: Block,
    run: Trace,
    removed: Removal,
    given: Substitutes,
    layer: int,
    positions: Positions,
    points: slice,
) -> Float[Tensor, "variant_batch pos d_model"]:
    """resid_mid of the first changed layer: that of the intact run, with the removed heads' z W_O replaced."""
    recorded = EVERY if positions is EVERY else points
    z, intact = run.z[layer][:, recorded], run.resid_mid[layer][:, recorded]
    if layer not in removed.heads:
        return repeat_for_variants(intact, removed.n_variants)
    numbers, is_used = pad_head_numbers(removed.heads[layer])
    variants = torch.arange(len(numbers), device=numbers.device)[:, None]
    intact_z = z.movedim(2, 0)[numbers]  # variant slot batch pos d_head
    replacement = at_positions(given.heads[layer], positions, 2).expand(len(numbers), -1, -1, -1, -1)
    change = replacement.movedim(3, 1)[variants, numbers] - intact_z
    if removed.tokens is not None:
        change = change * removed.tokens[positions][:, None]
    changed = torch.baddbmm(
        intact.flatten(0, 1).expand(len(numbers), -1, -1),
        rearrange(change, "variant slot batch pos d_head -> variant (batch pos) (slot d_head)"),
        (block.attn.W_O[numbers] * is_used[..., None, None]).flatten(1, 2),
    )
    return changed.view(-1, *intact.shape[1:])


def pad_head_numbers(
    heads: Bool[Tensor, "variant head"],
) -> tuple[Int[Tensor, "variant slot"], Bool[Tensor, "variant slot"]]:
    """The numbers of each variant's heads in as many slots as the largest set needs, and which slots are used.

    >>> pad_head_numbers(torch.tensor([[False, True, True], [True, False, False]]))
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
    """The removal in one layer as edits of its sites, for a batch that repeats every prompt for each variant."""
    edits: dict[str, Edit] = {}
    if positions is None:
        positions = needed_positions(model, layer, run.resid_pre[0], points)
    n_variants = removed.n_variants
    if layer in removed.heads:
        heads = removed.heads[layer]
        if removed.site == "pattern":
            mask = removed.mask_at(heads, positions, "variant head pos -> variant 1 head pos 1")
            edits[HOOKS["pattern"]] = replacement_edit(mask, uniform(run.resid_pre[layer], positions), n_variants)
        else:
            tokens = EVERY if removed.site == "value" else positions
            mask = removed.mask_at(heads, tokens, "variant head pos -> variant 1 pos head 1")
            replacement = at_positions(given.heads[layer], tokens, 2)
            edits[HOOKS[removed.site]] = replacement_edit(mask, replacement, n_variants)
    if layer in removed.mlps:
        mask = removed.mask_at(removed.mlps[layer], positions, "variant pos -> variant 1 pos 1")
        edits["hook_mlp_out"] = replacement_edit(mask, at_positions(given.mlps[layer], positions, 2), n_variants)
    if freeze_ln and model.ln_final.scaled:
        first_scale, second_scale = run.scales[layer]
        edits["ln1.hook_scale"] = constant_edit(first_scale, n_variants)
        if second_scale is not None:
            is_last = layer == model.config.n_layers - 1
            edits["ln2.hook_scale"] = constant_edit(second_scale[:, points] if is_last else second_scale, n_variants)
    return edits


def replacement_edit(mask: Bool[Tensor, "variant ..."], replacement: Float[Tensor, "..."], n_variants: int) -> Edit:
    """An edit that puts the replacement where the mask holds.

    Its result is contiguous: the memory layout decides how torch multiplies it next, and so how that is rounded.
    """

    def edit(activation: Float[Tensor, "variant_batch ..."]) -> Float[Tensor, "variant_batch ..."]:
        return torch.where(mask, replacement, activation.unflatten(0, (n_variants, -1))).flatten(0, 1).contiguous()

    return edit


def constant_edit(value: Float[Tensor, "batch ..."], n_variants: int) -> Edit:
    return lambda _: repeat_for_variants(value, n_variants)


def repeat_for_variants(activation: Float[Tensor, "batch ..."], n_variants: int) -> Float[Tensor, "variant_batch ..."]:
    """The activation once for every variant, variants first."""
    return activation.expand(n_variants, *activation.shape).flatten(0, 1)


def at_positions(activation: Float[Tensor, "..."], positions: Positions, axis: int) -> Float[Tensor, "..."]:
    """The activation at these tokens; an axis of length 1 is kept, as it stands for all tokens."""
    if positions is EVERY or activation.shape[axis] == 1:
        return activation
    return activation[(slice(None),) * axis + (positions,)]


def uniform(resid: Float[Tensor, "batch pos d_model"], positions: Positions) -> Float[Tensor, "query_pos key_pos"]:
    """The attention pattern with equal weight on every token visible to a query."""
    n_pos = resid.shape[1]
    visible = resid.new_ones(n_pos, n_pos).tril()
    return (visible / visible.sum(1, keepdim=True))[positions]


def needed_positions(
    model: Transformer, layer: int, stream: Float[Tensor, "batch pos *rest"], points: slice = EVERY
) -> Positions:
    """The positions at which a layer's z is needed: all; in the last layer the x tokens of the measured pairs."""
    if layer < model.config.n_layers - 1:
        return EVERY
    x_tokens = model.x_tokens(stream)
    return x_tokens if points is EVERY else torch.arange(stream.shape[1], device=stream.device)[x_tokens][points]


def read_sites(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    sites: Sequence[str],
    edits: Mapping[str, Edit] | None = None,
) -> dict[str, Float[Tensor, "..."]]:
    """The activations at named sites, with edits of other sites in force.

    Raises:
        ValueError: there is no such site.
    """
    activations: dict[str, Tensor] = {}

    def record(site: str) -> Edit:
        def edit(activation: Tensor) -> Tensor:
            activations[site] = activation
            return activation

        return edit

    with torch.no_grad():
        model(tokens, {**(edits or {}), **{site: record(site) for site in sites}})
    return activations
