"""When does a run have the heads that it ends with? Rank correlation of the maps of snapshots with the last map.

Chance level: the same snapshots against the last maps of independent models, which share layers and positions but no
heads with the run.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.comparison.snapshots import earlier_steps, from_then_on, spread
from analyses.studies.consistency.measures.attention import Model, Row, comparable, scores_and_pattern
from interp.statistics.agreement import mean_over_pairs, pearson, spearman, top_overlap
from training.checkpoints.checkpoint import load
from training.common.progress import progress_bar
from training.evaluation.evaluate import evaluation_prompts

N_PROMPTS, N_STEPS = 128, 16


def snapshots_table(models: Sequence[Model], classes: Sequence[str], *, n_prompts: int, seed: int) -> pd.DataFrame:
    """One row per run and snapshot before its checkpoint; empty if there are none.

    Columns: `spearman` and `pearson` of the map (mean over classes) with the checkpoint's, `others`: Spearman with
    those of independent models; `top_found`: the share of the heads above one half that are already among as many
    highest, and `top_others` of those of independent models; `between_classes`: mean Spearman between classes.

    Args:
        models: those of the study.
        classes: function classes.
        n_prompts: per class; no more than `N_PROMPTS`, since a map of means needs few.
        seed: of the prompts.
    """
    snapshots = [
        (model, step) for model in last_of_runs(models) for step in spread(earlier_steps(model.checkpoint), N_STEPS)
    ]
    bar = progress_bar(snapshots, desc="snapshots", unit="snapshot")
    rows = [snapshot_row(model, step, classes, models, min(n_prompts, N_PROMPTS), seed) for model, step in bar]
    return pd.DataFrame(rows)


def last_of_runs(models: Sequence[Model]) -> list[Model]:
    """One model of each run directory, that of the latest step."""
    by_run: dict[Path, Model] = {}
    for model in sorted(models, key=lambda model: model.checkpoint.step):
        by_run[model.checkpoint.directory.resolve()] = model
    return [model for model in models if by_run[model.checkpoint.directory.resolve()] is model]


def snapshot_row(
    model: Model, step: int, classes: Sequence[str], models: Sequence[Model], n_prompts: int, seed: int
) -> Row:
    config = model.checkpoint.config
    snapshot = load(f"{model.checkpoint.directory}@{step}", str(model.checkpoint.model.device)).model
    prompts = [evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed) for name in classes]
    maps = np.stack([scores_and_pattern(snapshot, class_prompts)[0].mean(0).ravel() for class_prompts in prompts])
    now, last = maps.mean(0), model.trained.maps.mean(0)
    independent = [
        other for other in models if other.seed != model.seed and comparable(config, other.checkpoint.config)
    ]
    others = [float(spearman(now, other.trained.maps.mean(0))) for other in independent]
    top_others = [
        float(top_overlap(len(other.retrospective_heads))(now, other.trained.maps.mean(0)))
        for other in independent
        if other.retrospective_heads
    ]
    measured = {
        "spearman": float(spearman(now, last)),
        "pearson": float(pearson(now, last)),
        "others": float(np.mean(others)) if others else np.nan,
        "top_found": float(top_overlap(len(model.retrospective_heads))(now, last)),
        "top_others": float(np.mean(top_others)) if top_others else np.nan,
        "between_classes": float(mean_over_pairs(spearman, maps)),
    }
    return model.columns | {"step": step, "last_step": model.checkpoint.step} | measured


def settled_at(steps: pd.DataFrame, column: str, level: float) -> int | None:
    """The first step of a run from which on a column stays at `level` or above; None if the last is below it.

    >>> settled_at(pd.DataFrame({"step": [0, 1, 2, 3], "spearman": [0.95, 0.2, 0.9, 0.97]}), "spearman", 0.9)
    2
    """
    ordered = steps.sort_values("step")
    first = from_then_on((ordered[column].to_numpy() >= level).tolist())
    return None if first is None else int(ordered["step"].iloc[first])
