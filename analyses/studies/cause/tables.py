"""Small tables of the study of causes for people."""

import pandas as pd

from interp.statistics.p_values import p_number
from training.common.output import interval, number, records


def overview_tables(removed: pd.DataFrame, kept: pd.DataFrame, guides: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By title; those without rows are left out."""
    tables = {
        f"{title}: share of the in-context gain lost": effect_table(effects)
        for title, effects in {"heads removed": removed, "heads kept": kept}.items()
    }
    rows = [
        {
            "class": row["function_class"],
            "matters above": number(row["level"], 1),
            "models": str(row["n_models"]),
            "Spearman": interval(row["spearman"], row["t_low"], row["t_high"]),
            "precision": number(row["precision"], 2),
            "recall": number(row["recall"], 2),
        }
        for row in records(guides)
        if row["n_models"]
    ]
    tables["score as a guide to effect"] = pd.DataFrame(rows)
    return {title: table for title, table in tables.items() if len(table)}


def effect_table(effects: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum and class, the pooled effect with its t-interval by mode."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in records(effects):
        key = (row["curriculum"], row["function_class"])
        cells = rows.setdefault(key, {"curriculum, class": ", ".join(key), "seeds": str(row["n_seeds"])})
        cells[row["mode"]] = interval(row["effect"], row["t_low"], row["t_high"])
        if row["mode"] == "mean":
            cells["p Holm"] = p_number(row["p_holm"], row["n_draws"], unadjusted=row["p_value"])
    return pd.DataFrame(rows.values())
