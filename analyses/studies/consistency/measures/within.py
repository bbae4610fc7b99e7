"""Are the same heads retrospective on every class of one model, and more so after one curriculum than another?

1. Agreement between the maps of two classes, averaged over pairs of classes: Spearman and Pearson over all heads, and
   the overlap of the k highest (k = 3, and k = the number of heads above one half on any class); Kendall's W over all
   classes. Intervals over prompts, which all classes share.
2. The same in the untrained twin, with the same k, and the difference. `ceiling` is the Spearman correlation of a class
   with itself on other prompts: the highest value that sampling of prompts allows.
3. By curriculum: mean and t-interval over independent seeds; mixed against every other by Welch's test, with Holm's
   correction over those.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations, product

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.studies.consistency.measures.attention import HeadAttention, Model, Row
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import heads_above
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
from training.common.bootstrap import bootstrap_weights
from training.common.output import records
from training.common.table_rows import distinct, where
from training.config.config import stream_seed

TOP = 3
MIXED = "mixed"
SUMMARIES = ("spearman", "pearson", "kendall_w", f"top{TOP}", "top_found")

Maps = Float[np.ndarray, "*batch class head"]


def found_table(models: Sequence[Model], classes: Sequence[str]) -> pd.DataFrame:
    """One row per model and class: which heads are above one half (`found`), how many, and the highest score."""
    rows = []
    for model in models:
        for function_class, values in zip(classes, model.trained.scores.mean(0), strict=True):
            heads = heads_above(ATTENDS, values)
            counts = {"n_found": len(heads), "found": " ".join(map(str, heads)), "highest": float(values.max())}
            rows.append(model.columns | {"function_class": function_class} | counts)
    return pd.DataFrame(rows)


def pair_statistics(k: int) -> dict[str, Agreement]:
    """The statistics of two maps."""
    return {"spearman": spearman, "pearson": pearson, f"top{TOP}": top_overlap(TOP), "top_found": top_overlap(k)}


def model_statistics(k: int) -> dict[str, Callable[[Maps], Float[np.ndarray, "*batch"]]]:
    """The statistics of all maps of a model."""
    means = {name: partial(mean_over_pairs, statistic) for name, statistic in pair_statistics(k).items()}
    return means | {"kendall_w": kendall_w}


def chance_level(statistic: str, k: int, n_maps: int, n_heads: int) -> float:
    """The expectation if every class ordered the heads at random."""
    overlaps = {f"top{TOP}": TOP / n_heads, "top_found": k / n_heads if k else np.nan}
    return {"spearman": 0.0, "pearson": 0.0, "kendall_w": 1 / n_maps, **overlaps}.get(statistic, np.nan)


def overlap_size(statistic: str, k: int) -> int | None:
    """How many heads an overlap counts; None for other statistics."""
    return {f"top{TOP}": TOP, "top_found": k}.get(statistic)


def within_table(models: Sequence[Model], classes: Sequence[str], seed: int) -> pd.DataFrame:
    """One row per model, state (trained, untrained, difference), statistic and pair of classes (`all`: the mean).

    Columns: `k` of an overlap, `value` with its interval over prompts `ci_low`, `ci_high`, its `chance`, and for an
    overlap of two classes `p_value`.
    """
    return pd.DataFrame([row for model in models for row in within_rows(model, classes, seed)])


def within_rows(model: Model, classes: Sequence[str], seed: int) -> list[Row]:
    states = {"trained": model.trained, "untrained": model.untrained}
    weights = bootstrap_weights(len(model.trained.scores), np.random.default_rng(stream_seed("consistency", seed)))
    resampled = {state: resample_maps(attention, weights) for state, attention in states.items()}
    k = len(model.retrospective_heads)
    rows = mean_rows(states, resampled, k)
    for state, attention in states.items():
        for a, b in combinations(range(len(classes)), 2):
            columns = {"state": state, "classes": f"{classes[a]}-{classes[b]}"}
            pair = agreement_rows(attention.maps[[a, b]], resampled[state][:, [a, b]], k)
            rows += [columns | row for row in pair]
        ceiling = spearman(attention.maps, attention.selection_scores.reshape(len(classes), -1)).mean()
        rows.append({"state": state, "classes": "same", "statistic": "ceiling", "value": float(ceiling)})
    return [model.columns | row for row in rows]


def mean_rows(states: dict[str, HeadAttention], resampled: dict[str, Maps], k: int) -> list[Row]:
    """Means over pairs of classes, trained, untrained, and the difference."""
    rows = []
    n_classes, n_heads = states["trained"].maps.shape
    for name, statistic in model_statistics(k).items():
        values = {state: float(statistic(attention.maps)) for state, attention in states.items()}
        resamples = {state: statistic(maps) for state, maps in resampled.items()}
        values["difference"] = values["trained"] - values["untrained"]
        resamples["difference"] = resamples["trained"] - resamples["untrained"]
        chance = chance_level(name, k, n_classes, n_heads)
        for state in values:
            columns = {"state": state, "classes": "all", "statistic": name, "k": overlap_size(name, k)}
            interval = interval_columns(values[state], resamples[state])
            chance_columns = {"chance": math.nan if state == "difference" else chance, "p_value": math.nan}
            rows.append(columns | interval | chance_columns)
    return rows


def agreement_rows(
    maps: Float[np.ndarray, "2 head"], resampled: Float[np.ndarray, "resample 2 head"], k: int
) -> list[Row]:
    """The agreement of two classes, by every statistic."""
    rows, n_heads = [], maps.shape[1]
    for name, statistic in pair_statistics(k).items():
        size = overlap_size(name, k)
        p_value = math.nan
        if size:
            p_value = overlap_p(int((top(maps[0], size) & top(maps[1], size)).sum()), size, n_heads)
        interval = interval_columns(float(statistic(maps[0], maps[1])), statistic(resampled[:, 0], resampled[:, 1]))
        chance = {"chance": chance_level(name, k, 2, n_heads), "p_value": p_value}
        rows.append({"statistic": name, "k": size} | interval | chance)
    return rows


def interval_columns(value: float, resamples: Float[np.ndarray, " resample"]) -> Row:
    interval = interval_of(value, resamples)
    return {"value": value, "ci_low": interval.ci_low, "ci_high": interval.ci_high}


def resample_maps(
    attention: HeadAttention, weights: Float[np.ndarray, "resample prompt"]
) -> Float[np.ndarray, "resample class head"]:
    flat = weights @ attention.scores.reshape(len(attention.scores), -1)
    return flat.reshape(len(weights), *attention.maps.shape)


def seed_means(rows: Sequence[Row], column: str = "value") -> Float[np.ndarray, " seed"]:
    """One value per independent seed: models that share a stream are averaged; undefined values are left out."""
    seeds: dict[int, list[float]] = {}
    for row in rows:
        if not math.isnan(row[column]):
            seeds.setdefault(row["seed_group"], []).append(row[column])
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
    curriculum, state, statistic = key
    values = seed_means(rows)
    (low, high), over = seed_interval(values, statistic, state), "seeds"
    if len(rows) == 1:
        low, high, over = rows[0]["ci_low"], rows[0]["ci_high"], "prompts"
    chances = [row["chance"] for row in rows if not math.isnan(row["chance"])]
    return {
        "curriculum": curriculum,
        "state": state,
        "statistic": statistic,
        "n_seeds": len(values),
        "n_models": len(rows),
        "value": values.mean() if len(values) else math.nan,
        "ci_low": low,
        "ci_high": high,
        "over": over,
        "chance": float(np.mean(chances)) if chances else math.nan,
    }


def seed_interval(values: Float[np.ndarray, " seed"], statistic: str, state: str) -> tuple[float, float]:
    """The t-interval over seeds, within the statistic's range; NaN where seeds do not differ at all."""
    if len(values) < 2 or not np.ptp(values):
        return math.nan, math.nan
    least = -1.0 if statistic in ("spearman", "pearson") else 0.0
    least, most = (least - 1, 1 - least) if state == "difference" else (least, 1.0)
    low, high = t_interval(values)
    return max(low, least), min(high, most)


