import numpy as np
import pytest
import torch

from training.baselines import best_ridge, least_squares, ridge
from training.checkpoint import load
from training.evaluate import error_curves, evaluation_prompts, no_context_error, predictions
from training.prompts import Prompts
from training.sampling import sample_prompts


@pytest.fixture
def prompts(quick_config, generator) -> Prompts:
    return sample_prompts(quick_config, "linear", generator, n_prompts=50)


def test_tokens_alternate_and_hold_y_in_the_first_coordinate(prompts):
    tokens = prompts.tokens
    assert tokens.shape == (50, 32, 4)
    assert torch.equal(tokens[:, 0::2], prompts.xs)
    assert torch.equal(tokens[:, 1::2, 0], prompts.ys)
    assert not tokens[:, 1::2, 1:].any()


def test_least_squares_solves_linear_once_it_has_as_many_examples_as_dims(prompts):
    error = (least_squares(prompts) - prompts.ys).square()
    assert error[:, 4:].max() < 1e-6
    assert error[:, 3].mean() > 0.05


def test_least_squares_is_the_minimum_norm_fit_of_the_pairs_before(prompts):
    for k in (0, 2, 7):
        xs, ys = prompts.xs[3, :k].double().numpy(), prompts.ys[3, :k].double().numpy()
        wanted = (np.linalg.pinv(xs) @ ys if k else np.zeros(4)) @ prompts.xs[3, k].double().numpy()
        assert least_squares(prompts)[3, k].item() == pytest.approx(wanted, abs=1e-5)


def test_ridge_is_its_normal_equations(prompts):
    features = np.column_stack([np.ones(6), prompts.xs[3, :6].double().numpy()])
    w = np.linalg.solve(features.T @ features + 0.7 * np.eye(5), features.T @ prompts.ys[3, :6].double().numpy())
    wanted = w @ np.r_[1, prompts.xs[3, 6].double().numpy()]
    assert ridge(prompts, 0.7)[3, 6].item() == pytest.approx(wanted, abs=1e-5)


def test_best_ridge_is_no_worse_than_any_penalty_tried(quick_config, generator):
    prompts = sample_prompts(quick_config, "cubic", generator, n_prompts=200)
    best = (best_ridge(prompts) - prompts.ys).square().mean()
    assert all(best <= (ridge(prompts, penalty) - prompts.ys).square().mean() for penalty in (1e-3, 1.0, 100.0))


def test_no_baseline_sees_the_pair_it_predicts_or_a_later_one(prompts):
    changed = Prompts(prompts.xs.clone(), prompts.ys.clone())
    changed.ys[:, 5:] += 9
    for predict in (least_squares, lambda p: ridge(p, 0.1)):
        torch.testing.assert_close(predict(changed)[:, :6], predict(prompts)[:, :6])


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
