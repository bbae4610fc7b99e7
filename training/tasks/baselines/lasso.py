"""The lasso on every prefix of every prompt at once, by following its path (LARS: Efron et al. 2004, section 3.1).

The minimum of |y - Xw|²/(2k) + penalty |w|_1 is piecewise linear in the penalty. From the penalty at which the first
coordinate of w leaves 0, follow it downwards:

1. While the set of non-zero coordinates stays, all of them keep |x'(y - Xw)|/k at the penalty: w moves linearly.
2. The next event is a coordinate that joins, reaching the same |x'(y - Xw)|/k, or one that returns to 0 and leaves.
3. Stop at the penalty wanted. This is exact, where first-order methods need thousands of steps for small penalties.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from training.common.errors import CheckError
from training.tasks.baselines.prefixes import count_before, moments
from training.tasks.prompts import Prompts

LASSO_PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # Garg et al. 2022

TIE_BREAK = 1e-9  # perturbs X'X and X'y, so that no two events coincide: with x = ±1 they would
EVENTS_PER_DIM = 50  # far beyond the 3 or so seen


class Path(NamedTuple):
    """Where on its path each prefix is.

    Attributes:
        w: coefficients.
        is_active: which of them may differ from 0.
        level: the penalty that w is the minimum for.
    """

    w: Float[Tensor, "batch point dim"]
    is_active: Bool[Tensor, "batch point dim"]
    level: Float[Tensor, "batch point 1"]


def lasso(prompts: Prompts, penalty: float) -> Float[Tensor, "batch point"]:
    """y_k+1 from the w that minimises |y - Xw|²/(2k) + penalty |w|_1 over the k pairs before it.

    Args:
        prompts: xs and ys.
        penalty: positive.
    """
    return lassos(prompts, (penalty,))[0]


def best_lasso(prompts: Prompts) -> Float[Tensor, "batch point"]:
    """Lasso with the penalty of `LASSO_PENALTIES` that does best on these very prompts: an optimistic baseline."""
    candidates = lassos(prompts, LASSO_PENALTIES)
    return min(candidates, key=lambda prediction: (prediction - prompts.ys).square().mean().item())


def lassos(prompts: Prompts, penalties: tuple[float, ...]) -> list[Float[Tensor, "batch point"]]:
    """The lasso's prediction for each penalty, highest first."""
    xs, ys = prompts.xs.double(), prompts.ys.double()
    k = count_before(ys)[:, None]
    gram, moment = moments(xs, ys)
    gram, moment = break_ties(gram / k[:, :, None], moment / k)
    path, predictions = start(moment), []
    for penalty in sorted(penalties, reverse=True):
        path = follow(gram, moment, path, penalty)
        predictions.append((path.w * xs).sum(-1).to(prompts.ys.dtype))
    return predictions


def break_ties(
    gram: Float[Tensor, "batch point dim dim"], moment: Float[Tensor, "batch point dim"]
) -> tuple[Float[Tensor, "batch point dim dim"], Float[Tensor, "batch point dim"]]:
    """X'X and X'y with a part in 10⁹ that makes equal columns differ."""
    dims = torch.arange(1, moment.shape[-1] + 1, dtype=moment.dtype, device=moment.device)
    return gram + TIE_BREAK * torch.ones_like(dims).diag(), moment + TIE_BREAK * (2.3 * dims).sin()


def start(moment: Float[Tensor, "batch point dim"]) -> Path:
    """w = 0, at the penalty where the first coordinate is about to leave it."""
    level, first = moment.abs().max(-1, keepdim=True)
    return Path(torch.zeros_like(moment), torch.zeros_like(moment).scatter(-1, first, 1).bool(), level)


def follow(
    gram: Float[Tensor, "batch point dim dim"], moment: Float[Tensor, "batch point dim"], path: Path, penalty: float
) -> Path:
    """The path at this penalty, from a higher one."""
    for _ in range(EVENTS_PER_DIM * moment.shape[-1]):
        if not (path.level > penalty).any():
            return path
        path = next_event(gram, moment, path, penalty)
    raise CheckError(f"the lasso's path did not reach the penalty {penalty:g}")


def next_event(
    gram: Float[Tensor, "batch point dim dim"], moment: Float[Tensor, "batch point dim"], path: Path, penalty: float
) -> Path:
    """The path one event on, or at the penalty if that comes first."""
    w, is_active, level = path
    correlation = moment - times(gram, w)
    direction = active_direction(gram, correlation, is_active)
    fall = times(gram, direction)
    joins = torch.minimum(reach(level - correlation, 1 - fall), reach(level + correlation, 1 + fall))
    leaves = torch.where(w * direction < 0, -w / direction, torch.inf)
    distance, which = torch.where(is_active, leaves, joins).min(-1, keepdim=True)
    remaining = (level - penalty).clamp(min=0)
    happens = distance < remaining
    is_toggled = torch.zeros_like(is_active).scatter(-1, which, happens)
    w = w + torch.minimum(distance, remaining) * direction
    return Path(
        w.masked_fill(is_toggled & is_active, 0.0),
        is_active ^ is_toggled,
        torch.where(happens, level - distance, level.clamp(max=penalty)),
    )


def active_direction(
    gram: Float[Tensor, "batch point dim dim"],
    correlation: Float[Tensor, "batch point dim"],
    is_active: Bool[Tensor, "batch point dim"],
) -> Float[Tensor, "batch point dim"]:
    """dw per unit of penalty given up: (X'X)⁻¹ sign within the active coordinates, 0 outside."""
    both = is_active[:, :, :, None] & is_active[:, :, None]
    within = torch.where(both, gram, 0.0) + torch.diag_embed((~is_active).to(gram.dtype))
    return torch.linalg.solve(within, torch.where(is_active, correlation.sign(), 0.0))


def reach(
    gap: Float[Tensor, "batch point dim"], speed: Float[Tensor, "batch point dim"]
) -> Float[Tensor, "batch point dim"]:
    """When a gap closes, never if it widens."""
    return torch.where(speed > TIE_BREAK, gap.clamp(min=0) / speed, torch.inf)


def times(
    matrix: Float[Tensor, "batch point dim dim"], vector: Float[Tensor, "batch point dim"]
) -> Float[Tensor, "batch point dim"]:
    return (matrix @ vector[:, :, :, None]).squeeze(-1)
