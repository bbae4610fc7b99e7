"""Every rule of the verdict on rows written by hand: what it says, and where it begins and ends to say it."""

import math

import pandas as pd
import pytest

from interp.ablation.ablate import ablate
from interp.ablation.cumulative import CumulativeAblation
from interp.ablation.pairs import PairAblation
from interp.ablation.size_classes import size_of
from interp.ablation.verdict import SIZES, keep_verdict, order_verdict, pairs_verdict, pooled_verdict, verdict
from interp.model.heads import Head
from training.checkpoints.checkpoint import load

ROW = {
    "heads": "0.1",
    "function_class": "linear",
    "mode": "mean",
    "points": "12-15",
    "nmse_before": 1.1,
    "nmse_no_context": 1.0,
    "effect": 0.2,
    "ci_low": 0.1,
    "ci_high": 0.3,
    "direct_effect": 0.21,
    "direct_ci_low": 0.15,
    "direct_ci_high": 0.25,
    "moved_effect": 0.02,
    "moved_ci_low": 0.01,
    "moved_ci_high": 0.05,
    "note": "",
    "n_controls": 39,
    "exact": False,
    "n_disjoint": 39,
    "control_effect": 0.01,
    "control_min": -0.01,
    "control_max": 0.02,
    "p_value": 0.025,
    "p_holm": 0.05,
    "p_two_sided": 0.05,
    "p_two_sided_holm": 0.1,
    "smallest_p": 0.025,
    "compared_effect": 0.2,
    "detectable": 0.15,
    "size_n_controls": 0,
    "size_p_value": math.nan,
}
NULL = "39 layer-matched sets cost 0.01 on average and 0.02 at most (p <= 0.025, after Holm <= 0.05 (39 draws))"
FEW = "allow no p below 0.125; several seeds together allow a smaller p (--ckpt 'NAME-*')); "
MORE = "allow no p below 0.125; more control sets exist (--controls)); "
ALONE = "no other replacement was tried"
DECOY = ": a decoy on linear (pairs 12-15; other inputs were not tested)."


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
        (effect(0.02, 0.01, 0.05), effect(-0.04, -0.05, 0.01), True),  # both none
        (effect(0.02, 0.01, 0.05), effect(-0.3, -0.4, -0.2), False),  # none, negative
        (effect(-0.06, -0.07, -0.01), effect(-0.3, -0.4, -0.2), True),  # both negative
        (effect(0.02, 0.01, 0.05), effect(0.02, 0.01, 0.051), False),  # none, part
        (effect(0.1, 0.001, 0.2), effect(0.4, 0.3, 0.5), True),  # both part
        (effect(0.1, 0.001, 0.2), effect(0.1, 0.0, 0.2), False),  # part, unclear
        (effect(0.1, 0.0, 0.2), effect(0.1, -0.1, 0.3), True),  # both unclear
    ],
)
def test_replacements_agree_when_their_sizes_are_of_one_class(one, other, agree):
    (text,) = say({"mode": "zero"} | one, {"mode": "resample"} | other)
    zero, resample = f"zero {one['effect']:.2f}", f"resample {other['effect']:.2f}"
    sizes = SIZES[size_of(one)], SIZES[size_of(other)]
    if agree:
        assert f"; all replacements give the same verdict, {sizes[0]} ({zero}, {resample})" in text
    else:
        different = f"({zero}, {sizes[0]}; {resample}, {sizes[1]})"
        assert f"; THE REPLACEMENTS GIVE DIFFERENT VERDICTS {different}" in text


@pytest.mark.parametrize(
    ("of", "size"),
    [
        (effect(0.5, 0.4, 0.6), "most"),
        (effect(0.02, 0.01, 0.05), "none"),
        (effect(0.1, 0.001, 0.2), "part"),
        (effect(0.1, 0.0, 0.2), "unclear"),
        (effect(-0.02, -0.05, -0.01), "none"),
        (effect(-0.03, -0.051, -0.01), "negative"),
        (effect(-0.1, -0.2, 0.0), "unclear"),
        (effect(math.nan, math.nan, math.nan), "undefined"),
    ],
)
def test_a_size_has_a_name(of, size):
    assert size_of(of) == size


