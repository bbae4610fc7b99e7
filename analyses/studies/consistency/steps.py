"""When does a run have the heads that it ends with? Rank correlation of earlier maps with the last one.

Beside it, as chance: the same earlier maps against the last maps of independent models, which share layers and
positions with it but no heads.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.comparison.snapshots import earlier_steps, from_then_on, spread
from analyses.studies.consistency.measures import attention, comparable
from analyses.studies.consistency.tables import bracketed
from analyses.studies.consistency.within import Model, Row
from interp.ablation.size_classes import ATTENDS
from interp.display.text import counted
from interp.statistics.agreement import mean_over_pairs, pearson, spearman, top_overlap
from interp.statistics.seeds import t_interval
from training.checkpoints.checkpoint import load
from training.common.output import records
from training.common.progress import progress_bar
from training.common.table_rows import where
from training.evaluation.evaluate import evaluation_prompts

N_PROMPTS, N_STEPS = 128, 16
SETTLED = 0.9


def steps_table(models: Sequence[Model], classes: Sequence[str], *, n_prompts: int, seed: int) -> pd.DataFrame:
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
    wanted = [
        (model, step) for model in last_of_runs(models) for step in spread(earlier_steps(model.checkpoint), N_STEPS)
    ]
    bar = progress_bar(wanted, desc="snapshots", unit="snapshot")
    rows = [step_row(model, step, classes, models, min(n_prompts, N_PROMPTS), seed) for model, step in bar]
    return pd.DataFrame(rows)


def last_of_runs(models: Sequence[Model]) -> list[Model]:
    """One model of each run directory, the furthest."""
    by_run: dict[Any, Model] = {}
    for model in sorted(models, key=lambda one: one.checkpoint.step):
        by_run[model.checkpoint.directory.resolve()] = model
    return [model for model in models if by_run[model.checkpoint.directory.resolve()] is model]


def step_row(
    model: Model, step: int, classes: Sequence[str], models: Sequence[Model], n_prompts: int, seed: int
) -> dict[str, Any]:
    config = model.checkpoint.config
    earlier = load(f"{model.checkpoint.directory}@{step}", str(model.checkpoint.model.device)).model
    prompts = [evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed) for name in classes]
    maps = np.stack([attention(earlier, one)[0].mean(0).ravel() for one in prompts])
    now, last = maps.mean(0), model.trained.maps.mean(0)
    independent = [
        other for other in models if other.seed != model.seed and comparable(config, other.checkpoint.config)
    ]
    others = [float(spearman(now, other.trained.maps.mean(0))) for other in independent]
    top_others = [float(top_overlap(len(one.found))(now, one.trained.maps.mean(0))) for one in independent if one.found]
    measured = {
        "spearman": float(spearman(now, last)),
        "pearson": float(pearson(now, last)),
        "others": float(np.mean(others)) if others else np.nan,
        "top_found": float(top_overlap(len(model.found))(now, last)),
        "top_others": float(np.mean(top_others)) if top_others else np.nan,
        "between_classes": float(mean_over_pairs(spearman, maps)),
    }
    return model.about | {"step": step, "last_step": model.checkpoint.step} | measured


def settled_at(steps: pd.DataFrame, column: str, level: float = SETTLED) -> int | None:
    """The first step of a run from which a column stays at `level` or above; None if it is below it to the end.

    >>> settled_at(pd.DataFrame({"step": [0, 1, 2, 3], "spearman": [0.95, 0.2, 0.9, 0.97]}), "spearman")
    2
    """
    ordered = steps.sort_values("step")
    first = from_then_on((ordered[column].to_numpy() >= level).tolist())
    return None if first is None else int(ordered["step"].iloc[first])


def sentences(steps: pd.DataFrame) -> list[str]:
    """What the first snapshots foretell, and from which step on runs have their final map."""
    if not len(steps):
        return ["No checkpoint has earlier snapshots: nothing is said about training."]
    runs = [where(steps, checkpoint=name) for name in dict.fromkeys(steps["checkpoint"])]
    found = foretold([records(run.sort_values("step"))[0] for run in runs])
    for curriculum in dict.fromkeys(steps["curriculum"]):
        own = [run for run in runs if run["curriculum"].iloc[0] == curriculum]
        start = by_seed([records(run.sort_values("step"))[0] for run in own], "spearman")
        text = f"{curriculum} ({counted(len(own), 'run')} with snapshots): the first map has Spearman "
        text += (
            f"{bracketed(float(start.mean()), *t_interval(start))} with the last one; it stays at {SETTLED} or above "
        )
        text += settling(own, "spearman")
        if any(np.isfinite(run["top_found"]).any() for run in own):
            text += f"; the heads above {ATTENDS:g} are the highest ones for good {settling(own, 'top_found', 1.0)}"
        found.append(text + ".")
    return found


def foretold(first: Sequence[Row]) -> list[str]:
    """Whether initialisations foretell the heads of their own run better than those of independent ones."""
    own = [row for row in first if row["step"] == 0 and not math.isnan(row["others"])]
    if not own:
        return []
    values = [by_seed(own, name) for name in ("spearman", "others")]
    text = f"At step 0 the maps of {counted(len(own), 'run')} have Spearman {values[0].mean():.2f} with the last ones, "
    text += f"{values[1].mean():.2f} with those of independent models {difference(values[0] - values[1])}"
    own = [row for row in own if not math.isnan(row["top_found"] + row["top_others"])]
    if own:
        values = [by_seed(own, name) for name in ("top_found", "top_others")]
        text += (
            f"; of the heads above {ATTENDS:g} {values[0].mean():.2f} are already the highest, of those of independent "
        )
        text += f"models {values[1].mean():.2f} {difference(values[0] - values[1])}"
    return [text + "."]


def difference(values: Float[np.ndarray, " seed"]) -> str:
    """Of pairs of numbers of the same seeds, in words."""
    low, high = t_interval(values)
    told = ": MORE than chance" if low > 0 else ": LESS than chance" if high < 0 else ""
    return f"(difference {bracketed(float(values.mean()), low, high)}, t-interval over seeds{told})"


def by_seed(rows: Sequence[Row], column: str) -> Float[np.ndarray, " seed"]:
    """The mean of a column over the runs of each independent seed."""
    seeds: dict[int, list[float]] = {}
    for row in rows:
        seeds.setdefault(row["seed_group"], []).append(row[column])
    return np.array([np.mean(values) for values in seeds.values()])


def settling(runs: Sequence[pd.DataFrame], column: str, level: float = SETTLED) -> str:
    """The median step over runs, with the range."""
    settled = [settled_at(run, column, level) for run in runs if np.isfinite(run[column]).any()]
    reached = sorted(step for step in settled if step is not None)
    if not reached:
        return "at no snapshot before the last"
    text = f"from step {np.median(reached):.0f} on"
    text += f" (median; {reached[0]} to {reached[-1]})" if len(reached) > 1 else ""
    missing = len(settled) - len(reached)
    return text + (f", not in {missing} of {len(settled)}" if missing else "")
