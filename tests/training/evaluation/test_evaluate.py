import numpy as np
import pytest
import torch

from training.checkpoints.checkpoint import load
from training.evaluation.evaluate import error_curves, evaluation_prompts, no_context_error, predictions
from training.sampling import sample_prompts
from training.tasks.prompts import Prompts


@pytest.fixture
def prompts(quick_config, generator) -> Prompts:
    return sample_prompts(quick_config, "linear", generator, n_prompts=50)


def test_tokens_alternate_and_hold_y_in_the_first_coordinate(prompts):
    tokens = prompts.tokens
    assert tokens.shape == (50, 32, 4)
    assert torch.equal(tokens[:, 0::2], prompts.xs)
    assert torch.equal(tokens[:, 1::2, 0], prompts.ys)
    assert not tokens[:, 1::2, 1:].any()


def test_curves_are_means_of_squared_errors_in_their_unit():
    checkpoint = load("zoo:mixed-0")
    table = error_curves(checkpoint, ["quadratic"], n_prompts=100, seed=3)
    prompts = evaluation_prompts(checkpoint.config, "quadratic", n_prompts=100, seed=3)
    unit = checkpoint.config.second_moment("quadratic")
    for predictor, errors in (
        ("model", (checkpoint.model(prompts.tokens)[:, ::2] - prompts.ys).square()),
        ("zero", prompts.ys.square()),
        ("no_context", (((prompts.xs.square().sum(-1) / 4) - 1) / 2 - prompts.ys).square()),
    ):
        rows = table.loc[table["predictor"] == predictor]
        np.testing.assert_allclose(rows["error"], errors.double().mean(0) / unit, rtol=1e-4, err_msg=predictor)
        error, low, high = (rows[column].to_numpy() for column in ("error", "ci_low", "ci_high"))
        assert (low < error).all()
        assert (error < high).all()


def test_the_own_baseline_can_stay_away():
    checkpoint, few = load("zoo:mixed-0"), {"n_prompts": 40, "seed": 3, "baselines": ["ridge"]}
    whole, without = (error_curves(checkpoint, ["quadratic"], own=own, **few) for own in (True, False))
    assert {*whole["predictor"]} - {*without["predictor"]} == {"single_index"}
    models = [table.loc[table["predictor"] == "model", ["error", "ci_low", "ci_high"]] for table in (whole, without)]
    np.testing.assert_array_equal(*models)


def test_the_plateau_of_a_failed_model_is_the_no_context_optimum():
    """single:cubic never left it: its predictions are those of E[y given x], not merely as bad."""
    checkpoint = load("zoo:cubic-0")
    prompts = evaluation_prompts(checkpoint.config, "cubic", n_prompts=1024, seed=0)
    given = predictions(checkpoint.model, prompts)
    error = (given - prompts.ys).square().mean()
    optimum = no_context_error(checkpoint.config, "cubic", prompts).mean()
    assert error == pytest.approx(optimum.item(), rel=0.05)


def test_streams_and_classes_of_evaluation_prompts(quick_config):
    def draw(**changes):
        arguments = {"name": "linear", "n_prompts": 5, "seed": 0, "stream": "test"} | changes
        return evaluation_prompts(quick_config, **arguments).xs

    assert torch.equal(draw(), draw(name="cubic"))
    assert not torch.equal(draw(), draw(seed=1))
    assert not torch.equal(draw(), draw(stream="selection"))
