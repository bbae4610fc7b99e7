"""When the chosen heads began to attend, beside when the error fell: scores and errors over the snapshots of a run.

The heads are those of the final weights, so this shows their history and not how often heads came and went.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from analyses.comparison.paired_errors import errors_on
from analyses.comparison.snapshots import earlier_steps, from_then_on, spread
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import HeadSet, all_heads
from interp.scores.score import score
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.progress import progress_bar
from training.evaluation.convergence import FRACTION

AT_MOST_PROMPTS, AT_MOST_STEPS = 256, 24
BEST_OTHER = "best other"
"""Row name of the highest score among the other heads."""


def emergence(
    checkpoint: Checkpoint, heads: HeadSet, classes: Sequence[str], *, n_prompts: int, seed: int
) -> pd.DataFrame:
    """One row per snapshot up to the checkpoint's step, function class, and chosen head or `best other`.

    Columns: `checkpoint`, `step`, `function_class`, `head`, `score` (retrospective), `error` (of the whole model over
    the last quarter of the pairs, relative to the no-context optimum: 1 makes no use of the context).

    Args:
        checkpoint: a loaded run; empty if its directory has no snapshots.
        heads: to follow.
        classes: function classes; only those that the run was trained on are followed.
        n_prompts: per class, at most `AT_MOST_PROMPTS`.
        seed: of the prompts.
    """
    steps = earlier_steps(checkpoint)
    trained = [name for name in classes if name in checkpoint.config.trained_classes]
    if not steps or not trained:
        return pd.DataFrame()
    n_prompts = min(n_prompts, AT_MOST_PROMPTS)
    directory, device = checkpoint.directory, str(checkpoint.model.device)
    rows: list[dict[str, Any]] = []
    for step in progress_bar([*spread(steps, AT_MOST_STEPS), None], desc="emergence", unit="snapshot"):
        at_step = checkpoint if step is None else load(f"{directory}@{step}", device)
        rows += ({"checkpoint": checkpoint.name} | row for row in rows_at(at_step, heads, trained, n_prompts, seed))
    return pd.DataFrame(rows)


def rows_at(
    at_step: Checkpoint, heads: HeadSet, classes: Sequence[str], n_prompts: int, seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of one snapshot."""
    scores = score(at_step, classes, n_prompts=n_prompts, seed=seed, intervals=False)
    for name in classes:
        values = scores.values[name]
        others = [float(values[head]) for head in all_heads(*values.shape) if head not in heads]
        error = errors_on([at_step], name, n_prompts=n_prompts, seed=seed).value(at_step.name)
        about = {"step": at_step.step, "function_class": name, "error": error}
        for head in heads:
            yield about | {"head": str(head), "score": float(values[head])}
        if others:
            yield about | {"head": BEST_OTHER, "score": max(others)}


def onsets(table: pd.DataFrame) -> pd.DataFrame:
    """One row per function class and chosen head.

    Columns: `function_class`, `head`, `attends_at` (first snapshot from which the score stays above
    `interp.ablation.size_classes.ATTENDS`) and `learns_at` (first from which the error stays below
    `training.evaluation.convergence.FRACTION` of the no-context optimum), NaN where it never does.

    Args:
        table: of `emergence`, of one model.
    """
    rows = []
    for (name, head), curve in table[table["head"] != BEST_OTHER].groupby(["function_class", "head"], sort=False):  # pyright: ignore
        steps = list(curve["step"])
        holding = {"attends_at": curve["score"] > ATTENDS, "learns_at": curve["error"] <= FRACTION}
        first = {key: from_then_on(list(holds)) for key, holds in holding.items()}
        at = {key: float("nan") if index is None else float(steps[index]) for key, index in first.items()}
        rows.append({"function_class": name, "head": head} | at)
    return pd.DataFrame(rows, columns=["function_class", "head", "attends_at", "learns_at"])
