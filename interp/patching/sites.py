"""Sites, where activations can be patched, and patches: heads of a layer at a set of tokens."""

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
        definition: in words.
        by_head: whether it has an axis of heads.
        of_keys: whether its tokens are attended to (key positions); otherwise they attend (query positions).
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
    "pattern": Site("attn.hook_pattern", "a head's attention, by query token", by_head=True),
}


def check_site(name: str) -> Site:
    """The site named by `--site`.

    Raises:
        UserError: there is no such site.
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
    """An activation of one layer that is replaced by another run's.

    Attributes:
        site: a name in `SITES`.
        layer: counted from 0.
        heads: their numbers; empty at sites without heads.
        tokens: a mask; None is all tokens that predictions need.
    """

    site: str
    layer: int
    heads: tuple[int, ...] = ()
    tokens: Bool[Tensor, " pos"] | None = None


Variant = tuple[Patch, ...]
"""Patches that act together, in one run."""

Activations = Mapping[tuple[int, str], Float[Tensor, "batch _ ..."]]
"""Activations by layer and site, at every token that predictions need."""


def head_patches(site: str, heads: HeadSet, tokens: Bool[Tensor, " pos"] | None = None) -> Variant:
    """Patches of one site for several heads, in any layers.

    >>> from interp.model.heads import Head
    >>> [(patch.layer, patch.heads) for patch in head_patches("z", (Head(0, 1), Head(0, 3), Head(2, 0)))]
    [(0, (1, 3)), (2, (0,))]
    """
    layers = sorted({head.layer for head in heads})
    return tuple(
        Patch(site, layer, tuple(head.number for head in heads if head.layer == layer), tokens) for layer in layers
    )


@dataclass(frozen=True)
class Patches:
    """Several variants as masks, to be run in one batch.

    Attributes:
        masks: by layer and site, where each variant patches; sites without heads have a head axis of 1.
        n_variants: number of variants.
    """

    masks: Mapping[tuple[int, str], Bool[Tensor, "variant pos head"]]
    n_variants: int

    @property
    def first_layer(self) -> int | None:
        """The first layer that is patched; None if no layer is."""
        return min((layer for layer, _ in self.masks), default=None)

    @cached_property
    def first_token(self) -> int:
        """The first token that is patched by any variant; earlier tokens are the same in every variant."""
        patched = torch.stack([mask.any(dim=2).any(dim=0) for mask in self.masks.values()]).any(dim=0)
        return int(patched.nonzero()[0])

    def layer_edits(self, layer: int, start: int, queries: Positions, source: Activations) -> dict[str, Edit]:
        """The patches of one layer as edits of its sites, for a batch of variants over the tokens from `start`."""
        edits: dict[str, Edit] = {}
        for (patched_layer, site), mask in self.masks.items():
            if patched_layer == layer:
                positions = EVERY if SITES[site].of_keys else queries
                values = source[layer, site].narrow(1 if site != "pattern" else 2, start, mask.shape[1] - start)
                edits[SITES[site].hook] = masked_edit(site, mask[:, start:][:, positions], values, positions)
        return edits


def masked_edit(
    site: str, mask: Bool[Tensor, "variant pos head"], source: Float[Tensor, "batch ..."], positions: Positions
) -> Edit:
    """An edit that gives the source's activation where the mask is True."""
    if site == "pattern":
        where, source = rearrange(mask, "variant pos head -> variant 1 head pos 1"), source[:, :, positions]
    else:
        where, source = mask[:, None], source[:, positions]
        where = where[..., None] if SITES[site].by_head else where

    def edit(activation: Float[Tensor, "variant_batch ..."]) -> Float[Tensor, "variant_batch ..."]:
        return torch.where(where, source, activation.unflatten(0, (len(mask), -1))).flatten(0, 1)

    return edit


def stack_patches(variants: Sequence[Variant], n_tokens: int, n_heads: int, device: torch.device | str) -> Patches:
    """The masks of these variants over the first `n_tokens` tokens."""
    masks: dict[tuple[int, str], Tensor] = {}
    for index, variant in enumerate(variants):
        for patch in variant:
            by_head = SITES[patch.site].by_head
            empty = torch.zeros(len(variants), n_tokens, n_heads if by_head else 1, dtype=torch.bool)
            mask = masks.setdefault((patch.layer, patch.site), empty)
            tokens = torch.ones(n_tokens, dtype=torch.bool) if patch.tokens is None else patch.tokens
            for head in patch.heads if by_head else (0,):
                mask[index, :, head] |= tokens
    return Patches({key: mask.to(device) for key, mask in masks.items()}, len(variants))
