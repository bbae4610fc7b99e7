"""A run has converged where as many evaluations as the word promises are below the line, and nowhere else."""

import json
import math

import pytest

from analyses.comparison.forgetting import loss
from analyses.comparison.histories import needed
from training.config.parse import from_preset
from training.evaluation import convergence as module
from training.evaluation.convergence import convergence, first_held, ratios_to_no_context

SETTINGS = ["model.n_layers=1", "model.n_heads=1", "model.d_model=8", "recipe.steps=4", "record.save_every=4"]
BELOW, ABOVE = 0.4, 0.6


@pytest.mark.parametrize(
    ("errors", "at"),
    [
        ([], None),
        ([BELOW], None),
        ([BELOW] * 2, None),
        ([BELOW] * 3, 0),
        ([ABOVE] * 9 + [BELOW], None),
        ([ABOVE, BELOW, BELOW, BELOW], 1),
        ([BELOW, BELOW, ABOVE, BELOW, BELOW], None),
        ([0.5, 0.5, 0.5], 0),
        ([BELOW, math.nan, BELOW, BELOW], None),
        ([math.nan] * 4, None),
    ],
)
def test_three_evaluations_are_three(errors, at):
    assert first_held(errors, 0.5, held=3) == at


def rows(errors, no_context):
    counters = {"function_class": "linear", "inputs": "gaussian", "prompts_total": 8, "seconds": 1.0, "flops": 9.0}
    return [
        counters
        | {"step": step, "prompts_seen": step, "nmse": error, "nmse_tail": error, "no_context_tail": no_context}
        for step, error in enumerate(errors)
    ]


@pytest.fixture
def table_of(monkeypatch, tmp_path):
    """What `interp history` shows of a run with these errors."""

    def table(errors, no_context=1.0):
        monkeypatch.setattr(module, "read_config", lambda _: from_preset("tiny", "single:linear", 0, SETTINGS))
        monkeypatch.setattr(module, "weights_path", lambda *_: tmp_path)
        monkeypatch.setattr(module, "read_weights", lambda *_: ({}, len(errors)))
        monkeypatch.setattr(module, "history_until", lambda *_: rows(errors, no_context))
        (row,) = convergence(tmp_path).to_dict("records")
        return row

    return table


def test_a_run_whose_last_evaluation_alone_is_below_has_not_converged(table_of):
    assert table_of([ABOVE, ABOVE, BELOW])["step"] is None
    assert table_of([ABOVE, BELOW, BELOW, BELOW])["step"] == 1


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_an_optimum_without_an_error_gives_no_ratio(table_of, error):
    assert table_of([error] * 5, no_context=0.0)["step"] is None
    history = module.pd.DataFrame(rows([error] * 5, 0.0))
    history = history.assign(ratio=ratios_to_no_context(history))
    assert math.isnan(loss(history)["lost"])
    assert needed(history, 0.5, "flops") == math.inf
    assert json.dumps(loss(history)["forgot"]) == "false"
