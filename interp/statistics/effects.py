"""Statistics on head sets: effects, permutation p-values, Holm's correction, the smallest effect a test can find.

A set's effect is the fraction of the way from the intact model to the no-context optimum,

    effect = (error without the heads - intact error) / (no-context error - intact error),

0 = unharmed, 1 = no use of the context left, above 1 = damage beyond that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from training.common.bootstrap import percentile_interval

TIE = 1e-5  # relative tolerance of the engine
LEAST_NAMED = 0.005
"""Smaller effects are 0.00 in a sentence, and may be rounding where activations are large: no sentence names them."""
SIGNIFICANT = 0.05
POWER = 0.84  # standard normal quantile of 80 % power
LEAST_GAIN = 4.0
"""Standard errors that the in-context gain has to exceed for an effect to be defined.

Where a gain barely exceeds the threshold, it does so because it is too large by chance, and effects relative to it are
too small: at two standard errors by a third where one model in three passes, at four by an eighth to a sixth where one
in two passes.
"""


def permutation_p(effect: float, null_effects: Float[np.ndarray, " set"], tie: float = TIE) -> float:
    """p = (k+1)/(n+1), where k of n control sets have an effect at least as large; NaN without sets or an effect.

    Effects that differ by at most `tie`, by default by rounding alone, count as equal, which can only increase p.

    >>> permutation_p(0.9, np.array([0.1, 0.2, 0.95]))
    0.5
    """
    if not len(null_effects) or math.isnan(effect):
        return math.nan
    return float((np.sum(null_effects >= effect - tie) + 1) / (len(null_effects) + 1))


def two_sided_p(effect: float, null_effects: Float[np.ndarray, " set"], tie: float = TIE) -> float:
    """Twice the smaller of the p-values of the two directions, at most 1.

    >>> two_sided_p(-0.9, np.linspace(0, 1, 39))
    0.05
    """
    smaller = min(permutation_p(effect, null_effects, tie), permutation_p(-effect, -null_effects, tie))
    return float(np.minimum(1.0, 2 * smaller))


def critical_effect(null_effects: Float[np.ndarray, " set"], alpha: float = SIGNIFICANT) -> float:
    """The value that an effect has to exceed for p <= alpha; infinite if the control sets are too few for such a p.

    >>> critical_effect(np.arange(39) / 100), critical_effect(np.arange(7.0))
    (0.37, inf)
    """
    allowed = math.floor(alpha * (len(null_effects) + 1) + 1e-9) - 1
    return math.inf if allowed < 0 else float(np.sort(null_effects)[::-1][allowed])


def detectable_effect(
    standard_error: float, compared_error: float, null_effects: Float[np.ndarray, " set"], n_tests: int
) -> float:
    """The smallest true effect that would be found with 80 % power at 5 % in a family of `n_tests`.

    It has to exceed control sets by `LEAST_NAMED` (`critical_effect`, at 5 % / n_tests as in Holm's first step), and
    zero, each by the margin that the sampling of prompts may take away.

    Args:
        standard_error: of the effect over all prompts.
        compared_error: over the prompts on which control sets were measured.
        null_effects: of those sets.
        n_tests: at once.
    """
    beats_null = critical_effect(null_effects, SIGNIFICANT / n_tests) + LEAST_NAMED + POWER * compared_error
    return max(beats_null, (1.96 + POWER) * standard_error)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment over a family of tests; NaN is not a test and stays NaN.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    tests = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted = list(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - rank) * p))
        adjusted[i] = largest
    return adjusted


def differs_from_zero(
    ci_low: Float[np.ndarray, "*value"] | float, ci_high: Float[np.ndarray, "*value"] | float
) -> np.ndarray:
    """Whether an interval excludes 0: only then is a ratio to the value, or its rank, meaningful.

    >>> differs_from_zero(np.array([0.1, -0.2, -0.3, np.nan]), np.array([0.2, 0.1, -0.1, np.nan])).tolist()
    [True, False, True, False]
    """
    return np.asarray((np.asarray(ci_low) > 0) | (np.asarray(ci_high) < 0))


def widen_interval(value: float, low: float, high: float, n_values: int) -> tuple[float, float]:
    """A 95 % interval of one of several values, widened so that it holds for all of them at once.

    It therefore holds for whichever of them is named afterwards. Bonferroni; each side grows as that of a normal
    distribution.

    >>> widen_interval(1.0, 0.0, 3.0, 1)
    (0.0, 3.0)
    >>> [round(end, 2) for end in widen_interval(1.0, 0.0, 3.0, 56)]
    [-0.7, 4.39]
    """
    from scipy.special import ndtri

    growth = float(ndtri(SIGNIFICANT / 2 / n_values) / ndtri(SIGNIFICANT / 2))
    return value - growth * (value - low), value + growth * (high - value)


def rank_by_evidence(effect: float, ci_low: float, ci_high: float) -> tuple[bool, float]:
    """A key that sorts effects by how well they account for the whole effect, the best first.

    1. Effects that differ from 0 by their interval and by more than rounding (`TIE`).
    2. By |log |effect||, so that an effect of 1.25 ranks with one of 0.8.

    >>> effects = [(1.4, 1.2, 1.6), (0.9, 0.8, 1.0), (1.0, -0.2, 2.2), (-0.5, -0.6, -0.4), (0.0, 0.0, 0.0)]
    >>> [effect for effect, *_ in sorted(effects, key=lambda row: rank_by_evidence(*row))]
    [0.9, 1.4, -0.5, 1.0, 0.0]
    """
    differs = bool(abs(effect) > TIE and differs_from_zero(ci_low, ci_high))
    return not differs, abs(math.log(max(abs(effect), TIE))) if not math.isnan(effect) else math.inf


@dataclass(frozen=True)
class Effect:
    """An effect with its 95 % interval and standard error over prompts; NaN where it is undefined."""

    value: float
    ci_low: float
    ci_high: float
    standard_error: float = math.nan

    @property
    def defined(self) -> bool:
        return not math.isnan(self.value)


UNDEFINED = Effect(math.nan, math.nan, math.nan)


def paired_effects(
    ablated: Float[np.ndarray, "set prompt"],
    intact: Float[np.ndarray, " prompt"],
    no_context: Float[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "resample prompt"],
) -> list[Effect]:
    """Effects of several head sets, each with its interval; whole prompts are resampled, so that errors stay paired.

    Undefined where the intact model is not clearly better than the no-context optimum (`LEAST_GAIN`).

    Args:
        ablated: error of each prompt without each set.
        intact: error of the same prompts with all heads.
        no_context: error of the no-context optimum on them.
        weights: the resamples (`training.common.bootstrap.bootstrap_weights`).
    """
    resamples = effect_resamples(ablated, intact, no_context, weights)
    if resamples is None:
        return [UNDEFINED for _ in ablated]
    effects = fraction_lost(np.array([[intact.mean(), no_context.mean(), *ablated.mean(1)]]))[0]
    return [interval_of(effect, resampled) for effect, resampled in zip(effects, resamples.T, strict=True)]


def effect_resamples(
    ablated: Float[np.ndarray, "set prompt"],
    intact: Float[np.ndarray, " prompt"],
    no_context: Float[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "resample prompt"],
) -> Float[np.ndarray, "resample set"] | None:
    """Effects in bootstrap resamples of prompts; None where the gain is not above `LEAST_GAIN` standard errors."""
    resamples = weights @ np.column_stack([intact, no_context, ablated.T])
    gain, gains = (no_context - intact).mean(), resamples[:, 1] - resamples[:, 0]
    is_clear = gain > LEAST_GAIN * gains.std() and gains.min() > 0
    return fraction_lost(resamples) if is_clear else None


def interval_of(value: float, resamples: Float[np.ndarray, " resample"]) -> Effect:
    """The value with the central 95 % of its resamples, widened to the value where it lies outside of them."""
    low, high = percentile_interval(resamples[:, None])
    ends = float(np.minimum(low[0], value)), float(np.maximum(high[0], value))
    return Effect(float(value), *ends, float(resamples.std()))


def fraction_lost(means: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row set"]:
    """(ablated - intact) / (no-context - intact), from columns intact, no-context, ablated sets."""
    intact, no_context, ablated = means[:, :1], means[:, 1:2], means[:, 2:]
    return (ablated - intact) / (no_context - intact)
