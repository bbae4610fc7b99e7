"""Small tables of the study of layers for people."""

import pandas as pd

from interp.statistics.p_values import p_number
from training.common.output import interval, number, records


def overview_tables(seeds: pd.DataFrame, counts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Heads needed over seeds, and cases by layer; without rows where no model has a clear in-context gain."""
    over_seeds = [
        {
            "curriculum": row["curriculum"],
            "seeds": str(row["n_seeds"]),
            **{
                f"{name} layer": interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
                for name in ("first", "later")
            },
            "difference": interval(row["difference"], row["difference_low"], row["difference_high"]),
            "p, random signs": p_number(row["p_value"], row["n_draws"]),
        }
        for row in records(seeds)
    ]
    by_layer = [
        {
            "layer": str(row["layer"]),
            "cases": str(row["n_cases"]),
            "heads needed": number(row["n_needed"], 2),
            "all needed": str(row["n_all"]),
            "one needed": str(row["n_one"]),
            "none needed": str(row["n_none"]),
            "cost, one left": number(row["cost_best"], 2),
            "cost, none left": number(row["cost_all"], 2),
        }
        for row in records(counts)
    ]
    tables = {
        "heads that a layer needs, over seeds": pd.DataFrame(over_seeds),
        "by layer, over cases (model x class)": pd.DataFrame(by_layer),
    }
    return {title: table for title, table in tables.items() if len(table)}
