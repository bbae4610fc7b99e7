import math

import numpy as np
import pytest

from interp.stats import critical_effect, detectable_effect, holm, paired_effects, permutation_p
from training.intervals import bootstrap_weights, mean_interval


def test_permutation_p_is_uniform_under_the_null(rng):
    """An effect drawn as its null sets are: P(p <= a) = a at every attainable level."""
    p_values = np.array([permutation_p(draw[0], draw[1:]) for draw in rng.normal(size=(4000, 20))])
    for level in (0.05, 0.1, 0.5):
        rate = (p_values <= level + 1e-9).mean()
        attainable = math.floor(level * 20 + 1e-9) / 20
        assert abs(rate - attainable) < 5 * math.sqrt(attainable * (1 - attainable) / 4000)


def test_equal_effects_count_against_the_set():
    assert permutation_p(0.5, np.full(9, 0.5 - 1e-9)) == 1.0
    assert math.isnan(permutation_p(0.5, np.array([])))
    assert math.isnan(permutation_p(math.nan, np.array([0.1])))


def test_holm_agrees_with_the_hand_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9])[0::2] == pytest.approx([1.0, 1.0])


def test_holm_keeps_the_family_wise_error_rate(rng):
    families = rng.uniform(size=(4000, 3))
    rejected = np.mean([min(holm(list(p))) <= 0.05 for p in families])
    assert rejected < 0.05 + 5 * math.sqrt(0.05 * 0.95 / 4000)


def test_bootstrap_interval_covers_the_mean_at_its_nominal_rate(rng):
    n, repeats = 200, 400
    covered = 0
    for _ in range(repeats):
        low, high = mean_interval(rng.exponential(size=(n, 1)), rng)
        covered += bool(low[0] <= 1 <= high[0])
    assert abs(covered / repeats - 0.95) < 0.04


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


@pytest.mark.parametrize("n", [7, 19, 20, 39, 199])
def test_the_critical_effect_is_where_p_falls_to_five_percent(rng, n):
    null = rng.normal(size=n)
    critical = critical_effect(null)
    if n < 19:
        assert critical == math.inf
        return
    assert permutation_p(critical + 1e-3, null) <= 0.05
    assert permutation_p(critical - 1e-3, null) > 0.05


def test_the_detectable_effect_is_found_with_its_power(rng):
    """A true effect of that size, estimated with its standard error, beats the null sets in four of five samples."""
    null, standard_error = rng.normal(scale=0.1, size=199), 0.2
    effect = detectable_effect(0.0, standard_error, null, n_tests=1)
    p_values = [permutation_p(effect + standard_error * rng.normal(), null) for _ in range(4000)]
    assert np.mean(np.array(p_values) <= 0.05) > 0.78
    lone = detectable_effect(standard_error, 0.0, np.full(199, -9.0), n_tests=1)
    assert np.mean(lone + standard_error * rng.normal(size=4000) > 1.96 * standard_error) == pytest.approx(
        0.8, abs=0.03
    )
