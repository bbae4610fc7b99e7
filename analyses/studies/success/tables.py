"""Small tables of the study of success for people."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analyses.studies.success.measures.by_class import DEPTH
from analyses.studies.success.measures.comparison import ALL_MODELS
from training.common.output import interval, number, records
from training.common.table_rows import distinct, where


def overview_tables(models: pd.DataFrame, compared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A table of measures for each comparison, with controls in the first, and the errors by depth."""
    tables = {}
    for among in distinct(compared, "among"):
        rows = [row for row in records(where(compared, among=among)) if row["kind"] != DEPTH]
        title = f"{among}: mean [t-interval over seeds]; attention: highest score; others: R² above controls"
        cells = [format_cells(row) | (format_controls(row, models) if among == ALL_MODELS else {}) for row in rows]
        tables[title] = pd.DataFrame(cells)
    depth = where(models, kind=DEPTH)
    by_depth = []
    for label, succeeded in (("successful", True), ("failed", False)):
        if len(side := where(depth, succeeded=succeeded)):
            means = pd.Series(side.groupby("measure", sort=False)["value"].mean())
            by_depth.append({"models": label} | {stage: number(mean) for stage, mean in means.items()})
    title = "error of the tuned implied prediction / no-context optimum (at the last stage the model's own)"
    return tables | {title: pd.DataFrame(by_depth)}


def format_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """One measure."""
    return {
        "measure": row["measure"],
        f"successful ({row['n_successful']})": interval(
            row["successful"], row["successful_low"], row["successful_high"]
        ),
        f"failed ({row['n_failed']})": interval(row["failed"], row["failed_low"], row["failed_high"]),
        "difference": interval(row["difference"], row["ci_low"], row["ci_high"]),
        "p": format_p(row["p_value"]),
        "p, Holm": format_p(row["p_holm"]),
        "overlap": number(float(row["n_overlap"]), 0),
    }


def format_controls(row: Mapping[str, Any], models: pd.DataFrame) -> dict[str, str]:
    """The chance level of a measure and the twins' mean."""
    means = where(models, measure=row["measure"])[["chance", "untrained"]].mean().to_dict()
    return {name: number(float(means[name])) for name in ("chance", "untrained")}


def format_p(p_value: float) -> str:
    return "-" if math.isnan(p_value) else f"{p_value:.2g}"
