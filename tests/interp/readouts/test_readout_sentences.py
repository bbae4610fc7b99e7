"""The rules behind the sentences of readouts by their values, and every sentence once."""

import math

import pandas as pd
import pytest

from interp.readouts.verdict import (
    SENTENCES,
    answer_by_depth,
    best_position,
    highest_heads,
    judge_swap,
    judge_target,
    nearest_at_y,
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


@pytest.mark.parametrize(
    ("gains", "name", "sentence"),
    [
        (
            (0, 0.1, 0.2, 0.7, 0.95),
            "answer",
            "On linear the answer appears at 1.mid (0.70 of the model's gain over the no-context optimum, 0.20 before) "
            "and is complete at 1.post; the tuned lens is closest after layer 0 to the no-context optimum (0.100), "
            "after layer 1 to the no-context optimum or gradient descent with 1 step (0.100).",
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
            probe | {"stage": "0.mid", "above": 0.2, "above_low": 0.1},
            probe | {"stage": "1.mid", "above": 0.6, "above_low": 0.5},
        ]
    )
    assert write_sentence(best_position("w", table)) == (
        "w best at 1.mid, y tokens, k = 15 (R² 0.900 [0.800, 1.000], 0.60 above its controls)"
    )
    assert write_sentence(best_position("w", table.assign(above_low=0.0))) == "w nowhere above its controls"


@pytest.mark.parametrize(
    ("p_value", "n_controls", "judgement"),
    [(0.05, 19, "used"), (0.1, 9, "too few controls"), (0.06, 99, "not used"), (math.nan, 99, "not used")],
)
def test_a_swap_is_used_where_it_beats_enough_controls(p_value, n_controls, judgement):
    assert judge_swap(p_value, n_controls) == judgement


def test_the_sentence_of_a_swap_has_its_effect_and_those_of_its_controls():
    row = {"target": "w", "effect": 0.9, "ci_low": 0.8, "ci_high": 1.0, "stage": "1.post", "token": "y", "full": 1.0}
    row |= {"random": 0.02, "matched": 0.1, "p_chosen": 0.01, "n_controls": 99}
    assert write_sentence(judge_target(row)) == (
        "w is used (0.900 [0.800, 1.000] of the way at 1.post, y tokens, chosen on other prompts; whole stream 1.00; "
        "random subspaces 0.02, matched ones orthogonal to it 0.10; p = 0.010)"
    )
    assert SENTENCES["not used"] in write_sentence(judge_target(row | {"p_chosen": 0.3}))
    assert SENTENCES["too few controls"] in write_sentence(judge_target(row | {"p_chosen": 0.1, "n_controls": 9}))


def test_the_heads_with_the_highest_score_and_the_highest_r2_are_named():
    heads = pd.DataFrame(
        {"layer": [0, 1], "head": [1, 2], "score": [0.9, 0.1], "value": [0.8, 0.2], "ci_low": 0.1, "ci_high": 0.95}
    )
    sentence = "On linear head 0.1 has the highest retrospective score (0.90), and R² of x_i in its output is "
    sentence += "0.800 [0.100, 0.950]"
    assert write_sentence(highest_heads("linear", heads)) == f"{sentence}."
    other = write_sentence(highest_heads("linear", heads.assign(value=[0.8, 0.95])))
    assert other == f"{sentence}; the highest R² is that of head 1.2 (0.95)."
