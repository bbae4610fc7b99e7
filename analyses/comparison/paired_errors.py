"""Errors of many models on the same prompts, so that all comparisons are paired.

`training.evaluation.evaluate.error_curves` gives the same numbers with baselines, which it fits for every model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.statistics.seed_intervals import welch
from interp.statistics.seeds import all_or_nothing, t_interval
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.progress import progress_bar
from training.config.config import stream_seed
from training.evaluation.evaluate import evaluation_prompts, no_context_error, predictions
from training.tasks.prompts import last_quarter

Errors = Float[np.ndarray, "prompt point"]


class Interval(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassErrors:
    """Squared errors over E[y²] on one class.

    Attributes:
        function_class: of the prompts.
        no_context: of the no-context optimum, E[y given x].
        models: by checkpoint's name.
        seed: of the prompts and the resampling.
    """

    function_class: str
    no_context: Errors
    models: Mapping[str, Errors]
    seed: int

    def tails(self, name: str | None = None) -> Float[np.ndarray, " prompt"]:
        """Each prompt's mean over the last quarter of the points; of the no-context optimum without a name."""
        errors = self.no_context if name is None else self.models[name]
        return errors[:, last_quarter(errors.shape[1])].mean(1)

    @cached_property
    def resampled(self) -> Mapping[str, Float[np.ndarray, " resample"]]:
        """By model, the ratio to the no-context optimum in bootstrap resamples of prompts, the same for all models."""
        rng = np.random.default_rng(stream_seed("ratio", self.seed, self.function_class))
        tails = np.stack([self.tails(name) for name in self.models], axis=1)
        return dict(zip(self.models, ratio_resamples(tails, self.tails(), rng).T, strict=True))

    def value(self, name: str) -> float:
        """The error over the last quarter of the points, divided by the no-context optimum's."""
        return float(self.tails(name).mean() / self.tails().mean())

    def ratio(self, name: str) -> Interval:
        """The same with its interval over prompts."""
        return Interval(self.value(name), *limits(self.resampled[name]))

    def values(self, names: Sequence[str]) -> Float[np.ndarray, " model"]:
        return np.array([self.value(name) for name in names])

    def mean_ratio(self, names: Sequence[str]) -> Interval:
        """Mean ratio over independent seeds; its interval does not go below 0. With one seed it is over prompts alone;
        there is none if some seeds learned and others did not (`interp.statistics.seeds.all_or_nothing`)."""
        values = self.values(names)
        if all_or_nothing(values):
            return Interval(float(values.mean()), math.nan, math.nan)
        seeds = Interval(float(values.mean()), *t_interval(values))
        mean = with_prompts(seeds, self.mean_resampled(names))
        return mean._replace(low=max(0.0, mean.low))

    def difference(self, ours: Sequence[str], theirs: Sequence[str], of: "ClassErrors | None" = None) -> Interval:
        """Difference of the mean ratios of two groups of independent seeds; the limits are NaN if either group has one
        seed, or both seeds that learned and seeds that did not (`interp.statistics.seeds.all_or_nothing`).

        Args:
            ours: names of checkpoints in these errors.
            theirs: names of checkpoints in `of`.
            of: other errors on as many prompts; None takes these.
        """
        other = of or self
        values = self.values(ours), other.values(theirs)
        seeds = Interval(*welch(*values)[:3])
        if math.isnan(seeds.low) or any(map(all_or_nothing, values)):
            return Interval(seeds.value, math.nan, math.nan)
        return with_prompts(seeds, self.mean_resampled(ours) - other.mean_resampled(theirs))

    def mean_resampled(self, names: Sequence[str]) -> Float[np.ndarray, " resample"]:
        return np.mean([self.resampled[name] for name in names], axis=0)

    def curves(self) -> pd.DataFrame:
        """One row per checkpoint (empty for the no-context optimum) and number of examples."""
        rng = np.random.default_rng(stream_seed("bootstrap", self.seed, self.function_class))
        weights = bootstrap_weights(len(self.no_context), rng)
        tables = []
        for name, errors in {**self.models, "": self.no_context}.items():
            low, high = percentile_interval(weights @ errors)
            about = {"checkpoint": name, "function_class": self.function_class, "examples": range(errors.shape[1])}
            tables.append(pd.DataFrame(about | {"error": errors.mean(0), "ci_low": low, "ci_high": high}))
        return pd.concat(tables, ignore_index=True)


def ratio_resamples(
    models: Float[np.ndarray, "prompt model"], no_context: Float[np.ndarray, " prompt"], rng: np.random.Generator
) -> Float[np.ndarray, "resample model"]:
    """Ratios of mean errors in resamples of whole prompts."""
    resamples = bootstrap_weights(len(models), rng) @ np.column_stack([models, no_context])
    return resamples[:, :-1] / resamples[:, -1:]


def with_prompts(seeds: Interval, resamples: Float[np.ndarray, " resample"]) -> Interval:
    """The interval over seeds, widened by the sampling of prompts: all seeds share them, so their spread lacks it.

    The two errors are independent, so that the distances to the limits add in quadrature. Without an interval over
    seeds, the interval over prompts alone.
    """
    low, high = limits(resamples)
    if math.isnan(seeds.low):
        return Interval(seeds.value, low, high)
    below = math.hypot(seeds.value - seeds.low, seeds.value - low)
    above = math.hypot(seeds.high - seeds.value, high - seeds.value)
    return Interval(seeds.value, seeds.value - below, seeds.value + above)


def limits(resamples: Float[np.ndarray, " resample"]) -> tuple[float, float]:
    """The central 95 % of a bootstrap distribution."""
    low, high = percentile_interval(resamples[:, None])
    return float(low[0]), float(high[0])


def measure(
    checkpoints: Sequence[Checkpoint], classes: Sequence[str], *, n_prompts: int, seed: int, only_trained: bool = False
) -> dict[str, ClassErrors]:
    """The errors of all checkpoints by class, or of those that train on it.

    The checkpoints draw the same prompts (`groups.check_alike`).
    """
    by_class = {
        name: [
            checkpoint for checkpoint in checkpoints if not only_trained or name in checkpoint.config.trained_classes
        ]
        for name in classes
    }
    bar = progress_bar([item for item in by_class.items() if item[1]], desc="evaluate", unit="class")
    return {name: errors_on(models, name, n_prompts=n_prompts, seed=seed) for name, models in bar}


def errors_on(
    checkpoints: Sequence[Checkpoint], function_class: str, inputs: str | None = None, *, n_prompts: int, seed: int
) -> ClassErrors:
    """The errors on one class and input distribution (None: the runs' first); the runs draw the same prompts."""
    drawn: dict[str, Any] = {"n_prompts": n_prompts, "seed": seed, "inputs": inputs}
    config = checkpoints[0].config
    unit, models = config.second_moment(function_class, inputs), {}
    for checkpoint in checkpoints:
        prompts = evaluation_prompts(checkpoint.config, function_class, **drawn)
        errors = (predictions(checkpoint.model, prompts) - prompts.ys).square()
        models[checkpoint.name] = errors.double().numpy() / unit
    no_context = no_context_error(config, function_class, evaluation_prompts(config, function_class, **drawn))
    return ClassErrors(function_class, no_context.double().numpy() / unit, models, seed)