def test_above_one_the_model_is_worse_than_one_without_context():
    words = "(mean ablation; above 1 the ablated model is worse than one that ignores the context); "
    assert words in say(effect(1.4, 1.01, 1.5))[0]
    assert words not in say(effect(1.4, 1.0, 1.5))[0]
    assert words not in say(effect(1.0, 1.0 + 1e-6, 1.0))[0]  # what reads as 1.00 is not above 1


NO_GAIN = "The intact model is not better than the no-context optimum on {}: its error is {} times the optimum's."
UNCERTAIN = (
    "On these prompts the intact model is not clearly better than the no-context optimum on {}: its error is {} times "
    "the optimum's, but this gain is less than 4 standard errors, too uncertain to divide by; more prompts (--prompts) "
    "may make it certain."
)


def test_nothing_is_measured_where_there_is_no_gain():
    sentences = say({"mode": "zero"}, effect(math.nan, math.nan, math.nan))
    assert sentences == [NO_GAIN.format("linear", "1.10") + " No effect of removing 0.1 is given."]


def test_a_gain_that_is_only_uncertain_asks_for_more_prompts():
    """Mixed models have learned cubic, and 256 prompts are too few to show by how much."""
    found = ablate(load("zoo:mixed-0"), [(Head(0, 1),)], ["cubic"], modes=["mean"], n_prompts=256, n_controls=0)
    row = found.table.iloc[0]
    ratio = row["nmse_before"] / row["nmse_no_context"]
    assert ratio < 0.9
    assert math.isnan(row["effect"])
    (text,) = found.sentences()
    assert text.startswith(UNCERTAIN.format("cubic", f"{ratio:.2f}"))


@pytest.mark.parametrize(
    ("row", "phrase"),
    [
        ({"n_controls": 0}, "no other set has as many heads in the same layers, so there is no p-value; "),
        ({"n_controls": 1, "n_disjoint": 1}, "; 1 layer-matched set cost 0.01"),
        ({"n_controls": 2, "n_disjoint": 2, "exact": True}, "; all 2 layer-matched sets cost 0.01"),
        ({"n_disjoint": 3}, "; of 39 layer-matched sets the 3 without any of these heads cost 0.01 on average"),
        ({"n_disjoint": 0}, "; of 39 layer-matched sets each holds at least one of these heads (p <= 0.025"),
        ({"smallest_p": 0.05}, "after Holm <= 0.05 (39 draws)); "),
        ({"smallest_p": 0.125}, f"after Holm <= 0.05 (39 draws); 39 control sets {MORE}"),
        ({"smallest_p": 0.125, "p_holm": 0.3}, f"after Holm <= 0.3 (39 draws); 39 control sets {MORE}"),
        ({"smallest_p": 0.125, "n_controls": 7, "exact": True}, f"; 7 control sets {FEW}"),
        (
            {"p_holm": 0.051, "detectable": 1.15},
            "after Holm <= 0.051 (39 draws); an effect of 1.15 would have been detected); ",
        ),
        ({"p_holm": 0.051}, "after Holm <= 0.051 (39 draws)); "),
        (
            {"p_value": 0.2, "p_holm": 0.2, "n_controls": 19, "n_disjoint": 19, "detectable": 0.97},
            "after Holm 0.2; 3 of these cost as much or more); ",
        ),
        (
            {"p_value": 0.25, "p_holm": 0.25, "n_controls": 7, "n_disjoint": 3, "smallest_p": 0.125},
            "; 1 that holds some of the same heads costs as much or more); ",
        ),
        (
            {"p_value": 0.25, "p_holm": 0.25, "n_controls": 7, "n_disjoint": 3, "control_max": 0.5},
            "; 1 of these costs as much or more); ",
        ),
        ({"p_holm": 0.051, "detectable": math.inf}, "after Holm <= 0.051 (39 draws)); "),
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
            "; later components compensate for part of it (direct effect 0.40 [0.31, 0.50])",
        ),
        (effect(0.05, 0.0, 0.09, "direct_"), "; later components add to it (direct effect 0.05 [0.00, 0.09])"),
        (
            effect(0.0, -0.05, 0.05, "direct_"),
            "; the effect is entirely indirect, through later components (direct effect 0.00)",
        ),
        (effect(0.03, 0.02, 0.04) | effect(0.0, -0.01, 0.01, "direct_"), ""),
        (effect(-0.3, -0.4, -0.2, "direct_"), "; its direct effect has the opposite sign (-0.30 [-0.40, -0.20])"),
        (effect(0.0, -0.051, 0.05, "direct_"), "; later components add to it (direct effect 0.00 [-0.05, 0.05])"),
    ],
)
def test_the_path_is_told_where_direct_and_total_effect_differ(direct, phrase):
    assert say(direct)[0].endswith(f"{ALONE}{phrase}.")


