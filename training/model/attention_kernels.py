"""Attention by the fastest exact means: torch's fused kernel, or small batched products on a CPU."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from training.tasks.prompts import Positions

LANES = 16  # float32 numbers in a vector register of today's widest CPUs


def causal_mask(
    n_pos: int, queries: Positions, device: torch.device, n_past: int = 0
) -> Bool[Tensor, "query_pos key_pos"]:
    """True where a query may look: at itself and at everything before it.

    >>> causal_mask(3, slice(None), torch.device("cpu"), n_past=1).tolist()
    [[True, True, False], [True, True, True]]
    """
    position = torch.arange(n_pos, device=device)
    return position[n_past:][queries, None] >= position


def faster_batched(k: Float[Tensor, "batch key_pos head d_head"]) -> bool:
    """Whether batched products beat the fused kernel: on a CPU, for narrow heads over few tokens.

    The fused kernel pays per head and prompt, whatever their size: with 31 tokens and 8 heads of 8, z takes 46 us per
    prompt without it and 69 us with it; a training step of the small preset (79, heads of 32) is 3 % faster with it.
    """
    return k.device.type == "cpu" and 16 <= k.shape[1] <= 32 and k.shape[3] <= 16


def batched_attention(
    q: Float[Tensor, "batch query_pos head d_head"],
    k: Float[Tensor, "batch key_pos head d_head"],
    v: Float[Tensor, "batch key_pos head d_head"],
    visible: Bool[Tensor, "query_pos key_pos"],
) -> Float[Tensor, "batch query_pos head d_head"]:
    """One small matrix product per head and prompt; the mask is added by the product itself.

    Keys are padded to a multiple of `LANES`, with hidden ones: rows that fill vector registers take half the time.
    """
    n_heads, n_hidden = q.shape[2], -k.shape[1] % LANES
    q, k, v = (rearrange(x, "batch pos head d_head -> batch head pos d_head") for x in (q, k, v))
    k, v = (F.pad(x, (0, 0, 0, n_hidden)) for x in (k, v))
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    hidden = torch.where(F.pad(visible, (0, n_hidden)), 0.0, -torch.inf).to(q)
    pattern = torch.baddbmm(hidden, q, k.mT, alpha=1 / math.sqrt(q.shape[-1])).softmax(-1)
    return rearrange(v.mT @ pattern.mT, "(batch head) d_head pos -> batch pos head d_head", head=n_heads)


def fused_attention(
    q: Float[Tensor, "batch query_pos head d_head"],
    k: Float[Tensor, "batch key_pos head d_head"],
    v: Float[Tensor, "batch key_pos head d_head"],
    visible: Bool[Tensor, "query_pos key_pos"],
    *,
    is_causal: bool,
) -> Float[Tensor, "batch query_pos head d_head"]:
    """torch's kernel; bfloat16 on a CPU is computed in float32, since its backward pass there takes twice as long.

    Measured on one processor (analyses/LOG.md, "the bfloat16 step of the paper preset").
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        with torch.autocast("cpu", enabled=False):
            z = fused_attention(q.float(), k.float(), v.float(), visible, is_causal=is_causal)
        return z.to(q.dtype)
    mask = None if is_causal else visible
    z = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=is_causal
    )
    return z.transpose(1, 2)
