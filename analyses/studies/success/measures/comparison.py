"""Successful against failed models: means over independent seeds, their difference, its p-value, and the overlap.

Welch's interval gives the size of a difference. The p-value is that of the rank sum, exact over all ways to label as
many of these models as failed: it makes no assumption about the distribution, which few failed models could not
support, and `smallest_p` is the lowest that it can reach. Holm over all measures of a comparison; stages are a family
of their own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.studies.consistency.measures.within import seed_means
from analyses.studies.success.measures.by_class import DEPTH, PUBLISHED
from interp.statistics.effects import holm
from interp.statistics.seed_intervals import NOTHING, welch
from interp.statistics.seeds import t_interval
from training.common.output import records
from training.common.table_rows import distinct, where

ALL_MODELS, ON = "all models", "on "
UNTESTED = ("difference", "ci_low", "ci_high", "p_value", "smallest_p", "higher", "n_overlap")
Row = dict[str, Any]
Values = Float[np.ndarray, " seed"]
OtherValues = Float[np.ndarray, " other_seed"]


def compared_table(models: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison (`among`), and measure or stage.

    Columns: how many independent seeds `n_successful` and `n_failed`; their means `successful` and `failed` with
    t-intervals; `difference` with Welch's `ci_low`, `ci_high`; the exact `p_value`, the `smallest_p` that so many
    models allow, `p_holm`; `higher`, how often a successful model has more than a failed one; and how many models lie
    within the range of the other kind, `n_overlap`. Models that share a stream of random numbers count as their mean;
    where one succeeded and one failed they are not independent samples, and there is neither interval nor p.
    """
    rows = []
    for among, table in list_comparisons(models, classes).items():
        for is_depth in (False, True):
            family = table.loc[((table["kind"] == DEPTH) == is_depth) & (table["measure"] != PUBLISHED)]
            measures = distinct(family, "measure")
            tested = measures[:-1] if is_depth else measures  # the last stage is what success is defined by
            compared = [compare(records(where(family, measure=name))) | {"measure": name} for name in tested]
            adjusted = holm([row["p_value"] for row in compared])
            rows += [
                {"among": among, "kind": where(family, measure=row["measure"])["kind"].iloc[0], **row, "p_holm": p}
                for row, p in zip(compared, adjusted, strict=True)
            ]
    return pd.DataFrame(rows)


def list_comparisons(models: pd.DataFrame, classes: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """The comparisons by name: all models; those of a curriculum; and on a class those that train on it, by whether
    they have left its plateau. Of the latter two, where there are several, those that have both outcomes."""
    curricula, names = distinct(models, "curriculum"), distinct(classes, "function_class")
    parts = {name: where(models, curriculum=name) for name in curricula if len(curricula) > 1}
    for name in names if len(names) > 1 else ():
        table = where(classes, function_class=name)
        parts[ON + name] = table.assign(succeeded=table["left"])
    both = {name: part for name, part in parts.items() if pd.Series(part["succeeded"]).nunique() == 2}
    return {ALL_MODELS: models, **both}


def compare(rows: Sequence[Row]) -> Row:
    """One measure of successful and failed models, each row a model (`value`, `succeeded`, `seed_group`)."""
    sides = [[row for row in rows if row["succeeded"] == kind] for kind in (True, False)]
    successful, failed = map(seed_means, sides)
    shared = {row["seed_group"] for row in sides[0]} & {row["seed_group"] for row in sides[1]}
    columns: Row = {"n_successful": len(successful), "n_failed": len(failed)}
    for name, values in (("successful", successful), ("failed", failed)):
        low, high = t_interval(values)
        columns |= {name: values.mean() if len(values) else math.nan, f"{name}_low": low, f"{name}_high": high}
    if not (len(successful) and len(failed)):
        return columns | dict.fromkeys(UNTESTED, math.nan)
    estimate = NOTHING._replace(value=successful.mean() - failed.mean()) if shared else welch(successful, failed)
    return columns | {
        "difference": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "p_value": math.nan if shared else rank_p(successful, failed),
        "smallest_p": math.nan if shared else min(1.0, 2 / math.comb(len(successful) + len(failed), len(failed))),
        "higher": share_higher(successful, failed),
        "n_overlap": count_within(successful, failed) + count_within(failed, successful),
    }


def rank_p(first: Values, second: OtherValues) -> float:
    """Two-sided p of the rank sum, exact with ties too: the share of all splits whose sum is as far from its mean.

    Splits are counted by their sum of doubled mid-ranks, which are whole numbers, one model at a time.

    >>> round(rank_p(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0])), 6), rank_p(np.ones(3), np.ones(2))
    (0.2, 1.0)
    """
    pooled = np.concatenate([first, second])
    below = (pooled < pooled[:, None]).sum(1)
    doubled = 2 * below + (pooled == pooled[:, None]).sum(1) + 1
    counts = np.zeros((len(first) + 1, int(doubled.sum()) + 1))
    counts[0, 0] = 1
    for rank in doubled:
        counts[1:, rank:] = counts[1:, rank:] + counts[:-1, : counts.shape[1] - rank]
    sums, expected = np.arange(counts.shape[1]), doubled.mean() * len(first)
    observed = abs(doubled[: len(first)].sum() - expected)
    as_far = np.abs(sums - expected) >= observed - 1e-9
    return float(counts[-1, as_far].sum() / counts[-1].sum())


def share_higher(first: Values, second: OtherValues) -> float:
    """How often a value of the first is above one of the second, ties counted half.

    >>> share_higher(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    0.625
    """
    above = np.sign(first[:, None] - second)
    return float((above.mean() + 1) / 2)


def count_within(first: Values, second: OtherValues) -> int:
    """How many of the first lie within the range of the second."""
    return int(((first >= second.min()) & (first <= second.max())).sum())
