"""Small tables of the consistency study for people."""

from collections.abc import Sequence

import pandas as pd

from analyses.studies.consistency.measures.attention import Model, Row
from analyses.studies.consistency.measures.between import ALL_PAIRS
from analyses.studies.consistency.measures.within import SUMMARIES, TOP
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
PAIR_COLUMNS = {
    "by_index": "same number",
    "chance": "random matching",
    "matched": "matched",
    "matched_excess": "excess",
    "untrained_excess": "excess untrained",
    "learned": "difference",
    "kinds": "matched, composite",
    "beyond_kinds": "real minus composite",
}
Cells = dict[str, str]


def overview_tables(
    models: Sequence[Model],
    within: pd.DataFrame,
    curricula: pd.DataFrame,
    contrasts: pd.DataFrame,
    between: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """By title; those without rows are left out."""
    reference = contrasts["curriculum"].iloc[0] if len(contrasts) else ""
    tables = {
        "heads above 1/2, and agreement of a model's maps of two classes [95 % over prompts]": model_table(
            models, within
        ),
        "agreement of a model's maps of two classes, by curriculum [t-interval over seeds]": curriculum_table(
            curricula
        ),
        f"{reference} minus other curricula [Welch, over seeds]": contrast_table(contrasts),
        "similarity of the heads of two independent models, matched within layers [jackknife over seeds]": pair_table(
            between
        ),
    }
    return {title: table for title, table in tables.items() if len(table)}


def model_table(models: Sequence[Model], within: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for model in models:
        table = where(within, classes="all", state="trained", checkpoint=model.checkpoint.name)
        cells = {NAMES[row["statistic"]]: format_row(row) for row in records(table) if row["statistic"] in NAMES}
        heads = show(model.retrospective_heads) or "none"
        rows.append({"model": model.label, "seed": str(model.seed), "heads > 1/2": heads} | cells)
    columns = ["model", "seed", "heads > 1/2", "Spearman", "Pearson", f"top {TOP} shared"]
    return pd.DataFrame(rows, columns=columns)


def curriculum_table(curricula: pd.DataFrame) -> pd.DataFrame:
    """Trained models and their twins; intervals where they fit."""
    rows: dict[tuple[str, str], Cells] = {}
    for row in records(curricula):
        if row["state"] != "difference":
            labels = {"curriculum": row["curriculum"], "models": row["state"], "seeds": str(row["n_seeds"])}
            cells = rows.setdefault((row["curriculum"], row["state"]), labels)
            short = row["statistic"] in ("kendall_w", "top_found")
            cells[NAMES[row["statistic"]]] = number(row["value"], 2) if short else format_row(row)
    return pd.DataFrame(list(rows.values()), columns=["curriculum", "models", "seeds", *map(NAMES.get, SUMMARIES)])


def contrast_table(contrasts: pd.DataFrame) -> pd.DataFrame:
    rows: dict[str, Cells] = {}
    for row in records(where(contrasts, state="trained")) if len(contrasts) else ():
        label = f"{row['other']} ({row['n_seeds']} and {row['n_other']} seeds)"
        cells = rows.setdefault(row["other"], {"minus": label})
        cells[NAMES[row["statistic"]]] = bracketed(row["difference"], row["ci_low"], row["ci_high"])
    return pd.DataFrame(list(rows.values()))


def pair_table(between: pd.DataFrame) -> pd.DataFrame:
    """Groups of pairs with at least three seeds, and all pairs."""
    rows: dict[tuple[str, str], Cells] = {}
    for row in records(between):
        in_layer = row["within"] == "layer"
        wanted = row["curricula"] == ALL_PAIRS or (in_layer and row["n_seeds"] > 2)
        if wanted and row["measure"] in PAIR_COLUMNS:
            label = row["curricula"] if in_layer else f"{row['curricula']}, over all layers"
            key = (row["curricula"], row["within"])
            cells = rows.setdefault(key, {"models": label, "pairs": str(row["n_pairs"])})
            whole = row["measure"] in ("learned", "beyond_kinds")
            cells[PAIR_COLUMNS[row["measure"]]] = format_row(row) if whole else number(row["value"], 2)
    return pd.DataFrame(list(rows.values()))


def format_row(row: Row) -> str:
    return bracketed(row["value"], row["ci_low"], row["ci_high"])


def bracketed(value: float, low: float, high: float) -> str:
    """A number with its interval, to two digits.

    >>> bracketed(0.5, 0.4, 0.6), bracketed(0.5, float("nan"), float("nan"))
    ('0.50 [0.40, 0.60]', '0.50')
    """
    return f"{number(value, 2)} [{number(low, 2)}, {number(high, 2)}]" if low == low else number(value, 2)