HARMLESS = effect(0.01, 0.0, 0.02) | effect(0.01, 0.0, 0.02, "direct_")
ATTENDING = "It attends as a retrospective head does (score 0.61), but removing it "
JOINT = {
    "heads": "0.1",
    "attending": "0.3",
    "companions": "0.3",
    "function_class": "linear",
    "mode": "mean",
    "points": "12-15",
    "effect_companions": 0.3,
    "effect": 0.31,
    "change": 0.01,
    "ci_low": -0.01,
    "ci_high": 0.03,
}


def say_of_silent(*joint, rows=({"mode": "zero"} | HARMLESS, HARMLESS)) -> str:
    """The sentence on a set that attends and costs nothing, or nothing if there is none."""
    (text,) = say(*rows, scores={"0.1": 0.612}, joint=pd.DataFrame([JOINT | row for row in joint]))
    _, found, rest = text.partition(ATTENDING)
    return found + rest


def test_a_head_is_a_decoy_only_after_joint_removals():
    assert say_of_silent() == (
        f"{ATTENDING}alone changes the error by less than 0.05 of the in-context gain on linear. Whether another head "
        "compensates for its removal was not tested; `interp ablate --ckpt CKPT --heads 0.1 --classes linear --mode "
        "mean` tests this."
    )
    everything = f"{ATTENDING}changes the error by less than 0.05 of the in-context gain on linear, alone and in "
    everything += "addition to any other "
    decoy = ", and changes predictions by a mean square of less than 0.05 of that gain: a decoy on linear (pairs "
    decoy += "12-15; other inputs were not tested)."
    assert say_of_silent({}) == f"{everything}head{decoy}"
    three = [{"attending": "0.3,0.4,0.5", "companions": name} for name in ("0.3", "0.3,0.4", "0.3,0.5", "0.4,0.5")]
    every = [*three, three[0] | {"companions": "0.3,0.4,0.5"}]
    others = f"of the other heads above 0.5 (0.3,0.4,0.5){decoy}"
    assert say_of_silent({"change": 0.56, "ci_low": 0.5, "ci_high": 0.6, "effect": 0.86}) == (
        f"{ATTENDING}alone changes the error by less than 0.05 of the in-context gain on linear. It is not a decoy: "
        "with 0.3 removed as well, removing it costs 0.56 [0.50, 0.60] of the gain on linear (mean ablation; removing "
        "0.3 alone costs 0.30, all of them 0.86)."
    )
    assert say_of_silent(*every) == f"{everything}head, or to any combination {others}"
    assert say_of_silent(*three) == f"{everything}head, or to any pair and all {others}"


