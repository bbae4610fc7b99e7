"""Intervals with the independent seed as the unit: for a difference between groups, and for pairs of models.

Pairs that share a model are not independent of one another, so their number gives no interval: the jackknife leaves out
one seed at a time, with all of its pairs (Arvesen 1969 for one sample; variances add over samples).
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


def welch(group: Float[np.ndarray, " seed"], other: Float[np.ndarray, " other_seed"]) -> Estimate:
    """Difference of two means, with Welch's t-interval and two-sided p; NaN with fewer than two seeds in a group.

    If the seeds of each group are equal, the interval has no width and there is no p.

    >>> [round(x, 2) for x in welch(np.array([1.0, 1.2, 1.1]), np.array([0.9, 1.0, 0.8]))]
    [0.2, -0.03, 0.43, 0.07]
    """
    difference = float(group.mean() - other.mean())
    if min(len(group), len(other)) < 2:
        return Estimate(difference, math.nan, math.nan)
    squared_errors = np.array([values.var(ddof=1) / len(values) for values in (group, other)])
    if not squared_errors.sum():
        return Estimate(difference, difference, difference)
    degrees = squared_errors.sum() ** 2 / (squared_errors**2 / np.array([len(group) - 1, len(other) - 1])).sum()
    standard_error = math.sqrt(squared_errors.sum())
    half_width = float(stdtrit(degrees, (1 + COVERAGE) / 2) * standard_error)
    p_value = 2 * float(stdtr(degrees, -abs(difference) / standard_error))
    return Estimate(difference, difference - half_width, difference + half_width, p_value)


def jackknife(samples: Sequence[Sequence[int]], statistic: Callable[[frozenset[int]], float]) -> Estimate:
    """A statistic of pairs of seeds, with a t-interval from leaving out each seed in turn.

    Args:
        samples: the seeds of each group that the statistic compares.
        statistic: computed from the seeds that are kept; NaN if they are too few.
    """
    all_seeds = frozenset(seed for sample in samples for seed in sample)
    value = statistic(all_seeds)
    variance = 0.0
    for sample in samples:
        leave_one_out = np.array([statistic(all_seeds - {seed}) for seed in sample])
        variance += (len(sample) - 1) / len(sample) * float(((leave_one_out - leave_one_out.mean()) ** 2).sum())
    fewest = min(map(len, samples))
    if fewest < 2 or not math.isfinite(variance) or not variance:
        return Estimate(value, math.nan, math.nan)
    half_width = float(stdtrit(fewest - 1, (1 + COVERAGE) / 2)) * math.sqrt(variance)
    return Estimate(value, value - half_width, value + half_width)
