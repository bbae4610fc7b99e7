import math

import numpy as np
import pytest

from interp.statistics.effects import (
    LEAST_NAMED,
    TIE,
    critical_effect,
    detectable_effect,
    holm,
    paired_effects,
    permutation_p,
    widen_interval,
)
from training.common.bootstrap import bootstrap_weights, mean_interval, percentile_interval


def test_permutation_p_is_uniform_under_the_null(rng):
    """An effect drawn as its control sets are: P(p <= a) = a at every attainable level."""
    p_values = np.array([permutation_p(draw[0], draw[1:]) for draw in rng.normal(size=(4000, 20))])
    for level in (0.05, 0.1, 0.5):
        rate = (p_values <= level + 1e-9).mean()
        attainable = math.floor(level * 20 + 1e-9) / 20
        assert abs(rate - attainable) < 5 * math.sqrt(attainable * (1 - attainable) / 4000)


def test_equal_effects_count_against_the_set():
    assert permutation_p(0.5, np.full(9, 0.5 - 1e-9)) == 1.0
    assert permutation_p(0.5, np.array([0.5 - TIE, 0.5 - 2 * TIE])) == 2 / 3
    assert math.isnan(permutation_p(0.5, np.array([])))
    assert math.isnan(permutation_p(math.nan, np.array([0.1])))


def test_holm_agrees_with_the_hand_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.7, math.nan, 0.01, 0.9])
    assert math.isnan(adjusted.pop(1))  # and it is not counted
    assert adjusted == pytest.approx([1.0, 0.03, 1.0])


def test_holm_keeps_the_family_wise_error_rate(rng):
    families = rng.uniform(size=(4000, 3))
    rejected = np.mean([min(holm(list(p))) <= 0.05 for p in families])
    assert rejected < 0.05 + 5 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.slow
def test_bootstrap_interval_covers_the_mean_at_its_nominal_rate(rng):
    n, repeats = 200, 400
    covered = 0
    for _ in range(repeats):
        low, high = mean_interval(rng.exponential(size=(n, 1)), rng)
        covered += bool(low[0] <= 1 <= high[0])
    assert abs(covered / repeats - 0.95) < 0.04


def test_an_interval_is_the_central_95_percent_of_its_resamples():
    low, high = percentile_interval(np.stack([np.arange(1001.0), np.arange(1001.0)[::-1] * 2], axis=1))
    assert low == pytest.approx([25, 50])
    assert high == pytest.approx([975, 1950])


def test_resamples_draw_as_many_prompts_as_there_are_with_replacement(rng):
    """Counts are multinomial: whole numbers with sum n, mean 1, variance 1 - 1/n."""
    counts = bootstrap_weights(5, rng) * 5
    assert counts == pytest.approx(counts.round())
    assert counts.sum(1) == pytest.approx(np.full(len(counts), 5))
    assert counts.mean(0) == pytest.approx(np.ones(5), abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 5, rel=0.05)


def test_the_interval_of_a_table_is_that_of_each_of_its_columns(rng):
    values = rng.normal(size=(40, 2, 3))
    low, high = mean_interval(values, np.random.default_rng(2))
    assert low.shape == high.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        alone = mean_interval(values[:, i, j : j + 1], np.random.default_rng(2))
        assert (low[i, j], high[i, j]) == pytest.approx((alone[0][0], alone[1][0]))


@pytest.mark.slow
def test_effect_interval_covers_the_true_effect_and_excludes_it_at_its_nominal_rate(rng):
    """Intact error 0.2, no-context 1.0, ablated 0.6 on average, all three correlated: the effect is 0.5."""
    repeats, covered = 300, 0
    for _ in range(repeats):
        shared = rng.exponential(size=400)
        intact, no_context = 0.2 * shared, shared
        ablated = np.stack([0.6 * shared * rng.uniform(0.5, 1.5, size=400)])
        (effect,) = paired_effects(ablated, intact, no_context, bootstrap_weights(400, rng))
        covered += effect.ci_low <= 0.5 <= effect.ci_high
    assert abs(covered / repeats - 0.95) < 0.05


