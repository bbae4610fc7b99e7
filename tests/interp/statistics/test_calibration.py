"""Do intervals hold the truth as often as they say, and p-values fall below a level no more often than it?

By enumeration where the null has finitely many cases, else by simulation with fixed seeds: a rate passes inside the
binomial band that a true rate of that size leaves once in 10,000 times. Rates that are not the nominal ones are
written down here and in notebooks/concepts/statistics.md. The noise of replacement values, which no
simulation of errors shows, is counted on a shipped model, through `ablate` as a user calls it.
"""

import math
from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from analyses.studies.plateaus.measures import fisher
from interp.ablation import reference_activations as references
from interp.ablation.ablate import Ablation, ablate
from interp.ablation.errors import error_slices
from interp.ablation.pairs import bootstrap_p
from interp.ablation.reference_activations import reference_prompts
from interp.model.heads import Head
from interp.statistics.effects import (
    LEAST_GAIN,
    critical_effect,
    effect_resamples,
    holm,
    paired_effects,
    permutation_p,
    two_sided_p,
)
from interp.statistics.seed_intervals import welch
from interp.statistics.seeds import exact_interval, null_means, t_interval
from training.checkpoints.checkpoint import load
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.output import records

FALSE_ALARM = 1e-4
exhaustive = settings(derandomize=True, deadline=None, max_examples=60)

DRAWS: dict[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], np.ndarray], float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "skewed": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "very skewed": (lambda rng, shape: rng.lognormal(size=shape), math.exp(0.5)),
}
"""Distributions and their means."""


def assert_rate(hits, rate: float) -> None:
    """The share of hits is this rate as far as so many cases can tell."""
    low, high = binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], len(hits), rate)
    assert low <= np.sum(hits) <= high, f"{np.mean(hits):.4f} rather than {rate}"


def assert_at_most(hits, rate: float) -> None:
    assert np.sum(hits) <= binom.ppf(1 - FALSE_ALARM, len(hits), rate), f"{np.mean(hits):.4f} rather than {rate}"


@pytest.mark.parametrize(
    ("n_prompts", "kind", "rate"),
    [
        (16, "normal", 0.92),
        (16, "skewed", 0.89),
        (16, "very skewed", 0.84),
        (512, "normal", 0.945),
        (512, "skewed", 0.945),
        (512, "very skewed", 0.935),
    ],
)
def test_the_interval_over_prompts_holds_the_mean(n_prompts, kind, rate):
    """Nearly at its nominal rate with hundreds of prompts, not with sixteen; the more skewed, the less."""
    rng, (draw, mean) = np.random.default_rng(0), DRAWS[kind]
    low, high = percentile_interval(bootstrap_weights(n_prompts, rng, 1000) @ draw(rng, (n_prompts, 2000)))
    assert_rate((low <= mean) & (mean <= high), rate)


def effects_of(n_prompts: int, n_cases: int):
    """Resampled effects of two sets, whose effects are 0.5 and 0; errors of all conditions are skewed and go along."""
    rng = np.random.default_rng(1)
    weights = bootstrap_weights(n_prompts, rng, 1000)
    for _ in range(n_cases):
        no_context = rng.exponential(size=n_prompts)
        intact, half, none = 2 * np.array([[0.2], [0.6], [0.2]]) * no_context * rng.uniform(size=(3, n_prompts))
        yield effect_resamples(np.stack([half, none]), intact, no_context, weights)


@pytest.mark.parametrize(("n_prompts", "n_cases", "held", "said"), [(16, 1200, 0.905, 0.1), (512, 600, 0.945, 0.055)])
def test_the_interval_of_an_effect_holds_it_and_that_of_none_says_so(n_prompts, n_cases, held, said):
    """Also p of a difference (`pairs`), which is the same interval turned round."""
    cases = [one for one in effects_of(n_prompts, n_cases) if one is not None]
    assert len(cases) >= (0.6 if n_prompts == 16 else 1) * n_cases  # the others have no clear gain
    ends = np.array([percentile_interval(one) for one in cases])  # [case end set]
    assert_rate((ends[:, 0, 0] <= 0.5) & (ends[:, 1, 0] >= 0.5), held)
    assert_rate((ends[:, 0, 1] > 0) | (ends[:, 1, 1] < 0), said)
    assert_rate([bootstrap_p(one[:, 1]) <= 0.05 for one in cases], said)