def contrasts_table(within: pd.DataFrame) -> pd.DataFrame:
    """Models of one curriculum (mixed, if there are any) against those of every other, by state and statistic.

    Columns: `difference` of means over seeds with Welch's interval `ci_low`, `ci_high`, `p_value`, and `p_holm` over
    the other curricula. No interval for curricula that share a seed, which are not independent samples, nor where seeds
    do not differ at all.
    """
    curricula = distinct(within, "curriculum")
    reference = reference_curriculum(curricula)
    others = [name for name in curricula if name != reference]
    rows: list[Row] = []
    for state, statistic in product(("trained", "difference"), SUMMARIES):
        family = [contrast_row(within, state, statistic, reference, other) for other in others]
        adjusted = holm([row["p_value"] for row in family])
        rows += [row | {"p_holm": p_value} for row, p_value in zip(family, adjusted, strict=True)]
    return pd.DataFrame(rows)


def reference_curriculum(curricula: Sequence[str]) -> str:
    """The curriculum that others are compared with."""
    return MIXED if MIXED in curricula else curricula[0]


def contrast_row(within: pd.DataFrame, state: str, statistic: str, reference: str, other: str) -> Row:
    table = where(within, classes="all", state=state, statistic=statistic)
    rows = [records(where(table, curriculum=curriculum)) for curriculum in (reference, other)]
    ours, theirs = map(seed_means, rows)
    shared = {row["seed_group"] for row in rows[0]} & {row["seed_group"] for row in rows[1]}
    estimate = welch(ours, theirs) if len(ours) and len(theirs) and not shared else NOTHING
    low, high = (math.nan, math.nan) if math.isnan(estimate.p_value) else (estimate.low, estimate.high)
    return {
        "state": state,
        "statistic": statistic,
        "curriculum": reference,
        "other": other,
        "n_seeds": len(ours),
        "n_other": len(theirs),
        "difference": estimate.value,
        "ci_low": low,
        "ci_high": high,
        "p_value": estimate.p_value,
    }
