"""Small tables of the study of variants for people."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.ablation.size_classes import ATTENDS
from training.common.output import interval, records
from training.common.table_rows import distinct, where

COLUMNS = {
    "ratio": "error / no context",
    "n_found": f"heads > {ATTENDS}",
    "depth": "depth",
    "effect": "gain lost without",
    "n_matter": "heads that matter",
}


def overview_tables(compared: pd.DataFrame, errors: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A row per variant with its measures, then errors by class."""
    rows = []
    for variant in distinct(compared, "variant"):
        cells = {row["measure"]: row for row in records(where(compared, variant=variant))}
        labels = {"variant": variant, "seeds": str(cells["n_found"]["n_seeds"])}
        rows.append(labels | {label: format_mean(cells[measure]) for measure, label in COLUMNS.items()})
    by_class = [
        {
            "variant": row["variant"],
            "class": row["function_class"],
            "error / no context": interval(row["ratio"], row["ratio_low"], row["ratio_high"]),
            "difference to the reference": interval(row["difference"], row["low"], row["high"]),
        }
        for row in records(errors)
    ]
    return {
        "mean over independent seeds [t-interval]": pd.DataFrame(rows),
        "error by class [interval over seeds and prompts]": pd.DataFrame(by_class),
    }


def format_mean(row: Mapping[str, Any]) -> str:
    """A mean over seeds with its t-interval."""
    return interval(row["value"], row["t_low"], row["t_high"]) if row["n_seeds"] else "undefined"
