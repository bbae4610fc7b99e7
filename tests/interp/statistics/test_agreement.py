"""Statistics of agreement, matching and seeds against enumeration, simulation, hand-computed values and scipy."""

from itertools import combinations, pairwise, permutations, product

import numpy as np
import pytest
from scipy import stats

from analyses.studies.consistency.measures.matching import (
    N_DRAWS,
    Pattern,
    best_match,
    blocks,
    describe_heads,
    halves,
    match_heads,
    similarity,
)
from interp.statistics.agreement import (
    coincidence_p,
    kendall_w,
    mean_over_pairs,
    overlap_p,
    pearson,
    spearman,
    top,
    top_overlap,
)
from interp.statistics.seed_intervals import jackknife, welch
from training.tasks.prompts import PLAIN, Layout


def test_correlations_equal_scipys_for_any_number_of_maps(rng):
    one, other = rng.normal(size=(2, 5, 24)).round(1)  # with ties
    for own, reference in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        expected = np.array([next(iter(reference(a, b))) for a, b in zip(one, other, strict=True)])
        np.testing.assert_allclose(own(one, other), expected)
    assert np.isnan(pearson(np.full(5, 0.1), rng.normal(size=5)))


def test_maps_in_a_batch_are_compared_each_alone(rng):
    """Scores of at most 0.03, and a head map without any difference on either side."""
    one, other = rng.normal(size=(2, 3, 2, 12)).round(1) / 100
    one[1, 0], other[2, 1] = 0.01, 0.02
    for own, reference in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        found = own(one, other)
        for place in np.ndindex(3, 2):
            constant = place in ((1, 0), (2, 1))
            wanted = np.nan if constant else next(iter(reference(one[place], other[place])))
            assert found[place] == pytest.approx(wanted, nan_ok=True)
            assert own(one[place], other[place]) == pytest.approx(wanted, nan_ok=True)
    drawn = rng.normal(size=(2, 3, 2, 12))
    shared = [
        [len({*a.argsort()[-3:]} & {*b.argsort()[-3:]}) / 3 for a, b in zip(*both, strict=True)]
        for both in zip(*drawn, strict=True)
    ]
    assert top_overlap(3)(*drawn) == pytest.approx(np.array(shared))
    assert top_overlap(0)(*drawn).shape == (3, 2)


def test_among_equals_the_first_heads_are_on_top(rng):
    values = rng.integers(0, 4, size=(2, 3, 40)).astype(float)
    chosen = top(values, 15)
    for place in np.ndindex(2, 3):
        in_order = sorted(range(40), key=lambda head, of=values[place]: (-of[head], head))
        assert set(np.flatnonzero(chosen[place])) == set(in_order[:15])


def test_the_chance_of_an_overlap_is_that_of_all_orders():
    """6 heads, the 2 highest: every order of the second map is as likely."""
    first, k = np.arange(6.0), 2
    shares = np.array([top_overlap(k)(first, np.array(order, float)).item() for order in permutations(range(6))])
    assert shares.mean() == pytest.approx(k / 6)
    for n_shared in range(k + 1):
        assert overlap_p(n_shared, k, 6) == pytest.approx((shares * k >= n_shared).mean())


def test_the_overlap_of_no_heads_is_undefined():
    assert np.isnan(top_overlap(0)(np.arange(3.0), np.arange(3.0)))


def test_concordance_of_hand_computed_values():
    """Rank sums 4, 9, 9, 8 of three maps: S = 17, W = 12 · 17 / (9 · 60)."""
    maps = np.array([[1.0, 2, 3, 4], [1, 4, 3, 2], [2, 3, 3.5, 1.5]])
    ranks = np.array([stats.rankdata(one) for one in maps])
    sums = ranks.sum(0)
    expected = 12 * ((sums - sums.mean()) ** 2).sum() / (9 * (4**3 - 4))
    assert kendall_w(maps) == pytest.approx(expected)
    assert kendall_w(maps[[0, 0, 0]]) == pytest.approx(1)
    assert kendall_w(np.array([[1.0, 2, 3], [3, 2, 1]])) == pytest.approx(0)
    assert kendall_w(np.array([[1.0, 2], [1, 1]])) == pytest.approx(0.5)  # rank sums 2.5 and 3.5, of 2 and 4 at most
    assert np.isnan(kendall_w(np.ones((2, 3, 4)))).all()


