"""Intervals in which the independent seed is the unit: for a difference between curricula, and for pairs of models.

Pairs that share a model are not independent of one another, so that no interval comes from counting them: the jackknife
leaves out one seed at a time, with all of its pairs (Arvesen 1969 for one sample; variances add over samples).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit

from training.common.bootstrap import COVERAGE


class Estimate(NamedTuple):
    """A value with its 95 % interval over seeds; NaN ends where there are too few."""

    value: float
    low: float
    high: float
    p_value: float = math.nan


NOTHING = Estimate(math.nan, math.nan, math.nan)


def welch(one: Float[np.ndarray, " seed"], other: Float[np.ndarray, " other_seed"]) -> Estimate:
    """Difference of two means, Welch's t-interval and two-sided p; NaN without two seeds on both sides.

    Seeds that do not differ at all leave an interval without width, and no p.

    >>> [round(x, 2) for x in welch(np.array([1.0, 1.2, 1.1]), np.array([0.9, 1.0, 0.8]))]
    [0.2, -0.03, 0.43, 0.07]
    """
    difference = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        return Estimate(difference, math.nan, math.nan)
    parts = np.array([values.var(ddof=1) / len(values) for values in (one, other)])
    if not parts.sum():
        return Estimate(difference, difference, difference)
    degrees = parts.sum() ** 2 / (parts**2 / np.array([len(one) - 1, len(other) - 1])).sum()
    error = math.sqrt(parts.sum())
    half = float(stdtrit(degrees, (1 + COVERAGE) / 2) * error)
    p_value = 2 * float(stdtr(degrees, -abs(difference) / error))
    return Estimate(difference, difference - half, difference + half, p_value)


def jackknife(samples: Sequence[Sequence[int]], statistic: Callable[[frozenset[int]], float]) -> Estimate:
    """A statistic of pairs of seeds, with a t-interval from leaving out every seed in turn.

    Args:
        samples: the seeds of each curriculum that the statistic compares.
        statistic: of the seeds that are kept; NaN if too few are.
    """
    everyone = frozenset(seed for sample in samples for seed in sample)
    value = statistic(everyone)
    variance = 0.0
    for sample in samples:
        without = np.array([statistic(everyone - {seed}) for seed in sample])
        variance += (len(sample) - 1) / len(sample) * float(((without - without.mean()) ** 2).sum())
    fewest = min(map(len, samples))
    if fewest < 2 or not math.isfinite(variance) or not variance:
        return Estimate(value, math.nan, math.nan)
    half = float(stdtrit(fewest - 1, (1 + COVERAGE) / 2)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)
