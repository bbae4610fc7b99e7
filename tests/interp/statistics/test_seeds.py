from dataclasses import replace

import numpy as np
import pytest

from interp.ablation.ablate import ablate
from interp.ablation.pooled import pooled
from interp.model.heads import Head
from interp.statistics.seeds import N_COMBINATIONS, drawn_together, independent_seeds, null_means, seed_mean, t_interval
from training.checkpoints.checkpoint import load

SETS = [(Head(0, 1),), (Head(0, 1),), (Head(0, 1),)]
NAMES = ["zoo:mixed-0", "zoo:random-0", "zoo:linear-0"]


@pytest.fixture(scope="module")
def checkpoints():
    return [load(name) for name in NAMES]


@pytest.fixture(scope="module")
def ablations(checkpoints):
    common = {"modes": ["mean"], "n_prompts": 128, "n_controls": 50, "matches": ("layer",)}
    return [ablate(one, [heads], ["linear"], **common) for one, heads in zip(checkpoints, SETS, strict=True)]


def test_runs_that_share_a_stream_are_one_seed(checkpoints):
    first, second, third = checkpoints
    assert independent_seeds(checkpoints) == [[0], [1], [2]]
    twin = replace(
        second, config=replace(second.config, seeds=replace(second.config.seeds, data=first.config.seeds.data))
    )
    assert independent_seeds([first, twin, third]) == [[0, 1], [2]]
    bridge = replace(
        third, config=replace(third.config, seeds=replace(first.config.seeds, data=twin.config.seeds.init))
    )
    assert independent_seeds([first, second, bridge]) == [[0, 2], [1]]


@pytest.mark.slow
def test_the_pooled_effect_is_the_mean_over_seeds(checkpoints, ablations):
    (row,) = pooled(checkpoints, ablations, SETS, "0.1").to_dict("records")
    effects = [one.table["effect"][0] for one in ablations]
    assert row["effect"] == pytest.approx(np.mean(effects), rel=1e-6)
    assert (row["effect_min"], row["effect_max"]) == pytest.approx((min(effects), max(effects)))
    assert row["ci_low"] < row["effect"] < row["ci_high"]
    assert row["t_low"] < row["ci_low"] < row["ci_high"] < row["t_high"]
    assert (row["n_seeds"], row["n_undefined"]) == (3, 0)
    assert row["p_value"] == row["smallest_p"] == 1 / 8**3


def test_a_shared_stream_counts_once_and_widens_the_interval(checkpoints, ablations):
    first, second, third = checkpoints
    twin = replace(second, config=replace(second.config, seeds=first.config.seeds))
    (alone,) = pooled(checkpoints, ablations, SETS, "0.1").to_dict("records")
    (row,) = pooled([first, twin, third], ablations, SETS, "0.1").to_dict("records")
    effects = [one.table["effect"][0] for one in ablations]
    assert row["n_seeds"] == 2
    assert row["n_checkpoints"] == 3
    assert row["effect"] == pytest.approx((np.mean(effects[:2]) + effects[2]) / 2, rel=1e-6)
    assert row["t_high"] - row["t_low"] > alone["t_high"] - alone["t_low"]


def test_models_without_an_effect_are_left_out_and_counted(checkpoints, ablations):
    plateau = load("zoo:cubic-0")
    common = {"modes": ["mean"], "n_prompts": 128, "n_controls": 50, "matches": ("layer",)}
    nothing = ablate(plateau, [SETS[0]], ["linear"], **common)
    (row,) = pooled([*checkpoints, plateau], [*ablations, nothing], [*SETS, SETS[0]], "0.1").to_dict("records")
    assert (row["n_seeds"], row["n_undefined"]) == (3, 1)
    (row,) = pooled([plateau], [nothing], SETS[:1], "0.1").to_dict("records")
    assert np.isnan(row["effect"])
    assert row["n_undefined"] == 1


def test_combinations_hold_own_sets_but_not_all_of_them(rng):
    own = {0: 10.0, 1: 20.0}
    others = {0: np.array([0.0, 1.0]), 1: np.array([0.0])}
    means = null_means([[0], [1]], others, own, rng)
    assert sorted(means) == sorted([0.0, 0.5, 5.0, 10.0, 10.5])