def test_concordance_with_ties_is_friedmans(rng):
    maps = rng.integers(0, 4, size=(3, 8)).astype(float)
    chi_squared = stats.friedmanchisquare(*maps.T)[0]
    assert kendall_w(maps) == pytest.approx(chi_squared / (3 * 7))


def test_concordance_is_one_over_m_by_chance_and_the_mean_spearman_rescaled(rng):
    maps = rng.normal(size=(4000, 3, 10))
    values = kendall_w(maps)
    assert abs(values.mean() - 1 / 3) < 4 * values.std() / np.sqrt(len(values))
    np.testing.assert_allclose(values, (1 + 2 * mean_over_pairs(spearman, maps)) / 3)


def test_heads_coincide_by_chance_as_often_as_counted(rng):
    """Five independent models with two of eight heads each: p <= 0.05 in no more than one study of twenty."""
    pairs, p_values, found, by_chance = list(combinations(range(5), 2)), [], [], 10 * 2 * 2 / 8
    for _ in range(400):
        masks = [rng.permuted([True, True, *[False] * 6])[None] for _ in range(5)]
        n, expected, p_value = coincidence_p(masks, pairs, rng, n_draws=199)
        found.append(n)
        p_values.append(p_value)
        assert expected == pytest.approx(by_chance)
    assert abs(np.mean(found) - by_chance) < 4 * np.std(found) / np.sqrt(len(found))
    assert np.mean(np.array(p_values) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_heads_coincide_within_their_layer_only(rng):
    """Four heads a layer: 2 and 1 meet 1 and 3; and one head of eight meets another's one time in four."""
    one = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    other = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], dtype=bool)
    assert coincidence_p([one, other], [(0, 1)], rng)[:2] == (2, (2 * 1 + 1 * 3) / 4)
    alone = np.eye(2, 4, dtype=bool) & [[True], [False]]
    assert coincidence_p([alone, alone], [(0, 1)], rng)[2] == pytest.approx(1 / 4, abs=4 * np.sqrt(3 / 16 / 2000))


def test_what_cannot_be_otherwise_is_no_coincidence(rng):
    every = np.ones((2, 3), dtype=bool)
    assert coincidence_p([every, every], [(0, 1)], rng) == (6, 6, 1)


def test_shared_heads_are_found_to_coincide(rng):
    same = np.eye(1, 8, dtype=bool)
    assert coincidence_p([np.eye(1, 4096, dtype=bool)] * 2, [(0, 1)], rng)[2] in (
        1 / 2001,
        2 / 2001,
        3 / 2001,
        4 / 2001,
    )
    assert coincidence_p([same] * 3, [(0, 1), (0, 2), (1, 2)], rng)[2] < 0.03


def random_pattern(rng, n_layers=2, n_heads=8, n_pos=32) -> Pattern:
    """Attention to earlier tokens, every row drawn anew."""
    logits = np.where(np.tri(n_pos, dtype=bool), 2 * rng.normal(size=(n_layers, n_heads, n_pos, n_pos)), -np.inf)
    weights = np.exp(logits)
    return Pattern(weights / weights.sum(-1, keepdims=True), PLAIN)


def cosines(one: Pattern, other: Pattern, points: range) -> np.ndarray:
    return similarity(describe_heads(one, points), describe_heads(other, points))


