"""Every rule of the verdict on rows written by hand: what it says, and where it begins and ends to say it."""

import math

import pandas as pd
import pytest

from interp.ablation.verdict import keep_verdict, pooled_verdict, size_of, verdict

ROW = {
    "heads": "0.1",
    "function_class": "linear",
    "mode": "mean",
    "points": "12-15",
    "effect": 0.2,
    "ci_low": 0.1,
    "ci_high": 0.3,
    "direct_effect": 0.21,
    "direct_ci_low": 0.15,
    "direct_ci_high": 0.25,
    "n_controls": 39,
    "exact": False,
    "n_disjoint": 39,
    "control_effect": 0.01,
    "control_max": 0.02,
    "p_value": 0.025,
    "p_holm": 0.05,
    "smallest_p": 0.025,
    "detectable": 0.15,
    "size_n_controls": 0,
    "size_p_value": math.nan,
}
NULL = "39 layer-matched sets cost 0.01 on average and 0.02 at most (p = 0.025, after Holm 0.05)"
ALONE = "no other replacement was tried beside it"


def say(*rows, **more) -> list[str]:
    return verdict(pd.DataFrame([ROW | row for row in rows]), **more)


def effect(value, low, high, kind=""):
    return {f"{kind}effect": value, f"{kind}ci_low": low, f"{kind}ci_high": high}


def test_one_row_is_one_sentence():
    assert say({}) == [
        f"Removing 0.1 costs 0.20 [0.10, 0.30] of the in-context gain on linear (mean ablation); {NULL}; {ALONE}."
    ]


def test_sets_have_paragraphs_and_classes_and_ranges_sentences():
    rows = [
        {"heads": heads, "function_class": name, "points": points}
        for heads in ("0.1", "2.3")
        for name in ("linear", "cubic")
        for points in ("0-3", "12-15")
    ]
    paragraphs = say(*rows)
    assert [text.count("Removing 0.1 ") for text in paragraphs] == [4, 0]
    assert [text.count("Removing 2.3 ") for text in paragraphs] == [0, 4]
    assert all(
        f"gain on {name} (pairs {points}) (mean" in text
        for text in paragraphs
        for name in ("linear", "cubic")
        for points in ("0-3", "12-15")
    )


def test_mean_ablation_leads_and_without_it_the_first_mode():
    zero, mean = {"mode": "zero"} | effect(0.4, 0.3, 0.45), {}
    assert "costs 0.20 [0.10, 0.30] of the in-context gain on linear (mean ablation)" in say(zero, mean)[0]
    assert "costs 0.40 [0.30, 0.45] of the in-context gain on linear (zero ablation)" in say(zero)[0]


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (effect(0.5, 0.4, 0.6), effect(2.0, 1.9, 2.1), True),  # both most
        (effect(0.5, 0.4, 0.6), effect(0.499, 0.4, 0.6), False),  # most, part
        (effect(0.02, 0.01, 0.05), effect(-0.3, -0.4, -0.2), True),  # both none
        (effect(0.02, 0.01, 0.05), effect(0.02, 0.01, 0.051), False),  # none, part
        (effect(0.1, 0.001, 0.2), effect(0.4, 0.3, 0.5), True),  # both part
        (effect(0.1, 0.001, 0.2), effect(0.1, 0.0, 0.2), False),  # part, unclear
        (effect(0.1, 0.0, 0.2), effect(0.1, -0.1, 0.3), True),  # both unclear
    ],
)
def test_replacements_agree_when_their_sizes_are_of_one_class(one, other, agree):
    (text,) = say({"mode": "zero"} | one, {"mode": "resample"} | other)
    wanted = "the replacements agree" if agree else "THE REPLACEMENTS DISAGREE"
    assert f"; {wanted} (zero {one['effect']:.2f}, resample {other['effect']:.2f})" in text


