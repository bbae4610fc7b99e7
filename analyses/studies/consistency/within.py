"""Are the same heads retrospective on every class of one model, and more so after one curriculum than another?

1. Agreement between the maps of two classes, averaged over pairs of classes: Spearman and Pearson over all heads, and
   the overlap of the k highest (k = 3, and k = the number of heads above one half on any class); Kendall's W over all
   classes. Intervals over prompts, which all classes share.
2. The same in the untrained twin, at the same k, and the difference. `ceiling` is the Spearman correlation of one class
   with itself on other prompts: what sampling leaves possible.
3. By curriculum: mean and t-interval over independent seeds; mixed against every other by Welch's, Holm over those.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.studies.consistency.measures import Looks
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import HeadSet, heads_above
from interp.statistics.agreement import (
    Agreement,
    kendall_w,
    mean_over_pairs,
    overlap_p,
    pearson,
    spearman,
    top,
    top_overlap,
)
from interp.statistics.effects import holm, interval_of
from interp.statistics.seed_intervals import NOTHING, welch
from interp.statistics.seeds import t_interval
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights
from training.common.output import records
from training.common.table_rows import where
from training.config.config import stream_seed

TOP = 3
MIXED = "mixed"
SUMMARIES = ("spearman", "pearson", "kendall_w", f"top{TOP}", "top_found")

Maps = Float[np.ndarray, "*batch class head"]
Row = dict[str, Any]


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
    def about(self) -> Row:
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


def within_rows(model: Model, classes: Sequence[str], seed: int) -> list[Row]:
    looks = {"trained": model.trained, "untrained": model.untrained}
    weights = bootstrap_weights(len(model.trained.scores), np.random.default_rng(stream_seed("consistency", seed)))
    resampled = {state: resampled_maps(one, weights) for state, one in looks.items()}
    k, n_heads = len(model.found), model.trained.maps.shape[1]
    rows: list[Row] = []
    for name, summary in summaries(k).items():
        values = {state: float(summary(one.maps)) for state, one in looks.items()}
        spread = {state: summary(maps) for state, maps in resampled.items()}
        values["difference"] = values["trained"] - values["untrained"]
        spread["difference"] = spread["trained"] - spread["untrained"]
        chance = chance_of(name, k, len(classes), n_heads)
        for state in values:
            about = {"state": state, "classes": "all", "statistic": name, "k": size_of(name, k)}
            of_state = math.nan if state == "difference" else chance
            rows.append(about | with_interval(values[state], spread[state]) | {"chance": of_state, "p_value": math.nan})
    for state, one in looks.items():
        for a, b in combinations(range(len(classes)), 2):
            pair = f"{classes[a]}-{classes[b]}"
            rows += [
                {"state": state, "classes": pair, **row}
                for row in pair_rows(one.maps[[a, b]], resampled[state][:, [a, b]], k)
            ]
        ceiling = spearman(one.maps, one.again.reshape(len(classes), -1)).mean()
        rows.append({"state": state, "classes": "same", "statistic": "ceiling", "value": float(ceiling)})
    return [model.about | row for row in rows]


def pair_rows(maps: Float[np.ndarray, "2 head"], resampled: Float[np.ndarray, "resample 2 head"], k: int) -> list[Row]:
    """The agreement of two classes, by every statistic."""
    rows, n_heads = [], maps.shape[1]
    for name, agreement in agreements(k).items():
        size = size_of(name, k)
        p_value = math.nan
        if size:
            p_value = overlap_p(int((top(maps[0], size) & top(maps[1], size)).sum()), size, n_heads)
        spread = agreement(resampled[:, 0], resampled[:, 1])
        measured = with_interval(float(agreement(maps[0], maps[1])), spread)
        chance = {"chance": chance_of(name, k, 2, n_heads), "p_value": p_value}
        rows.append({"statistic": name, "k": size} | measured | chance)
    return rows


def size_of(statistic: str, k: int) -> int | None:
    """How many heads an overlap counts."""
    return {f"top{TOP}": TOP, "top_found": k}.get(statistic)


def with_interval(value: float, resamples: Float[np.ndarray, " resample"]) -> Row:
    found = interval_of(value, resamples)
    return {"value": value, "ci_low": found.ci_low, "ci_high": found.ci_high}


def resampled_maps(
    looks: Looks, weights: Float[np.ndarray, "resample prompt"]
) -> Float[np.ndarray, "resample class head"]:
    flat = weights @ looks.scores.reshape(len(looks.scores), -1)
    return flat.reshape(len(weights), *looks.maps.shape)


def by_seed(rows: Sequence[Row]) -> Float[np.ndarray, " seed"]:
    """One value per independent seed: models that share a stream are averaged; undefined ones are left out."""
    seeds: dict[int, list[float]] = {}
    for row in rows:
        if not math.isnan(row["value"]):
            seeds.setdefault(row["seed_group"], []).append(row["value"])
    return np.array([np.mean(values) for values in seeds.values()])


def curricula_table(within: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum, state and statistic: `value`, the mean over `n_seeds` independent seeds.

    Its interval `ci_low`, `ci_high` is a t-interval over seeds (`over` = seeds); with one model, one over its prompts.
    """
    cells: dict[tuple[str, str, str], list[Row]] = {}
    for row in records(where(within, classes="all")):
        cells.setdefault((row["curriculum"], row["state"], row["statistic"]), []).append(row)
    return pd.DataFrame([curriculum_row(key, rows) for key, rows in cells.items()])


