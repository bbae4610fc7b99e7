"""Small tables of the study of plateaus for people."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analyses.comparison.comparison import grid
from analyses.studies.plateaus.measures import LEFT, MARGIN
from training.common.output import count, interval, records
from training.common.table_rows import where
from training.evaluation.convergence import FRACTION


def overview_tables(runs: pd.DataFrame, counts: pd.DataFrame, exits: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Counts, curricula by classes; the runs that have not left; when the others did. Empty ones are left out."""
    stayed = [
        {
            "run": row["checkpoint"],
            "class": row["function_class"],
            "error / no-context": interval(row["ratio"], row["ci_low"], row["ci_high"]),
            "where": row["state"],
        }
        for row in records(where(runs, left=False))
    ]
    optimum = f"error <= {LEFT:g} of the no-context optimum"
    tables = {
        f"seeds that have left the plateau / seeds ({optimum}) [exact 95 % interval of the share]": grid(
            where(counts, threshold=LEFT), lambda row: f"{row['n_left']}/{row['n_seeds']} {format_share(row)}"
        ),
        f"runs that have not left [interval over prompts]; at = within 1 ± {MARGIN:g}": pd.DataFrame(stayed),
        "first step of three evaluations in a row at or below a threshold, median [range] over seeds": exit_overview(
            exits.loc[exits["threshold"].isin([FRACTION, LEFT])]
        ),
    }
    return {title: table for title, table in tables.items() if len(table)}


def exit_overview(exits: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (curriculum, function_class, threshold), cell in exits.groupby(  # pyright: ignore
        ["curriculum", "function_class", "threshold"], sort=False
    ):
        rows.append(
            {
                "curriculum, class": f"{curriculum}, {function_class}",
                "threshold": f"{threshold:g}",
                "seeds": f"{cell['step'].count()} of {len(cell)}",
                "step": format_range(pd.Series(cell["step"])),
                "prompts of the class": format_range(pd.Series(cell["prompts_seen"])),
                "FLOPs": format_range(pd.Series(cell["flops"])),
            }
        )
    return pd.DataFrame(rows)


def format_share(row: Mapping[str, Any]) -> str:
    """The exact interval of a share."""
    return f"[{row['low']:.2f}, {row['high']:.2f}]"


def format_range(values: pd.Series) -> str:
    """
    >>> format_range(pd.Series([100.0, 300.0, 200.0]))
    '200 [100-300]'
    """
    low, high = values.min(), values.max()
    if not values.count():
        return "-"
    return count(float(values.median())) + (f" [{count(low)}-{count(high)}]" if low != high else "")
