"""Every sentence on any model, word for word, from rows written by hand."""

import math

import pandas as pd
import pytest

from interp.any_model.patch import LossPatchMap
from interp.any_model.verdict import SENTENCES, loss_verdict

ROW = {
    "heads": "1.2,1.3",
    "condition": "short",
    "mode": "mean",
    "unit": "gain",
    "loss_before": 1.5,
    "loss_no_context": 4.25,
    "effect": 0.2,
    "ci_low": 0.1,
    "ci_high": 0.3,
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
    "detectable": 0.15,
}
CHANCE = "39 layer-matched sets cost 0.01 on average and 0.02 at most (p <= 0.025, after Holm <= 0.05 (39 draws))"
LEAST = (
    "39 layer-matched sets cost 0.01 on average and -0.01 at least (two-sided p <= 0.05, after Holm <= 0.1 (39 draws))"
)
ALONE = "no other replacement was tried"


def effect(value, low, high):
    return {"effect": value, "ci_low": low, "ci_high": high}


def say(*rows) -> list[str]:
    return loss_verdict(pd.DataFrame([ROW | row for row in rows]))


LOSS = {"unit": "loss", "loss_no_context": math.nan}
REMOVALS = {
    "costs": (
        {},
        f"Removing 1.2,1.3 costs 0.20 [0.10, 0.30] of the in-context gain on short (mean ablation); {CHANCE}; ",
    ),
    "costs more than the gain": (
        effect(1.4, 1.2, 1.6),
        "Removing 1.2,1.3 costs 1.40 [1.20, 1.60] of the in-context gain on short (mean ablation; above 1 the ablated "
        f"model is worse than one that ignores the context); {CHANCE}; ",
    ),
    "helps": (
        effect(-0.2, -0.3, -0.1),
        "Removing 1.2,1.3 helps on short: the loss falls by 0.20 [0.10, 0.30] of the in-context gain (mean ablation); "
        f"{LEAST}; ",
    ),
    "loss rises": (
        LOSS,
        "Removing 1.2,1.3 raises the loss on short by 0.20 [0.10, 0.30], in the unit of the loss, from 1.50 (mean "
        f"ablation); {CHANCE}; ",
    ),
    "loss falls": (
        LOSS | effect(-0.2, -0.3, -0.1),
        "Removing 1.2,1.3 lowers the loss on short by 0.20 [0.10, 0.30], in the unit of the loss, from 1.50 (mean "
        f"ablation); {LEAST}; ",
    ),
    "loss unclear": (
        LOSS | effect(0.1, -0.2, 0.3),
        "Removing 1.2,1.3 changes the loss on short by 0.100 [-0.200, 0.300], in the unit of the loss, from 1.500 "
        f"(mean ablation), an interval that contains 0; {CHANCE}; ",
    ),
}


@pytest.mark.parametrize("template", REMOVALS)
def test_a_removal_is_a_sentence(template):
    row, text = REMOVALS[template]
    assert say(row) == [f"{text}{ALONE}."]


def test_an_undefined_effect_is_said_with_its_reason():
    assert say(effect(math.nan, math.nan, math.nan) | {"loss_before": 4.1}) == [
        "The intact model is not clearly better than the no-context loss on short: its loss is 4.10 against 4.25, and "
        "a gain of less than 4 standard errors is too uncertain to divide by. No effect of removing 1.2,1.3 is given."
    ]


def test_an_unnamed_way_of_removing_is_no_ablation():
    assert "of the in-context gain on short (removal); " in say({"mode": "removal"})[0]


def test_few_control_sets_are_said_with_a_remedy_that_exists():
    few = {"n_controls": 7, "n_disjoint": 7, "exact": True, "smallest_p": 0.125, "p_value": 0.125, "p_holm": 0.125}
    remedy = "larger sets, or sets over several layers, have more control sets)"
    assert f"; 7 control sets allow no p below 0.125; {remedy}" in say(few)[0]