def curriculum_row(key: tuple[str, str, str], rows: Sequence[Row]) -> Row:
    values = by_seed(rows)
    (low, high), over = seed_interval(values, key[2], key[1]), "seeds"
    if len(rows) == 1:
        low, high, over = rows[0]["ci_low"], rows[0]["ci_high"], "prompts"
    measured = {"value": values.mean() if len(values) else math.nan, "ci_low": low, "ci_high": high, "over": over}
    counts = {"n_seeds": len(values), "n_models": len(rows)}
    about = dict(zip(("curriculum", "state", "statistic"), key, strict=True))
    chances = [row["chance"] for row in rows if not math.isnan(row["chance"])]
    return about | counts | measured | {"chance": float(np.mean(chances)) if chances else math.nan}


def seed_interval(values: Float[np.ndarray, " seed"], statistic: str, state: str) -> tuple[float, float]:
    """The t-interval over seeds within the statistic's range; NaN where seeds do not differ at all."""
    if len(values) < 2 or not np.ptp(values):
        return math.nan, math.nan
    least = -1.0 if statistic in ("spearman", "pearson") else 0.0
    least, most = (least - 1, 1 - least) if state == "difference" else (least, 1.0)
    low, high = t_interval(values)
    return max(low, least), min(high, most)


def contrasts_table(within: pd.DataFrame) -> pd.DataFrame:
    """Models of one curriculum (mixed, if there are any) against those of every other, by state and statistic.

    Columns: `difference` of means over seeds with Welch's interval `ci_low`, `ci_high`, `p_value`, and `p_holm` over
    the other curricula. No interval for curricula that share a seed, which are no independent samples, nor where seeds
    do not differ at all.
    """
    names = list(dict.fromkeys(within["curriculum"]))
    reference = reference_of(names)
    others = [name for name in names if name != reference]
    rows: list[Row] = []
    for state, statistic in product(("trained", "difference"), SUMMARIES):
        family = [contrast(within, state, statistic, reference, other) for other in others]
        adjusted = holm([row["p_value"] for row in family])
        rows += [row | {"p_holm": p_value} for row, p_value in zip(family, adjusted, strict=True)]
    return pd.DataFrame(rows)


def reference_of(curricula: Sequence[str]) -> str:
    """The curriculum against which others are set."""
    return MIXED if MIXED in curricula else curricula[0]


def contrast(within: pd.DataFrame, state: str, statistic: str, reference: str, other: str) -> Row:
    chosen = where(within, classes="all", state=state, statistic=statistic)
    rows = [records(where(chosen, curriculum=name)) for name in (reference, other)]
    ours, theirs = map(by_seed, rows)
    shared = {row["seed_group"] for row in rows[0]} & {row["seed_group"] for row in rows[1]}
    estimate = welch(ours, theirs) if len(ours) and len(theirs) and not shared else NOTHING
    limits = (math.nan, math.nan) if math.isnan(estimate.p_value) else (estimate.low, estimate.high)
    measured = {"difference": estimate.value} | dict(zip(("ci_low", "ci_high"), limits, strict=True))
    about = {"state": state, "statistic": statistic, "curriculum": reference, "other": other}
    return about | {"n_seeds": len(ours), "n_other": len(theirs)} | measured | {"p_value": estimate.p_value}
