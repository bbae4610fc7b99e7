"""Where every run ends, when it left the plateau, and counts and tests over independent seeds."""

import math
from collections.abc import Mapping
from functools import cache

import pandas as pd

from analyses.comparison.groups import Groups, single
from analyses.comparison.histories import MEASURES
from analyses.comparison.paired_errors import ClassErrors, Interval
from interp.statistics.effects import holm
from interp.statistics.seeds import exact_interval
from training.common.output import records
from training.common.table_rows import distinct, where
from training.evaluation.convergence import FRACTION, HELD, first_held

MARGIN = 0.1
LEFT = 1 - MARGIN
THRESHOLDS = (0.25, FRACTION, 0.75, LEFT)
AT, BELOW, ABOVE, UNDECIDED = "at the no-context optimum", "below it", "above it", "undecided"
PAPER_CLASS, PAPER = "quadratic", {"single:quadratic": (0, 5), "mixed": (3, 5)}
"""Seeds that converged (arXiv 2404.03558, Figure 3); any threshold from 0.07 to 0.9 gives these counts."""
CELL = ["curriculum", "function_class"]


def run_table(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per checkpoint and class that it trains on: `ratio` of its error to the no-context optimum's with the
    interval over prompts `ci_low`, `ci_high`; whether it has `left` at the end; `state`."""
    rows = []
    for checkpoint in groups.checkpoints:
        for function_class in checkpoint.config.trained_classes:
            ratio = errors[function_class].ratio(checkpoint.name)
            rows.append(
                {
                    "curriculum": groups.curriculum_of[checkpoint.name],
                    "checkpoint": checkpoint.name,
                    "function_class": function_class,
                    "ratio": ratio.value,
                    "ci_low": ratio.low,
                    "ci_high": ratio.high,
                    "left": ratio.value <= LEFT,
                    "state": state(ratio),
                }
            )
    return pd.DataFrame(rows)


def state(ratio: Interval) -> str:
    """The position of an error relative to the no-context optimum's.

    >>> state(Interval(1.0, 0.98, 1.03)), state(Interval(0.7, 0.6, 0.8)), state(Interval(1.0, 0.8, 1.2))
    ('at the no-context optimum', 'below it', 'undecided')
    """
    if max(abs(ratio.low - 1), abs(ratio.high - 1)) <= MARGIN:
        return AT
    return BELOW if ratio.high < 1 else ABOVE if ratio.low > 1 else UNDECIDED


def exit_table(runs: pd.DataFrame, histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per run with a history, class that it trains on and threshold: the first of `HELD` evaluations at or
    below it (`step`, and the measures there) and `step_before`, the evaluation before; all missing if there is none."""
    rows = []
    for run in records(runs.loc[runs["checkpoint"].isin(list(histories))]):
        table = where(histories[run["checkpoint"]], function_class=run["function_class"])
        history = table.sort_values("step")
        columns = {key: run[key] for key in ("curriculum", "checkpoint", "function_class")}
        rows += [columns | {"threshold": threshold} | find_exit(history, threshold) for threshold in THRESHOLDS]
    columns = ["curriculum", "checkpoint", "function_class", "threshold", "step_before", "step", *MEASURES]
    return pd.DataFrame(rows, columns=columns)


def find_exit(history: pd.DataFrame, threshold: float) -> dict[str, float]:
    index = first_held(history["ratio"].tolist(), threshold, HELD)
    if index is None:
        return dict.fromkeys(("step_before", "step", *MEASURES), math.nan)
    before = float(history["step"].iloc[index - 1]) if index else math.nan
    return {"step_before": before} | {name: float(history[name].iloc[index]) for name in ("step", *MEASURES)}


def count_table(runs: pd.DataFrame, exits: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum, class and threshold: how many seeds are at or below it at the end, of how many, the
    `share` with its exact interval, and `n_ever` of `n_histories` seeds that were there for `HELD` evaluations at any
    time."""
    rows = []
    for curriculum, function_class in runs[CELL].drop_duplicates().to_numpy():
        cell = {"curriculum": curriculum, "function_class": function_class}
        ratios, n_seeds = where(runs, **cell)["ratio"], len(where(runs, **cell))
        for threshold in THRESHOLDS:
            n_left = int((ratios <= threshold).to_numpy().sum())
            low, high = exact_interval(n_left, n_seeds)
            steps = where(exits, **cell, threshold=threshold)["step"]
            shares = {"n_left": n_left, "n_seeds": n_seeds, "share": n_left / n_seeds, "low": low, "high": high}
            counts = {"n_ever": int(steps.notna().to_numpy().sum()), "n_histories": len(steps)}
            rows.append(cell | {"threshold": threshold} | shares | counts)
    return pd.DataFrame(rows)


@cache
def fisher(ours: tuple[int, int], theirs: tuple[int, int]) -> float:
    """Two-sided p of Fisher's exact test of two counts (k of n each).

    >>> round(fisher((3, 5), (0, 5)), 4), round(fisher((5, 5), (0, 5)), 4)
    (0.1667, 0.0079)
    """
    from scipy.stats import fisher_exact

    table = [[k, n - k] for k, n in (ours, theirs)]
    return float(fisher_exact(table)[1])  # pyright: ignore


def counts_at(counts: pd.DataFrame, threshold: float) -> dict[tuple[str, str], tuple[int, int]]:
    """By curriculum and class the seeds at or below a threshold, and all seeds."""
    rows = records(where(counts, threshold=threshold))
    return {(row["curriculum"], row["function_class"]): (row["n_left"], row["n_seeds"]) for row in rows}


def fisher_table(counts: pd.DataFrame) -> pd.DataFrame:
    """One row per threshold (left, and converged) and class with mixed and single runs: both counts, Fisher's p, the
    smallest that so many seeds allow, and p after Holm over classes."""
    rows = []
    for threshold in (LEFT, FRACTION):
        cells, family = counts_at(counts, threshold), []
        for function_class in distinct(counts, "function_class"):
            ours = cells.get(("mixed", function_class))
            theirs = cells.get((single(function_class), function_class))
            if ours and theirs:
                family.append(
                    {
                        "threshold": threshold,
                        "function_class": function_class,
                        "mixed_left": ours[0],
                        "mixed_seeds": ours[1],
                        "single_left": theirs[0],
                        "single_seeds": theirs[1],
                        "p_value": fisher(ours, theirs),
                        "p_holm": math.nan,
                        "smallest_p": fisher((ours[1], ours[1]), (0, theirs[1])),
                    }
                )
        adjusted = holm([row["p_value"] for row in family])
        rows += [row | {"p_holm": p_holm} for row, p_holm in zip(family, adjusted, strict=True)]
    columns = ["threshold", "function_class", "mixed_left", "mixed_seeds", "single_left", "single_seeds"]
    return pd.DataFrame(rows, columns=[*columns, "p_value", "p_holm", "smallest_p"])


def paper_table(counts: pd.DataFrame) -> pd.DataFrame:
    """Our counts of converged seeds and the paper's (Figure 3): Fisher's p of their difference, and of its own."""
    cells, published_p = counts_at(counts, FRACTION), fisher(PAPER["mixed"], PAPER["single:quadratic"])
    rows = []
    for curriculum, theirs in PAPER.items():
        if ours := cells.get((curriculum, PAPER_CLASS)):
            columns = {"curriculum": curriculum, "function_class": PAPER_CLASS, "n_left": ours[0], "n_seeds": ours[1]}
            columns |= {"published_left": theirs[0], "published_seeds": theirs[1]}
            rows.append(columns | {"p_value": fisher(ours, theirs), "published_p": published_p})
    columns = ["curriculum", "function_class", "n_left", "n_seeds", "published_left", "published_seeds"]
    return pd.DataFrame(rows, columns=[*columns, "p_value", "published_p"])
