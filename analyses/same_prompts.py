"""Errors of many models on the same prompts, so that whatever compares two of them is paired.

`training.evaluate.error_curves` gives the same numbers with baselines beside them, fitted anew for every model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from tqdm import tqdm

from analyses.groups import welch
from interp.seeds import t_interval
from training.checkpoint import Checkpoint
from training.config import stream_seed
from training.evaluate import evaluation_prompts, no_context_error, predictions
from training.intervals import bootstrap_weights, mean_interval, percentile_interval
from training.prompts import last_quarter

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
        no_context: of E[y given x].
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

    def ratio_resamples(self, names: Sequence[str]) -> Float[np.ndarray, "resample model"]:
        """The ratios to the no-context optimum in bootstrap resamples of whole prompts, the same for all models."""
        rng = np.random.default_rng(stream_seed("ratio", self.seed, self.function_class))
        return ratio_resamples(np.stack([self.tails(name) for name in names], axis=1), self.tails(), rng)

    def ratio(self, name: str) -> Interval:
        """The error over the last quarter of the points over the no-context optimum's; interval over prompts."""
        return Interval(
            float(self.tails(name).mean() / self.tails().mean()), *limits(self.ratio_resamples([name])[:, 0])
        )

    def mean_ratio(self, names: Sequence[str]) -> Interval:
        """Mean ratio over independent seeds; for a single one the interval is over prompts alone."""
        values = np.array([self.ratio(name).value for name in names])
        seeds = Interval(float(values.mean()), *t_interval(values))
        return with_prompts(seeds, self.ratio_resamples(names).mean(1))

    def difference(self, ours: Sequence[str], theirs: Sequence[str]) -> Interval:
        """Difference of the mean ratios of two groups of independent seeds; NaN as limits where either has one seed."""
        values = [np.array([self.ratio(name).value for name in names]) for names in (ours, theirs)]
        seeds = Interval(*welch(*values))
        if math.isnan(seeds.low):
            return seeds
        return with_prompts(seeds, self.ratio_resamples(ours).mean(1) - self.ratio_resamples(theirs).mean(1))

    def curves(self) -> pd.DataFrame:
        """One row per checkpoint (empty for the no-context optimum) and number of examples."""
        rng = np.random.default_rng(stream_seed("bootstrap", self.seed, self.function_class))
        tables = []
        for name, errors in {**self.models, "": self.no_context}.items():
            low, high = mean_interval(errors, rng)
            about = {"checkpoint": name, "function_class": self.function_class, "examples": range(errors.shape[1])}
            tables.append(pd.DataFrame(about | {"error": errors.mean(0), "ci_low": low, "ci_high": high}))
        return pd.concat(tables, ignore_index=True)


def ratio_resamples(
    models: Float[np.ndarray, "prompt model"], no_context: Float[np.ndarray, " prompt"], rng: np.random.Generator
) -> Float[np.ndarray, "resample model"]:
    """Ratios of mean errors, whole prompts resampled, so that all errors of a prompt stay together."""
    resamples = bootstrap_weights(len(models), rng) @ np.column_stack([models, no_context])
    return resamples[:, :-1] / resamples[:, -1:]


def with_prompts(seeds: Interval, resamples: Float[np.ndarray, " resample"]) -> Interval:
    """The interval over seeds widened by the sampling of prompts, which all seeds share and no spread over seeds shows.

    The two errors are independent: distances to the limits add in quadrature. Without an interval over seeds, that over
    prompts alone.
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
    checkpoints: Sequence[Checkpoint], classes: Sequence[str], *, n_prompts: int, seed: int
) -> dict[str, ClassErrors]:
    """By class the errors of all checkpoints, which draw their prompts alike (`groups.check_alike`)."""
    config = checkpoints[0].config
    found = {}
    progress = tqdm(total=len(classes) * len(checkpoints), desc="evaluate", unit="model", disable=None)
    for name in classes:
        unit, models = config.second_moment(name), {}
        for one in checkpoints:
            prompts = evaluation_prompts(one.config, name, n_prompts=n_prompts, seed=seed)
            models[one.name] = (predictions(one.model, prompts) - prompts.ys).square().double().numpy() / unit
            progress.update()
        prompts = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed)
        without = no_context_error(config, name, prompts).double().numpy() / unit
        found[name] = ClassErrors(name, without, models, seed)
    progress.close()
    return found