@pytest.mark.parametrize(
    ("of", "size"),
    [
        (effect(0.5, 0.4, 0.6), "most"),
        (effect(0.02, 0.01, 0.05), "none"),
        (effect(0.1, 0.001, 0.2), "part"),
        (effect(0.1, 0.0, 0.2), "unclear"),
        (effect(math.nan, math.nan, math.nan), "undefined"),
    ],
)
def test_a_size_has_a_name(of, size):
    assert size_of(of) == size


def test_what_exceeds_one_is_damage_of_another_kind():
    words = "(mean ablation, beyond 1 damage of another kind); "
    assert words in say(effect(1.4, 1.01, 1.5))[0]
    assert words not in say(effect(1.4, 1.0, 1.5))[0]


def test_nothing_is_measured_where_the_context_is_not_used():
    said = say({"mode": "zero"}, effect(math.nan, math.nan, math.nan))
    assert said == ["The intact model makes no use of the context on linear: removing 0.1 has no effect to measure."]


@pytest.mark.parametrize(
    ("row", "phrase"),
    [
        ({"n_controls": 0}, "no other set has as many heads in the same layers, so there is no p-value; "),
        ({"n_controls": 1, "n_disjoint": 1}, "; 1 layer-matched set cost 0.01"),
        ({"n_controls": 2, "n_disjoint": 2, "exact": True}, "; all 2 layer-matched sets cost 0.01"),
        ({"n_disjoint": 3}, "sets, of which the 3 without any of these heads cost 0.01 on average and 0.02 at most (p"),
        ({"n_disjoint": 0}, "; 39 layer-matched sets, none without any of these heads, stand beside it (p = 0.025"),
        ({"smallest_p": 0.05}, "after Holm 0.05); "),
        ({"smallest_p": 0.125}, "after Holm 0.05; so few sets allow no p below 0.125); "),
        ({"smallest_p": 0.125, "p_holm": 0.3}, "after Holm 0.3; so few sets allow no p below 0.125); "),
        ({"p_holm": 0.051}, "after Holm 0.051; an effect of 0.15 would have been found); "),
        ({"p_holm": 0.051, "detectable": math.inf}, "after Holm 0.051); "),
        ({"size_n_controls": 23, "size_p_value": 0.0417}, "0.05; against 23 sets from any layer p = 0.0417); "),
        ({"p_value": 0.123456, "p_holm": 0.0456789}, "(p = 0.123, after Holm 0.0457); "),
    ],
)
def test_chance_is_told_with_what_the_null_could_show(row, phrase):
    assert phrase in say(row)[0]


@pytest.mark.parametrize(
    ("direct", "phrase"),
    [
        (effect(0.4, 0.3, 0.5, "direct_"), ""),  # the intervals touch
        (effect(0.05, 0.0, 0.1, "direct_"), ""),
        (
            effect(0.4, 0.31, 0.5, "direct_"),
            "; later components repair part of it (direct effect 0.40 [0.31, 0.50])",
        ),
        (effect(0.05, 0.0, 0.09, "direct_"), "; later components add to it (direct effect 0.05 [0.00, 0.09])"),
        (effect(0.0, -0.05, 0.05, "direct_"), "; it acts through later components alone (direct effect 0.00)"),
        (effect(0.0, -0.051, 0.05, "direct_"), "; later components add to it (direct effect 0.00 [-0.05, 0.05])"),
    ],
)
def test_the_path_is_told_where_direct_and_total_effect_differ(direct, phrase):
    assert say(direct)[0].endswith(f"{ALONE}{phrase}.")


def test_a_decoy_attends_and_is_harmless_under_every_mode():
    harmless, harmful = effect(0.01, 0.0, 0.02), effect(0.2, 0.1, 0.3)
    decoy = " It attends as a retrospective head does (score 0.61) but writes nothing that matters: a decoy."
    both = [{"mode": "zero"} | harmless, harmless]
    assert say(*both, scores={"0.1": 0.612})[0].endswith(decoy)
    assert not say(*both, scores={"0.1": 0.5})[0].endswith("decoy.")
    assert not say(*both, scores={"1.1": 0.9})[0].endswith("decoy.")
    assert not say(*both)[0].endswith("decoy.")
    assert not say({"mode": "zero"} | harmful, harmless, scores={"0.1": 0.612})[0].endswith("decoy.")
    assert not say(harmless, {"function_class": "cubic"} | harmful, scores={"0.1": 0.612})[0].endswith("decoy.")


