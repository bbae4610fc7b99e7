"""When does a run have the heads that it ends with? Rank correlation of earlier maps with the last one.

Beside it, as chance: the same earlier maps against the last maps of independent models, which share layers and
positions with it but no heads.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from analyses.agreement import mean_over_pairs, pearson, spearman, top_overlap
from analyses.consistency_within import Model
from analyses.looks import attention, comparable
from training.checkpoint import load, snapshot_steps
from training.evaluate import evaluation_prompts

N_PROMPTS, N_STEPS = 128, 16
SETTLED = 0.9


def steps_table(models: Sequence[Model], classes: Sequence[str], *, n_prompts: int, seed: int) -> pd.DataFrame:
    """One row per run and snapshot before its checkpoint; empty if there are none.

    Columns: `spearman` and `pearson` of the map (mean over classes) with the checkpoint's, `others`: Spearman with
    those of independent models; `top_found`: the share of the heads above one half that are already among as many
    highest; `between_classes`: mean Spearman between classes at this step.

    Args:
        models: those of the study.
        classes: function classes.
        n_prompts: per class; no more than `N_PROMPTS`, since a map of means needs few.
        seed: of the prompts.
    """
    wanted = [(model, step) for model in last_of_runs(models) for step in thinned(earlier_steps(model))]
    bar = tqdm(wanted, desc="snapshots", unit="snapshot", disable=None)
    rows = [step_row(model, step, classes, models, min(n_prompts, N_PROMPTS), seed) for model, step in bar]
    return pd.DataFrame(rows)


def last_of_runs(models: Sequence[Model]) -> list[Model]:
    """One model of each run directory, the furthest."""
    by_run: dict[Any, Model] = {}
    for model in sorted(models, key=lambda one: one.checkpoint.step):
        by_run[model.checkpoint.directory.resolve()] = model
    return [model for model in models if by_run[model.checkpoint.directory.resolve()] is model]


def earlier_steps(model: Model) -> list[int]:
    return [step for step in snapshot_steps(model.checkpoint.directory) if step < model.checkpoint.step]


def thinned(steps: Sequence[int]) -> list[int]:
    """At most `N_STEPS` of them, the first and the last included.

    >>> thinned(range(31))
    [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]
    """
    places = np.linspace(0, len(steps) - 1, N_STEPS).round().astype(int) if len(steps) > N_STEPS else range(len(steps))
    return [steps[place] for place in places]


def step_row(
    model: Model, step: int, classes: Sequence[str], models: Sequence[Model], n_prompts: int, seed: int
) -> dict[str, Any]:
    config = model.checkpoint.config
    earlier = load(f"{model.checkpoint.directory}@{step}", str(model.checkpoint.model.device)).model
    prompts = [evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed) for name in classes]
    maps = np.stack([attention(earlier, one)[0].mean(0).ravel() for one in prompts])
    now, last = maps.mean(0), model.trained.maps.mean(0)
    others = [
        float(spearman(now, other.trained.maps.mean(0)))
        for other in models
        if other.seed != model.seed and comparable(config, other.checkpoint.config)
    ]
    measured = {
        "spearman": float(spearman(now, last)),
        "pearson": float(pearson(now, last)),
        "others": float(np.mean(others)) if others else np.nan,
        "top_found": float(top_overlap(len(model.found))(now, last)),
        "between_classes": float(mean_over_pairs(spearman, maps)),
    }
    return model.about | {"step": step, "last_step": model.checkpoint.step} | measured


def settled_at(steps: pd.DataFrame, column: str, level: float = SETTLED) -> int | None:
    """The first step of a run from which a column stays at `level` or above; None if it is below it to the end.

    >>> settled_at(pd.DataFrame({"step": [0, 1, 2, 3], "spearman": [0.95, 0.2, 0.9, 0.97]}), "spearman")
    2
    """
    ordered = steps.sort_values("step")
    below = np.flatnonzero(~(ordered[column].to_numpy() >= level))
    first = below[-1] + 1 if len(below) else 0
    return int(ordered["step"].iloc[first]) if first < len(ordered) else None
