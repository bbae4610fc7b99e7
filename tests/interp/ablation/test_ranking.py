"""Which of many head sets matter: the order, the words, and the adjusted p-values, from planted effects."""

import math
from typing import Any

import pytest

from interp import ablate, load
from interp.ablation.ablate import add_holm
from interp.ablation.ranking import describe_condition
from interp.model.heads import Head
from interp.statistics.effects import holm


def row(heads: str, effect: float, half_width: float = 0.01, *, mode: str = "mean", **values: object) -> dict[str, Any]:
    return {
        "heads": heads,
        "function_class": "linear",
        "mode": mode,
        "points": "12-15",
        "effect": effect,
        "ci_low": effect - half_width,
        "ci_high": effect + half_width,
        "n_controls": 7,
        "exact": True,
        "smallest_p": 0.125,
        "note": "",
        "p_value": 0.125,
        "p_holm_heads": 0.5,
        "nmse_before": 0.9,
        "nmse_no_context": 1.0,
    } | values


MANY = [row("0.0", 0.01), row("0.1", 0.4), row("0.2", 0.9), row("0.3", -0.3), row("1.0", 0.05, 0.2)]


def test_heads_that_matter_come_in_the_order_of_their_effects():
    text = describe_condition(MANY, "mean", "linear")
    assert text.startswith("On linear 2 of 5 head sets cost more than 0.05 of the in-context gain")
    assert text.index("0.2 0.90 [0.89, 0.91]") < text.index("0.1 0.40 [0.39, 0.41]")
    assert "Removing 0.3 helps." in text
    assert "Of the others 1 is shown to cost less than 0.05 (mean ablation); undecided: 1.0; heads that matter" in text
    assert (
        "too few layer-matched control sets for a p of at most 0.05 after Holm over 5 sets (none below 0.125 " in text
    )
    text = describe_condition([each | {"smallest_p": 0.01} for each in MANY], "mean", "linear")
    assert "is above 0.05 for each (smallest 0.5)" in text


def test_heads_that_the_mode_leaves_as_they_are_are_counted():
    rows = [row("0.2", 0.9), row("0.1", 0.0, note="the output of 0.1 is zero"), row("1.1", 0.001)]
    assert (
        "All others are shown to cost less than 0.05 (mean ablation, which leaves the output of 1 of them as it is); "
        in describe_condition(rows, "mean", "linear")
    )


def test_an_interval_has_to_hold_for_all_sets_at_once():
    """0.10 [0.06, 0.14] is above 0.05 alone, but not among a hundred sets."""
    assert "1 of 1 head sets" in describe_condition([row("0.1", 0.1, 0.04)], "mean", "linear")
    others = [row(f"1.{number}", 0.0) for number in range(99)]
    assert "none of 100 head sets" in describe_condition([row("0.1", 0.1, 0.04), *others], "mean", "linear")


@pytest.mark.parametrize(
    ("zero", "words"),
    [(0.9, "All replacements (mean and zero) name the same sets"), (0.0, "DIFFERENT SETS (mean: 0.2; zero: none)")],
)
def test_a_disagreement_of_replacements_is_in_the_words(zero, words):
    rows = [row("0.2", 0.9), row("0.1", 0.0), row("0.2", zero, mode="zero"), row("0.1", 0.0, mode="zero")]
    assert words in describe_condition(rows, "mean", "linear")


def test_significant_sets_are_named():
    rows = [row("0.2", 0.9, p_holm_heads=0.02), row("0.1", 0.4, p_holm_heads=0.2)]
    assert "p after Holm over sets is at most 0.05 for 0.2." in describe_condition(rows, "mean", "linear")


def test_without_a_gain_nothing_matters():
    rows = [row(heads, math.nan, p_holm_heads=math.nan) for heads in ("0.1", "0.2")]
    assert "0.90 times the optimum's" in describe_condition(rows, "mean", "linear")


def test_holm_over_heads_is_within_one_class_and_mode():
    p_values = {"linear": [0.01, 0.04, 0.03], "cubic": [0.5, 0.02, 0.9]}
    rows = [
        row(f"0.{number}", 0.1, function_class=name, p_value=p, p_two_sided=min(1.0, 2 * p))
        for name, values in p_values.items()
        for number, p in enumerate(values)
    ]
    add_holm(rows, prefixes=("",), over="heads", names=("p_holm_heads", "p_two_sided_holm_heads"))
    for name, values in p_values.items():
        assert [row["p_holm_heads"] for row in rows if row["function_class"] == name] == holm(values)


def test_p_against_heads_of_like_norm_does_not_depend_on_the_classes_that_are_named():
    model, few = load("zoo:mixed-0"), {"modes": ["zero"], "n_prompts": 16, "n_controls": 9, "matches": ("norm",)}
    alone, together = (ablate(model, [(Head(1, 2),)], classes, **few) for classes in (["linear"], ["linear", "cubic"]))
    controls = [result.null.query("function_class == 'linear'")["control"].tolist() for result in (alone, together)]
    assert controls[0] == controls[1]
    assert alone.table["norm_p_value"].iloc[0] == together.table["norm_p_value"].iloc[0]
