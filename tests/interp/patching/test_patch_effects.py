"""Effects of patches on predictions made up for the purpose, and how often their intervals hold the truth."""

import math

import numpy as np
import pytest

from interp.names import METRIC_NAMES
from interp.patching.effects import METRICS, Outcomes, effect_of, effect_resamples, error_metrics, gap_exists
from interp.patching.verdict import describe_paths
from training.common.bootstrap import bootstrap_weights

N = 200


@pytest.fixture
def ends(rng):
    return rng.normal(1, 2, N), rng.normal(-1, 3, N)


@pytest.fixture
def weights(rng):
    return bootstrap_weights(N, rng, 300)


def test_effects_are_shares_of_the_way(ends, weights):
    base, source = ends
    gap = source - base
    shares = [0, 0.5, 1, 1.5, -1]
    found = effect_of(np.stack([base + share * gap for share in shares]), base, source, weights)
    for effect, share in zip(found, shares, strict=True):  # the same share on every prompt: no spread at all
        assert (effect.value, effect.ci_low, effect.ci_high) == pytest.approx((share, share, share))


def test_what_moves_across_the_gap_does_not_count(ends, weights, rng):
    base, source = ends
    gap = source - base
    across = rng.normal(0, 5, N)
    across -= gap * (across @ gap) / (gap @ gap)
    nothing, half = effect_of(np.stack([base + across, base + gap / 2 + across]), base, source, weights)
    assert nothing.value == pytest.approx(0, abs=1e-12)
    assert half.value == pytest.approx(0.5)
    assert nothing.ci_low < 0 < nothing.ci_high


def test_prompts_count_by_the_square_of_their_gap(weights):
    """Half the prompts all the way: one half where gaps are equal, 0.1 where the others' are three times as wide."""
    base = np.zeros(N)
    moved = np.arange(N) % 2 == 0
    for wide, share in ((1.0, 0.5), (3.0, 0.1)):
        source = np.where(moved, 1.0, wide)
        (found,) = effect_of(np.where(moved, source, base)[None], base, source, weights)
        assert found.value == pytest.approx(share)
        assert found.ci_low < share < found.ci_high


def test_effects_of_what_acts_apart_add_up(ends, weights, rng):
    base, source = ends
    one, other = rng.normal(0, 1, (2, N))
    first, second, both = effect_of(base + np.stack([one, other, one + other]), base, source, weights)
    assert both.value == pytest.approx(first.value + second.value)


def test_swapping_the_runs_swaps_what_is_done_and_what_is_left(ends, weights, rng):
    base, source = ends
    patched = (base + source) / 2 + rng.normal(0, 1, N)
    (forth,), (back,) = effect_of(patched[None], base, source, weights), effect_of(patched[None], source, base, weights)
    assert forth.value + back.value == pytest.approx(1)


def test_resamples_resample_numerator_and_denominator_together(ends, weights, rng):
    base, source = ends
    patched = base + rng.normal(0, 1, (3, N))
    found = effect_resamples(patched, base, source, weights)
    assert found.shape == (300, 3)
    for row, counts in zip(found[:20], weights[:20] * N, strict=False):
        prompts = np.repeat(np.arange(N), np.rint(counts).astype(int))
        gap = (source - base)[prompts]
        for value, one in zip(row, patched, strict=True):
            assert value == pytest.approx(((one - base)[prompts] * gap).mean() / (gap**2).mean())


def test_runs_that_predict_the_same_leave_nothing_to_measure(ends, weights):
    base, _ = ends
    for source in (base, base * (1 + 1e-9)):
        assert not gap_exists(base, source)
        (found,) = effect_of(base[None] + 1, base, source, weights)
        assert not found.defined
        assert math.isnan(found.ci_low)
        assert math.isnan(found.ci_high)
    assert not gap_exists(np.zeros(3), np.zeros(3))
    assert gap_exists(base, base * 1.001)
    assert gap_exists(1e-6 * base, 1.1e-6 * base)  # it does not depend on the unit of y


@pytest.mark.parametrize("n_prompts", [50, 200])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n_prompts):
    """Patches that move 0.4 of the way plus noise that grows with the gap; 300 samples, binomial error 0.013."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        base, gap = rng.normal(0, 1, (2, n_prompts))
        patched = base + 0.4 * gap + rng.normal(0, 0.5, n_prompts) * (0.2 + np.abs(gap))
        (found,) = effect_of(patched[None], base, base + gap, bootstrap_weights(n_prompts, rng, 300))
        covered.append(found.ci_low <= 0.4 <= found.ci_high)
    assert (0.88 if n_prompts == 50 else 0.91) <= np.mean(covered) <= 0.98


def test_metrics_are_their_definitions():
    outcomes = Outcomes(
        patched=np.array([[1.0, 2.0], [3.0, 3.0]]),
        clean=np.array([1.0, 3.0]),
        corrupt=np.array([0.0, 0.0]),
        answer=np.array([2.0, 2.0]),
        no_context=np.array([0.0, 1.0]),
        unit=2.0,
    )
    found = error_metrics(outcomes)
    np.testing.assert_allclose(found["nmse"], [[0.5, 0], [0.5, 0.5]])
    np.testing.assert_allclose(found["distance_to_clean"], [[0, 0.5], [2, 0]])
    np.testing.assert_allclose(found["nmse_above_no_context"], [[0.5 - 2, -0.5], [0.5 - 2, 0.5 - 0.5]])
    assert tuple(METRICS) == METRIC_NAMES == ("effect", *found)


def path_row(receiver, effect, half_width=0.01):
    return {"sender": "0.1", "receiver": receiver, "effect": effect} | {
        "ci_low": effect - half_width,
        "ci_high": effect + half_width,
    }


def test_the_sentence_on_paths_names_those_with_evidence():
    total = path_row("all", 0.9)
    both = describe_paths("linear", total, path_row("0.mlp", 0.8), path_row("1.2.v", 0.1), path_row("1.3.v", 0.0))
    assert both.startswith(
        "On linear what 0.1 writes in the other run takes the prediction 0.90 [0.89, 0.91] of the way to that of the "
        "other run; the path to 0.mlp alone 0.80 ["
    )
    assert "next that to 1.2.v 0.10 [" in both
    assert both.endswith("(chosen from 3 paths; intervals hold for all of them at once).")
    assert "next" not in describe_paths("linear", total, path_row("0.mlp", 0.8), path_row("1.2.v", 0.0))
    assert "none of 1 path is shown to carry 0.01" in describe_paths("linear", total, path_row("0.mlp", 0.004, 0.001))
    for nothing in (path_row("all", 0.004, 0.0), path_row("all", 0.5, 0.6), path_row("all", np.nan)):
        text = describe_paths("linear", nothing, path_row("0.mlp", 0.004))
        assert "is not shown to take the prediction 0.01 of the way" in text
        assert "the path to" not in text
