"""Architectures side by side: who is compared with whom, which seeds have retrospective heads, and tests of counts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.comparison.groups import Groups, group
from analyses.studies.plateaus.measures import LEFT, counts_at, fisher
from analyses.studies.variants.measures.by_model import ModelMeasures
from analyses.studies.variants.measures.grouping import IGNORED, REFERENCE, variants_of
from interp.statistics.effects import holm
from interp.statistics.seeds import exact_interval
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records

ARCHITECTURE = ("model.norm", "model.positions", "model.d_mlp", "model.act", "model.eps")
HEADS = "heads"
"""In place of a function class: the count of seeds with a retrospective head."""


def group_architectures(checkpoints: Sequence[Checkpoint]) -> Groups:
    """The checkpoints by architecture; that of the first is the reference.

    Raises:
        UserError: they differ in more than architecture and seeds.
    """
    kind = variants_of(checkpoints[0].config)
    return group(checkpoints, kind._replace(free=(*ARCHITECTURE, *IGNORED), varied=", ".join(ARCHITECTURE)))


def head_table(by_variant: Mapping[str, Sequence[ModelMeasures]], chance: float) -> pd.DataFrame:
    """One row per architecture: of its `n_seeds`, the `n_learned` that left the plateau on a class, and how many of
    these have a head that scores above `interp.ablation.size_classes.ATTENDS`, `n_with`, with the exact interval of
    their share `low`, `high`; `n_stayed_with` of the others.

    Columns besides: the lowest and highest of the seeds' highest scores, over all seeds, `chance`, and the `layers` of
    the heads.
    """
    rows = []
    for variant, models in by_variant.items():
        learned = [model for model in models if model.row()["learned"]]
        n_with = sum(bool(model.head_set) for model in learned)
        low, high = exact_interval(n_with, len(learned)) if learned else (math.nan, math.nan)
        layers = sorted({head.layer for model in models for head in model.head_set})
        rows.append(
            {
                "variant": variant,
                "n_seeds": len(models),
                "n_learned": len(learned),
                "n_with": n_with,
                "low": low,
                "high": high,
                "n_stayed_with": sum(bool(model.head_set) for model in models) - n_with,
                "highest_min": min(model.highest for model in models),
                "highest_max": max(model.highest for model in models),
                "chance": chance,
                "layers": ",".join(map(str, layers)),
            }
        )
    return pd.DataFrame(rows)


def compare_counts(counts: pd.DataFrame, heads: pd.DataFrame) -> pd.DataFrame:
    """One row per architecture other than the reference and count: the seeds that left the plateau on a class, and
    those with a retrospective head among the seeds that learned (`HEADS`).

    Columns: `n`, `n_seeds` and those of the reference, Fisher's two-sided `p_value`, `p_holm` over architectures, and
    `smallest_p`, the least that so many seeds allow.
    """
    numbers = counts_at(counts, LEFT)
    numbers |= {(row["variant"], HEADS): (row["n_with"], row["n_learned"]) for row in records(heads)}
    columns = ["variant", "count", "n", "n_seeds", "reference_n", "reference_seeds", "p_value", "smallest_p"]
    rows: list[dict[str, Any]] = []
    for (variant, count), ours in numbers.items():
        theirs = numbers[REFERENCE, count]
        if variant != REFERENCE and ours[1] and theirs[1]:
            smallest = min(fisher((ours[1], ours[1]), (0, theirs[1])), fisher((0, ours[1]), (theirs[1], theirs[1])))
            values = (variant, count, *ours, *theirs, fisher(ours, theirs), smallest)
            rows.append(dict(zip(columns, values, strict=True)))
    table = pd.DataFrame(rows, columns=columns)
    families = table.groupby("count", sort=False)["p_value"]
    return table.assign(p_holm=families.transform(lambda p_values: holm(p_values.tolist())))