def test_notes_end_a_sentence():
    assert say({"note": "the output of 1.2 is constant"})[0].endswith(f"; {ALONE}; the output of 1.2 is constant.")


SAME, DIFFERENT = "all replacements give the same verdict, ", "THE REPLACEMENTS GIVE DIFFERENT VERDICTS "


@pytest.mark.parametrize(
    ("unit", "first", "second", "clause"),
    [
        ("loss", (0.2, 0.1, 0.3), (0.4, 0.3, 0.5), "the intervals of all replacements overlap (mean 0.20, zero 0.40)"),
        ("loss", (0.2, 0.1, 0.3), (0.4, 0.31, 0.5), f"{SAME}the loss rises (mean 0.20, zero 0.40)"),
        ("loss", (0.2, 0.1, 0.3), (0.0, -0.1, 0.05), f"{DIFFERENT}(mean 0.20, the loss rises; zero 0.00, unclear)"),
        (
            "loss",
            (0.2, 0.1, 0.3),
            (-0.4, -0.5, -0.31),
            f"{DIFFERENT}(mean 0.20, the loss rises; zero -0.40, the loss falls)",
        ),
        (
            "gain",
            (0.2, 0.1, 0.3),
            (0.6, 0.25, 0.9),
            f"{DIFFERENT}(mean 0.20, part of the gain; zero 0.60, at least half of the gain)",
        ),
        ("gain", (0.2, 0.1, 0.3), (0.4, 0.35, 0.45), f"{SAME}part of the gain (mean 0.20, zero 0.40)"),
    ],
)
def test_replacements_agree_by_size_or_by_overlap(unit, first, second, clause):
    (text,) = say({"unit": unit} | effect(*first), {"unit": unit, "mode": "zero"} | effect(*second))
    assert text.endswith(f"; {clause}.")


def test_sets_have_paragraphs_and_conditions_sentences():
    rows = [{"heads": heads, "condition": name} for heads in ("0.1", "2.3") for name in ("short", "long")]
    paragraphs = say(*rows)
    assert [text.count("Removing 0.1 costs") for text in paragraphs] == [2, 0]
    assert [text.count("gain on long") for text in paragraphs] == [1, 1]


def patched(direction, *effects):
    rows = [
        {"condition": "short", "layer": layer, "heads": f"{layer}.0", "tokens": "all", "ci_low": low, "ci_high": high}
        | {"effect": value, "loss": 1.0, "loss_low": 0.9, "loss_high": 1.1}
        for layer, (value, low, high) in enumerate(effects)
    ]
    ends = pd.DataFrame([{"condition": "short", "loss_clean": 1.0, "loss_corrupt": 2.0}])
    return LossPatchMap("model", None, pd.DataFrame(rows), "z", direction, ends, 16, 0).sentences()


def test_a_map_of_patches_is_a_sentence():
    certain, uncertain = (0.6, 0.5, 0.7), (0.1, -0.1, 0.3)
    assert patched("denoise", uncertain, certain) == [
        "On short patching z of 1.0 moves the loss of the corrupt run by 0.60 [0.49, 0.71] of the way to that of the "
        "clean run (chosen from 2 locations; the interval holds for all 2 of the map at once)."
    ]
    assert (
        "moves the loss of the clean run by 0.60 [0.50, 0.70] of the way to that of the corrupt run"
        in (patched("noise", certain)[0])
    )
    assert patched("denoise", uncertain) == [
        "On short no patch is shown to have an effect of 0.01 or more (1 location patched)."
    ]
    assert patched("denoise", (math.nan,) * 3) == [
        "On short the clean and the corrupt run have the same losses: there is nothing to patch."
    ]


def test_every_template_is_in_one_of_these_tests():
    elsewhere = {"undefined", "agree", "no gap", "no effect", "moves", "chosen"}
    assert set(SENTENCES) == {*REMOVALS, *elsewhere}
