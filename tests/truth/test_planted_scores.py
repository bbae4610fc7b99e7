"""Scores that are no attention, on a planted circuit."""

import circuits
import numpy as np
import pytest

import interp


def test_the_head_that_carries_the_function_is_named(planted):
    """x_q w M for x_q w mean(x²), with M the mean over other prompts: (1 + 1/k) / (1 + 3/k), other heads 0."""
    scores = interp.score(planted, kind="function_vector", n_prompts=1024)
    k = circuits.N_POINTS - 1
    values = scores.values["linear"].copy()
    assert values[1, 2] == pytest.approx((1 + 1 / k) / (1 + 3 / k), abs=0.03)
    assert scores.ci_low["linear"][1, 2] < (1 + 1 / k) / (1 + 3 / k) < scores.ci_high["linear"][1, 2]
    values[1, 2] = 0
    assert np.abs(values).max() < 0.01
    assert scores.chance == 0
