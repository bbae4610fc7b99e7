"""Agreement within models, curriculum by curriculum: seeds, ranges, chance and contrasts, on rows written by hand."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses.studies.consistency.measures.within import (
    SUMMARIES,
    chance_level,
    contrasts_table,
    curricula_table,
    overlap_size,
    seed_interval,
    seed_means,
)
from training.common.table_rows import where


def row(value, seed, curriculum="mixed", statistic="spearman", state="trained", **more) -> dict[str, object]:
    about = {"curriculum": curriculum, "seed_group": seed, "state": state, "statistic": statistic, "classes": "all"}
    return about | {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "chance": 0.25} | more


def t_of(values) -> tuple[float, float]:
    return tuple(stats.ttest_1samp(values, 0).confidence_interval(0.95))


def test_models_of_one_seed_are_averaged_and_undefined_ones_left_out():
    rows = [row(0.2, 7), row(0.4, 8), row(0.6, 7), row(math.nan, 9)]
    assert seed_means(rows).tolist() == pytest.approx([0.4, 0.4])
    assert seed_means(rows[3:]).tolist() == []


def test_overlaps_have_a_size_and_every_statistic_its_chance():
    assert [overlap_size(name, 5) for name in ("top3", "top_found", "pearson")] == [3, 5, None]
    chances = {name: chance_level(name, 6, 3, 24) for name in SUMMARIES}
    wanted = {"spearman": 0, "pearson": 0, "kendall_w": 1 / 3, "top3": 1 / 8, "top_found": 1 / 4}
    assert chances == pytest.approx(wanted)
    assert math.isnan(chance_level("top_found", 0, 3, 24))
    assert math.isnan(chance_level("ceiling", 6, 3, 24))


@pytest.mark.parametrize(
    ("statistic", "state", "least", "most"),
    [
        ("spearman", "trained", -1, 1),
        ("pearson", "trained", -1, 1),
        ("kendall_w", "trained", 0, 1),
        ("top3", "untrained", 0, 1),
        ("spearman", "difference", -2, 2),
        ("kendall_w", "difference", -1, 1),
    ],
)
def test_an_interval_over_seeds_ends_where_the_statistic_does(statistic, state, least, most):
    assert seed_interval(np.array([-8.0, 9]), statistic, state) == (least, most)
    narrow = np.array([0.5, 0.51, 0.53])
    assert seed_interval(narrow, statistic, state) == pytest.approx(t_of(narrow))


def test_one_seed_or_equal_seeds_have_no_interval():
    for values in ([0.5], [0.5, 0.5], []):
        assert np.isnan(seed_interval(np.array(values), "spearman", "trained")).all()
    assert seed_interval(np.array([0.5, 0.52]), "spearman", "trained") == pytest.approx(t_of([0.5, 0.52]))


def test_the_interval_of_a_curriculum_ends_where_its_own_statistic_does():
    rows = [row(value, seed, state="difference") for seed, value in enumerate((-1.9, 1.9))]
    (found,) = curricula_table(pd.DataFrame(rows)).to_dict("records")
    assert (found["ci_low"], found["ci_high"]) == (-2, 2)


def test_a_curriculum_is_the_mean_over_its_seeds_and_one_model_has_its_prompts():
    rows = [
        row(0.5, 1),
        row(0.6, 2, chance=math.nan),
        row(0.7, 3, chance=0.5),
        row(0.9, 3, classes="linear-cubic"),  # of two classes, not of all
        row(0.8, 4, "random"),
        row(math.nan, 5, "cubic", chance=math.nan),
        row(0.4, 6, "cubic", chance=math.nan) | {"value": math.nan},
    ]
    mixed, random, cubic = curricula_table(pd.DataFrame(rows)).to_dict("records")
    low, high = t_of([0.5, 0.6, 0.7])
    about = {"curriculum": "mixed", "state": "trained", "statistic": "spearman", "n_seeds": 3, "n_models": 3}
    assert mixed == pytest.approx(
        about | {"value": 0.6, "ci_low": low, "ci_high": high, "over": "seeds", "chance": 0.375}
    )
    assert (random["ci_low"], random["ci_high"], random["over"]) == (pytest.approx(0.7), pytest.approx(0.9), "prompts")
    assert (cubic["n_seeds"], cubic["n_models"], cubic["over"]) == (0, 2, "seeds")
    assert np.isnan([cubic[name] for name in ("value", "ci_low", "ci_high", "chance")]).all()


SCALES = {
    key: 1 + place
    for place, key in enumerate(product(SUMMARIES, ("trained", "difference", "untrained"), ("all", "linear-cubic")))
}
"""Every statistic, state and pair of classes has values of its own, of different size."""


def test_mixed_is_set_against_every_other_curriculum_by_welch_and_holm(rng):
    values = {name: rng.normal(shift, 0.2, size=4) for name, shift in (("cubic", 0.1), ("mixed", 0.5), ("random", 0.3))}
    rows = [
        row(float(value) * scale, 10 * place + seed, name, statistic, state, classes=classes)
        for place, (name, of) in enumerate(values.items())
        for seed, value in enumerate(of)
        for (statistic, state, classes), scale in SCALES.items()
    ]
    table = contrasts_table(pd.DataFrame(rows))
    assert len(table) == 2 * len(SUMMARIES) * 2
    assert set(table["state"]) == {"trained", "difference"}
    tests = {name: stats.ttest_ind(values["mixed"], values[name], equal_var=False) for name in ("cubic", "random")}
    p_values = {name: float(tuple(found)[1]) for name, found in tests.items()}
    small, large = sorted(p_values.values())
    for one in table.to_dict("records"):
        assert (one["curriculum"], one["n_seeds"], one["n_other"]) == ("mixed", 4, 4)
        scale = SCALES[one["statistic"], one["state"], "all"]
        low, high = tests[one["other"]].confidence_interval(0.95)
        assert one["difference"] == pytest.approx(scale * (values["mixed"].mean() - values[one["other"]].mean()))
        assert (one["ci_low"], one["ci_high"]) == pytest.approx((scale * low, scale * high))
        assert one["p_value"] == pytest.approx(p_values[one["other"]])
        holm = 2 * small if p_values[one["other"]] == small else max(2 * small, large)
        assert one["p_holm"] == pytest.approx(min(1, holm))


def test_without_mixed_the_first_curriculum_is_the_reference_and_shared_seeds_are_no_contrast():
    rows = [row(0.1 * seed, seed, "cubic", name) for seed in range(3) for name in SUMMARIES]
    shared = [row(0.2 * seed, seed + 2, "random", name) for seed in range(3) for name in SUMMARIES]
    undefined = [row(math.nan, 9, "linear", name) for name in SUMMARIES]
    table = contrasts_table(pd.DataFrame(rows + shared + undefined).assign(state="trained"))
    trained = where(table, state="trained")
    assert set(trained["curriculum"]) == {"cubic"}
    assert set(trained["other"]) == {"random", "linear"}
    assert trained[["difference", "ci_low", "ci_high", "p_value", "p_holm"]].isna().to_numpy().all()
    assert trained["n_other"].tolist() == [3, 0] * len(SUMMARIES)


def test_seeds_that_do_not_differ_at_all_leave_a_difference_without_an_interval():
    rows = [row(value, seed, name, one) for one in SUMMARIES
            for value, name, seeds in ((0.5, "mixed", (1, 2)), (0.2, "cubic", (3, 4))) for seed in seeds]  # fmt: skip
    table = contrasts_table(pd.DataFrame(rows))
    trained = where(table, state="trained")
    assert trained["difference"].tolist() == pytest.approx([0.3] * len(SUMMARIES))
    assert trained[["ci_low", "ci_high", "p_value"]].isna().to_numpy().all()