@pytest.mark.parametrize(
    ("change", "low", "high", "words"),
    [
        (
            0.56,
            0.5,
            0.6,
            "with 0.3 removed as well, removing it costs 0.56 [0.50, 0.60] of the gain on linear (mean ablation; ",
        ),
        (
            -0.56,
            -0.6,
            -0.5,
            "with 0.3 removed as well, removing it restores 0.56 [0.50, 0.60] of the gain on linear (mean ablation; ",
        ),
        (0.06, 0.051, 0.1, "It is not a decoy: with"),
        (
            0.06,
            0.05,
            0.1,
            "Whether another head compensates for its removal is undecided: with 0.3 removed as well, removing it ",
        ),
        (0.04, 0.03, 0.05, DECOY),
        (0.04, 0.03, 0.051, "is undecided"),
        (-0.04, -0.051, 0.0, "is undecided"),
    ],
)
def test_a_joint_change_beyond_the_margin_is_no_decoy(change, low, high, words):
    text = say_of_silent({}, {"change": change, "ci_low": low, "ci_high": high})
    assert words in text
    assert text.endswith(("all of them 0.31).", DECOY, "narrow the interval."))


@pytest.mark.parametrize(
    ("moved", "is_decoy"),
    [((0.02, 0.01, 0.05), True), ((0.04, 0.03, 0.051), False), ((0.4, 0.3, 0.5), False)],
)
def test_a_head_whose_removal_moves_predictions_is_not_called_a_decoy(moved, is_decoy):
    """However little it changes the mean error."""
    text = say_of_silent(
        {}, rows=({"mode": "zero"} | HARMLESS, HARMLESS | effect(moved[0], moved[1], moved[2], "moved_"))
    )
    assert text.endswith(DECOY) == is_decoy
    value, low, high = moved
    sentence = f". It does change predictions, by a mean square of {value:.2f} [{low:.2f}, {high:.2f}] of that gain on "
    sentence += "linear (mean ablation). So it is no decoy."
    assert text.endswith(sentence) == (not is_decoy)


@pytest.mark.parametrize(
    "row",
    [
        effect(0.2, 0.1, 0.3),
        effect(0.03, 0.0, 0.06),
        effect(-0.3, -0.4, -0.2),
        effect(0.3, 0.2, 0.4, "direct_"),
    ],
)
def test_a_head_with_any_effect_is_not_called_a_decoy(row):
    assert not say_of_silent({}, rows=({"mode": "zero"} | HARMLESS | row, HARMLESS))
    assert not say_of_silent({}, rows=(HARMLESS, {"function_class": "cubic"} | HARMLESS | row))


def test_a_head_that_does_not_attend_is_not_called_a_decoy():
    joint = pd.DataFrame([JOINT])
    for scores in ({"0.1": 0.5}, {"1.1": 0.9}, None):
        assert "decoy" not in say(HARMLESS, scores=scores, joint=joint)[0]


def test_a_decoy_is_one_on_the_classes_that_the_model_uses_context_on():
    undefined = {"function_class": "cubic"} | effect(math.nan, math.nan, math.nan)
    assert "gain on linear, alone" in say_of_silent({}, rows=(HARMLESS, undefined))
    assert not say_of_silent({}, rows=(undefined,))


def test_a_removal_that_helps_is_named_with_the_two_sided_test():
    row = effect(-0.73, -0.8, -0.7) | {"smallest_p": 0.01}
    assert say(row, {"mode": "zero"} | row) == [
        "Removing 0.1 helps on linear: the error falls by 0.73 [0.70, 0.80] of the in-context gain (mean ablation); "
        "39 layer-matched sets cost 0.01 on average and -0.01 at least (two-sided p <= 0.05, after Holm <= 0.1 "
        "(39 draws)); all replacements give the same verdict, the removal helps (mean -0.73, zero -0.73); its direct "
        "effect has the opposite sign (0.21 [0.15, 0.25])."
    ]
    few = say(row | {"smallest_p": 0.03})[0]
    assert "; 39 control sets allow no p below 0.06;" in few


def test_a_note_says_why_nothing_changes():
    note = "the output of 0.1 does not vary, so mean ablation leaves it unchanged"
    assert say({"note": note}, {"mode": "zero", "note": note})[0].endswith(f"; {note}.")


