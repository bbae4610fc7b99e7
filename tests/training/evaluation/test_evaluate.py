import subprocess
import sys

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
    whole, without = (error_curves(checkpoint, ["quadratic"], class_baseline=wanted, **few) for wanted in (True, False))
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


ARGUMENTS = """
import numpy as np, torch
from training.checkpoints.checkpoint import load
from training.evaluation.evaluate import evaluation_prompts

config = load("zoo:linear-0").config
usual = evaluation_prompts(config, "linear", n_prompts=4, seed=3).xs
for kind in (np.int64, np.uint8):
    assert torch.equal(evaluation_prompts(config, "linear", n_prompts=kind(4), seed=kind(3)).xs, usual)
for seed in (None, 0.0, -1, "0", True, torch.tensor(0)):
    try:
        evaluation_prompts(config, "linear", n_prompts=4, seed=seed)
    except ValueError as error:
        print(error)
for n_prompts in (0, -5, 16.0, "16", True, None):
    try:
        evaluation_prompts(config, "linear", n_prompts=n_prompts, seed=0)
    except ValueError as error:
        print(error)
"""


def test_seeds_and_numbers_of_prompts_are_whole_numbers():
    """None, 0.0, True and tensor(0) would each name a stream of their own; those of NumPy are what they equal.

    In a process of its own, where no annotation is checked.
    """
    process = subprocess.run([sys.executable, "-c", ARGUMENTS], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    messages = process.stdout.splitlines()
    assert [message.split(":")[0] for message in messages[:6]] == [
        f"seed={seed}" for seed in ("None", "0.0", "-1", "'0'", "True", "tensor(0)")
    ]
    assert [message.split(":")[0] for message in messages[6:]] == [
        f"n_prompts={number}" for number in ("0", "-5", "16.0", "'16'", "True", "None")
    ]
