import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.heads import Head, all_heads, head_set
from interp.stats import holm, matched_sets, paired_effects, permutation_p
from training.intervals import mean_interval

HEADS = st.sets(st.sampled_from(all_heads(3, 4)), min_size=1, max_size=5)


@given(heads=HEADS, match=st.sampled_from(["layer", "size"]), n_sets=st.integers(0, 40), seed=st.integers(0, 99))
@settings(deadline=None)
def test_null_sets_match_and_never_contain_a_chosen_head(heads, match, n_sets, seed):
    heads = head_set(heads)
    null = matched_sets(heads, 3, 4, match=match, n_sets=n_sets, rng=np.random.default_rng(seed))
    assert len(set(null.sets)) == len(null.sets) == min(n_sets, null.n_available)
    for control in null.sets:
        assert not set(control) & set(heads)
        assert len(set(control)) == len(heads)
        if match == "layer":
            assert [head.layer for head in control] == [head.layer for head in heads]


def test_layer_matched_sets_of_the_papers_seven_heads_number_105():
    """paper.md, section 9.3: four heads of layer 4, two of layer 5, one of layer 6, of eight each."""
    seven = head_set([Head(3, h) for h in (0, 4, 5, 7)] + [Head(4, 3), Head(4, 7), Head(5, 6)])
    null = matched_sets(seven, 12, 8, match="layer", n_sets=1000, rng=np.random.default_rng(0))
    assert null.n_available == len(null.sets) == 1 * 15 * 7
    assert all(set(control) >= {Head(3, h) for h in (1, 2, 3, 6)} for control in null.sets)


def test_a_whole_layer_has_no_layer_matched_set():
    null = matched_sets(all_heads(1, 4), 2, 4, match="layer", n_sets=10, rng=np.random.default_rng(0))
    assert (null.sets, null.n_available) == ((), 0)


def test_sampled_sets_are_uniform():
    rng = np.random.default_rng(0)
    counts: dict[object, int] = {}
    for _ in range(4000):
        (control,) = matched_sets((Head(0, 0),), 1, 5, match="layer", n_sets=1, rng=rng).sets
        counts[control] = counts.get(control, 0) + 1
    assert len(counts) == 4
    assert all(abs(count - 1000) < 5 * math.sqrt(1000 * 0.75) for count in counts.values())


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
        (effect,) = paired_effects(ablated, intact, no_context, rng)
        covered += effect.ci_low <= 0.5 <= effect.ci_high
    assert abs(covered / repeats - 0.95) < 0.05


def test_pairing_removes_the_noise_that_conditions_share(rng):
    shared = rng.exponential(size=1000) * 10
    (effect,) = paired_effects(shared[None] * 0.6, shared * 0.2, shared, rng)
    assert effect.value == pytest.approx(0.5)
    assert effect.ci_high - effect.ci_low < 1e-9


def test_no_effect_is_defined_where_the_context_is_not_used(rng):
    errors = rng.exponential(size=500)
    (effect,) = paired_effects(errors[None] * 2, errors, errors, rng)
    assert not effect.defined