def test_a_head_is_described_by_its_preferences_however_weak(rng):
    """The first head attends evenly, the second almost; an instruction token stands within the second pair."""
    layout, n_pos = Layout(1, at=3), 9
    even = np.tri(n_pos) / np.arange(1, n_pos + 1)[:, None]
    weak = even.copy()
    weak[5, :2] += [0.01, -0.01]
    attention = np.stack([even, weak, random_pattern(rng, 1, 1, n_pos).attention[0, 0]])[None]
    found = describe_heads(Pattern(attention, layout), range(2, 4))  # tokens 5 and 7, and 6 and 8
    assert found.shape == (3, 4 * n_pos)
    assert np.linalg.norm(found, axis=1) == pytest.approx([0, 1, 1])
    assert found[1, :2] == pytest.approx([0.5**0.5, -(0.5**0.5)])
    assert found[2].reshape(4, n_pos).sum(1) == pytest.approx(np.zeros(4))
    wanted = (attention[0, 2] - even)[[5, 7, 6, 8]].ravel()
    assert found[2] == pytest.approx(wanted / np.linalg.norm(wanted))


def test_matches_are_sought_in_a_layer_or_in_the_model():
    assert blocks(3, 2, "layer") == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert blocks(3, 2, "model") == [slice(0, 6)]
    assert halves(7) == (range(3), range(3, 7))


def test_p_of_a_matching_is_its_rank_among_all_of_them(rng):
    """Two layers of three heads have 36 matchings."""
    judged = rng.normal(size=(6, 6))
    within = [judged[:3, :3], judged[3:, 3:]]
    every = np.array(
        [
            sum(of[range(3), order].sum() for of, order in zip(within, both, strict=True)) / 6
            for both in product(permutations(range(3)), repeat=2)
        ]
    )
    found = match_heads(judged, judged, blocks(2, 3, "layer"), rng)
    assert (found.by_index, found.matched) == pytest.approx((every[0], every.max()))
    for p_value, value in ((found.p_index, found.by_index), (found.p_matched, found.matched)):
        exact = np.mean(every >= value - 1e-9)
        assert p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / N_DRAWS))


def test_a_planted_order_of_heads_is_recovered(rng):
    pattern = random_pattern(rng)
    orders = [rng.permutation(8) for _ in range(2)]
    moved = np.stack([layer[order] for layer, order in zip(pattern.attention, orders, strict=True)])
    other = Pattern(moved, PLAIN)
    first, second = halves(16)
    among = blocks(2, 8, "layer")
    found = match_heads(cosines(pattern, other, first), cosines(pattern, other, second), among, rng)
    assert found.matched == pytest.approx(1)
    assert found.by_index < 0.5
    assert found.p_matched == 1 / (N_DRAWS + 1)
    expected = np.concatenate([np.argsort(order) + 8 * layer for layer, order in enumerate(orders)])
    np.testing.assert_array_equal(found.match, expected)


