"""Are the same heads retrospective on every function class of one model - and more so after one curriculum than another?

1. Agreement between the maps of two classes, averaged over pairs of classes: Spearman and Pearson over all heads, and
   the overlap of the k highest (k = 3, and k = the number of heads above one half on any class); Kendall's W over all
   classes. Intervals over prompts, which all classes share.
2. The same in the untrained twin, at the same k, and the difference. `ceiling` is the Spearman correlation of one class
   with itself on other prompts: what sampling leaves possible.
3. By curriculum: mean and t-interval over independent seeds; mixed against every other by Welch's, Holm over those.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.agreement import (
    Agreement,
    kendall_w,
    mean_over_pairs,
    overlap_p,
    pearson,
    spearman,
    top,
    top_overlap,
)
from analyses.looks import Looks
from analyses.over_seeds import Estimate, welch
from interp.heads import HeadSet, heads_above
from interp.seeds import t_interval
from interp.stats import holm
from interp.verdict import ATTENDS
from training.checkpoint import Checkpoint
from training.config import stream_seed
from training.intervals import bootstrap_weights, percentile_interval
from training.output import records

TOP = 3
MIXED = "mixed"
SUMMARIES = ("spearman", "pearson", "kendall_w", "top3", "top_found")

Maps = Float[np.ndarray, "*batch class head"]


@dataclass(frozen=True)
class Model:
    """One of the models under study.

    Attributes:
        checkpoint: trained.
        label: its name where space is short.
        seed: models with the same number share a stream of random numbers.
        trained: where its heads look.
        untrained: where those of its initialisation look.
    """

    checkpoint: Checkpoint
    label: str
    seed: int
    trained: Looks
    untrained: Looks

    @property
    def curriculum(self) -> str:
        return self.checkpoint.config.curriculum

    @property
    def about(self) -> dict[str, Any]:
        return {
            "checkpoint": self.checkpoint.name,
            "step": self.checkpoint.step,
            "curriculum": self.curriculum,
            "seed_group": self.seed,
        }

    @property
    def found(self) -> HeadSet:
        """The heads above one half on any class."""
        return heads_above(ATTENDS, self.trained.scores.mean(0).max(0))


def found_table(models: Sequence[Model], classes: Sequence[str]) -> pd.DataFrame:
    """One row per model and class: which heads are above one half."""
    rows = []
    for model in models:
        for name, values in zip(classes, model.trained.scores.mean(0), strict=True):
            heads = heads_above(ATTENDS, values)
            rows.append(
                model.about
                | {
                    "function_class": name,
                    "n_found": len(heads),
                    "found": " ".join(map(str, heads)),
                    "highest": float(values.max()),
                }
            )
    return pd.DataFrame(rows)


def agreements(k: int) -> dict[str, Agreement]:
    """Of two maps."""
    return {"spearman": spearman, "pearson": pearson, f"top{TOP}": top_overlap(TOP), "top_found": top_overlap(k)}


def summaries(k: int) -> dict[str, Callable[[Maps], Float[np.ndarray, "*batch"]]]:
    """Of one model's maps."""
    pairwise = {name: partial(mean_over_pairs, agreement) for name, agreement in agreements(k).items()}
    return pairwise | {"kendall_w": kendall_w}


def chance_of(statistic: str, k: int, n_maps: int, n_heads: int) -> float:
    """The expectation if every class ordered the heads at random."""
    overlaps = {f"top{TOP}": TOP / n_heads, "top_found": k / n_heads if k else np.nan}
    return {"spearman": 0.0, "pearson": 0.0, "kendall_w": 1 / n_maps, **overlaps}.get(statistic, np.nan)


def within_table(models: Sequence[Model], classes: Sequence[str], seed: int) -> pd.DataFrame:
    """One row per model, state (trained, untrained, difference), statistic and pair of classes (`all`: the mean).

    Columns: `k` of an overlap, `value` with its interval over prompts `ci_low`, `ci_high`, its `chance`, and for an
    overlap of two classes `p_value`.
    """
    return pd.DataFrame([row for model in models for row in within_rows(model, classes, seed)])