def defined_effects(gain: float, n_models: int = 1500, n_prompts: int = 256) -> list[float]:
    """Of models with a gain of so many standard errors, of which a set takes 0.3: the effects that are defined."""
    rng = np.random.default_rng(8)
    weights = bootstrap_weights(n_prompts, rng, 200)
    no_context, gains = rng.exponential(size=(2, n_models, n_prompts))
    gains += gain / math.sqrt(n_prompts) - 1  # mean gain / sqrt(n), standard deviation 1
    found = []
    for optimum, own in zip(no_context, gains, strict=True):
        intact = optimum - own
        resamples = effect_resamples((intact + 0.3 * gain / math.sqrt(n_prompts))[None], intact, optimum, weights)
        if resamples is not None:
            found.append(0.3 * gain / math.sqrt(n_prompts) / own.mean())
    return found


def test_no_model_without_a_gain_has_an_effect():
    assert len(defined_effects(0.0)) == 0


@pytest.mark.parametrize(("gain", "power", "median"), [(LEAST_GAIN, 0.5, 0.26), (6.0, 0.99, 0.3)])
def test_effects_are_little_too_small_where_the_gain_is_barely_enough(gain, power, median):
    """By an eighth to a sixth where half of the models pass, and not at all where nearly all do."""
    found = defined_effects(gain)
    assert len(found) / 1500 == pytest.approx(power, abs=0.05)
    assert np.median(found) == pytest.approx(median, abs=0.015)


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
@pytest.mark.parametrize(("kind", "rate"), [("normal", 0.95), ("skewed", 0.89)])
def test_the_t_interval_holds_the_mean_of_a_few_seeds(n_seeds, kind, rate):
    rng, (draw, mean) = np.random.default_rng(2), DRAWS[kind]
    held = [low <= mean <= high for low, high in map(t_interval, draw(rng, (2000, n_seeds)))]
    assert_rate(held, rate)


SHARES = np.linspace(0, 1, 101)


@pytest.mark.parametrize("n", [3, 5, 10, 25])
def test_the_interval_of_a_count_holds_every_share_at_least_as_often_as_it_says(n):
    """Over all counts, for every true share; and some share nearly as rarely: the interval is not just wide."""
    ends = [exact_interval(k, n) for k in range(n + 1)]
    held = [sum(binom.pmf(k, n, share) for k in range(n + 1) if ends[k][0] <= share <= ends[k][1]) for share in SHARES]
    assert min(held) >= 0.95 - 1e-12
    assert min(held) < 0.98


@pytest.mark.parametrize("sizes", [(3, 3), (5, 5), (3, 10)])
def test_fishers_p_is_below_a_level_no_more_often_than_that(sizes):
    """Both groups have the same share, whichever: over all pairs of counts."""
    counts = list(product(*(range(n + 1) for n in sizes)))
    p_values = [fisher((k, sizes[0]), (other, sizes[1])) for k, other in counts]
    for share in SHARES[::5]:
        chance = [math.prod(binom.pmf(k, n, share) for k, n in zip(pair, sizes, strict=True)) for pair in counts]
        for level in sorted({*p_values, 0.05}):
            reached = sum(c for c, p in zip(chance, p_values, strict=True) if p <= level * (1 + 1e-9))
            assert reached <= level + 1e-9


def assert_at_most_uniform(p_values, effects) -> None:
    """Of equally likely cases no larger share lies at or below any value than that value; without ties, as large."""
    for level in p_values:
        assert np.mean(np.array(p_values) <= level + 1e-12) <= level + 1e-9
    if np.diff(np.sort(effects)).min() > 1e-4:
        assert sorted(p_values) == pytest.approx([(k + 1) / len(effects) for k in range(len(effects))])


equal_or_not = st.lists(st.sampled_from([0.0, 1e-9, 0.3, 0.3 + 2e-6, 1.0, -2.0, 50.0]), min_size=2, max_size=24)


@given(effects=equal_or_not | st.lists(st.floats(-9, 9), min_size=2, max_size=24))
@exhaustive
def test_p_of_a_blindly_chosen_set_is_below_a_level_no_more_often_than_that(effects):
    """Each of some sets against all others, whatever their effects, equal ones and those that rounding tells apart."""
    values = np.array(effects)
    p_values = [permutation_p(own, np.delete(values, place)) for place, own in enumerate(values)]
    assert_at_most_uniform(p_values, values)


