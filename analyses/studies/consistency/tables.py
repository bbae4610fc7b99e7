"""Small tables of the consistency study for people."""

from collections.abc import Sequence

import pandas as pd

from analyses.studies.consistency.between import EVERYONE
from analyses.studies.consistency.within import SUMMARIES, TOP, Model, Row
from interp.model.heads import show
from training.common.output import number, records
from training.common.table_rows import where

NAMES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "kendall_w": "Kendall's W",
    f"top{TOP}": f"top {TOP} shared",
    "top_found": "heads > 1/2 shared",
}


def small_tables(
    models: Sequence[Model],
    within: pd.DataFrame,
    curricula: pd.DataFrame,
    contrasts: pd.DataFrame,
    between: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """By title; those without rows are left out."""
    title = "agreement of one model's maps between function classes, by curriculum [t-interval over seeds]"
    tables = {
        "heads above 1/2, and how alike a model's maps of two classes are [95 % over prompts]": by_model(
            models, within
        ),
        title: by_curriculum(curricula),
    }
    if len(contrasts):
        reference = contrasts["curriculum"].iloc[0]
        tables[f"{reference} less other curricula [Welch, over seeds]"] = by_contrast(contrasts)
    if len(between):
        tables["likeness of heads of two independent models, matched within layers [jackknife over seeds]"] = by_pair(
            between
        )
    return tables


def by_model(models: Sequence[Model], within: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for model in models:
        own = where(where(within, classes="all", state="trained"), checkpoint=model.checkpoint.name)
        cells = {NAMES[row["statistic"]]: said(row) for row in records(own) if row["statistic"] in NAMES}
        rows.append({"model": model.label, "seed": str(model.seed), "heads > 1/2": show(model.found) or "none"} | cells)
    columns = ["model", "seed", "heads > 1/2", "Spearman", "Pearson", f"top {TOP} shared"]
    return pd.DataFrame(rows, columns=columns)


def by_curriculum(curricula: pd.DataFrame) -> pd.DataFrame:
    """Trained models and their twins; intervals where they fit."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in records(curricula):
        if row["state"] != "difference":
            about = {"curriculum": row["curriculum"], "models": row["state"], "seeds": str(row["n_seeds"])}
            cells = rows.setdefault((row["curriculum"], row["state"]), about)
            short = row["statistic"] in ("kendall_w", "top_found")
            cells[NAMES[row["statistic"]]] = number(row["value"], 2) if short else said(row)
    return pd.DataFrame(list(rows.values()), columns=["curriculum", "models", "seeds", *map(NAMES.get, SUMMARIES)])


def by_contrast(contrasts: pd.DataFrame) -> pd.DataFrame:
    rows: dict[str, dict[str, str]] = {}
    for row in records(where(contrasts, state="trained")):
        name = f"{row['other']} ({row['n_seeds']} and {row['n_other']} seeds)"
        cells = rows.setdefault(row["other"], {"less": name})
        cells[NAMES[row["statistic"]]] = bracketed(row["difference"], row["ci_low"], row["ci_high"])
    return pd.DataFrame(list(rows.values()))


def by_pair(between: pd.DataFrame) -> pd.DataFrame:
    columns = {
        "by_index": "same number",
        "chance": "random matching",
        "matched": "matched",
        "matched_excess": "excess",
        "untrained_excess": "excess untrained",
        "learned": "difference",
        "kinds": "matched with drawn heads",
        "beyond_kinds": "beyond kinds",
    }
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in records(between):
        of_layer = row["within"] == "layer" and (row["n_seeds"] > 2 or row["curricula"] == EVERYONE)
        if row["measure"] in columns and (of_layer or row["curricula"] == EVERYONE):
            name = row["curricula"] if row["within"] == "layer" else f"{row['curricula']}, over all layers"
            key = (row["curricula"], row["within"])
            cells = rows.setdefault(key, {"models": name, "pairs": str(row["n_pairs"])})
            short = bracketed(row["value"], row["ci_low"], row["ci_high"])
            cells[columns[row["measure"]]] = (
                short if row["measure"] in ("learned", "beyond_kinds") else number(row["value"], 2)
            )
    return pd.DataFrame(list(rows.values()))


def said(row: Row) -> str:
    return bracketed(row["value"], row["ci_low"], row["ci_high"])


def bracketed(value: float, low: float, high: float) -> str:
    """A number with its interval, to two digits.

    >>> bracketed(0.5, 0.4, 0.6), bracketed(0.5, float("nan"), float("nan"))
    ('0.50 [0.40, 0.60]', '0.50')
    """
    return f"{number(value, 2)} [{number(low, 2)}, {number(high, 2)}]" if low == low else number(value, 2)
