"""Small tables of the study of data efficiency for people."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from training.common.output import interval, number, records

TITLE = "needed to reach an error (of the no-context optimum) / what the class alone needs [95 %, ranks of seeds]"
COLUMNS = {"prompts_seen": "prompts of the class", "flops": "operations"}
"""Without the prompts in all, which are as the operations in runs of one size."""


def overview_tables(ratios: pd.DataFrame, matched: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Ratios by measure, one row per curriculum, class and error; errors at matched compute."""
    if ratios.empty:
        return {}
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in records(ratios):
        if row["measure"] in COLUMNS and (row["n_reached"] or row["single_reached"]):
            labels = {
                "curriculum, class": f"{row['curriculum']}, {row['function_class']}",
                "error": f"{row['threshold']:g}",
                "reached": f"{row['n_reached']}/{row['n_seeds']}, {row['single_reached']}/{row['single_seeds']}",
            }
            cells = rows.setdefault((row["curriculum"], row["function_class"], row["threshold"]), labels)
            cells[COLUMNS[row["measure"]]] = format_ratio(row)
    at_compute = [
        {
            "curriculum, class": f"{row['curriculum']}, {row['function_class']}",
            "compute": f"{row['compute_share']:g}",
            "prompts of the class": number(row["data_share"], 2),
            "error": number(row["ratio"]),
            "single": number(row["single"]),
            "difference": interval(row["difference"], row["low"], row["high"]),
        }
        for row in records(matched)
    ]
    return {
        f"{TITLE}; reached: seeds, single seeds": pd.DataFrame(list(rows.values())),
        "at the same share of the compute of a run: share of the class's prompts, errors / no-context": pd.DataFrame(
            at_compute
        ),
    }


def format_ratio(row: Mapping[str, Any]) -> str:
    """The median with its rank interval, or its bounds."""
    limits = f"[{format_number(row['rank_low'])}, {format_number(row['rank_high'])}]"
    value, low, high = (format_number(row[name]) for name in ("value", "at_least", "at_most"))
    if math.isnan(row["value"]):
        bounded = (row["at_least"] > 0, math.isfinite(row["at_most"]))
        value = {
            (True, True): f"{low} to {high}",
            (True, False): f"at least {low}",
            (False, True): f"at most {high}",
            (False, False): "an unknown share",
        }[bounded]
    return f"{value} {limits}"


def format_number(value: float) -> str:
    """
    >>> format_number(0.11111), format_number(12.3456), format_number(math.inf)
    ('0.111', '12.3', 'inf')
    """
    return f"{value:.3g}"
