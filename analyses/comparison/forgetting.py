"""What a run had learned and lost again, from its history.

All evaluations of a run use the same held-out prompts, but the weights fluctuate. So the best level is one that `HELD`
consecutive evaluations kept, and the end is the lowest of the last ones: noise makes the loss too small rather than too
large. The share lost is (end - best) / (1 - best) in units of the no-context optimum: 1 = no use of the context left,
above 1 = worse than ignoring it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analyses.comparison.histories import class_history, end_level, held_level
from interp.display.text import listed
from interp.statistics.seeds import all_or_nothing, exact_interval, t_interval
from training.common.output import interval, records
from training.common.table_rows import distinct
from training.evaluation.convergence import FRACTION

LOST, PART = 0.5, 0.1
"""The shares of the in-context gain from which a loss is called forgetting, and from which it is reported at all."""
SENTENCES = {
    "forgets": "{curriculum} FORGETS {classes}; above 1 is worse than ignoring the context.",
    "forgotten": "{function_class} ({n_forgot} of the {n_learned} seeds that had learned it [{share_low:.2f}, "
    "{share_high:.2f}]; share of the in-context gain lost {interval})",
    "in part": "Lost in part, less than half of the gain in every seed: {cells}.",
    "at most": "No seed of {curricula} lost half of what it had learned: at most {lost:.2f} ({checkpoint} on "
    "{function_class}).",
}


def losses(histories: Mapping[str, pd.DataFrame], curricula: Mapping[str, str]) -> pd.DataFrame:
    """One row per run and class.

    Columns: `curriculum`, `checkpoint`, `function_class`, `best` and `end` (levels, 1 = the no-context optimum),
    `best_step` (the last evaluation at or below `best`), `lost` (share of the gain; NaN where the class was never
    learned, `best` above one half) and `forgot` (`lost` >= one half).
    """
    rows = []
    for name, table in histories.items():
        for function_class in table["function_class"].unique():
            about = {"curriculum": curricula[name], "checkpoint": name, "function_class": function_class}
            rows.append(about | loss(class_history(table, function_class)))
    return pd.DataFrame(rows)


def loss(history: pd.DataFrame) -> dict[str, Any]:
    """The levels and the loss of one run on one class."""
    ratios = history["ratio"].tolist()
    best, end = held_level(ratios), end_level(ratios)
    steps = history.loc[history["ratio"] <= best, "step"]
    lost = (end - best) / (1 - best) if best <= FRACTION else math.nan
    return {
        "best": best,
        "best_step": int(steps.iloc[-1]) if len(steps) else None,
        "end": end,
        "lost": max(0.0, lost) if not math.isnan(lost) else lost,
        "forgot": bool(lost >= LOST),
    }


def by_curriculum(table: pd.DataFrame) -> pd.DataFrame:
    """Mean share lost over the seeds that had learned the class, the number that forgot it with the exact interval of
    their share, and the t-interval of the mean, NaN where seeds are all or nothing (`interp.statistics.seeds`)."""
    rows = []
    for (curriculum, function_class), runs in table.groupby(["curriculum", "function_class"], sort=False):  # pyright: ignore
        lost = runs["lost"].dropna().to_numpy()
        low, high = t_interval(lost) if len(lost) and not all_or_nothing(lost) else (math.nan, math.nan)
        n_forgot = int(np.sum(lost >= LOST))
        share_low, share_high = exact_interval(n_forgot, len(lost)) if len(lost) else (math.nan, math.nan)
        rows.append(
            {
                "curriculum": curriculum,
                "function_class": function_class,
                "lost": float(lost.mean()) if len(lost) else math.nan,
                "t_low": low,
                "t_high": high,
                "n_forgot": n_forgot,
                "share_low": share_low,
                "share_high": share_high,
                "n_learned": len(lost),
                "n_seeds": len(runs),
            }
        )
    return pd.DataFrame(rows)


def forgetting_sentences(table: pd.DataFrame, pooled: pd.DataFrame) -> list[str]:
    """Which curricula forget which classes, and how much the others lost at most."""
    sentences = []
    for curriculum, cells in pooled.groupby("curriculum", sort=False):
        rows = [row for row in records(cells) if row["n_forgot"]]
        forgot = [SENTENCES["forgotten"].format(**row, interval=lost_text(row)) for row in rows]
        if forgot:
            sentences.append(SENTENCES["forgets"].format(curriculum=curriculum, classes=listed(forgot)))
    in_part = [
        f"{row['curriculum']} {lost_text(row)} of {row['function_class']}"
        for row in records(pooled)
        if not row["n_forgot"] and row["lost"] >= PART
    ]
    if in_part:
        sentences.append(SENTENCES["in part"].format(cells=listed(in_part)))
    forgetful = set(pooled.loc[pooled["n_forgot"] > 0, "curriculum"])
    others = table.loc[~table["curriculum"].isin(list(forgetful)) & table["lost"].notna()]
    if len(others):
        worst = records(others.sort_values("lost"))[-1]
        sentences.append(SENTENCES["at most"].format(**worst, curricula=listed(distinct(others, "curriculum"))))
    return sentences


def lost_text(row: Mapping[str, Any]) -> str:
    """The mean share lost with its t-interval."""
    return interval(row["lost"], row["t_low"], row["t_high"])