def test_a_set_that_is_kept_is_told_by_what_is_left():
    rows = [
        {"p_value": 0.0123456},
        {"function_class": "cubic", "n_controls": 0},
        {"function_class": "quadratic", "effect": math.nan},
        {"heads": "2.3"},
    ]
    first, second = keep_verdict(pd.DataFrame([ROW | row for row in rows]))
    assert first == (
        "With no head but 0.1 0.80 of the in-context gain on linear is left (mean ablation of all others costs "
        "0.20 [0.10, 0.30]); p = 0.0123 that any of 39 layer-matched sets does as well. "
        "With no head but 0.1 0.80 of the in-context gain on cubic is left (mean ablation of all others costs "
        "0.20 [0.10, 0.30]). "
        "The intact model makes no use of the context on quadratic."
    )
    assert second.startswith("With no head but 2.3 0.80")


POOLED = {
    "heads": "above:0.5",
    "function_class": "linear",
    "mode": "mean",
    "effect": 0.9,
    "ci_low": 0.8,
    "ci_high": 1.0,
    "effect_min": 0.7,
    "effect_max": 1.1,
    "t_low": 0.6,
    "t_high": 1.2,
    "n_half": 3,
    "share_low": 0.2924,
    "share_high": 1.0,
    "all_or_nothing": False,
    "n_draws": 0,
    "n_seeds": 3,
    "n_checkpoints": 4,
    "n_undefined": 0,
    "p_value": 0.00195,
    "p_holm": 0.0039,
}
SEVERAL = (
    "Over 3 independent seeds (4 models) above:0.5 costs 0.90 [0.80, 1.00] of the in-context gain on linear "
    "(mean ablation; 0.70 to 1.10; t-interval over seeds [0.60, 1.20]), at least half of it in 3 of 3 seeds "
    "[0.29, 1.00] (Clopper-Pearson); p = 0.00195, after Holm 0.0039 against a layer-matched set in every model"
)


def pooled(*rows) -> str:
    return pooled_verdict(pd.DataFrame([POOLED | row for row in rows]))


def test_several_models_are_told_by_mean_ablation():
    assert pooled({"mode": "zero", "effect": 0.1}, {}) == SEVERAL + "."
    assert "(zero ablation;" in pooled({"mode": "zero"})
    assert pooled({"n_undefined": 2}) == SEVERAL + "; 2 models without use of the context left out."
    nothing = {"function_class": "cubic", "n_seeds": 0}
    assert pooled(nothing, {}) == f"No model makes use of the context on cubic. {SEVERAL}."


def test_seeds_of_two_kinds_are_counted_and_their_mean_has_no_interval():
    text = pooled({"all_or_nothing": True, "n_half": 2, "share_low": 0.0943, "share_high": 0.9916})
    assert "costs 0.90 of the in-context gain on linear (mean ablation; 0.70 to 1.10; seeds are of two kinds" in text
    assert "so the mean has no interval), at least half of it in 2 of 3 seeds [0.09, 0.99] (Clopper-Pearson)" in text


def test_a_p_that_no_draw_reached_is_a_bound():
    text = pooled({"p_value": 1 / 10_001, "p_holm": 3 / 10_001, "n_draws": 10_000})
    assert "p <= 0.0001, after Holm <= 0.0003 (10,000 draws) against" in text


def test_one_seed_is_no_claim_about_a_curriculum():
    said = pooled({"n_seeds": 1, "n_checkpoints": 1, "t_low": math.nan, "t_high": math.nan})
    assert said.startswith("Over 1 independent seed (1 model) ")
    assert "0.70 to 1.10), at least half" in said
    assert said.endswith(" One seed is one piece of evidence: this is no claim about a curriculum.")
    assert "claim" not in pooled({"n_seeds": 2})
