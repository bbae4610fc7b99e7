"""Weightings: how much a key matters to a query, for one layer. By its attention, its value, or a derivative.

Attention to a key with a tiny value has no effect, and a key can also matter by changing the attention. Two
alternatives to the raw pattern, both as shares of the sum over keys, so that a score's chance level stays the same:

- `value`: A[q, k] |v_k W_O| (Kobayashi et al. 2020). v_k includes the value bias b_V, which the head also writes.
- `derivative`: the Frobenius norm of d(z_q W_O) / d(resid_pre_k), the sensitivity of what the head writes to each of
  its input tokens (von Oswald et al. 2023, section 4, for a whole layer), through LayerNorm, values and pattern.

A query to which no key matters (W_O = 0) has shares of 0, not of 1/k.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from training.common.errors import UserError, one_of
from training.model.sites import Edit, Sites
from training.model.transformer import Block


class OpenLayer(NamedTuple):
    """The input and the intermediate activations of one layer's attention."""

    resid_pre: Float[Tensor, "batch pos d_model"]
    q: Float[Tensor, "batch pos head d_head"]
    k: Float[Tensor, "batch pos head d_head"]
    v: Float[Tensor, "batch pos head d_head"]
    pattern: Float[Tensor, "batch head pos pos"]
    z: Float[Tensor, "batch pos head d_head"]


def open_layer(block: Block, resid_pre: Float[Tensor, "batch pos d_model"]) -> OpenLayer:
    """Run a layer's attention and keep its intermediate activations."""
    kept: dict[str, Tensor] = {}

    def keep(site: str) -> Edit:
        return lambda activation: kept.setdefault(site, activation)

    sites = ("q", "k", "v", "pattern")
    z = block.mix(resid_pre, Sites({f"attn.hook_{site}": keep(site) for site in sites}))
    return OpenLayer(resid_pre=resid_pre, z=z, **kept)


Weighting = Callable[[Block, OpenLayer], Float[Tensor, "batch head query_pos key_pos"]]


def by_pattern(block: Block, layer: OpenLayer) -> Float[Tensor, "batch head query_pos key_pos"]:
    del block
    return layer.pattern


def by_value(block: Block, layer: OpenLayer) -> Float[Tensor, "batch head query_pos key_pos"]:
    """A[q, k] |v_k W_O|, as shares."""
    written = einsum(layer.v, block.attn.W_O, "batch pos head d_head, head d_head d_model -> batch head pos d_model")
    return shares(layer.pattern * rearrange(written.norm(dim=-1), "batch head key_pos -> batch head 1 key_pos"))


def by_derivative(block: Block, layer: OpenLayer) -> Float[Tensor, "batch head query_pos key_pos"]:
    """|d(z_q W_O) / d(resid_pre_k)|, as shares; in float64, because the closed form takes differences.

    Raises:
        UserError: positions are rotary, which the closed form does not contain.
    """
    if block.attn.is_rotary:
        raise UserError(
            "--weighting derivative is not defined for model.positions=rotary (valid there: pattern, value)"
        )
    exact = deepcopy(block).double()
    opened = open_layer(exact, layer.resid_pre.double())
    return shares(derivative_norms(exact, opened)).to(layer.pattern.dtype)


def shares(amounts: Float[Tensor, "*lead key_pos"]) -> Float[Tensor, "*lead key_pos"]:
    """Each amount divided by the sum over keys; 0 where the sum is 0.

    >>> shares(torch.tensor([[1.0, 3.0], [0.0, 0.0]])).tolist()
    [[0.25, 0.75], [0.0, 0.0]]
    """
    total = amounts.sum(-1, keepdim=True)
    return amounts / total.where(total > 0, 1)


WEIGHTINGS: dict[str, Weighting] = {"pattern": by_pattern, "value": by_value, "derivative": by_derivative}


def weighting(name: str) -> Weighting:
    """The weighting of this name.

    Raises:
        UserError: there is no such weighting.
    """
    if name not in WEIGHTINGS:
        raise one_of("--weighting", name, WEIGHTINGS)
    return WEIGHTINGS[name]


class HeadMaps(NamedTuple):
    """One head's matrices and activations, as the derivative needs them.

    What the head writes is measured in an orthonormal basis of the rows of W_O: with W_O = L Q, |r W_O| = |r L|, so
    that values are multiplied by L.

    Attributes:
        reads: [W_V L | W_K | W_Q], times the norm's gain, each column without what the norm removes.
        q: queries divided by sqrt(d_head).
        k: keys.
        v: values, times L.
        z: means of values under the pattern, times L.
        pattern: attention.
    """

    reads: Float[Tensor, "d_model three_d_head"]
    q: Float[Tensor, "batch pos d_head"]
    k: Float[Tensor, "batch pos d_head"]
    v: Float[Tensor, "batch pos d_head"]
    z: Float[Tensor, "batch pos d_head"]
    pattern: Float[Tensor, "batch pos pos"]


