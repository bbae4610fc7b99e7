"""Data efficiency against runs whose need of data is known."""

import math

import numpy as np
import pytest

from analyses.studies.efficiency.measures import Need, critical_rank, data_ratio, geometric_median, u_counts
from analyses.studies.efficiency.study import study
from training.checkpoints.checkpoint import load
from training.common.errors import UserError

FALLING = [1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.05, 0.05]
FLAT = [1.0] * len(FALLING)


def row_of(table, **values):
    for column, value in values.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.fixture
def ninths(made_up):
    """Five mixed and five single cubic runs with the same course, of whose prompts 1/9 and all are cubic."""
    mixed = [made_up("mixed", seed, {"cubic": FALLING}, {"cubic": 1 / 9}) for seed in range(5)]
    return [*mixed, *(made_up("single:cubic", seed, {"cubic": FALLING}) for seed in range(5))]


def test_a_ninth_of_the_class_at_equal_compute_is_said_to_be_that(ninths):
    found = study(ninths, n_prompts=1, seed=0)
    for threshold in (0.9, 0.5, 0.25, 0.1):
        data = row_of(found.files["ratios"], measure="prompts_seen", threshold=threshold)
        assert data["value"] == pytest.approx(1 / 9)
        assert (data["rank_low"], data["rank_high"]) == pytest.approx((1 / 9, 1 / 9))
        for measure in ("prompts_total", "flops"):
            assert row_of(found.files["ratios"], measure=measure, threshold=threshold)["value"] == pytest.approx(1)
    matched = row_of(found.files["matched"], compute_share=1.0)
    assert matched["data_share"] == pytest.approx(1 / 9)
    assert (matched["difference"], matched["low"], matched["high"]) == (0, 0, 0)
    assert "consistent with a ninth" in found.sentences()[0]
    assert "5 of 5 mixed, 5 of 5 single seeds" in found.sentences()[0]
    assert "no difference in compute shown" in found.sentences()[0]


def test_what_a_run_needed_lies_between_two_evaluations(made_up):
    found = study([made_up("single:cubic", 0, {"cubic": FALLING})], n_prompts=1, seed=0)
    needs = found.files["needs"]
    steps = {
        threshold: row_of(needs, measure="flops", threshold=threshold)["amount"] / 1000 for threshold in (0.9, 0.5)
    }
    assert steps == pytest.approx({0.9: 50, 0.5: 250})
    assert "Nothing to compare" in found.sentences()[0]


def test_seeds_that_never_get_there_are_counted_and_bound_the_ratio(made_up):
    mixed = [made_up("mixed", seed, {"cubic": FALLING}, {"cubic": 0.1}) for seed in range(4)]
    single = [made_up("single:cubic", seed, {"cubic": FLAT}) for seed in range(4)]
    found = study([*mixed, *single], n_prompts=1, seed=0)
    row = row_of(found.files["ratios"], measure="prompts_seen", threshold=0.5)
    assert (row["n_reached"], row["single_reached"], row["single_seeds"]) == (4, 0, 4)
    assert math.isnan(row["value"])
    assert row["at_most"] == pytest.approx(0.1 * 250 / 900)
    assert (row["rank_low"], row["rank_high"]) == pytest.approx((0, 0.1 * 250 / 900))
    assert "0 of 4 single seeds" in found.sentences()[0]
    assert "at most" in found.sentences()[0]
    assert "LESS than a ninth" in found.sentences()[0]
    neither = study([*single, made_up("mixed", 9, {"cubic": FLAT})], n_prompts=1, seed=0)
    assert "no error can be compared" in neither.sentences()[0]
    assert "0 of 1 mixed, 0 of 4 single seeds" in neither.sentences()[0]


def test_matched_compute_is_judged_by_its_interval(made_up):
    courses = [[*FALLING[:-1], end] for end in (0.10, 0.11, 0.12)]
    mixed = [made_up("mixed", seed, {"linear": course}, {"linear": 0.6}) for seed, course in enumerate(courses)]
    single = [made_up("single:linear", seed, {"linear": FALLING}) for seed in range(3)]
    found = study([*mixed, *single], n_prompts=1, seed=0)
    row = row_of(found.files["matched"], compute_share=1.0)
    assert row["difference"] == pytest.approx(0.06)
    assert 0 < row["low"] < 0.06 < row["high"]
    assert "WORSE than the class alone" in found.sentences()[1]
    assert "0.60 of the prompts of the class" in found.sentences()[1]


def test_a_snapshot_does_not_see_what_came_later(made_up):
    whole = made_up("single:cubic", 0, {"cubic": FALLING})
    early = type(whole)(whole.name, whole.directory, whole.config, 200, whole.model)
    found = study([early], n_prompts=1, seed=0)
    assert not row_of(found.files["needs"], measure="flops", threshold=0.5)["reached"]
    assert max(found.files["training"]["step"]) == 200


def test_the_old_format_is_refused_and_left_out_of_others(made_up, ninths):
    with pytest.raises(UserError, match=r"zoo:mixed-0: the history has no nmse_tail.*cannot be computed"):
        study([old_zoo(made_up)], n_prompts=1, seed=0)
    old = made_up("random", 0, {"cubic": FALLING}, old=True)
    assert (
        "without a history of the error over the last points: random-0"
        in study(
            [*[type(n)(n.name, n.directory, n.config, 900, n.model) for n in ninths], old], n_prompts=1, seed=0
        ).sentences()[-1]
    )


def old_zoo(made_up):
    """A shipped model with a history of format version 1, whatever the shipped ones have by now."""
    old, shipped = made_up("mixed", 99, {"cubic": FALLING}, old=True), load("zoo:mixed-0")
    return type(old)("zoo:mixed-0", old.directory, shipped.config, old.step, shipped.model)


def test_u_has_the_textbook_distribution():
    assert sum(u_counts(5, 5)) == math.comb(10, 5)
    assert sum(u_counts(5, 5)[:3]) == 4  # P(U <= 2) = 4/252 = 0.016, and 7/252 = 0.028 for 3
    assert [critical_rank(n, n) for n in (3, 4, 5, 6, 10)] == [0, 1, 3, 6, 24]  # critical values + 1 of the tables


@pytest.mark.parametrize("censored", [False, True])
def test_the_rank_interval_covers_a_known_ratio_at_least_as_often_as_it_says(rng, censored):
    covered = []
    for _ in range(400):
        amounts = [rng.lognormal(0, 1, 5) / 9, rng.lognormal(0, 1, 5)]
        limits = (1.5 / 9, 1.5) if censored else (math.inf, math.inf)
        ours, theirs = (
            [Need(min(a, limit), bool(a < limit)) for a in one] for one, limit in zip(amounts, limits, strict=True)
        )
        found = data_ratio(ours, theirs, rng)
        covered.append(found.rank_low <= 1 / 9 <= found.rank_high)
    assert np.mean(covered) >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / 400)


def test_pairs_of_which_neither_got_there_are_unknown_not_dropped(rng):
    found = data_ratio([Need(1.0, False), Need(1.0, True)], [Need(9.0, False), Need(9.0, True)], rng)
    assert found.n_unknown == 1
    assert math.isnan(found.value)
    assert found.at_least <= 1 / 9 <= found.at_most
    assert geometric_median(np.array([0.0, np.inf])) == 0
