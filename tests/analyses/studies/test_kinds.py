"""Models against models put together from heads of others: planted kinds, planted sets, false-positive rate."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from analyses.studies.consistency.measures.kinds import PoolSimilarity, match_composites
from analyses.studies.consistency.measures.matching import blocks, match_heads
from interp.statistics.seed_intervals import Estimate, jackknife

N_HEADS, N_ENTRIES = 8, 24
Heads = np.ndarray
"""[layer_head entry], of length 1; a single layer."""


def with_noise(kinds: np.ndarray, rng: np.random.Generator) -> Heads:
    heads = kinds + 0.08 * rng.normal(size=kinds.shape)
    return heads / np.linalg.norm(heads, axis=1, keepdims=True)


def drawn_kinds(kinds: np.ndarray, rng: np.random.Generator) -> Heads:
    """Every head of any kind: two models have in common only that kinds recur."""
    return with_noise(kinds[rng.integers(len(kinds), size=N_HEADS)], rng)


def one_of_each(kinds: np.ndarray, rng: np.random.Generator) -> Heads:
    """One head of every kind, numbered at random: each model has the heads of every other."""
    return with_noise(kinds[rng.permutation(len(kinds))], rng)


def beyond_kinds(make: Callable[[np.ndarray, np.random.Generator], Heads], rng: np.random.Generator) -> Estimate:
    """Matched pairs less models put together, over the pairs of eight models, jackknifed over models."""
    kinds = np.linalg.qr(rng.normal(size=(N_ENTRIES, N_HEADS)))[0].T
    models = [make(kinds, rng) for _ in range(8)]
    excess = {}
    for a, ours in enumerate(models):
        for b in range(a):
            alike = ours @ models[b].T
            matched = match_heads(alike, alike, blocks(1, N_HEADS, "layer"), rng).matched
            drawn = []
            for kept in (a, b):
                others = [models[kept] @ model.T for place, model in enumerate(models) if place not in (a, b)]
                stacked = np.stack(others, axis=1)
                drawn.append(match_composites(PoolSimilarity(stacked, stacked), 1, N_HEADS, rng)["layer"])
            excess[a, b] = matched - np.mean(drawn)

    def mean(kept: frozenset[int]) -> float:
        return float(np.mean([value for pair, value in excess.items() if kept.issuperset(pair)]))

    return jackknife([range(len(models))], mean)


def test_models_with_one_head_of_each_kind_correspond_beyond_kinds(rng):
    estimate = beyond_kinds(one_of_each, rng)
    assert estimate.value > 0.1
    assert estimate.low > 0


@pytest.mark.slow
def test_models_of_recurring_kinds_correspond_no_more_often_than_their_interval_allows():
    """Above 0 in 2.5 % of cases at most, as far as so many tell."""
    rng = np.random.default_rng(3)
    above = [beyond_kinds(drawn_kinds, rng).low > 0 for _ in range(200)]
    assert sum(above) <= binom.ppf(1 - 1e-4, len(above), 0.025)
