"""What a run's history says about its error while it trained, in units of the no-context optimum."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from training.checkpoints.checkpoint import Checkpoint, history_until
from training.common.table_rows import where
from training.evaluation.convergence import HELD, first_held, ratios_to_no_context

NEEDED = ("nmse_tail", "no_context_tail", "prompts_total", "flops")
MEASURES = {"prompts_seen": "prompts of the class", "prompts_total": "prompts in all", "flops": "operations"}
"""What training can be counted in; prompts of one class are the paper's count, the other two are matched compute."""


def history(checkpoint: Checkpoint) -> pd.DataFrame | None:
    """The rows of history.jsonl up to the checkpoint's step, with `ratio` = nmse_tail / no_context_tail, the error over
    the last quarter of the points (1 = the no-context optimum on the same held-out prompts).

    None where there is no history, or one of format version 1, which kept neither error.

    Raises:
        UserError: it is damaged.
    """
    rows = history_until(checkpoint.directory, checkpoint.config, checkpoint.step)
    columns = (*NEEDED, "function_class", "prompts_seen")
    if not rows or any(row.get(column) is None for row in rows for column in columns):
        return None
    table = pd.DataFrame(rows)
    return table.assign(ratio=ratios_to_no_context(table))


def histories(checkpoints: Sequence[Checkpoint]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """By checkpoint's name the histories that there are, and the names of those without one."""
    found = {one.name: history(one) for one in checkpoints}
    return {name: table for name, table in found.items() if table is not None}, [
        name for name, table in found.items() if table is None
    ]


def of_class(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """One class's rows, by step."""
    return where(table, function_class=name).sort_values("step", ignore_index=True)


def tidy(tables: Mapping[str, pd.DataFrame], curricula: Mapping[str, str]) -> pd.DataFrame:
    """The histories in one: `curriculum`, `checkpoint`, `function_class`, `step`, `ratio` and the measures."""
    columns = ["curriculum", "checkpoint", "function_class", "step", "ratio", *MEASURES]
    parts = [table.assign(checkpoint=name, curriculum=curricula[name]) for name, table in tables.items()]
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()).reindex(columns=columns)


def held_level(ratios: Sequence[float], held: int = HELD) -> float:
    """The lowest level at or below which `held` consecutive evaluations lay; NaN where there are fewer.

    >>> held_level([1.0, 0.2, 0.9, 0.4, 0.5, 0.3, 0.8])
    0.5
    """
    windows = [max(ratios[i : i + held]) for i in range(len(ratios) - held + 1)]
    return min(windows, default=math.nan)


def end_level(ratios: Sequence[float], held: int = HELD) -> float:
    """The lowest of the last `held` evaluations: what all of them reach.

    >>> end_level([0.1, 0.8, 0.7, 0.9])
    0.7
    """
    return min(ratios[-held:], default=math.nan)


def needed(arm: pd.DataFrame, limit: float, measure: str) -> float:
    """How much of a measure it took to `ratio` <= limit, kept for `HELD` evaluations; infinite if that never was.

    Linear between the evaluation that reaches it and the one before.
    """
    ratios, spent = arm["ratio"].to_numpy(), arm[measure].to_numpy(dtype=float)
    at = first_held(list(ratios), limit)
    if at is None:
        return math.inf
    if at == 0:
        return float(spent[0])
    return float(np.interp(-limit, -ratios[[at - 1, at]], spent[[at - 1, at]]))