@given(effects=equal_or_not | st.lists(st.floats(-9, 9), min_size=2, max_size=60))
@exhaustive
def test_the_two_sided_p_of_a_blindly_chosen_set_is_below_a_level_no_more_often_than_that(effects):
    """Each of some sets against all others: half of the level on either side, whatever their effects."""
    values = np.array(effects)
    p_values = np.array([two_sided_p(own, np.delete(values, place)) for place, own in enumerate(values)])
    for level in (*p_values, 0.05, 0.1):
        assert np.mean(p_values <= level + 1e-12) <= level + 1e-9


@pytest.mark.parametrize("n_controls", [19, 79, 199])
def test_the_two_sided_p_finds_both_directions_at_the_level_that_it_says(n_controls):
    """It rejects as often as it can where nothing differs, and removals that help as often as those that cost."""
    rng = np.random.default_rng(n_controls)
    drawn = rng.standard_normal((3000, n_controls + 1))

    def rejected(shift: float) -> list[bool]:
        return [two_sided_p(row[0] + shift, row[1:]) <= 0.05 for row in drawn]

    attainable = 2 * math.floor(0.025 * (n_controls + 1)) / (n_controls + 1)
    assert_rate(rejected(0), attainable)
    helps, costs = (np.mean(rejected(shift)) for shift in (-3, 3))
    assert helps == pytest.approx(costs, abs=0.05)
    assert (min(helps, costs) > 0.5) == (attainable > 0)


@given(effects=st.lists(st.floats(-9, 9), min_size=8, max_size=60), alpha=st.sampled_from([0.05, 0.1, 0.25, 0.5]))
@exhaustive
def test_no_more_sets_exceed_the_critical_effect_than_the_level_allows(effects, alpha):
    values = np.array(effects)
    beyond = [own > critical_effect(np.delete(values, place), alpha) for place, own in enumerate(values)]
    assert np.mean(beyond) <= alpha + 1e-9


few_sets = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.5001, 2.0, -1.0]) | st.floats(-3, 3), min_size=2, max_size=5)


@given(models=st.lists(few_sets, min_size=1, max_size=3))
@exhaustive
def test_pooled_p_of_blindly_chosen_sets_is_below_a_level_no_more_often_than_that(models):
    """Independent seeds; every combination of own sets is as likely, and has its p."""
    p_values, means, rng = [], [], np.random.default_rng(0)
    for places in product(*(range(len(effects)) for effects in models)):
        own = {model: effects[place] for model, (effects, place) in enumerate(zip(models, places, strict=True))}
        others = {model: np.delete(models[model], place) for model, place in enumerate(places)}
        null = null_means([[model] for model in own], others, own, rng)
        means.append(float(np.mean(list(own.values()))))
        p_values.append(permutation_p(means[-1], null))
    assert_at_most_uniform(p_values, means)


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=6))
@exhaustive
def test_holm_is_bonferroni_over_every_subset(p_values):
    """The closed test (Marcus, Peritz & Gabriel 1976): rejected is what every intersection that holds it rejects."""
    numbers = range(len(p_values))
    subsets = [one for size in range(1, len(p_values) + 1) for one in combinations(numbers, size)]
    closed = [
        max(min(1.0, len(one) * min(p_values[i] for i in one)) for one in subsets if number in one)
        for number in numbers
    ]
    assert holm(p_values) == pytest.approx(closed, abs=1e-12)


@pytest.mark.parametrize("correlation", [-0.49, 0.0, 0.9])
@pytest.mark.parametrize("n_true", [1, 2, 3])
def test_holm_keeps_its_error_rate_whatever_goes_along_with_what(correlation, n_true):
    """Three classes, of which `n_true` have nothing to find and the others much; p of normal deviates, one-sided."""
    rng = np.random.default_rng(3)
    covariance = np.full((3, 3), correlation) + (1 - correlation) * np.eye(3)
    deviates = rng.multivariate_normal(np.zeros(3), covariance, size=3000)
    p_values = np.array([[0.5 * math.erfc(x / math.sqrt(2)) for x in row] for row in deviates])
    p_values[:, n_true:] = 0.001
    assert_at_most([min(holm(list(row))[:n_true]) <= 0.05 for row in p_values], 0.05)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (3, 5), (5, 5)])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_welchs_p_is_below_a_level_no_more_often_than_that_where_groups_are_alike(sizes, kind):
    """And it says what its interval says."""
    rng, (draw, _) = np.random.default_rng(4), DRAWS[kind]
    found = [welch(*(draw(rng, (n,)) for n in sizes)) for _ in range(2000)]
    for level in (0.01, 0.05, 0.2):
        assert_at_most([one.p_value <= level for one in found], level)
    assert all((one.p_value <= 0.05) == (not one.low <= 0 <= one.high) for one in found)