def test_unrelated_heads_matched_on_one_half_are_no_more_alike_on_the_other(rng):
    first, second = halves(16)
    among = blocks(2, 8, "layer")
    excess, p_values, circular = [], [], []
    for _ in range(60):
        one, other = random_pattern(rng), random_pattern(rng)
        judged = cosines(one, other, second)
        found = match_heads(cosines(one, other, first), judged, among, rng)
        excess.append(found.matched - found.chance)
        p_values.append(found.p_matched)
        circular.append(match_heads(judged, judged, among, rng).p_matched)
    assert abs(np.mean(excess)) < 4 * np.std(excess) / np.sqrt(len(excess))
    assert np.mean(np.array(p_values) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
    assert np.mean(np.array(circular) <= 0.05) == 1  # judged where it was chosen, everything is alike


def test_chance_is_the_mean_over_all_matchings(rng):
    alike = rng.normal(size=(4, 4))
    every = [alike[np.arange(4), order].mean() for order in permutations(range(4))]
    found = match_heads(alike, alike, [slice(0, 4)], rng)
    assert found.chance == pytest.approx(np.mean(every))
    assert found.matched == pytest.approx(max(every))
    by_layer = match_heads(alike, alike, [slice(0, 2), slice(2, 4)], rng)
    assert by_layer.chance == pytest.approx(np.mean([alike[:2, :2].mean(), alike[2:, 2:].mean()]))
    assert best_match(alike, [slice(0, 2), slice(2, 4)])[:2].max() < 2


def test_welch_is_scipys(rng):
    one, other = rng.normal(size=5), rng.normal(1, 3, size=4)
    expected = stats.ttest_ind(one, other, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    np.testing.assert_allclose(welch(one, other), (one.mean() - other.mean(), low, high, tuple(expected)[1]))
    np.testing.assert_allclose(
        welch(one[:2], other[:2])[3], tuple(stats.ttest_ind(one[:2], other[:2], equal_var=False))[1]
    )
    np.testing.assert_equal(tuple(welch(one, other[:1])), (one.mean() - other[0], np.nan, np.nan, np.nan))
    np.testing.assert_equal(tuple(welch(np.full(3, 2.0), np.ones(3))), (1, 1, 1, np.nan))


def covers(rng, sizes: tuple[int, ...], crossed: bool) -> float:
    """How often the jackknife interval holds the mean over pairs of random models, which is 0."""
    starts = np.cumsum([0, *sizes])
    samples = [list(range(a, b)) for a, b in pairwise(starts)]
    pairs = [(a, b) for a in samples[0] for b in samples[-1] if a < b] if crossed else list(combinations(samples[0], 2))
    held = []
    for _ in range(500):
        own = rng.normal(size=starts[-1])
        values = {(a, b): own[a] + own[b] + rng.normal() for a, b in pairs}

        def mean_of(kept, values=values) -> float:
            left = [value for pair, value in values.items() if kept.issuperset(pair)]
            return float(np.mean(left)) if left else np.nan

        estimate = jackknife(samples, mean_of)
        held.append(estimate.low <= 0 <= estimate.high)
    return float(np.mean(held))


def test_the_jackknife_interval_holds_the_mean_over_pairs_nineteen_times_of_twenty(rng):
    """Counting the ten pairs as independent would hold it in some three of four."""
    assert covers(rng, (5,), crossed=False) >= 0.93
    assert covers(rng, (5, 4), crossed=True) >= 0.93


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_jackknife_of_a_mean_is_the_t_interval(rng, n):
    values = rng.normal(3, 2, size=n)
    found = jackknife([range(n)], lambda kept: float(values[[*kept]].mean()))
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found[:3] == pytest.approx((values.mean(), *wanted))


def test_the_jackknife_of_a_difference_adds_the_variances_of_both_sides(rng):
    """With the degrees of freedom of the smaller side."""
    values, sides = rng.normal(size=9), ([0, 1, 2, 3, 4, 5], [6, 7, 8])
    found = jackknife(sides, lambda kept: float(np.subtract(*(values[[*kept & {*side}]].mean() for side in sides))))
    half = stats.t.ppf(0.975, 2) * np.sqrt(values[:6].var(ddof=1) / 6 + values[6:].var(ddof=1) / 3)
    value = values[:6].mean() - values[6:].mean()
    assert found[:3] == pytest.approx((value, value - half, value + half))


def test_too_few_or_equal_seeds_have_no_interval():
    def mean_of(kept: frozenset[int]) -> float:
        return 0.5 if len(kept) > 1 else np.nan

    for seeds in ([0, 1], [0, 1, 2]):
        np.testing.assert_equal(tuple(jackknife([seeds], mean_of)), (0.5, np.nan, np.nan, np.nan))
    np.testing.assert_equal(tuple(jackknife([[0], [1, 2, 3]], lambda kept: float(len(kept)))), (4, *[np.nan] * 3))
