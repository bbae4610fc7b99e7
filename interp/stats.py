"""Statistics on head sets: matched random sets, permutation p-values, Holm's correction, paired effects.

A set's effect is the fraction of the way from the intact model to the no-context optimum,

    effect = (error without the heads - intact error) / (no-context error - intact error),

0 = unharmed, 1 = no use of the context left, above 1 = damage beyond that.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np
from jaxtyping import Float

from interp.heads import Head, HeadSet, all_heads, head_set
from training.intervals import percentile_interval, resampled_means

Match = Literal["layer", "size"]

TIE = 1e-5  # the engine's tolerance


@dataclass(frozen=True)
class NullSets:
    """The sets that a head set is judged against.

    Attributes:
        sets: distinct; none shares a head with the set under test.
        n_available: how many such sets exist.
    """

    sets: tuple[HeadSet, ...]
    n_available: int

    @property
    def exact(self) -> bool:
        """Whether these are all the sets there are, so that p needs no sampling."""
        return len(self.sets) == self.n_available

    @property
    def smallest_p(self) -> float:
        """The p-value of a set that beats every other: what this null can show at best."""
        return 1 / (len(self.sets) + 1)


def matched_sets(
    heads: HeadSet, n_layers: int, n_heads: int, *, match: Match, n_sets: int, rng: np.random.Generator
) -> NullSets:
    """Random sets like `heads` but without any of them: all of them if there are at most `n_sets`, else a sample.

    Args:
        heads: the set under test.
        n_layers: of the model.
        n_heads: per layer.
        match: `layer` keeps the number of heads in every layer, `size` only the total.
        n_sets: how many to draw.
        rng: draws them, without replacement.

    >>> null = matched_sets((Head(0, 0),), 2, 4, match="layer", n_sets=9, rng=np.random.default_rng(0))
    >>> [str(head) for (head,) in null.sets], null.exact
    (['0.1', '0.2', '0.3'], True)
    """
    others = [head for head in all_heads(n_layers, n_heads) if head not in heads]
    if match == "size":
        pools = [(others, len(heads))]
    else:
        layers = sorted({head.layer for head in heads})
        pools = [
            ([head for head in others if head.layer == layer], sum(head.layer == layer for head in heads))
            for layer in layers
        ]
    n_available = math.prod(math.comb(len(pool), size) for pool, size in pools) if heads else 0
    if n_available <= n_sets:
        return NullSets(tuple(enumerate_sets(pools)) if n_available else (), n_available)
    drawn: dict[HeadSet, None] = {}
    while len(drawn) < n_sets:
        drawn[draw_set(pools, rng)] = None
    return NullSets(tuple(drawn), n_available)


def enumerate_sets(pools: Sequence[tuple[Sequence[Head], int]]) -> Iterator[HeadSet]:
    for parts in product(*(combinations(pool, size) for pool, size in pools)):
        yield head_set(head for part in parts for head in part)


def draw_set(pools: Sequence[tuple[Sequence[Head], int]], rng: np.random.Generator) -> HeadSet:
    chosen = [pool[i] for pool, size in pools for i in rng.choice(len(pool), size, replace=False)]
    return head_set(chosen)


def permutation_p(effect: float, null_effects: Float[np.ndarray, " set"]) -> float:
    """p = (k+1)/(n+1), k of n null sets having an effect at least as large; NaN without a null or an effect.

    Effects that differ by rounding alone (`TIE`) count as equal, which can only make p larger.

    >>> permutation_p(0.9, np.array([0.1, 0.2, 0.95]))
    0.5
    """
    if not len(null_effects) or math.isnan(effect):
        return math.nan
    return float((np.sum(null_effects >= effect - TIE) + 1) / (len(null_effects) + 1))


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


@dataclass(frozen=True)
class Effect:
    """A head set's effect with its 95 % interval over prompts; NaN where the intact model does not use the context."""

    value: float
    ci_low: float
    ci_high: float

    @property
    def defined(self) -> bool:
        return not math.isnan(self.value)


def paired_effects(
    ablated: Float[np.ndarray, "set prompt"],
    intact: Float[np.ndarray, " prompt"],
    no_context: Float[np.ndarray, " prompt"],
    rng: np.random.Generator,
) -> list[Effect]:
    """Effects of several head sets, each with its interval; whole prompts are resampled, so every pair stays a pair.

    Args:
        ablated: error of each prompt without each set.
        intact: error of the same prompts with all heads.
        no_context: error of the no-context optimum on them.
        rng: resamples.
    """
    columns = np.column_stack([intact, no_context, ablated.T])
    resamples = resampled_means(columns, rng)
    gap_low, _ = percentile_interval(resamples[:, 1:2] - resamples[:, :1])
    if not gap_low[0] > 0:
        return [Effect(math.nan, math.nan, math.nan) for _ in ablated]
    low, high = percentile_interval(fraction_lost(resamples))
    value = fraction_lost(columns.mean(0)[None])[0]
    return [Effect(float(v), float(lo), float(hi)) for v, lo, hi in zip(value, low, high, strict=True)]


def fraction_lost(means: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row set"]:
    """(ablated - intact) / (no-context - intact), from columns intact, no-context, ablated sets."""
    intact, no_context, ablated = means[:, :1], means[:, 1:2], means[:, 2:]
    return (ablated - intact) / (no_context - intact)