def within_rows(model: Model, classes: Sequence[str], seed: int) -> list[dict[str, Any]]:
    k, states = len(model.found), {"trained": model.trained, "untrained": model.untrained}
    n_prompts, n_maps = len(model.trained.scores), len(classes)
    n_heads = model.trained.maps.shape[1]
    weights = bootstrap_weights(n_prompts, np.random.default_rng(stream_seed("consistency", seed)))
    resampled = {state: resampled_maps(looks, weights) for state, looks in states.items()}
    rows: list[dict[str, Any]] = []

    def add(state: str, pair: str, name: str, value: float, low: float, high: float, p_value: float = np.nan) -> None:
        of_overlap = {f"top{TOP}": TOP, "top_found": k}.get(name)
        chance = np.nan if state == "difference" else chance_of(name, k, n_maps, n_heads)
        about = {"state": state, "classes": pair, "statistic": name, "k": of_overlap}
        measured = {"value": value, "ci_low": low, "ci_high": high, "chance": chance, "p_value": p_value}
        rows.append(model.about | about | measured)

    for name, summary in summaries(k).items():
        values = {state: float(summary(looks.maps)) for state, looks in states.items()}
        spread = {state: summary(maps) for state, maps in resampled.items()}
        values["difference"] = values["trained"] - values["untrained"]
        spread["difference"] = spread["trained"] - spread["untrained"]
        for state, value in values.items():
            low, high = percentile_interval(spread[state])
            add(state, "all", name, value, float(low), float(high))
    for a, b in combinations(range(n_maps), 2):
        for state, looks in states.items():
            one, other = looks.maps[a], looks.maps[b]
            for name, agreement in agreements(k).items():
                low, high = percentile_interval(agreement(resampled[state][:, a], resampled[state][:, b]))
                size = {f"top{TOP}": TOP, "top_found": k}.get(name, 0)
                shared = int((top(one, size) & top(other, size)).sum())
                p_value = overlap_p(shared, size, n_heads) if size else np.nan
                value = float(agreement(one, other))
                add(state, f"{classes[a]}-{classes[b]}", name, value, float(low), float(high), p_value)
    for state, looks in states.items():
        again = looks.again.reshape(n_maps, -1)
        add(state, "same", "ceiling", float(spearman(looks.maps, again).mean()), np.nan, np.nan)
    return rows


def resampled_maps(
    looks: Looks, weights: Float[np.ndarray, "resample prompt"]
) -> Float[np.ndarray, "resample class head"]:
    flat = weights @ looks.scores.reshape(len(looks.scores), -1)
    return flat.reshape(len(weights), *looks.maps.shape)


def by_seed(within: pd.DataFrame, curriculum: str, state: str, statistic: str) -> Mapping[int, float]:
    """One value per independent seed: models that share a stream are averaged; undefined ones are left out."""
    chosen = within[
        (within["curriculum"] == curriculum)
        & (within["state"] == state)
        & (within["statistic"] == statistic)
        & (within["classes"] != "")
        & within["classes"].isin(["all", "same"])
    ]
    return chosen.dropna(subset=["value"]).groupby("seed_group")["value"].mean().to_dict()


def curricula_table(within: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum, state and statistic: `value`, the mean over `n_seeds` independent seeds.

    Its interval `ci_low`, `ci_high` is a t-interval over seeds (`over` = seeds); with one model, one over its prompts.
    """
    rows = []
    overall = within[within["classes"] == "all"]
    for (curriculum, state, statistic), cell in overall.groupby(["curriculum", "state", "statistic"], sort=False):
        values = np.array(list(by_seed(within, curriculum, state, statistic).values()))
        low, high = t_interval(values) if len(values) > 1 else (np.nan, np.nan)
        over = "seeds" if len(values) > 1 else "none"
        if len(cell) == 1 and len(values) == 1:
            low, high, over = cell["ci_low"].item(), cell["ci_high"].item(), "prompts"
        rows.append(
            {
                "curriculum": curriculum,
                "state": state,
                "statistic": statistic,
                "n_seeds": len(values),
                "n_models": len(cell),
                "value": values.mean() if len(values) else np.nan,
                "ci_low": low,
                "ci_high": high,
                "over": over,
                "chance": cell["chance"].mean(),
            }
        )
    return pd.DataFrame(rows)


def contrasts_table(within: pd.DataFrame) -> pd.DataFrame:
    """Trained models of one curriculum (mixed, if there are any) against those of every other, by statistic.

    Columns: `difference` of means over seeds with Welch's interval `ci_low`, `ci_high`, `p_value`, and `p_holm` over
    the other curricula. Curricula that share a seed are no independent samples: no interval.
    """
    names = list(dict.fromkeys(within["curriculum"]))
    reference = MIXED if MIXED in names else names[0]
    others = [name for name in names if name != reference]
    rows: list[dict[str, Any]] = []
    for statistic in SUMMARIES:
        family = [contrast(within, statistic, reference, other) for other in others]
        adjusted = holm([row["p_value"] for row in family])
        rows += [row | {"p_holm": p_value} for row, p_value in zip(family, adjusted, strict=True)]
    return pd.DataFrame(rows)


def contrast(within: pd.DataFrame, statistic: str, reference: str, other: str) -> dict[str, Any]:
    ours, theirs = (by_seed(within, name, "trained", statistic) for name in (reference, other))
    about = {"statistic": statistic, "curriculum": reference, "other": other}
    estimate = Estimate(np.nan, np.nan, np.nan)
    if ours and theirs:
        estimate = welch(np.array(list(ours.values())), np.array(list(theirs.values())))
    if ours.keys() & theirs.keys():
        estimate = Estimate(estimate.value, np.nan, np.nan)
    measured = {"difference": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
    return about | {"n_seeds": len(ours), "n_other": len(theirs)} | measured | {"p_value": estimate.p_value}


def cell(table: pd.DataFrame, **values: str) -> dict[str, Any]:
    """The one row with these values."""
    mask = np.logical_and.reduce([table[column] == value for column, value in values.items()])
    (row,) = records(table[mask])
    return row
