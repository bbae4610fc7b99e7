"""Small tables of the study of pools for people."""

import pandas as pd

from training.common.output import interval, number, records
from training.common.table_rows import distinct, where


def overview_tables(
    distances: pd.DataFrame, leanings: pd.DataFrame, heads: pd.DataFrame, effects: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Per source of functions the distances and the leaning by pool size; then heads and the effect of the highest."""
    tables = {}
    for source in ("pool", "fresh"):
        of_source = where(distances, functions=source)
        by_size = {size: where(of_source, n_functions=size) for size in distinct(of_source, "n_functions")}
        rows = {row["n_functions"]: row for row in records(where(leanings, functions=source))}
        cells = pd.DataFrame({"functions in the pool": list(map(describe_size, by_size))})
        for column in ("to_memory", "to_regression", "between"):
            cells[column] = [number(float(of_size[column].to_numpy().mean())) for of_size in by_size.values()]
        cells["leaning"] = [describe_leaning(rows.get(size)) for size in by_size]
        title = f"on {source} functions: squared distance of predictions / n_dims, mean over seeds"
        tables[f"{title}; leaning: 1 memory, -1 regression [t-interval over seeds]"] = cells
    columns = {"functions in the pool": [describe_size(row["n_functions"]) for row in records(heads)]}
    columns["seeds with a head above"] = [f"{row['n_with']} of {row['n_seeds']}" for row in records(heads)]
    columns["highest score"] = [f"{row['highest_min']:.2f} to {row['highest_max']:.2f}" for row in records(heads)]
    for source in ("pool", "fresh"):
        of_size = {row["n_functions"]: row for row in records(where(effects, functions=source))}
        cells_of = [describe_effect(of_size.get(row["n_functions"])) for row in records(heads)]
        columns[f"effect on {source} functions"] = cells_of
    tables["retrospective heads, and the highest-scoring one removed: share of the in-context gain lost"] = (
        pd.DataFrame(columns)
    )
    return tables


def describe_size(n_functions: int) -> str:
    """
    >>> describe_size(8), describe_size(0)
    ('8', 'none: fresh')
    """
    return str(n_functions) if n_functions else "none: fresh"


def describe_leaning(row: dict[str, float] | None) -> str:
    return "-" if row is None else interval(row["leaning"], row["t_low"], row["t_high"])


def describe_effect(row: dict[str, float] | None) -> str:
    """The mean over seeds and their range."""
    if row is None or not row["n_seeds"]:
        return "-"
    return f"{number(row['effect'])} ({number(row['effect_min'])} to {number(row['effect_max'])})"