def test_a_set_that_is_kept_is_told_by_what_is_left():
    rows = [
        {"p_value": 0.123456},
        {"function_class": "cubic", "n_controls": 0},
        {"function_class": "quadratic", "effect": math.nan},
        {"heads": "2.3"},
    ]
    first, second = keep_verdict(pd.DataFrame([ROW | row for row in rows]))
    assert first == (
        "Keeping only 0.1 leaves 0.80 of the in-context gain on linear (mean ablation of all other heads costs "
        "0.20 [0.10, 0.30]); p = 0.123 against 39 layer-matched control sets. "
        "Keeping only 0.1 leaves 0.80 of the in-context gain on cubic (mean ablation of all other heads costs "
        "0.20 [0.10, 0.30]). " + NO_GAIN.format("quadratic", "1.10")
    )
    assert second.startswith("Keeping only 2.3 leaves 0.80")


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
    "n_unknown_seeds": 0,
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
    assert pooled({"n_undefined": 2}) == SEVERAL + "; 2 models without a clear in-context gain left out."
    nothing = {"function_class": "cubic", "n_seeds": 0}
    assert pooled(nothing, {}) == f"No model is clearly better than the no-context optimum on cubic. {SEVERAL}."


def test_seeds_of_two_kinds_are_counted_and_their_mean_has_no_interval():
    text = pooled({"all_or_nothing": True, "n_half": 2, "share_low": 0.0943, "share_high": 0.9916})
    assert "costs 0.90 of the in-context gain on linear (mean ablation; 0.70 to 1.10; seeds are of two kinds" in text
    assert "so the mean has no interval), at least half of it in 2 of 3 seeds [0.09, 0.99] (Clopper-Pearson)" in text


def test_a_p_that_no_draw_reached_is_a_bound():
    text = pooled({"p_value": 1 / 10_001, "p_holm": 3 / 10_001, "n_draws": 10_000})
    assert "p <= 0.0001, after Holm <= 0.0003 (10,000 draws) against" in text


def test_several_models_that_a_removal_helps_have_the_two_sided_test():
    row = {"effect": -0.3, "p_two_sided": 0.004, "p_two_sided_holm": 0.012, "t_low": -0.5, "t_high": -0.1}
    text = pooled(row)
    assert "[-0.50, -0.10])" in text
    assert "; below 0 the removal helps; two-sided p = 0.004, after Holm 0.012 against" in text
    assert "two-sided" not in pooled(row | {"t_high": 0.01})


def test_one_seed_is_no_claim_about_a_curriculum():
    said = pooled({"n_seeds": 1, "n_checkpoints": 1, "t_low": math.nan, "t_high": math.nan})
    assert said.startswith("Over 1 independent seed (1 model) ")
    assert "(mean ablation), at least half" in said
    assert said.endswith(" One seed is one piece of evidence: this is no claim about a curriculum.")
    assert "claim" not in pooled({"n_seeds": 2})


PAIR = {
    "function_class": "linear",
    "mode": "mean",
    "points": "12-15",
    "effect_first": 0.01,
    "effect_second": 0.37,
    "effect": 0.93,
    "interaction": 0.55,
    "ci_low": 0.54,
    "ci_high": 0.57,
    "p_value": 0.01,
    "p_holm": 0.03,
}


def say_pairs(*rows) -> list[str]:
    table = pd.DataFrame([PAIR | {"heads": f"0.{i},0.{i + 1}"} | row for i, row in enumerate(rows)])
    return pairs_verdict(PairAblation("model", 1, table, None))  # pyright: ignore[reportArgumentType]


