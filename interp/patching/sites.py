"""The places where an activation can be patched, and patches as values: which heads of which layer at which tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from interp.model.heads import HeadSet
from training.common.errors import one_of
from training.model.sites import Edit
from training.model.transformer import EVERY
from training.tasks.prompts import Positions


class Site(NamedTuple):
    """A kind of activation in every layer.

    Attributes:
        hook: its TransformerLens name inside the block.
        definition: for people.
        by_head: whether it has an axis of heads.
        of_keys: whether its tokens are those that are looked at; all others' tokens are those that look.
    """

    hook: str
    definition: str
    by_head: bool = False
    of_keys: bool = False


SITES: Mapping[str, Site] = {
    "resid_pre": Site("hook_resid_pre", "the residual stream before the layer", of_keys=True),
    "resid_mid": Site("hook_resid_mid", "the residual stream between attention and MLP"),
    "resid_post": Site("hook_resid_post", "the residual stream after the layer"),
    "attn_out": Site("hook_attn_out", "what all heads of the layer write"),
    "mlp_out": Site("hook_mlp_out", "what its MLP writes"),
    "z": Site("attn.hook_z", "a head's output before W_O", by_head=True),
    "q": Site("attn.hook_q", "a head's queries", by_head=True),
    "k": Site("attn.hook_k", "a head's keys", by_head=True, of_keys=True),
    "v": Site("attn.hook_v", "a head's values", by_head=True, of_keys=True),
    "pattern": Site("attn.hook_pattern", "a head's attention, by the token that looks", by_head=True),
}


def check_site(name: str) -> Site:
    """The site behind `--site NAME`.

    Raises:
        UserError: there is none.
    """
    if name not in SITES:
        raise one_of("--site", name, SITES)
    return SITES[name]


def hook_of(site: str, layer: int) -> str:
    """The full hook name.

    >>> hook_of("z", 3)
    'blocks.3.attn.hook_z'
    """
    return f"blocks.{layer}.{SITES[site].hook}"


class Patch(NamedTuple):
    """One activation of one layer that comes from another run.

    Attributes:
        site: a name in `SITES`.
        layer: of the model.
        heads: their numbers, at sites with heads.
        tokens: at which tokens; None is all that predictions need.
    """

    site: str
    layer: int
    heads: tuple[int, ...] = ()
    tokens: Bool[Tensor, " pos"] | None = None


Variant = tuple[Patch, ...]
"""Patches that act together."""

Given = Mapping[tuple[int, str], Float[Tensor, "batch _ ..."]]
"""By layer and site, the activations to patch in, at every token that predictions need."""


def head_patches(site: str, heads: HeadSet, tokens: Bool[Tensor, " pos"] | None = None) -> Variant:
    """The same site of several heads, in any layers.

    >>> from interp.model.heads import Head
    >>> [(one.layer, one.heads) for one in head_patches("z", (Head(0, 1), Head(0, 3), Head(2, 0)))]
    [(0, (1, 3)), (2, (0,))]
    """
    layers = sorted({head.layer for head in heads})
    return tuple(
        Patch(site, layer, tuple(head.number for head in heads if head.layer == layer), tokens) for layer in layers
    )


@dataclass(frozen=True)
class Patches:
    """Several variants as masks, to be run together.

    Attributes:
        masks: by layer and site, where each variant patches; sites without heads have one of them.
        n_variants: how many.
    """

    masks: Mapping[tuple[int, str], Bool[Tensor, "variant pos head"]]
    n_variants: int

    @property
    def first(self) -> int | None:
        """The first layer that changes; None if none does."""
        return min((layer for layer, _ in self.masks), default=None)

    @cached_property
    def start(self) -> int:
        """The first token that changes: what comes before it sees nothing of a patch."""
        touched = torch.stack([mask.any(dim=2).any(dim=0) for mask in self.masks.values()]).any(dim=0)
        return int(touched.nonzero()[0])

    def edits(self, layer: int, start: int, queries: Positions, given: Given) -> dict[str, Edit]:
        """The patches of one layer as edits of its sites, on a batch of stacked variants over tokens from `start`."""
        edits: dict[str, Edit] = {}
        for (place, name), mask in self.masks.items():
            if place == layer:
                positions = EVERY if SITES[name].of_keys else queries
                at_tokens = given[layer, name].narrow(1 if name != "pattern" else 2, start, mask.shape[1] - start)
                edits[SITES[name].hook] = edit_of(name, mask[:, start:][:, positions], at_tokens, positions)
        return edits


def edit_of(
    name: str, mask: Bool[Tensor, "variant pos head"], source: Float[Tensor, "batch ..."], positions: Positions
) -> Edit:
    """The source where the mask says so."""
    if name == "pattern":
        where, source = rearrange(mask, "variant pos head -> variant 1 head pos 1"), source[:, :, positions]
    else:
        where, source = mask[:, None], source[:, positions]
        where = where[..., None] if SITES[name].by_head else where

    def edit(activation: Float[Tensor, "variant_batch ..."]) -> Float[Tensor, "variant_batch ..."]:
        return torch.where(where, source, activation.unflatten(0, (len(mask), -1))).flatten(0, 1)

    return edit


def patches_of(variants: Sequence[Variant], n_tokens: int, n_heads: int, device: torch.device | str) -> Patches:
    """The masks of these variants over the first `n_tokens` tokens."""
    masks: dict[tuple[int, str], Tensor] = {}
    for place, variant in enumerate(variants):
        for patch in variant:
            by_head = SITES[patch.site].by_head
            empty = torch.zeros(len(variants), n_tokens, n_heads if by_head else 1, dtype=torch.bool)
            mask = masks.setdefault((patch.layer, patch.site), empty)
            tokens = torch.ones(n_tokens, dtype=torch.bool) if patch.tokens is None else patch.tokens
            for head in patch.heads if by_head else (0,):
                mask[place, :, head] |= tokens
    return Patches({key: mask.to(device) for key, mask in masks.items()}, len(variants))