def test_pairing_removes_the_noise_that_conditions_share(rng):
    shared = rng.exponential(size=1000) * 10
    (effect,) = paired_effects(shared[None] * 0.6, shared * 0.2, shared, bootstrap_weights(1000, rng))
    assert effect.value == pytest.approx(0.5)
    assert effect.ci_high - effect.ci_low < 1e-9


def test_no_effect_is_defined_where_the_context_is_not_used(rng):
    errors = rng.exponential(size=500)
    (effect,) = paired_effects(errors[None] * 2, errors, errors, bootstrap_weights(500, rng))
    assert not effect.defined
    assert math.isnan(effect.ci_low)
    assert math.isnan(effect.ci_high)


def test_a_gain_that_may_be_none_leaves_no_effect_to_measure(rng):
    """The intact model is 0.05 better, give or take 0.06."""
    intact = rng.normal(size=100)
    no_context = intact + 0.05 + 0.6 * rng.permutation(np.linspace(-1.73, 1.73, 100))
    weights = bootstrap_weights(100, rng)
    assert not paired_effects(intact[None], intact, no_context, weights)[0].defined
    assert paired_effects(intact[None], intact, no_context + 0.2, weights)[0].defined


def test_each_set_has_the_effect_and_standard_error_of_its_own(rng):
    """Every prompt has the same gain of 1, so an effect is the mean of what its prompts lose."""
    intact = rng.exponential(size=400)
    losses = np.stack([rng.normal(0.3, 0.1, size=400), rng.normal(0.8, 0.4, size=400)])
    found = paired_effects(intact + losses, intact, intact + 1, bootstrap_weights(400, rng))
    for effect, own in zip(found, losses, strict=True):
        assert effect.value == pytest.approx(own.mean())
        assert effect.standard_error == pytest.approx(own.std() / 20, rel=0.06)
        assert effect.ci_low == pytest.approx(own.mean() - 1.96 * own.std() / 20, abs=0.2 * own.std() / 20)
        assert effect.ci_high == pytest.approx(own.mean() + 1.96 * own.std() / 20, abs=0.2 * own.std() / 20)


@pytest.mark.parametrize("n", [7, 18, 19, 20, 38, 39, 199])
def test_the_critical_effect_is_where_p_falls_to_five_percent(rng, n):
    null = rng.normal(size=n)
    critical = critical_effect(null)
    if n < 19:
        assert critical == math.inf
        return
    assert permutation_p(critical + 1e-3, null) <= 0.05
    assert permutation_p(critical - 1e-3, null) > 0.05


def test_a_family_of_tests_can_find_larger_effects_only():
    """Holm's first step asks for 5 % / n: the second largest of 39 for one test, the largest for two, none."""
    null = np.arange(39) / 100
    assert [detectable_effect(0.0, 0.0, null, n_tests=n) for n in (1, 2, 3)] == pytest.approx(
        [0.37 + LEAST_NAMED, 0.38 + LEAST_NAMED, math.inf]
    )


def test_the_detectable_effect_is_found_with_its_power(rng):
    """A true effect of that size, estimated with its standard error, beats the control sets in four of five samples."""
    null, standard_error = rng.normal(scale=0.1, size=199), 0.2
    effect = detectable_effect(0.0, standard_error, null, n_tests=1)
    p_values = [permutation_p(effect + standard_error * rng.normal(), null) for _ in range(4000)]
    assert np.mean(np.array(p_values) <= 0.05) > 0.78
    lone = detectable_effect(standard_error, 0.0, np.full(199, -9.0), n_tests=1)
    assert np.mean(lone + standard_error * rng.normal(size=4000) > 1.96 * standard_error) == pytest.approx(
        0.8, abs=0.03
    )


@pytest.mark.parametrize("n_values", [1, 56, 400])
def test_the_best_of_many_values_that_are_0_seldom_differs_from_0(n_values, rng):
    """By widened intervals in at most 5 % of families; by each value's own interval, of 56, in three of four."""
    values = rng.standard_normal((4000, n_values))
    best = np.abs(values).max(axis=1)
    _, half_width = widen_interval(0.0, -1.96, 1.96, n_values)
    assert np.mean(best > half_width) == pytest.approx(0.05, abs=0.012)
    assert np.mean(best > 1.96) > 1 - 0.96**n_values
