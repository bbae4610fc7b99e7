"""Distances of models to the posterior over their pool and to the learner of the class, and the pool sizes between."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.comparison.groups import Groups, Kind, group
from analyses.studies.variants.measures.grouping import IGNORED
from interp.ablation.size_classes import ATTENDS
from interp.statistics.seeds import exact_interval, seed_mean
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import where
from training.config.config import RunConfig
from training.evaluation.evaluate import evaluation_prompts
from training.pools import draws_from, has_values, pool_baselines, sources_of
from training.tasks.baselines import Predictor
from training.tasks.function_classes import function_class
from training.tasks.prompts import Prompts

FRESH = 0
"""`data.n_functions` of a run whose functions are all fresh: a pool without bound."""
CLOSE = 0.5
"""A snapshot is a regression of its own if its distance to it is at most this share of the zero predictor's."""
Side = Literal["memory", "regression", "undecided"]
Predictions = Float[Tensor, "batch point"]


def group_pools(checkpoints: Sequence[Checkpoint]) -> Groups:
    """The checkpoints by pool size, ascending; without a pool last.

    Raises:
        UserError: they differ in more than pools and seeds, train on several classes or on one whose functions cannot
            be asked at any x, or fewer than two sizes are given.
    """
    for checkpoint in checkpoints:
        classes = checkpoint.config.trained_classes
        if len(classes) > 1:
            raise UserError(f"{checkpoint.name} trains on {', '.join(classes)}: the study needs runs on one class")
        for name in classes:
            if checkpoint.config.data.n_functions and not has_values(checkpoint.config, name):
                raise UserError(f"{checkpoint.name} trains on {name}, whose y is no function of x")
    kind = Kind(
        curriculum_of=lambda checkpoint: str(checkpoint.config.data.n_functions),
        trains_on=lambda config: config.trained_classes,
        evaluated_on=lambda config: config.trained_classes,
        free=("data.n_functions", "data.pool_seed", *IGNORED),
        order=lambda size: int(size) or math.inf,
        free_within=("data.pool_seed", *IGNORED),
        varied="pools (data.n_functions, data.pool_seed)",
    )
    groups = group(checkpoints, kind)
    if len(groups.by_curriculum) < 2:
        raise UserError("the study needs runs of several pool sizes (data.n_functions)")
    return groups


class References(NamedTuple):
    """Prompts and the predictions with which a model's are compared; `memory` is None for a run without pool."""

    prompts: Prompts
    memory: Predictions | None
    regression: Predictions


def references_on(config: RunConfig, source: str, n_prompts: int, seed: int) -> References:
    """Prompts of functions from a source, with the posterior mean over the run's pool and the learner of the class."""
    (name,) = config.trained_classes
    prompts = evaluation_prompts(draws_from(config, source), name, n_prompts=n_prompts, seed=seed)
    general = function_class(name).informed_baseline(config.data.weights, config.model.n_dims).predict(prompts)
    memory = pool_baselines(config, name)[0].predict(prompts) if config.data.n_functions else None
    return References(prompts, memory, general)


def distance_row(predicted: Predictions, references: References, n_dims: int) -> dict[str, float]:
    """Squared differences of predictions over n_dims, mean over points and prompts (Raventós et al. 2023, equation 4).

    Keys: `to_memory` and `to_regression` from the model, `between` the two and `zero_to_regression` from the predictor
    of zero; `leaning` = (to_regression - to_memory) / their sum: 1 is memory, -1 regression. NaN without pool.
    """

    def apart(first: Predictions, second: Predictions | None) -> float:
        return math.nan if second is None else (first - second).double().square().mean().item() / n_dims

    to_memory, to_regression = apart(predicted, references.memory), apart(predicted, references.regression)
    total = to_memory + to_regression
    return {
        "to_memory": to_memory,
        "to_regression": to_regression,
        "between": apart(references.regression, references.memory),
        "zero_to_regression": apart(torch.zeros_like(references.regression), references.regression),
        "leaning": (to_regression - to_memory) / total if total else math.nan,
    }


def distance_rows(
    checkpoint: Checkpoint, predictors: Mapping[int, Callable[[], Predictor]], n_prompts: int, seed: int
) -> list[dict[str, Any]]:
    """One row per source of functions and step.

    Args:
        checkpoint: the run.
        predictors: by step, what gives the model of then.
        n_prompts: per source.
        seed: of the prompts.
    """
    config, rows = checkpoint.config, []
    references = {source: references_on(config, source, n_prompts, seed) for source in sources_of(config)}
    for step, load_predictor in predictors.items():
        predict = load_predictor()
        for source, known in references.items():
            about = {"checkpoint": checkpoint.name, "n_functions": config.data.n_functions, "step": step}
            distances = distance_row(predict(known.prompts), known, config.model.n_dims)
            rows.append(about | {"functions": source} | distances)
    return rows


