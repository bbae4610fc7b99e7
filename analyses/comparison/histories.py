"""A run's error during training from its history, in units of the no-context optimum."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from training.checkpoints.checkpoint import Checkpoint, history_until
from training.common.table_rows import where
from training.evaluation.convergence import HELD, first_held, ratios_to_no_context

NEEDED = ("nmse_tail", "no_context_tail", "prompts_total", "flops")
MEASURES = {"prompts_seen": "prompts of the class", "prompts_total": "prompts in all", "flops": "operations"}
"""Measures of training; the paper counts prompts of one class, the other two match compute."""


def history(checkpoint: Checkpoint) -> pd.DataFrame | None:
    """The rows of history.jsonl up to the checkpoint's step, with `ratio` = nmse_tail / no_context_tail, the error over
    the last quarter of the points (1 = the no-context optimum on the same held-out prompts).

    None without a history, or with one of format version 1, which has neither error.

    Raises:
        UserError: the history is corrupted.
    """
    rows = history_until(checkpoint.directory, checkpoint.config, checkpoint.step)
    columns = (*NEEDED, "function_class", "prompts_seen")
    if not rows or any(row.get(column) is None for row in rows for column in columns):
        return None
    table = pd.DataFrame(rows)
    return table.assign(ratio=ratios_to_no_context(table))


def histories(checkpoints: Sequence[Checkpoint]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The histories by checkpoint's name, and the names of the checkpoints without one."""
    tables = {checkpoint.name: history(checkpoint) for checkpoint in checkpoints}
    without = [name for name, table in tables.items() if table is None]
    return {name: table for name, table in tables.items() if table is not None}, without


def class_history(table: pd.DataFrame, function_class: str) -> pd.DataFrame:
    """One class's rows, by step."""
    return where(table, function_class=function_class).sort_values("step", ignore_index=True)


def tidy(tables: Mapping[str, pd.DataFrame], curricula: Mapping[str, str]) -> pd.DataFrame:
    """The histories in one table: `curriculum`, `checkpoint`, `function_class`, `step`, `ratio` and the measures."""
    columns = ["curriculum", "checkpoint", "function_class", "step", "ratio", *MEASURES]
    parts = [table.assign(checkpoint=name, curriculum=curricula[name]) for name, table in tables.items()]
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()).reindex(columns=columns)


def held_level(ratios: Sequence[float], held: int = HELD) -> float:
    """The lowest level that `held` consecutive evaluations did not exceed; NaN if there are fewer.

    >>> held_level([1.0, 0.2, 0.9, 0.4, 0.5, 0.3, 0.8])
    0.5
    """
    windows = [max(ratios[i : i + held]) for i in range(len(ratios) - held + 1)]
    return min(windows, default=math.nan)


def end_level(ratios: Sequence[float], held: int = HELD) -> float:
    """The lowest of the last `held` evaluations.

    >>> end_level([0.1, 0.8, 0.7, 0.9])
    0.7
    """
    return min(ratios[-held:], default=math.nan)


def needed(history: pd.DataFrame, limit: float, measure: str) -> float:
    """The amount of a measure of training until `ratio` <= limit for `HELD` evaluations; infinite if never.

    Interpolated linearly between the first of these evaluations and the one before.
    """
    ratios, spent = history["ratio"].to_numpy(), history[measure].to_numpy(dtype=float)
    first = first_held(list(ratios), limit)
    if first is None:
        return math.inf
    if first == 0:
        return float(spent[0])
    return float(np.interp(-limit, -ratios[[first - 1, first]], spent[[first - 1, first]]))
