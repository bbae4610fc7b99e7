"""The rules behind the sentences of readouts by their values, and every sentence once."""

import math

import numpy as np
import pandas as pd
import pytest

from interp.readouts.probes import Probes, Protocol
from interp.readouts.subspace_patching import Swaps, mark_chosen
from interp.readouts.verdict import (
    answer_by_depth,
    best_position,
    highest_heads,
    judge_swap,
    judge_target,
    nearest_at_y,
    probe_verdict,
    swap_verdict,
    write_sentence,
)


def depth(gains):
    """Two references by stage: the first is nearest, the second not clearly farther after layer 1."""
    rows = []
    for stage, gain in zip(("embed", "0.mid", "0.post", "1.mid", "1.post"), gains, strict=True):
        references = {"target": 1 - gain, "no_context": 0.1, "gradient_descent_1": 0.2}
        for reference, distance in references.items():
            near = reference == "no_context" or (reference == "gradient_descent_1" and stage == "1.post")
            rows.append({"stage": stage, "reference": reference, "distance": distance, "near": near, "gain": gain})
    return pd.DataFrame(rows)


HALF = "On linear the tuned lens first reaches half of the model's gain over the no-context optimum"


@pytest.mark.parametrize(
    ("gains", "name", "sentence"),
    [
        (
            (0, 0.1, 0.2, 0.7, 0.95),
            "answer",
            f"{HALF} at 1.mid (0.70 of it; 0.20 at the stage before) and 0.9 of it at 1.post; in squared distance / "
            "E[y²] it is closest after layer 0 to the no-context optimum (0.100), after layer 1 to the no-context "
            "optimum or gradient descent with 1 step (0.100).",
        ),
        (
            (0, 0.1, 0.2, 0.7, 0.8),
            "answer",
            f"{HALF} at 1.mid (0.70 of it; 0.20 at the stage before) and 0.9 of it at no stage; in squared distance / "
            "E[y²] it is closest after layer 0 to the no-context optimum (0.100), after layer 1 to the no-context "
            "optimum or gradient descent with 1 step (0.100).",
        ),
        (
            (0, 0.1, 0.2, 0.3, 0.4),
            "no answer",
            "On linear no stage has half of the model's gain over the no-context optimum.",
        ),
        (
            (0, 0, 0, 0, math.nan),
            "no gain",
            "On linear the model is not shown to beat the no-context optimum: no answer appears.",
        ),
    ],
)
def test_the_answer_appears_at_half_of_the_gain_and_is_complete_at_nine_tenths(gains, name, sentence):
    fact = answer_by_depth("linear", depth(gains))
    assert fact[0] == name
    assert write_sentence(fact) == sentence


def test_predictors_that_are_as_near_as_the_second_are_counted():
    table = depth((0, 0.1, 0.2, 0.7, 0.95))
    same = table[table["reference"] == "gradient_descent_1"].assign(reference="ridge")
    more = [table, same, same.assign(reference="least_squares")]
    sentence = write_sentence(answer_by_depth("linear", pd.concat(more, ignore_index=True)))
    assert sentence.endswith("the no-context optimum or gradient descent with 1 step or 2 others (0.100).")


def test_at_y_tokens_the_distance_to_y_is_reported():
    assert write_sentence(nearest_at_y("linear", depth((0, 0.1, 0.2, 0.7, 0.95)))) == (
        "At the y tokens of linear, which hold y itself, the tuned lens is closest after layer 0 to the no-context "
        "optimum (0.100) and 0.800 from y, after layer 1 to the no-context optimum or gradient descent with 1 step "
        "(0.100) and 0.050 from y."
    )


def test_a_target_is_decodable_where_it_exceeds_its_controls_clearly():
    probe = {"token": "y", "examples": 15, "metric": "r2", "value": 0.9, "ci_low": 0.8, "ci_high": 1.0}
    table = pd.DataFrame(
        [
            probe | {"stage": "0.mid", "above": 0.2, "above_low": 0.1, "above_high": 0.3},
            probe | {"stage": "1.mid", "above": 0.6, "above_low": 0.5, "above_high": 0.7},
            probe | {"stage": "1.post", "above": 0.9, "above_low": -0.1, "above_high": 1.9},
        ]
    )
    assert write_sentence(best_position("w", table, 1)) == (
        "w exceeds its controls most at 1.mid, y tokens, k = 15 (R² 0.900 [0.800, 1.000], 0.60 [0.50, 0.70] above them)"
    )
    assert "(R² 0.900 [0.743, 1.000], 0.60 [0.44, 0.76] above" in write_sentence(best_position("w", table, 24))
    nowhere = write_sentence(best_position("w", table.assign(above_low=0.0), 1))
    assert nowhere == "w not shown to exceed its controls anywhere"


def test_the_best_of_many_probes_needs_an_interval_that_holds_for_all():
    labels = {"function_class": "linear", "condition": "intact", "token": "x", "examples": 3, "metric": "r2"}
    probe = labels | {"stage": "0.mid", "value": 0.1, "ci_low": 0.0, "ci_high": 0.2}
    clear, nothing = ({"above": above, "above_low": above - 0.15, "above_high": above + 0.15} for above in (0.2, 0.0))
    alone = pd.DataFrame([probe | {"target": "w"} | clear])
    assert probe_verdict(Probes("a", 0, alone, Protocol())) == [
        "Decodable on linear: w exceeds its controls most at 0.mid, x tokens, k = 3 (R² 0.100 [0.000, 0.200], 0.20 "
        "[0.05, 0.35] above them)."
    ]
    others = pd.DataFrame([probe | {"target": target} | nothing for target in "wwwwwttttt"])
    assert probe_verdict(Probes("a", 0, pd.concat([alone, others], ignore_index=True), Protocol())) == [
        "Decodable on linear: w not shown to exceed its controls anywhere; t not shown to exceed its controls anywhere "
        "(of up to 6 positions each; intervals hold for all 11 probes at once)."
    ]