def head_maps(block: Block, layer: OpenLayer, head: int) -> HeadMaps:
    attn = block.attn
    basis = torch.linalg.qr(attn.W_O[head].T).R.T
    reads = block.ln1.gain[:, None] * torch.cat((attn.W_V[head] @ basis, attn.W_K[head], attn.W_Q[head]), dim=1)
    q, k, v, z = (activation[:, :, head] for activation in (layer.q, layer.k, layer.v, layer.z))
    return HeadMaps(
        block.ln1.centre(reads.T).T, q / math.sqrt(q.shape[-1]), k, v @ basis, z @ basis, layer.pattern[:, head]
    )


def derivative_norms(block: Block, layer: OpenLayer) -> Float[Tensor, "batch head query_pos key_pos"]:
    """The Frobenius norm of d(z_q W_O[h]) / d(resid_pre_k), in closed form.

    With n = LayerNorm(resid) and u = v_k - z_q, a change dn_k changes z_q by

        A[q, k] (dn_k W_V + (q_q · dn_k W_K / sqrt(d_head)) u)                          for k < q
        and for k = q also by  dn_q W_Q (sum over k of A[q, k] k_k' (v_k - z_q)) / sqrt(d_head).

    The first is W_V plus a rank-one matrix, so that its norm follows from products of d_head-sized vectors; the second
    is one d_head x d_head matrix per query.
    """
    unit, scale = block.ln1.normalise(layer.resid_pre), block.ln1.scale(layer.resid_pre)
    shrink = block.ln1.shrink(layer.resid_pre)
    heads = []
    for head in range(layer.pattern.shape[1]):
        maps = head_maps(block, layer, head)
        unit_reads = unit @ maps.reads
        squared = squared_norms_to_earlier(maps, unit_reads, shrink)
        squared.diagonal(dim1=1, dim2=2).copy_(squared_norms_to_self(maps, unit_reads, shrink))
        heads.append(squared.clamp_min(0).sqrt() / scale[:, None, :, 0])
    return torch.stack(heads, dim=1)


def squared_norms_to_earlier(
    maps: HeadMaps, unit_reads: Float[Tensor, "batch pos three_d_head"], shrink: Float[Tensor, "batch pos"]
) -> Float[Tensor, "batch query_pos key_pos"]:
    """Squared norms of the derivative for k < q, through values and keys, before LayerNorm's scale.

    A² (|W_V + W_K q' u|² - shrink |n W_V + (n W_K · q) u|²), with LayerNorm's unit vector n at the key.
    """
    _, q, _, v, z, pattern = maps
    w_v, w_k, _ = maps.reads.chunk(3, dim=1)
    n_w_v, n_w_k, _ = unit_reads.chunk(3, dim=2)
    u_squared = dot(v, v).mT - 2 * z @ v.mT + dot(z, z)  # |u|²
    q_w_k_w_v = q @ (w_k.T @ w_v)
    cross = q_w_k_w_v @ v.mT - dot(q_w_k_w_v, z)  # q W_K' W_V · u
    all_directions = w_v.square().sum() + 2 * cross + dot(q @ (w_k.T @ w_k), q) * u_squared
    q_n_w_k = q @ n_w_k.mT  # q · n W_K
    n_w_v_u = dot(n_w_v, v).mT - z @ n_w_v.mT  # n W_V · u
    along_unit = dot(n_w_v, n_w_v).mT + 2 * q_n_w_k * n_w_v_u + q_n_w_k.square() * u_squared
    return pattern.square() * (all_directions - shrink[:, None, :] * along_unit)


def squared_norms_to_self(
    maps: HeadMaps, unit_reads: Float[Tensor, "batch pos three_d_head"], shrink: Float[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos"]:
    """Squared norms of the derivative for k = q, through values, keys and queries, before LayerNorm's scale.

    |D R'|² - shrink |D n R|², with R = [W_V | W_K | W_Q] and the derivative D of z_q by [v_q | k_q | q_q].
    """
    _, q, k, v, z, pattern = maps
    d_head = q.shape[-1]
    to_self = pattern.diagonal(dim1=1, dim2=2)[..., None, None]  # A[q, q]
    products = rearrange(outer(v, k), "batch pos i j -> batch pos (i j)")
    mean_products = rearrange(pattern @ products, "batch pos (i j) -> batch pos i j", i=d_head)
    by_value = (to_self * torch.eye(d_head).to(to_self)).expand_as(mean_products)
    by_key = to_self * outer(v - z, q)
    by_query = (mean_products - outer(z, pattern @ k)) / math.sqrt(d_head)  # sum over k of A (v_k - z_q) k_k'
    derivative = torch.cat((by_value, by_key, by_query), dim=-1)
    along_unit = (derivative @ unit_reads[..., None])[..., 0]
    all_directions = (derivative @ (maps.reads.T @ maps.reads) * derivative).sum((2, 3))
    return all_directions - shrink * along_unit.square().sum(-1)


def dot(a: Float[Tensor, "batch pos d_head"], b: Float[Tensor, "batch pos d_head"]) -> Float[Tensor, "batch pos 1"]:
    """The product of each row of a with the same row of b."""
    return (a * b).sum(-1, keepdim=True)


def outer(
    a: Float[Tensor, "batch pos d_head"], b: Float[Tensor, "batch pos d_head"]
) -> Float[Tensor, "batch pos d_head d_head"]:
    return a[..., :, None] * b[..., None, :]
