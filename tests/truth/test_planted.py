"""The planted circuit is found, its effect is the known one, and the decoy is called a decoy."""

import numpy as np
import pytest
import torch

from analyses.studies.retrospective import study
from interp.ablation.ablate import ablate
from interp.model.heads import Head
from interp.scores.score import score, score_all
from training.evaluation.evaluate import evaluation_prompts, predictions
from training.tasks.prompts import last_quarter

REAL, DECOY, READER = (Head(0, 1),), (Head(0, 3),), (Head(1, 2),)
EXAMPLES = np.arange(16)[last_quarter(16)]
INTACT = np.mean(2 / EXAMPLES)  # error of x_q mean(x_i y_i): the variance of a mean of k squares of N(0, 1)


@pytest.fixture(scope="module")
def ablation(planted):
    scores = np.zeros((2, 5))
    scores[0, [1, 3]], scores[1, 2] = 1, 0.03
    return ablate(planted, [REAL, DECOY, READER], n_prompts=2048, n_controls=20, scores=scores)


def row_of(ablation, heads, mode):
    table = ablation.table
    return table[(table["heads"] == str(heads[0])) & (table["mode"] == mode)].iloc[0]


def test_the_circuit_computes_what_it_was_written_to(planted):
    prompts = evaluation_prompts(planted.config, "linear", n_prompts=200, seed=0)
    products = (prompts.xs[:, :, 0] * prompts.ys).cumsum(1)[:, :-1] / torch.arange(1, 16)
    wanted = prompts.xs[:, 1:, 0] * products
    given = predictions(planted.model, prompts)[:, 1:]
    assert (given - wanted).abs().mean() < 0.02 * wanted.abs().mean()


def test_both_heads_that_attend_are_found(planted):
    scores = score(planted, n_prompts=64).values["linear"]
    assert {(int(layer), int(head)) for layer, head in np.argwhere(scores > 0.5)} == {*REAL, *DECOY}
    assert scores[REAL[0]] == pytest.approx(1, abs=1e-3)
    uniform = score(planted, n_prompts=64).chance
    assert scores[0, 0] == pytest.approx(uniform, abs=1e-6)


@pytest.mark.parametrize("by", ["pattern", "value", "derivative"])
def test_every_weighting_finds_the_copy_and_the_reader(by, planted):
    scores = {one.kind.name: one.values["linear"] for one in score_all(planted, by=by, n_prompts=16)}
    assert scores["retrospective"][REAL[0]] == pytest.approx(1, abs=0.01)
    assert scores["paper"][REAL[0]] == pytest.approx(0.5, abs=0.005)
    assert scores["x_to_earlier_y"][READER[0]] == pytest.approx(1, abs=0.01)
    assert scores["lookup"][READER[0]] == pytest.approx(np.mean([1 / q for q in range(1, 16)]), rel=0.5)


def test_a_decoy_attends_but_moves_nothing(planted):
    by = {by: score(planted, by=by, n_prompts=16).values["linear"] for by in ("pattern", "value", "derivative")}
    assert by["pattern"][DECOY[0]] == pytest.approx(1, abs=1e-3)
    assert by["value"][DECOY[0]] == by["derivative"][DECOY[0]] == 0


def test_the_reader_spreads_its_attention_evenly(planted):
    lookup = score(planted, kind="lookup", n_prompts=16).values["linear"][READER[0]]
    assert lookup == pytest.approx(np.mean([1 / q for q in range(1, 16)]), abs=1e-3)


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_without_the_copy_nothing_is_left_of_the_context(ablation, mode):
    """x_i times nothing is nothing: the prediction is 0, which is the no-context optimum, so the effect is 1."""
    row = row_of(ablation, REAL, mode)
    assert row["nmse_before"] == pytest.approx(INTACT, rel=0.1)
    assert row["effect"] == pytest.approx(1, abs=0.01)
    assert row["ci_low"] - 0.01 <= 1 <= row["ci_high"] + 0.01


def test_with_another_prompts_x_the_damage_is_the_known_one(ablation):
    """mean(x'_i y_i) has variance 1/k around 0, so the error is 1 + 1/k."""
    known = (np.mean(1 + 1 / EXAMPLES) - INTACT) / (1 - INTACT)
    row = row_of(ablation, REAL, "resample")
    half_width = (row["ci_high"] - row["ci_low"]) / 2
    assert abs(row["effect"] - known) < 2 * half_width
    assert half_width < 0.04


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_the_decoy_has_no_effect_and_neither_have_the_null_sets(ablation, mode):
    assert row_of(ablation, DECOY, mode)["effect"] == pytest.approx(0, abs=1e-6)
    real = row_of(ablation, REAL, mode)
    assert real["control_max"] == pytest.approx(0, abs=1e-6)
    assert (real["p_value"], real["n_controls"], real["exact"]) == (1 / 5, 4, True)
    if mode != "mean":  # the reader of layer 1 does as much damage; with means, up to the noise of the reference
        assert real["size_p_value"] == pytest.approx(2 / 10)


def test_the_verdict_says_which_is_which(ablation):
    sentences = ablation.sentences()
    assert "costs 1.0" in sentences[0]
    assert "decoy" not in sentences[0]
    assert "all replacements give the same verdict, at least half of the gain" in sentences[0]
    assert "; 4 control sets allow no p below 0.2;" in sentences[0]
    assert sentences[1].endswith(": a decoy on linear (pairs 12-15; other inputs were not tested).")
    assert "the output of 0.3 does not vary, so mean ablation leaves it unchanged" in sentences[1]
    assert "decoy" not in sentences[2]


@pytest.mark.slow
def test_the_study_finds_the_pair_and_unmasks_the_decoy(planted):
    result = study(planted, n_prompts=256, n_controls=20)
    assert result.head_set == (*REAL, *DECOY)
    assert "0.1 (1.00), 0.3 (1.00)" in result.sentences()[0]
    assert ["a decoy on linear (pairs 12-15; " in sentence for sentence in result.sentences()] == [
        False,
        False,
        False,
        True,
    ]
