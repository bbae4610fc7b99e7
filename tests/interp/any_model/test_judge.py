"""Removals judged by losses alone: planted truth, units, false-positive rate, and refusals."""

from typing import Any

import numpy as np
import pytest

import interp
from interp.ablation.ablate import Ablation
from interp.any_model.judge import judge
from interp.model.heads import Head
from training.common.errors import CheckError, UserError

SIZE: Any = {"n_layers": 2, "n_heads": 8}


def planted(costs, n_examples=64, seed=0, gain=None):
    """Losses to which each removed head adds its cost times noise around 1."""
    rng = np.random.default_rng(seed)
    intact = 1 + rng.random(n_examples)
    noise = 1 + 0.1 * rng.standard_normal((2, 8, n_examples))
    none = None if gain is None else intact + gain * (1 + 0.1 * rng.standard_normal(n_examples))
    return (lambda heads: intact + sum(costs.get(tuple(head), 0) * noise[head] for head in heads)), none


def test_the_result_is_an_ablation_with_the_same_statistics():
    loss_without, no_context = planted({(1, 3): 0.5, (0, 0): 0.1}, gain=1.0)
    result = interp.judge(loss_without, "1.3", **SIZE, no_context=no_context)
    assert isinstance(result, Ablation)
    (row,) = result.table.to_dict("records")
    assert row["effect"] == pytest.approx(0.5, abs=0.05)
    assert row["ci_low"] < row["effect"] < row["ci_high"]
    assert (row["p_value"], row["n_controls"], row["exact"], row["unit"]) == (0.125, 7, True, "gain")
    assert row["size_n_controls"] == 15
    assert set(result.null["match"]) == {"layer", "size"}
    (sentence,) = result.sentences()
    assert sentence.startswith("Removing 1.3 costs 0.")
    assert "of the in-context gain on all examples (removal)" in sentence


def test_without_a_no_context_loss_effects_are_differences_of_losses():
    loss_without, _ = planted({(1, 3): 5.0})
    result = judge(loss_without, "1.3", **SIZE)
    losses = loss_without((Head(1, 3),)) - loss_without(())
    (row,) = result.table.to_dict("records")
    assert row["effect"] == pytest.approx(losses.mean())
    assert row["loss_after"] - row["loss_before"] == pytest.approx(row["effect"])
    assert np.isnan(row["loss_no_context"])
    assert "raises the loss on all examples by " in result.sentences()[0]
    assert "in the unit of the loss" in result.sentences()[0]
    assert "unit of the loss" in result.tables()[0].explain()


@pytest.mark.parametrize(("cost", "word"), [(0.01, "raises"), (-0.01, "lowers"), (0.0, "contains 0")])
def test_sentences_in_the_unit_of_the_loss_say_no_size(cost, word):
    rng = np.random.default_rng(1)
    intact, noise = rng.random(64), 0.002 * rng.standard_normal((2, 8, 64))
    result = judge(lambda heads: intact + sum(cost * (head == (0, 1)) + noise[head] for head in heads), "0.1", **SIZE)
    assert word in result.sentences()[0]
    assert "gain" not in result.sentences()[0]


def test_conditions_have_effects_of_their_own_and_holm_over_them():
    loss_without, _ = planted({(0, 2): 1.0})
    labels = ["a", "b"] * 32
    result = judge(
        lambda heads: loss_without(heads) * np.where(np.arange(64) % 2, 0.5, 1), "0.2", **SIZE, conditions=labels
    )
    assert list(result.table["condition"]) == ["a", "b"]
    assert result.table["effect"].tolist() == pytest.approx([1.0, 0.5], abs=0.05)
    assert result.table["p_holm"].tolist() == pytest.approx(2 * result.table["p_value"])


def test_ways_of_removing_are_modes():
    loss_without, _ = planted({(0, 2): 1.0})
    ways = {"zero": loss_without, "mean": lambda heads: 0.5 * (loss_without(heads) + loss_without(()))}
    result = judge(ways, "each", **SIZE, n_controls=3)
    assert set(result.table["mode"]) == {"zero", "mean"}
    assert len(result.table) == 32
    result.plot()
    assert len(result.maps()) == 2
    assert "Removing 0.2" in result.all_sentences()[2]


def test_a_clear_gain_is_needed():
    loss_without, _ = planted({(1, 3): 0.5})
    result = judge(
        loss_without, "1.3", **SIZE, no_context=loss_without(()) + 0.01 * np.random.default_rng(0).standard_normal(64)
    )
    assert np.isnan(result.table["effect"].to_numpy()).all()
    assert "No effect of removing 1.3 is given." in result.sentences()[0]


def test_a_set_that_is_picked_at_random_is_called_special_at_the_nominal_rate():
    rng = np.random.default_rng(2)
    p_values = []
    for trial in range(60):
        loss_without, _ = planted({(layer, head): rng.random() for layer in range(2) for head in range(8)}, seed=trial)
        picked = Head(int(rng.integers(2)), int(rng.integers(8)))
        p_values.append(judge(loss_without, picked, **SIZE).table["p_value"].item())
    assert np.mean(np.array(p_values) <= 0.25) <= 0.25 + 3 * np.sqrt(0.25 * 0.75 / 60)
    assert np.mean(p_values) == pytest.approx(0.5625, abs=0.12)


INTACT = np.ones(16)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda _heads: 1.0, "one number per example"),
        (lambda _heads: np.ones((16, 2)), r"shape \[16, 2\]"),
        (lambda heads: np.ones(16 + len(heads)), r"without 0.1 have shape \[17\]"),
        (lambda heads: np.where(np.arange(16) < 3 * len(heads), np.nan, 1), "NaN or infinite on 3 of 16"),
        (lambda _heads: "loss", "losses of the intact model are str"),
        (lambda heads: np.ones(3) + len(heads), "3 examples are too few"),
    ],
)
def test_losses_that_are_none_are_refused(losses, message):
    with pytest.raises(UserError, match=message):
        judge(losses, "0.1", **SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": "2.0"}, "no head 2.0"),
        ({"sets": "0.mlp"}, "only attention heads"),
        ({"sets": []}, "no heads are given"),
        ({"match": ("norm",)}, "unknown match 'norm'"),
        ({"no_context": np.ones(3)}, r"\[16\]"),
        ({"conditions": ["a"]}, "1 conditions are given for 16"),
        ({"conditions": ["a"] * 3 + ["b"] * 13}, "a: 3 examples are too few"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    given = {"sets": "0.1", **SIZE, **options}
    with pytest.raises(UserError, match=message):
        judge(lambda heads: INTACT + len(heads) * np.arange(16), **given)


def test_a_function_that_ignores_the_heads_is_caught():
    with pytest.raises(CheckError, match="changes the loss of any example"):
        judge(lambda _heads: INTACT, "0.1", **SIZE)


def test_a_function_that_differs_from_pass_to_pass_is_caught():
    rng = np.random.default_rng(0)
    with pytest.raises(CheckError, match="removing nothing changes the losses"):
        judge(lambda _heads: rng.random(16), "0.1", **SIZE)


def test_curves_are_refused():
    loss_without, _ = planted({(0, 2): 1.0})
    with pytest.raises(UserError, match="no curve"):
        judge(loss_without, "0.2", **SIZE).plot_curves()


def test_files_hold_both_tables(tmp_path):
    loss_without, _ = planted({(0, 2): 1.0})
    judge(loss_without, "0.2", **SIZE).write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ablation.csv", "ablation_null.csv"}
