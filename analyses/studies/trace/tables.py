"""Small tables of the study of what heads carry, for people."""

import pandas as pd

from training.common.output import interval, number, records


def overview_tables(shares: pd.DataFrame, decoded: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By title; those without rows are left out."""
    tables = {
        "share of the heads' effect by reader (t-interval over seeds)": curriculum_table(shares, "reader", "share"),
        "R² of x_i in the outputs of heads at y_i": curriculum_table(decoded, "heads", "r2"),
    }
    return {title: table for title, table in tables.items() if len(table)}


def curriculum_table(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """A row per curriculum, the means with their t-intervals by the entries of a column."""
    rows: dict[str, dict[str, str]] = {}
    for row in records(table):
        cells = rows.setdefault(row["curriculum"], {"curriculum": row["curriculum"], "seeds": str(row["n_seeds"])})
        cells[row[column]] = interval(row[value], row["t_low"], row["t_high"]) if row["n_seeds"] else number(None)
    return pd.DataFrame(rows.values())