def leaning_table(groups: Groups, distances: pd.DataFrame) -> pd.DataFrame:
    """One row per source and pool size: the mean `leaning` over independent seeds with its t-interval, and `side`.

    The side is `memory` (`regression`) where the interval lies above (below) 0, otherwise `undecided`; of a single
    seed, which has no interval, it is `undecided`.
    """
    rows = []
    for source in ("pool", "fresh"):
        for size, runs in pools_of(groups).items():
            values = dict(where(distances, functions=source)[["checkpoint", "leaning"]].itertuples(index=False))
            known = [run for run in runs if not math.isnan(values[run.name])]
            mean = seed_mean(known, [values[run.name] for run in known])
            side = "memory" if mean.t_low > 0 else "regression" if mean.t_high < 0 else "undecided"
            rows.append({"functions": source, "n_functions": size, **mean.named("leaning"), "side": side})
    return pd.DataFrame(rows)


def pools_of(groups: Groups) -> dict[int, Sequence[Checkpoint]]:
    """The runs by pool size, without those that have no pool."""
    return {int(size): runs for size, runs in groups.by_curriculum.items() if int(size) != FRESH}


@dataclass(frozen=True)
class Threshold:
    """Where models change sides, on one source of functions.

    Attributes:
        below: the largest size up to which all sizes are on the side of memory; None without any.
        above: the smallest size from which all sizes are on the side of regression; None without any.
        crossings: of every series of runs with the same seeds, the pool size at which its leaning changes sign.
    """

    below: int | None
    above: int | None
    crossings: Sequence[float]

    @property
    def exists(self) -> bool:
        return self.below is not None and self.above is not None


def find_threshold(leanings: pd.DataFrame, crossings: Sequence[float]) -> Threshold:
    """The threshold from the rows of one source in `leaning_table`.

    >>> rows = pd.DataFrame({"n_functions": [2, 8, 32], "side": ["memory", "undecided", "regression"]})
    >>> find_threshold(rows, []).below, find_threshold(rows, []).above
    (2, 32)
    """
    rows = records(leanings)
    return Threshold(last_of_run(rows, "memory"), last_of_run(rows[::-1], "regression"), crossings)


def last_of_run(rows: Sequence[dict[str, Any]], side: Side) -> int | None:
    """The size of the last row of those at the start that are on this side."""
    last = None
    for row in rows:
        if row["side"] != side:
            break
        last = row["n_functions"]
    return last


def seed_crossings(groups: Groups, distances: pd.DataFrame, source: str) -> list[float]:
    """The crossing of every series: runs with the same seeds at all pool sizes. Empty if there is no such series."""
    values = dict(where(distances, functions=source)[["checkpoint", "leaning"]].itertuples(index=False))
    pools = pools_of(groups)
    crossings = []
    for seeds in {run.config.seeds: None for runs in pools.values() for run in runs}:
        series = {size: run for size, runs in pools.items() for run in runs if run.config.seeds == seeds}
        if len(series) == len(pools):
            crossings.append(crossing([*series], [values[run.name] for run in series.values()]))
    return [size for size in crossings if not math.isnan(size)]


def crossing(sizes: Sequence[int], leanings: Sequence[float]) -> float:
    """The pool size at which the leaning first falls below 0, between sizes linear in log2; NaN if it never does so.

    >>> crossing([2, 8, 32], [1.0, 0.5, -0.5]), crossing([2, 8], [-1.0, -1.0])
    (16.0, nan)
    """
    for i in range(1, len(sizes)):
        if leanings[i - 1] > 0 >= leanings[i]:
            share = leanings[i - 1] / (leanings[i - 1] - leanings[i])
            return float(2 ** np.interp(share, [0, 1], np.log2([sizes[i - 1], sizes[i]])))
    return math.nan


def head_table(groups: Groups, highest: Mapping[str, float], chance: float) -> pd.DataFrame:
    """One row per pool size: of its `n_seeds`, the `n_with` a head that scores above `ATTENDS`, with the exact interval
    of their share `low`, `high`; the lowest and highest of the seeds' highest scores; `chance` is uniform attention."""
    rows = []
    for size, runs in groups.by_curriculum.items():
        scores = [highest[run.name] for run in runs]
        n_with = sum(score > ATTENDS for score in scores)
        low, high = exact_interval(n_with, len(runs))
        counts = {"n_functions": int(size), "n_seeds": len(runs), "n_with": n_with, "low": low, "high": high}
        rows.append(counts | {"highest_min": min(scores), "highest_max": max(scores), "chance": chance})
    return pd.DataFrame(rows)


def count_transients(course: pd.DataFrame) -> pd.DataFrame:
    """One row per pool size: of the `n_memory` runs that end nearer to memory on fresh functions, the `n_regression`
    that an earlier snapshot shows nearer to regression, and at most `CLOSE` of the zero predictor's distance from it.

    Args:
        course: rows of `distance_rows` at every snapshot and at the end.
    """
    rows = []
    fresh = where(course, functions="fresh")
    for size, runs in fresh.loc[fresh["n_functions"] != FRESH].groupby("n_functions"):
        ends = [run.sort_values("step") for _, run in runs.groupby("checkpoint")]
        memories = [run.iloc[:-1] for run in ends if run["leaning"].iloc[-1] > 0]
        was = [
            ((run["leaning"] < 0) & (run["to_regression"] <= CLOSE * run["zero_to_regression"])).any()
            for run in memories
        ]
        rows.append({"n_functions": size, "n_memory": len(memories), "n_regression": int(sum(was))})
    return pd.DataFrame(rows, columns=["n_functions", "n_memory", "n_regression"])
