"""Weights that are finite and give predictions that are not: every command says so."""

import pytest
import torch
from damage import WEIGHTS

from training.checkpoints.checkpoint import load, read_config, write_weights


@pytest.mark.parametrize("size", [3e38, 1e25])
@pytest.mark.parametrize("command", [("eval",), ("score",), ("ablate", "--heads", "0.1"), ("patch",), ("report",)])
def test_every_command_refuses_predictions_that_are_not_finite(outcome, copied, whole_run, command, size):
    directory = copied(whole_run)
    model = load(directory).model
    with torch.no_grad():
        model.unembed.W_U.fill_(size).mul_(torch.linspace(-1, 1, len(model.unembed.W_U))[:, None])
    write_weights(directory / WEIGHTS, model, 60, read_config(directory))
    out = ("--out", directory.parent / "r.html") if command == ("report",) else ()
    ended = outcome(*command, "--ckpt", directory, *out)
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.count("\n") == 1
    assert "predictions" in ended.err