@pytest.mark.parametrize(
    ("p_value", "p_holm", "n_controls", "judgement"),
    [
        (0.05, 0.05, 19, "used"),
        (1 / 300, 15 * (1 / 300), 299, "used"),
        (0.1, 0.1, 9, "too few controls"),
        (0.01, 0.06, 99, "too few controls"),
        (0.02, 0.06, 99, "not used"),
    ],
)
def test_a_swap_is_used_where_it_beats_enough_controls(p_value, p_holm, n_controls, judgement):
    assert judge_swap(p_value, p_holm, n_controls) == judgement


SWAP = {"target": "w", "effect": 0.9, "ci_low": 0.8, "ci_high": 1.0, "stage": "1.post", "token": "y", "full": 1.0}
SWAP |= {"random": 0.02, "matched": 0.1, "p_chosen": 0.02, "p_holm": 0.04, "n_controls": 99}


def test_the_sentence_of_a_swap_has_its_effect_and_those_of_its_controls():
    where_and_what = (
        "(0.900 [0.800, 1.000] of the way at 1.post, y tokens, chosen on other prompts; whole stream 1.00; "
    )
    where_and_what += "random subspaces 0.02, matched ones orthogonal to it 0.10; p "
    assert (
        write_sentence(judge_target(SWAP, 2)) == f"the subspace of w is used {where_and_what}= 0.02, after Holm 0.04)"
    )
    assert write_sentence(judge_target(SWAP | {"p_chosen": 0.3, "p_holm": 0.6}, 2)) == (
        f"the subspace of w is not distinguished from random subspaces {where_and_what}= 0.3, after Holm 0.6)"
    )
    assert write_sentence(judge_target(SWAP | {"p_chosen": 0.01, "p_holm": 0.1}, 10)) == (
        "the subspace of w moves the prediction more than every random subspace, but 99 of these are too few for 10 "
        f"tests (--controls 199 would do) {where_and_what}<= 0.01, after Holm <= 0.1 (99 draws))"
    )


@pytest.mark.parametrize(("p_holm", "n_used"), [((0.04, 0.04), 2), ((0.04, 0.5), 1)])
def test_targets_that_are_used_may_share_a_subspace(p_holm, n_used):
    rows = [SWAP | {"target": target, "p_holm": p} for target, p in zip(("w", "xty"), p_holm, strict=True)]
    labels = {"function_class": "linear", "subspace": "pattern", "evidence": 1.0}
    (text,) = swap_verdict(Swaps("a", 0, pd.DataFrame([row | labels for row in rows]), pd.DataFrame(), Protocol(), 64))
    assert text.count("is used") == n_used
    assert text.endswith("which of them the model reads is not tested.") == (n_used > 1)


def test_a_swap_without_a_p_value_was_not_tested():
    untested = SWAP | {"p_chosen": math.nan, "p_holm": math.nan, "random": math.nan, "n_controls": 0}
    assert write_sentence(judge_target(untested, 0)) == (
        "the subspace of w was not tested (0.900 [0.800, 1.000] of the way at 1.post, y tokens, chosen on other "
        "prompts; there is nothing to compare it with)"
    )


def test_swaps_are_adjusted_over_targets_and_classes_by_kind_of_subspace():
    cells = [(name, target) for name in ("linear", "cubic") for target in ("w", "t")]
    rows = [
        {"function_class": name, "target": target, "subspace": kind}
        for kind in ("pattern", "weights")
        for name, target in cells
    ]
    chosen = [row | {"evidence": 2.0, "p_value": 0.01, "p_matched": 0.005} for row in rows]
    others = [row | {"evidence": 1.0, "p_value": 0.001, "p_matched": 0.001} for row in rows]
    table = mark_chosen(pd.DataFrame(chosen + others))
    assert table["p_chosen"].tolist()[:8] == [0.01] * 8
    assert table["p_holm"].tolist()[:8] == pytest.approx([0.04] * 8)
    assert np.isnan(table[["p_chosen", "p_holm"]].to_numpy()[8:]).all()


def test_the_heads_with_the_highest_score_and_the_highest_r2_are_named():
    heads = pd.DataFrame(
        {"layer": [0, 1], "head": [1, 2], "score": [0.9, 0.1], "value": [0.8, 0.2], "ci_low": 0.1, "ci_high": 0.95}
    )
    sentence = "On linear head 0.1 has the highest retrospective score (0.90), and R² of x_i in its output is "
    sentence += "0.800 [0.100, 0.950]"
    assert write_sentence(highest_heads("linear", heads)) == f"{sentence}."
    higher = heads.assign(value=[0.8, 0.97], ci_low=[0.1, 0.96])
    other = write_sentence(highest_heads("linear", higher))
    assert other == f"{sentence}; the highest R² is that of head 1.2 (0.97)."
    assert "highest R²" not in write_sentence(highest_heads("linear", heads.assign(value=[0.8, 0.97])))


def test_heads_with_the_same_score_are_named_together():
    """Rounding would decide between them."""
    heads = pd.DataFrame({"layer": 0, "head": [1, 3], "score": [1.0 - 1e-7, 1.0], "value": [0.9, 0.0]})
    heads = heads.assign(ci_low=heads["value"], ci_high=heads["value"])
    assert write_sentence(highest_heads("linear", heads)) == (
        "On linear heads 0.1 and 0.3 have the highest retrospective score (1.00), and R² of x_i in their outputs is "
        "0.900 [0.900, 0.900] and 0.000 [0.000, 0.000]."
    )