def test_more_combinations_than_are_kept_are_a_sample_of_them(rng):
    """Three models of 31 sets each have 29,791 combinations, whose mean is the mean of the three means."""
    effects = rng.exponential(size=(3, 31))
    others, own = dict(enumerate(effects[:, 1:])), dict(enumerate(effects[:, 0].tolist()))
    means = null_means([[0], [1], [2]], others, own, rng)
    assert len(means) == N_COMBINATIONS
    spread = np.sqrt((effects.var(1) / 9).sum())
    assert means.mean() == pytest.approx(effects.mean(), abs=4 * spread / np.sqrt(N_COMBINATIONS))
    assert means.std() == pytest.approx(spread, rel=0.05)


def test_models_of_one_seed_are_drawn_at_the_same_rank():
    """As often as the model with the fewest sets allows: lowest, middle, highest."""
    few, many = np.array([2.0, 0.0, 1.0]), np.array([0.0, 10, 20, 30, 40])
    assert drawn_together([few, many]).tolist() == [0, 10.5, 21]
    assert drawn_together([few]).tolist() == [2, 0, 1]


def test_as_many_combinations_as_are_kept_are_all_taken(rng):
    """But the one of all own sets."""
    others = {0: np.arange(99.0), 1: 100 * np.arange(99.0)}
    means = null_means([[0], [1]], others, {0: 99.0, 1: 9900.0}, rng)
    assert sorted(2 * means) == list(range(N_COMBINATIONS - 1))


def test_a_model_without_null_sets_leaves_no_combination(rng):
    assert len(null_means([[0], [1]], {0: np.array([0.5]), 1: np.array([])}, {0: 1.0, 1: 1.0}, rng)) == 0


def test_a_mean_over_seeds_counts_a_shared_seed_once(checkpoints):
    first, second, third = checkpoints
    twin = replace(second, config=replace(second.config, seeds=first.config.seeds))
    found = seed_mean([first, twin, third], [1.0, 3.0, 6.0])
    low, high = t_interval(np.array([2.0, 6.0]))
    assert found.named("best") == {"best": 4.0, "t_low": low, "t_high": high, "n_seeds": 2}
    assert np.isnan(seed_mean([], []).value)
    assert seed_mean([first], [0.5])[0::3] == (0.5, 1)


def test_pooled_p_is_uniform_when_sets_are_picked_at_random(rng):
    """Three models of eight heads; the tested head of each is any of them."""
    p_values = []
    for _ in range(600):
        effects = rng.exponential(size=(3, 8)) ** 2
        own = {place: float(row[0]) for place, row in enumerate(effects)}
        null = null_means([[0], [1], [2]], {place: row[1:] for place, row in enumerate(effects)}, own, rng)
        p_values.append((np.sum(null >= np.mean(list(own.values())) - 1e-12) + 1) / (len(null) + 1))
    for level in (0.05, 0.1, 0.5):
        assert abs((np.array(p_values) <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 600)


def test_models_that_share_a_stream_make_no_p_smaller(checkpoints, ablations):
    """A head that a shared stream put in the same place of two models was drawn once, not twice."""
    first, second, third = checkpoints
    twin = replace(second, config=replace(second.config, seeds=first.config.seeds))
    (pair,) = pooled([first, twin], ablations[:2], SETS[:2], "0.1").to_dict("records")
    assert (pair["n_seeds"], pair["p_value"], pair["smallest_p"]) == (1, 1 / 8, 1 / 8)
    (three,) = pooled([first, twin, third], ablations, SETS, "0.1").to_dict("records")
    assert three["p_value"] == three["smallest_p"] == 1 / 8**2


def test_pooled_p_is_valid_when_two_models_share_their_heads(rng):
    """The tested head is any of eight, the same one in both models of the first seed, whose effects are alike."""
    p_values = []
    for _ in range(600):
        shared, alone = rng.exponential(size=(2, 8)) ** 2
        effects = [shared, shared + 0.1 * rng.normal(size=8), alone]
        own = {place: float(row[0]) for place, row in enumerate(effects)}
        null = null_means([[0, 1], [2]], {place: row[1:] for place, row in enumerate(effects)}, own, rng)
        mean = ((own[0] + own[1]) / 2 + own[2]) / 2
        p_values.append((np.sum(null >= mean - 1e-12) + 1) / (len(null) + 1))
    for level in (0.02, 0.05, 0.1, 0.5):
        assert (np.array(p_values) <= level).mean() < level + 4 * np.sqrt(level * (1 - level) / 600)


def test_the_t_interval_covers_at_its_nominal_rate_with_three_seeds(rng):
    covered = 0
    for _ in range(2000):
        low, high = t_interval(rng.normal(size=3))
        covered += low <= 0 <= high
    assert abs(covered / 2000 - 0.95) < 0.02
