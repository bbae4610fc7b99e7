"""When runs left the plateau, by arm: counts, times with censoring, and exact tests of arms.

A run that had not left by its last step is censored there. All runs are trained equally long, so that censored ones
rank behind all others and tie with one another, and the permutation test of rank sums stays exact.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from analyses.studies.plateaus.measures import LEFT
from interp.statistics.effects import SIGNIFICANT, holm
from interp.statistics.p_values import p_text
from interp.statistics.seeds import exact_interval
from training.common.output import count, records
from training.common.table_rows import where

MOST = 200_000  # assignments to enumerate; with more, the normal approximation
SENTENCES = {
    "times": "{arm}: {n_left} of {n_seeds} runs left the plateau of {function_class} (exact 95 % interval of the share "
    "{low:.2f} to {high:.2f}){times}{censored}.",
    "earlier": "Runs of the arm {arm} leave the plateau of {function_class} earlier than those of {reference} ({p}).",
    "later": "Runs of the arm {arm} leave the plateau of {function_class} later than those of {reference} ({p}).",
    "no difference": "No difference in when runs of {arm} and of {reference} leave the plateau of {function_class} is "
    "shown ({p}; this number of runs allows no p below {smallest_p:.3g} before Holm).",
}


def time_table(exits: pd.DataFrame, last: int) -> pd.DataFrame:
    """One row per arm and class: how many of its runs left the plateau (three evaluations in a row at or below `LEFT`
    of the no-context optimum) with the exact interval of their share, and the step at which these did.

    Args:
        exits: of `analyses.studies.plateaus.measures.exit_table`; the curriculum is the arm.
        last: the step at which the others are censored.
    """
    rows = []
    for (arm, function_class), runs in where(exits, threshold=LEFT).groupby(  # pyright: ignore
        ["curriculum", "function_class"], sort=False
    ):
        steps = runs["step"].dropna()
        low, high = exact_interval(len(steps), len(runs))
        about = {"arm": arm, "function_class": function_class, "n_left": len(steps), "n_seeds": len(runs)}
        about |= {"low": low, "high": high, "median": steps.median(), "first": steps.min(), "latest": steps.max()}
        rows.append(about | {"n_censored": len(runs) - len(steps), "censored_at": last})
    return pd.DataFrame(rows)


def compare_times(exits: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """One row per pair of arms and class: `difference` of mean ranks (above 0 = the first is later), the exact
    two-sided `p_value`, `p_holm` over all rows, and `smallest_p`, the least that so many runs allow."""
    steps = where(exits, threshold=LEFT)
    rows = []
    for arm, reference in pairs:
        for function_class in steps["function_class"].unique():
            ours, theirs = (
                where(steps, curriculum=name, function_class=function_class)["step"].fillna(np.inf).tolist()
                for name in (arm, reference)
            )
            if ours and theirs:
                difference, p_value = compare_ranks(ours, theirs)
                smallest = compare_ranks([0.0] * len(ours), [1.0] * len(theirs))[1]
                about = {"arm": arm, "reference": reference, "function_class": function_class}
                rows.append(about | {"difference": difference, "p_value": p_value, "smallest_p": smallest})
    columns = ["arm", "reference", "function_class", "difference", "p_value", "smallest_p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p_value"].tolist()))


def compare_ranks(ours: Sequence[float | int], theirs: Sequence[float | int]) -> tuple[float, float]:
    """The difference of mean ranks and its two-sided permutation p; equal values share their mean rank.

    >>> compare_ranks([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    (-5.0, 0.0079...)
    """
    from scipy.stats import mannwhitneyu, rankdata

    n_ours, n_all = len(ours), len(ours) + len(theirs)
    ranks = rankdata([*ours, *theirs])
    difference = float(ranks[:n_ours].mean() - ranks[n_ours:].mean())
    if comb(n_all, n_ours) > MOST:
        return difference, float(mannwhitneyu(ours, theirs, method="asymptotic").pvalue)
    middle = n_ours * (n_all + 1) / 2
    distances = [abs(sum(chosen) - middle) for chosen in combinations(ranks, n_ours)]
    return difference, float(np.mean(np.array(distances) >= distances[0] - 1e-9))


def time_sentences(times: pd.DataFrame) -> list[str]:
    """Of each arm and class, how many left, when, and how many are censored."""
    sentences = []
    for row in records(times):
        span = f" ({count(row['first'])} to {count(row['latest'])})" if row["n_left"] > 1 else ""
        left = f", at step {count(row['median'])}{span}" if row["n_left"] else ""
        censored = f"; {row['n_censored']} had not by step {row['censored_at']} (censored)" if row["n_censored"] else ""
        sentences.append(SENTENCES["times"].format(**row, times=left, censored=censored))
    return sentences


def comparison_sentences(tests: pd.DataFrame) -> list[str]:
    """Arms differ if p is at most `SIGNIFICANT` after Holm."""
    sentences = []
    for row in records(tests):
        key = direction(row["difference"], row["p_holm"]) or "no difference"
        sentences.append(SENTENCES[key].format(**row, p=p_text(row["p_value"], holm=row["p_holm"])))
    return sentences


def direction(difference: float, p_holm: float) -> str:
    """Whether the first of two arms left later or earlier; empty if neither is shown.

    >>> direction(-3.0, 0.01), direction(3.0, 0.2)
    ('earlier', '')
    """
    if p_holm > SIGNIFICANT:
        return ""
    return "later" if difference > 0 else "earlier"


def overview_of_times(times: pd.DataFrame) -> pd.DataFrame:
    """The same as a table for people."""
    return pd.DataFrame(
        [
            {
                "arm": row["arm"],
                "class": row["function_class"],
                "left": f"{row['n_left']} of {row['n_seeds']} [{row['low']:.2f}, {row['high']:.2f}]",
                "step": count(row["median"]) if row["n_left"] else "-",
                "first - latest": f"{count(row['first'])} - {count(row['latest'])}" if row["n_left"] else "-",
                "censored": f"{row['n_censored']} at {row['censored_at']}",
            }
            for row in records(times)
        ]
    )
