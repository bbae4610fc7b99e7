"""Successful against failed models: means over independent seeds, the difference, how likely it is by chance, overlap.

Welch's interval says how large a difference is. The p-value is that of the rank sum, exact over all ways to call as
many of these models failed: with few failed models it needs no shape of the distribution, and says in `smallest_p` what
it could have shown at best. Holm over all measures of a comparison; stages are a family of their own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.studies.consistency.within import by_seed
from analyses.studies.success.measures import DEPTH, PUBLISHED
from interp.statistics.effects import holm
from interp.statistics.seed_intervals import NOTHING, welch
from interp.statistics.seeds import t_interval
from training.common.output import records
from training.common.table_rows import distinct, where

EVERYONE, ON = "all models", "on "
Row = dict[str, Any]
One = Float[np.ndarray, " seed"]
Other = Float[np.ndarray, " other_seed"]


def compared_table(models: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison (`among`), and measure or stage.

    Columns: how many independent seeds `n_successful` and `n_failed`; their means `successful` and `failed` with
    t-intervals; `difference` with Welch's `ci_low`, `ci_high`; the exact `p_value`, the `smallest_p` that so many
    models allow, `p_holm`; `higher`, how often a successful model has more than a failed one; and how many models lie
    within the range of the other kind, `n_overlap`. Models that share a stream of random numbers count as their mean;
    where one succeeded and one failed they are no independent samples, and there is neither interval nor p.
    """
    rows = []
    for among, table in comparisons(models, classes).items():
        for is_depth in (False, True):
            chosen = table.loc[((table["kind"] == DEPTH) == is_depth) & (table["measure"] != PUBLISHED)]
            names = distinct(chosen, "measure")
            tested = names[:-1] if is_depth else names  # the last stage is what success is defined by
            family = [compare(records(where(chosen, measure=name))) | {"measure": name} for name in tested]
            adjusted = holm([row["p_value"] for row in family])
            rows += [
                {"among": among, "kind": records(where(chosen, measure=row["measure"]))[0]["kind"], **row, "p_holm": p}
                for row, p in zip(family, adjusted, strict=True)
            ]
    return pd.DataFrame(rows)


def comparisons(models: pd.DataFrame, classes: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """What is compared: all models; those of a curriculum; and on a class those that train on it, by whether they have
    left its plateau. Of the latter two, where there are several, those that have both outcomes."""
    curricula, names = distinct(models, "curriculum"), distinct(classes, "function_class")
    parts = {name: where(models, curriculum=name) for name in curricula if len(curricula) > 1}
    for name in names if len(names) > 1 else ():
        of_class = where(classes, function_class=name)
        parts[ON + name] = of_class.assign(succeeded=of_class["left"])
    both = {name: part for name, part in parts.items() if len(set(part["succeeded"].tolist())) == 2}
    return {EVERYONE: models, **both}


def compare(rows: Sequence[Row]) -> Row:
    """One measure of successful and failed models, each row a model (`value`, `succeeded`, `seed_group`)."""
    sides = [[row for row in rows if row["succeeded"] == kind] for kind in (True, False)]
    successful, failed = map(by_seed, sides)
    shared = {row["seed_group"] for row in sides[0]} & {row["seed_group"] for row in sides[1]}
    about: Row = {"n_successful": len(successful), "n_failed": len(failed)}
    for name, values in (("successful", successful), ("failed", failed)):
        low, high = t_interval(values)
        about |= {name: values.mean() if len(values) else math.nan, f"{name}_low": low, f"{name}_high": high}
    if not (len(successful) and len(failed)):
        return about | dict.fromkeys(
            ("difference", "ci_low", "ci_high", "p_value", "smallest_p", "higher", "n_overlap"), math.nan
        )
    estimate = NOTHING._replace(value=successful.mean() - failed.mean()) if shared else welch(successful, failed)
    return about | {
        "difference": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "p_value": math.nan if shared else rank_p(successful, failed),
        "smallest_p": math.nan if shared else min(1.0, 2 / math.comb(len(successful) + len(failed), len(failed))),
        "higher": share_higher(successful, failed),
        "n_overlap": n_overlap(successful, failed) + n_overlap(failed, successful),
    }


def rank_p(one: One, other: Other) -> float:
    """Two-sided p of the rank sum, exact with ties too: the share of all splits whose sum is as far from its mean.

    Splits are counted by their sum of doubled mid-ranks, which are whole numbers, one model at a time.

    >>> round(rank_p(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0])), 6), rank_p(np.ones(3), np.ones(2))
    (0.2, 1.0)
    """
    pooled = np.concatenate([one, other])
    below = (pooled < pooled[:, None]).sum(1)
    doubled = 2 * below + (pooled == pooled[:, None]).sum(1) + 1
    counts = np.zeros((len(one) + 1, int(doubled.sum()) + 1))
    counts[0, 0] = 1
    for rank in doubled:
        counts[1:, rank:] = counts[1:, rank:] + counts[:-1, : counts.shape[1] - rank]
    sums, expected = np.arange(counts.shape[1]), doubled.mean() * len(one)
    seen = abs(doubled[: len(one)].sum() - expected)
    as_far = np.abs(sums - expected) >= seen - 1e-9
    return float(counts[-1, as_far].sum() / counts[-1].sum())


def share_higher(one: One, other: Other) -> float:
    """How often a value of the first is above one of the second, ties counted half.

    >>> share_higher(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    0.625
    """
    above = np.sign(one[:, None] - other)
    return float((above.mean() + 1) / 2)


def n_overlap(one: One, other: Other) -> int:
    """How many of the first lie within the range of the second."""
    return int(((one >= other.min()) & (one <= other.max())).sum())
