"""When a run left its plateau: from history.jsonl, with the data and the compute that it took."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from training.checkpoints.checkpoint import history_until, read_config, read_weights, weights_path
from training.common.errors import UserError
from training.options import DEFAULT_CONVERGED_BELOW

FRACTION = DEFAULT_CONVERGED_BELOW
HELD = 3
ALWAYS_KEPT = ("function_class", "nmse", "prompts_seen", "seconds")
NOT_ALWAYS_KEPT = {
    "inputs": "gaussian",
    "nmse_tail": math.nan,
    "no_context_tail": math.nan,
    "prompts_total": None,
    "flops": None,
}
"""What format version 1 did not record."""
ERRORS = ("nmse", "nmse_tail", "no_context_tail")


def first_held(errors: Sequence[float], limit: float, held: int = HELD) -> int | None:
    """Index of the first of `held` consecutive values at or below the limit; None where there are never so many.

    >>> first_held([1.0, 0.4, 0.9, 0.4, 0.3, 0.2, 0.9], 0.5), first_held([1.0, 0.9, 0.4, 0.3], 0.5)
    (3, None)
    """
    below = [error <= limit for error in errors]
    return next((i for i in range(len(below) - held + 1) if all(below[i : i + held])), None)


def ratios_to_no_context(history: pd.DataFrame) -> list[float]:
    """`nmse_tail` / `no_context_tail`; NaN where the no-context optimum makes no error, as on a constant class.

    >>> ratios_to_no_context(pd.DataFrame({"nmse_tail": [0.5, 0.5, 0.0], "no_context_tail": [1.0, 0.0, 0.0]}))
    [0.5, nan, nan]
    """
    errors = zip(history["nmse_tail"].tolist(), history["no_context_tail"].tolist(), strict=True)
    return [error / no_context if no_context > 0 else math.nan for error, no_context in errors]


def convergence(directory: Path, fraction: float = FRACTION, held: int = HELD, step: int | None = None) -> pd.DataFrame:
    """One row per function class and input distribution of a run, up to a step.

    Columns: `function_class`, `inputs`; `nmse` (mean over points), `nmse_tail` and `no_context_tail` (the model and the
    no-context optimum over the last quarter of the points) at the end; and where the run converged - the first
    evaluation whose `nmse_tail` is at most `fraction` of `no_context_tail` and stays there for `held` evaluations -
    `step`, `prompts_seen` (of the class), `prompts_total`, `flops` and `seconds`, all missing if it never did.
    A run that ended before `held` evaluations has not converged, nor has one whose no-context optimum makes no error.

    Args:
        directory: a run's.
        fraction: of the no-context optimum on the same held-out prompts.
        held: consecutive evaluations.
        step: of its weights; None takes the latest.

    Raises:
        UserError: it is no run, its weights or its history are damaged, or there are none.
    """
    history = recorded_errors(directory, step)
    errors = [*ERRORS]
    rows = []
    for (name, inputs), arm in history.groupby(["function_class", "inputs"], sort=False):  # pyright: ignore
        last = arm.iloc[-1]
        ratios = ratios_to_no_context(arm)
        at = first_held(ratios, fraction, held)
        account = ["step", "prompts_seen", "prompts_total", "flops", "seconds"]
        reached = dict.fromkeys(account) if at is None else arm.iloc[at][account].to_dict()
        ends = {key: float(last[key]) for key in errors}
        rows.append({"function_class": name, "inputs": inputs, **ends, **reached})
    return pd.DataFrame(rows)


def recorded_errors(directory: Path, step: int | None = None) -> pd.DataFrame:
    """The history of a run up to a step: one row per evaluation, function class and input distribution.

    Args:
        directory: a run's.
        step: of its weights; None takes the latest.

    Raises:
        UserError: it is no run, its weights or its history are damaged, or there are none.
    """
    config = read_config(directory)
    rows = history_until(directory, config, read_weights(weights_path(directory, step), config)[1])
    lost = [column for column in ALWAYS_KEPT if any(row.get(column) is None for row in rows)]
    if not rows or lost:
        raise UserError(f"{directory} has no history of its {lost[0] if lost else 'training'}")
    history = pd.DataFrame(rows)
    for column, value in NOT_ALWAYS_KEPT.items():
        if column not in history:
            history[column] = value
    history[[*ERRORS]] = history[[*ERRORS]].astype(float)
    return history
