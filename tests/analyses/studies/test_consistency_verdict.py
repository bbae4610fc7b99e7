"""Sentences about curricula say MORE, LESS or nothing by what the contrasts hold, and by nothing else."""

import math

import pandas as pd
import pytest

from analyses.studies.consistency import verdict
from analyses.studies.consistency.measures.between import Coincidences

YES, NO, LESS = (0.3, 0.1, 0.5, 0.01), (0.3, -0.1, 0.7, 0.4), (-0.3, -0.5, -0.1, 0.01)
NOT_BY_HOLM = (0.3, 0.1, 0.5, 0.06)
UNTESTED = (0.3, math.nan, math.nan, math.nan)


def contrasts(spearman, over_twins=NO, other="random"):
    """Mixed models less the others: one statistic as given, the rest without any difference."""
    rows = []
    for state in ("trained", "difference"):
        for statistic in verdict.COMPARED:
            planted = (spearman if state == "trained" else over_twins) if statistic == "spearman" else NO
            difference, low, high, p = UNTESTED if spearman is UNTESTED else planted
            about = {"curriculum": "mixed", "other": other, "state": state, "statistic": statistic}
            interval = {"difference": difference, "ci_low": low, "ci_high": high, "p_holm": p}
            rows.append({**about, **interval, "n_seeds": 5, "n_other": 4})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("spearman", "over_twins", "trained", "twins"),
    [
        (YES, YES, "MORE in Spearman (random), LESS in none", "MORE in Spearman (random), LESS in none"),
        (YES, NO, "MORE in Spearman (random), LESS in none", "MORE in none, LESS in none"),
        (LESS, NO, "MORE in none, LESS in Spearman (random)", "MORE in none, LESS in none"),
        (NOT_BY_HOLM, NO, "MORE in none, LESS in none", "MORE in none, LESS in none"),
        (NO, NO, "MORE in none, LESS in none", "MORE in none, LESS in none"),
    ],
)
def test_mixed_models_agree_more_where_interval_and_p_say_so(spearman, over_twins, trained, twins):
    of_statistic, *_, summary = verdict.contrast_sentences(contrasts(spearman, over_twins))
    assert summary == (
        f"In these 3 comparisons mixed models agree between classes {trained}; minus the agreement of their untrained "
        f"twins, {twins}."
    )
    assert ("DIFFERENT; minus" in of_statistic) is (spearman in (YES, LESS))
    assert ("still DIFFERENT" in of_statistic) is (over_twins is YES)
    assert f"(p = {spearman[3]:.2g}, 5 and 4 seeds" in of_statistic


def test_curricula_without_independent_seeds_are_named_and_nothing_is_said_about_them():
    both = pd.concat([contrasts(NO), contrasts(UNTESTED, other="single:linear")])
    *_, summary, untested = verdict.contrast_sentences(both)
    assert "In these 3 comparisons" in summary
    assert untested.startswith("For mixed against single:linear there are not two independent seeds on both sides")
    assert verdict.contrast_sentences(both.head(0)) == [
        "All models are of one curriculum: nothing follows about others."
    ]


@pytest.mark.parametrize(
    ("p", "verb"), [(0.04, "coincide MORE often than"), (0.05, "are not shown to coincide more often than")]
)
def test_heads_coincide_by_number_where_p_says_so(p, verb):
    (sentence,) = verdict.number_sentences([], Coincidences(7, 3.2, p, 10, 6))
    assert verb in sentence
    assert f"7 heads in 6 of 10 pairs, 3.2 heads by chance (p = {p})" in sentence
    assert verdict.number_sentences([], Coincidences(0, 0.0, 1.0, 0, 0)) == []


def test_a_count_that_no_numbering_reached_is_a_bound():
    (sentence,) = verdict.number_sentences([], Coincidences(9, 1.2, 1 / 2001, 10, 9))
    assert "(p <= 0.0005 (2,000 draws))" in sentence
