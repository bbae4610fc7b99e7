"""What the pairs before each point of a prompt amount to: their sums, moments and distances."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor


def before(terms: Float[Tensor, "batch point *rest"]) -> Float[Tensor, "batch point *rest"]:
    """At every point the sum over the points before it.

    >>> before(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[0.0, 1.0, 3.0]]
    """
    return torch.cat((torch.zeros_like(terms[:, :1]), terms[:, :-1].cumsum(1)), dim=1)


def count_before(ys: Float[Tensor, "batch point"]) -> Float[Tensor, " point"]:
    """k at every point, but 1 at the first: for means over the points before."""
    return torch.arange(ys.shape[1], dtype=ys.dtype, device=ys.device).clamp(min=1)


def moments(
    xs: Float[Tensor, "batch point dim"], ys: Float[Tensor, "batch point"]
) -> tuple[Float[Tensor, "batch point dim dim"], Float[Tensor, "batch point dim"]]:
    """X'X and X'y of the pairs before every point."""
    outer = einsum(xs, xs, "batch point i, batch point j -> batch point i j")
    return before(outer), before(xs * ys[:, :, None])


def distances_before(xs: Float[Tensor, "batch point dim"]) -> Float[Tensor, "batch point earlier"]:
    """|x_i - x_j| from every point to those before it, infinite to itself and to later ones.

    >>> distances_before(torch.tensor([[[0.0], [3.0]]])).tolist()
    [[[inf, inf], [3.0, inf]]]
    """
    distances = torch.cdist(xs, xs, compute_mode="donot_use_mm_for_euclid_dist")  # exactly 0 between equal x
    is_earlier = torch.ones_like(distances[0]).tril(-1).bool()
    return distances.masked_fill(~is_earlier, torch.inf)
