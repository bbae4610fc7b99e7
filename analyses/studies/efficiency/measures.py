"""How much one group of seeds needs as a share of what another needs, when some seeds never get there.

A seed that never reached its goal is censored: it needs more than it was given. So each pair of seeds (ours, theirs)
has a ratio that is known exactly, only from above (theirs never reached), only from below (ours never did), or not at
all (neither). The estimate is the median over all pairs (Hodges and Lehmann 1963, on a log scale); where the median
pair is not known exactly, only its bounds are. No pair is dropped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

from training.common.bootstrap import COVERAGE, N_RESAMPLES

Pairs = Float[np.ndarray, "ours theirs"]


@dataclass(frozen=True)
class Need:
    """What one seed needed, or how much it was given without getting there."""

    amount: float
    reached: bool


@dataclass(frozen=True)
class DataRatio:
    """Ours over theirs.

    Attributes:
        value: median over pairs; NaN where only bounds are known.
        at_least: lower bound of the median pair, equal to `value` where that is known.
        at_most: upper bound of the median pair.
        rank_low: exact 95 % interval for a constant ratio, from ranks (Mann-Whitney): it holds for few seeds.
        rank_high: infinite, as `rank_low` is 0, where so few seeds allow no such interval.
        ci_low: 95 % bootstrap interval over seeds, too narrow where seeds are few.
        ci_high: of the same.
        n_unknown: pairs of which neither seed got there.
    """

    value: float
    at_least: float
    at_most: float
    rank_low: float
    rank_high: float
    ci_low: float
    ci_high: float
    n_unknown: int


def data_ratio(ours: Sequence[Need], theirs: Sequence[Need], rng: np.random.Generator) -> DataRatio:
    """
    >>> found = data_ratio([Need(1.0, True)], [Need(9.0, True)], np.random.default_rng(0))
    >>> round(found.value, 3), found.rank_low, found.rank_high
    (0.111, 0.0, inf)
    """
    low, high = pair_bounds(ours, theirs)
    at_least, at_most = middle(low.ravel()), middle(high.ravel())
    rank_low, rank_high = rank_interval(low, high)
    drawn = [rng.integers(n, size=(N_RESAMPLES, n)) for n in low.shape]
    resampled = [
        middle(bound[drawn[0][:, :, None], drawn[1][:, None, :]].reshape(N_RESAMPLES, -1)) for bound in (low, high)
    ]
    return DataRatio(
        value=float(at_least) if at_least == at_most else math.nan,
        at_least=float(at_least),
        at_most=float(at_most),
        rank_low=rank_low,
        rank_high=rank_high,
        ci_low=lower_limit(resampled[0]),
        ci_high=upper_limit(resampled[1]),
        n_unknown=int(np.sum((low == 0) & np.isinf(high))),
    )


def pair_bounds(ours: Sequence[Need], theirs: Sequence[Need]) -> tuple[Pairs, Pairs]:
    """Lower and upper bound of every pair's ratio; equal where both seeds got there."""
    low = np.array([[a.amount / b.amount if b.reached else 0.0 for b in theirs] for a in ours])
    high = np.array([[a.amount / b.amount if a.reached else math.inf for b in theirs] for a in ours])
    return low, high


def middle(values: Float[np.ndarray, "*row pair"]) -> Float[np.ndarray, "*row"]:
    """Median of what may be infinite; of an even number the geometric mean of the middle two (0 if one is 0).

    >>> middle(np.array([1.0, 4.0, 16.0, np.inf])).item(), middle(np.array([1.0, np.inf])).item()
    (8.0, inf)
    """
    ordered, n = np.sort(values, axis=-1), values.shape[-1]
    lower, upper = ordered[..., (n - 1) // 2], ordered[..., n // 2]
    exact = lower == upper
    both = np.sqrt(np.where(exact | (lower == 0), 0, lower)) * np.sqrt(np.where(exact | (lower == 0), 0, upper))
    return np.where(exact, lower, both)


def rank_interval(low: Pairs, high: Pairs) -> tuple[float, float]:
    """The places of the sorted pairs between which a constant ratio lies with at least 95 %."""
    place = rank_place(*low.shape)
    if place == 0:
        return 0.0, math.inf
    return float(np.sort(low.ravel())[place - 1]), float(np.sort(high.ravel())[-place])


def rank_place(n: int, m: int) -> int:
    """The largest k with P(U < k) <= 2.5 % for Mann-Whitney's U of n and m values; 0 where there is none.

    >>> rank_place(5, 5), rank_place(4, 4), rank_place(3, 3)
    (3, 1, 0)
    """
    counts = u_counts(n, m)
    below = np.cumsum([float(count) for count in counts]) / float(sum(counts))
    return int(np.sum(below <= (1 - COVERAGE) / 2))


@cache
def u_counts(n: int, m: int) -> tuple[int, ...]:
    """In how many orders of n and m values U takes each of its values 0 ... nm.

    >>> u_counts(2, 2)
    (1, 1, 2, 1, 1)
    """
    if n == 0 or m == 0:
        return (1,)
    first, second = u_counts(n - 1, m), u_counts(n, m - 1)
    return tuple(
        (first[u - m] if 0 <= u - m < len(first) else 0) + (second[u] if u < len(second) else 0)
        for u in range(n * m + 1)
    )


def lower_limit(resamples: Float[np.ndarray, " resample"]) -> float:
    """The 2.5 % quantile, to the next resample below: infinite ones cannot be interpolated.

    >>> lower_limit(np.array([1.0, np.inf])), upper_limit(np.array([1.0, np.inf]))
    (1.0, inf)
    """
    place = int((1 - COVERAGE) / 2 * (len(resamples) - 1))
    return float(np.sort(resamples)[place])


def upper_limit(resamples: Float[np.ndarray, " resample"]) -> float:
    place = int((1 - COVERAGE) / 2 * (len(resamples) - 1))
    return float(np.sort(resamples)[-1 - place])
