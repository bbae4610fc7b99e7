"""What a run had learned and lost again, from its history.

Every evaluation of a run is on the same held-out prompts, but weights jitter. So the best is a level that `HELD`
consecutive evaluations kept, and the end is the lowest of the last ones: noise makes the two differ too little, not too
much. The share lost is (end - best) / (1 - best) in units of the no-context optimum: 1 = no use of the context left,
above 1 = worse than ignoring it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analyses.comparison.histories import end_level, held_level, of_class
from interp.display.text import listed
from interp.statistics.seeds import all_or_nothing, exact_interval, t_interval
from training.common.output import interval, records
from training.evaluation.convergence import FRACTION

LOST, PART = 0.5, 0.1
"""The shares of the in-context gain from which a loss is called forgetting, and from which it is worth a word."""


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
            rows.append(about | loss(of_class(table, function_class)))
    return pd.DataFrame(rows)


def loss(arm: pd.DataFrame) -> dict[str, Any]:
    """Of one run on one class."""
    ratios = arm["ratio"].tolist()
    best, end = held_level(ratios), end_level(ratios)
    steps = arm.loc[arm["ratio"] <= best, "step"]
    lost = (end - best) / (1 - best) if best <= FRACTION else math.nan
    return {
        "best": best,
        "best_step": int(steps.iloc[-1]) if len(steps) else None,
        "end": end,
        "lost": max(0.0, lost) if not math.isnan(lost) else lost,
        "forgot": bool(lost >= LOST),
    }


def by_curriculum(table: pd.DataFrame) -> pd.DataFrame:
    """Mean share lost over the seeds that had learned the class, how many forgot it, with the exact interval of their
    share, and the t-interval of the mean, which is NaN where seeds are all or nothing (`interp.statistics.seeds`)."""
    rows = []
    for (curriculum, name), arm in table.groupby(["curriculum", "function_class"], sort=False):  # pyright: ignore
        lost = arm["lost"].dropna().to_numpy()
        low, high = t_interval(lost) if len(lost) and not all_or_nothing(lost) else (math.nan, math.nan)
        n_forgot = int(np.sum(lost >= LOST))
        share_low, share_high = exact_interval(n_forgot, len(lost)) if len(lost) else (math.nan, math.nan)
        rows.append(
            {
                "curriculum": curriculum,
                "function_class": name,
                "lost": float(lost.mean()) if len(lost) else math.nan,
                "t_low": low,
                "t_high": high,
                "n_forgot": n_forgot,
                "share_low": share_low,
                "share_high": share_high,
                "n_learned": len(lost),
                "n_seeds": len(arm),
            }
        )
    return pd.DataFrame(rows)


def forgetting_sentences(table: pd.DataFrame, pooled: pd.DataFrame) -> list[str]:
    """Who forgets what, and how much the others lost at most."""
    sentences = []
    for curriculum, arms in pooled.groupby("curriculum", sort=False):
        forgot = [row for row in records(arms) if row["n_forgot"]]
        if forgot:
            said = [
                f"{row['function_class']} ({row['n_forgot']} of the {row['n_learned']} seeds that had learned it "
                f"[{row['share_low']:.2f}, {row['share_high']:.2f}]; "
                f"share of the in-context gain lost {interval(row['lost'], row['t_low'], row['t_high'])})"
                for row in forgot
            ]
            sentences.append(f"{curriculum} FORGETS {listed(said)}; above 1 is worse than ignoring the context.")
    part = [row for row in records(pooled) if not row["n_forgot"] and row["lost"] >= PART]
    if part:
        said = [
            f"{row['curriculum']} {interval(row['lost'], row['t_low'], row['t_high'])} of {row['function_class']}"
            for row in part
        ]
        sentences.append(f"Lost in part, less than half of the gain in every seed: {listed(said)}.")
    forgetful = set(pooled.loc[pooled["n_forgot"] > 0, "curriculum"])
    judged = table.loc[~table["curriculum"].isin(list(forgetful)) & table["lost"].notna()]
    if len(judged):
        worst = records(judged.sort_values("lost"))[-1]
        sentences.append(
            f"No seed of {listed(list(dict.fromkeys(judged['curriculum'])))} lost half of what it had learned: at most "
            f"{worst['lost']:.2f} ({worst['checkpoint']} on {worst['function_class']})."
        )
    return sentences