def test_the_strongest_interaction_of_each_sign_is_named():
    weak = {"interaction": 0.9, "p_value": 0.5, "p_holm": 0.5}
    (text,) = say_pairs(weak, {}, {"interaction": -0.2, "p_holm": 0.04})
    assert text == (
        "On linear 2 of 3 pairs interact (p <= 0.05 after Holm over the pairs, mean ablation). Removing 0.1,0.2 costs "
        "0.93, removing each alone 0.01 and 0.37: interaction 0.55 [0.54, 0.57] (p = 0.01, after Holm 0.03); either "
        "one can replace the other, or what they write adds up (errors are squared). Removing 0.2,0.3 costs 0.93, "
        "removing each alone 0.01 and 0.37: interaction -0.20 [0.54, 0.57] (p = 0.01, after Holm 0.04); each costs "
        "less once the other is removed."
    )


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        ((1.0, 1.0, 4.8, 2.8), "what they write adds up (errors are squared)."),
        ((0.0, 0.0, 1.0, 1.0), "either one can replace the other, or what they write adds up (errors are squared)."),
        ((1.0, 1.8, 0.0, -2.8), "they cancel at least in part, both together cost less than one of them alone."),
        ((-0.35, 3.65, 1.0, -2.3), "they cancel at least in part, both together cost less than one of them alone."),
        ((1.0, 1.0, 1.0, -1.0), "each costs less once the other is removed."),
    ],
)
def test_only_what_the_effects_leave_open_is_said_of_an_interaction(effects, words):
    names = ("effect_first", "effect_second", "effect", "interaction")
    (text,) = say_pairs(dict(zip(names, effects, strict=True)))
    assert text.endswith(f"; {words}")
    assert text.startswith("On linear 1 of 1 pair interacts")


def test_three_heads_may_replace_one_another_where_no_pair_interacts():
    (text,) = say_pairs({"p_holm": 0.2}, {"p_holm": 0.3})
    assert text.endswith("Larger sets were not compared: of three heads any one may be enough (--design cumulative).")


def test_pairs_without_a_certain_interaction_have_none():
    (text,) = say_pairs({"p_holm": 0.051}, {"p_holm": 0.2, "mode": "zero", "interaction": 3.0})
    assert text == (
        "On linear no interaction of 1 pair is shown to be 0.01 or more (p <= 0.05 after Holm over the pairs, mean "
        "ablation); the strongest, of 0.0,0.1, is 0.55 [0.54, 0.57]."
    )
    (text,) = say_pairs({"interaction": math.nan, "p_holm": math.nan})
    assert text.startswith("The intact model is not clearly better than the no-context optimum on linear")


def test_an_interaction_by_rounding_is_none():
    """A decoy beside the head that matters: 0.00002 in every resample."""
    tiny = {"interaction": -2e-5, "ci_low": -3e-5, "ci_high": -1e-5}
    (text,) = say_pairs(tiny)
    assert text == "On linear the interaction of 0.0,0.1 lies within 0.05 of 0 (95 % intervals, mean ablation)."
    (text,) = say_pairs(tiny, tiny)
    assert text.startswith("On linear the interaction of each of 2 pairs lies within 0.05 of 0")


def test_an_order_is_compared_with_random_ones():
    row = {"function_class": "linear", "mode": "mean", "points": "12-15", "area": 0.8, "ci_low": 0.7, "ci_high": 0.9}
    row |= {"random_area": 0.5, "p_value": 0.05, "n_orders": 19}
    area = pd.DataFrame([row, row | {"mode": "zero"}])
    steps = [{"added": "0.1", "effect": 0.02}, {"added": "1.2", "effect": 0.9}]
    table = pd.DataFrame([row | step | {"mode": mode} for mode in ("mean", "zero") for step in steps])
    assert order_verdict(CumulativeAblation("model", 1, table, area, None)) == [  # pyright: ignore[reportArgumentType]
        "Removing 0.1, 1.2 on linear in this order costs 0.80 [0.70, 0.90] on average over the number of removed "
        "heads, random orders of them 0.50 (p <= 0.05 (19 draws); mean ablation). In this order the cost rises "
        "most with head 1.2, from 0.02 to 0.90."
    ]
    steps = [{"added": "0.1", "effect": 0.6}, {"added": "0.2", "effect": 1.9}, {"added": "0.3", "effect": 1.0}]
    table = pd.DataFrame([row | step for step in steps])
    (text,) = order_verdict(CumulativeAblation("model", 1, table, area[:1], None))  # pyright: ignore[reportArgumentType]
    assert text.endswith("rises most with head 0.2, from 0.60 to 1.90. It falls most with head 0.3, from 1.90 to 1.00.")
