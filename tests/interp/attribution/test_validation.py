"""Validation of estimates: each of their numbers on pairs whose answer is known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from interp.attribution.validation import NEGLIGIBLE, rank_correlation, validate_estimates


def names(n):
    return [f"n{i}" for i in range(n)]


def test_the_rank_correlation_is_scipys_with_ties(rng):
    for _ in range(20):
        first, second = rng.integers(0, 6, 30).astype(float), rng.integers(0, 6, 30).astype(float)
        assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second)[0])
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))


def test_an_exact_estimate_agrees_perfectly(rng):
    exact = rng.standard_normal(40)
    found = validate_estimates(exact, exact, names(40), n_prompts=8)
    assert (found["spearman"], found["spearman_size"], found["signs"], found["n_signs"]) == (
        1,
        1,
        1,
        (abs(exact) > 0.01 * abs(exact).max()).sum(),
    )
    assert [found[f"top_{k}"] for k in (5, 10, 20)] == [1, 1, 1]
    assert [found[f"chance_{k}"] for k in (5, 10, 20)] == [5 / 40, 10 / 40, 20 / 40]
    assert found["worst_exact"] == found["worst_approximate"]


def test_the_worst_miss_is_named_with_both_values(rng):
    exact = rng.standard_normal(12)
    wrong = exact.copy()
    wrong[7] = -exact[7] - 3 * np.sign(exact[7])
    found = validate_estimates(exact, wrong, names(12), n_prompts=8)
    assert (found["worst"], found["worst_exact"], found["worst_approximate"]) == ("n7", exact[7], wrong[7])
    assert found["signs"] == pytest.approx(1 - 1 / found["n_signs"])


def test_the_overlap_counts_the_largest_by_size_whatever_their_sign():
    exact = np.array([-9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0.5])
    approximate = np.array([9.0, 0.1, 7, -6, 0.2, 0.3, 5, 0, 0, 4])
    found = validate_estimates(exact, approximate, names(10), n_prompts=8)
    assert found["top_5"] == 3 / 5  # 0, 2 and 3 of 0-4
    assert (found["chance_5"], "top_10" in found) == (0.5, False)


def test_signs_are_judged_where_there_is_an_effect_and_rounding_is_nothing():
    exact = np.array([1.0, -0.5, 0.001, 0.0, 0.0])
    approximate = np.array([0.1, -0.1, -0.001, 0.9 * NEGLIGIBLE, -0.5 * NEGLIGIBLE])
    found = validate_estimates(exact, approximate, names(5), n_prompts=8)
    assert (found["signs"], found["n_signs"]) == (1, 2)
    assert found["spearman"] == pytest.approx(spearmanr(exact, [0.1, -0.1, -0.001, 0, 0])[0])


def test_sizes_rank_where_they_are_given():
    exact = np.array([3.0, 2, 1, 0.5, 0.2, 0.1])
    cancelled = np.array([0.0, 2, 1, 0.5, 0.2, 0.1])
    plain = validate_estimates(exact, cancelled, names(6), n_prompts=8)
    mended = validate_estimates(exact, cancelled, names(6), n_prompts=8, sizes=np.array([9.0, 2, 1, 0.5, 0.2, 0.1]))
    assert (plain["top_5"], mended["top_5"]) == (0.8, 1)
    assert mended["spearman_size"] == 1 > plain["spearman_size"]
    assert mended["spearman"] == plain["spearman"]


@pytest.mark.slow
def test_random_estimates_overlap_as_chance_has_it(rng):
    overlaps = [
        validate_estimates(rng.standard_normal(50), rng.standard_normal(50), names(50), n_prompts=8)["top_10"]
        for _ in range(400)
    ]
    assert np.mean(overlaps) == pytest.approx(0.2, abs=4 * float(np.std(overlaps)) / 20)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="3 exact effects, 3 estimates, 2 names"):
        validate_estimates(np.zeros(3), np.zeros(3), names(2), n_prompts=8)