@pytest.mark.parametrize(("kind", "rate"), [("normal", 0.055), ("skewed", 0.11)])
def test_welchs_p_does_not_hold_where_one_group_varies_four_times_as_much_and_is_skewed(kind, rate):
    rng, (draw, mean) = np.random.default_rng(5), DRAWS[kind]
    found = [welch(draw(rng, (5,)) - mean, 4 * (draw(rng, (5,)) - mean)) for _ in range(2000)]
    assert_rate([one.p_value <= 0.05 for one in found], rate)


REMOVED = (Head(0, 1),)


def ablation(seed: int, n_prompts: int) -> Ablation:
    """Of the head of a shipped model that takes the whole gain on linear."""
    return ablate(
        load("zoo:mixed-0"), [REMOVED], ["linear"], modes=["mean"], n_prompts=n_prompts, n_controls=0, seed=seed
    )


def mean_ablation(seed: int, n_prompts: int) -> dict[str, Any]:
    return records(ablation(seed, n_prompts).table)[0]


def many_errors(n_runs: int, n_prompts: int = 8192) -> np.ndarray:
    """Errors without the head, intact and of the no-context optimum, of as many prompts of other seeds."""
    runs = [ablation(10_000 + seed, n_prompts) for seed in range(n_runs)]
    columns = [next(error_slices(run.errors, run.protocol.ranges, run.seed)) for run in runs]
    return np.concatenate([[each.ablated(REMOVED), each.intact, each.no_context] for each in columns], axis=1)


def effect_in(errors: np.ndarray) -> float:
    without, intact, no_context = errors.mean(1)
    return (without - intact) / (no_context - intact)


def rate_without_other_noise(errors: np.ndarray, n_prompts: int, n_samples: int = 4000) -> float:
    """How often the interval over so many of these prompts holds the effect over all of them: what it would be if the
    replacement were the same in every experiment, 0.95 less what the bootstrap loses on so many prompts."""
    rng, truth, held = np.random.default_rng(0), effect_in(errors), 0
    weights = bootstrap_weights(n_prompts, rng)
    for _ in range(n_samples):
        without, intact, no_context = errors[:, rng.integers(errors.shape[1], size=n_prompts)]
        (effect,) = paired_effects(without[None], intact, no_context, weights)
        held += effect.ci_low <= truth <= effect.ci_high
    return held / n_samples


def test_few_test_prompts_do_not_make_the_mean_that_replaces_a_head_noisy(monkeypatch):
    """Other reference prompts move the effect on 64 prompts by little; a mean over 64 would add 0.056 to it."""
    row = mean_ablation(0, 64)
    others = reference_prompts(load("zoo:mixed-0").config, "linear", seed=1)
    monkeypatch.setattr(references, "reference_prompts", lambda *_: others)
    other = mean_ablation(0, 64)
    assert row["nmse_before"] == other["nmse_before"]
    assert row["effect"] == pytest.approx(other["effect"], abs=0.01)
    assert row["effect"] != other["effect"]


@pytest.mark.slow
@pytest.mark.parametrize("n_prompts", [64, 256])
def test_the_interval_of_mean_ablation_holds_the_effect_in_a_shipped_model(n_prompts):
    """Of all prompts, as often as if no mean over reference prompts stood in for the head, and without a bias."""
    errors, rows = many_errors(n_runs=8), [mean_ablation(seed, n_prompts) for seed in range(200)]
    truth, effects = effect_in(errors), np.array([row["effect"] for row in rows])
    assert abs(effects.mean() - truth) < 0.004 + 3 * effects.std() / math.sqrt(len(effects))
    expected = rate_without_other_noise(errors, n_prompts)
    assert 0.92 < expected < 0.96
    assert_rate([row["ci_low"] <= truth <= row["ci_high"] for row in rows], expected)
