"""How many seeds leave the plateau, and is the plateau the no-context optimum? (paper.md, section 7)

1. Errors of every checkpoint on the classes that it trains on, on the same prompts, over the last quarter of the points
   and in units of the no-context optimum. A seed has left the plateau if its ratio is at most 1 - `MARGIN`; other
   thresholds stand beside, among them one half, which `interp history` calls converged.
2. Counts over independent seeds with exact intervals; Fisher's exact test of mixed against single, Holm over classes.
3. Whether those that have not left are at the no-context optimum: the interval of the ratio over prompts lies within
   1 ± `MARGIN`. An interval that merely includes 1 would say that the data are few.
4. When the others left, from the histories: first of three evaluations at or below a threshold.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from analyses.comparison.groups import Groups, group, single
from analyses.comparison.histories import MEASURES, class_history, histories
from analyses.comparison.paired_errors import ClassErrors, Interval, measure
from analyses.comparison.seed_figures import plot_counts, plot_ratios
from analyses.findings import Findings
from analyses.studies.plateaus.verdict import shown, verdict
from interp.display.text import listed
from interp.statistics.effects import holm
from interp.statistics.seeds import exact_interval
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records
from training.evaluation.convergence import FRACTION, HELD, first_held

QUESTION = "How many seeds leave the plateau, and is the plateau the no-context optimum?"
MARGIN = 0.1
LEFT = 1 - MARGIN
THRESHOLDS = (0.25, FRACTION, 0.75, LEFT)
AT, BELOW, ABOVE, UNDECIDED = "at the no-context optimum", "below it", "above it", "undecided"
PAPER_CLASS, PAPER = "quadratic", {"single:quadratic": (0, 5), "mixed": (3, 5)}
"""Seeds that converged in Figure 3 (paper.md, section 7); any threshold from 0.07 to 0.9 gives these counts."""


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int, seed: int) -> Findings:
    """Counts with exact intervals, tests, equivalence with the no-context optimum, and when runs left it.

    Args:
        checkpoints: runs that differ in curriculum and seeds only.
        n_prompts: per class.
        seed: of the prompts and the resampling.

    Raises:
        UserError: the runs cannot be compared.
    """
    groups = group(checkpoints)
    errors = measure(groups.checkpoints, groups.conditions, n_prompts=n_prompts, seed=seed, only_trained=True)
    found, without = histories(groups.checkpoints)
    runs = run_table(groups, errors)
    exits = exit_table(runs, found)
    counts = count_table(runs, exits)
    tests, paper = fisher_table(counts), paper_table(counts)
    sentences = [*verdict(runs, counts, exits, tests, paper, LEFT, MARGIN), *groups.notes()]
    if without:
        sentences.append(f"When {listed(without)} left cannot be said: no history of the error over the last points.")
    return Findings(
        QUESTION,
        sentences,
        groups.protocol
        | {"prompts": n_prompts, "seed": seed, "left at or below": LEFT, "equivalence margin": f"1 ± {MARGIN}"},
        {"runs": runs, "counts": counts, "exits": exits, "tests": tests, "paper": paper},
        shown(runs, counts, exits, LEFT, MARGIN),
        {"counts": lambda: plot_counts(counts, LEFT), "ratios": lambda: plot_ratios(runs, MARGIN, FRACTION)},
    )


def run_table(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per checkpoint and class that it trains on: `ratio` of its error to the no-context optimum's with the
    interval over prompts `ci_low`, `ci_high`; whether it has `left` at the end; `state`."""
    rows = []
    for one in groups.checkpoints:
        about = {"curriculum": one.config.curriculum, "checkpoint": one.name}
        for name in one.config.trained_classes:
            ratio = errors[name].ratio(one.name)
            measured = {"ratio": ratio.value, "ci_low": ratio.low, "ci_high": ratio.high}
            judged = {"left": ratio.value <= LEFT, "state": state(ratio)}
            rows.append(about | {"function_class": name} | measured | judged)
    return pd.DataFrame(rows)


def state(ratio: Interval) -> str:
    """Where an error stands to the no-context optimum's.

    >>> state(Interval(1.0, 0.98, 1.03)), state(Interval(0.7, 0.6, 0.8)), state(Interval(1.0, 0.8, 1.2))
    ('at the no-context optimum', 'below it', 'undecided')
    """
    if max(abs(ratio.low - 1), abs(ratio.high - 1)) <= MARGIN:
        return AT
    return BELOW if ratio.high < 1 else ABOVE if ratio.low > 1 else UNDECIDED


def exit_table(runs: pd.DataFrame, found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per run with a history, class that it trains on and threshold: the first of `HELD` evaluations at or
    below it (`step`, and the measures there) and `step_before`, the evaluation before; all missing if there is none."""
    rows = []
    for run in records(runs.loc[runs["checkpoint"].isin(list(found))]):
        arm = class_history(found[run["checkpoint"]], run["function_class"])
        about = {key: run[key] for key in ("curriculum", "checkpoint", "function_class")}
        rows += [about | {"threshold": threshold} | exit_of(arm, threshold) for threshold in THRESHOLDS]
    columns = ["curriculum", "checkpoint", "function_class", "threshold", "step_before", "step", *MEASURES]
    return pd.DataFrame(rows, columns=columns)


def exit_of(arm: pd.DataFrame, threshold: float) -> dict[str, float]:
    at = first_held(arm["ratio"].tolist(), threshold, HELD)
    if at is None:
        return dict.fromkeys(("step_before", "step", *MEASURES), math.nan)
    before = float(arm["step"].tolist()[at - 1]) if at else math.nan
    return {"step_before": before} | {name: float(arm[name].tolist()[at]) for name in ("step", *MEASURES)}


def count_table(runs: pd.DataFrame, exits: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum, class and threshold: how many seeds are at or below it at the end, of how many, the
    `share` with its exact interval, and `n_ever` of `n_histories` seeds that were there for `HELD` evaluations at any
    time."""
    rows = []
    for (curriculum, name), arm in runs.groupby(["curriculum", "function_class"], sort=False):  # pyright: ignore
        for threshold in THRESHOLDS:
            ratios, n_seeds = arm["ratio"].to_numpy(), len(arm)
            n_left = int((ratios <= threshold).sum())
            low, high = exact_interval(n_left, n_seeds)
            here = exits.loc[exits["checkpoint"].isin(arm["checkpoint"].tolist()) & (exits["function_class"] == name)]
            steps = here.loc[here["threshold"] == threshold, "step"].to_numpy()
            rows.append(
                {
                    "curriculum": curriculum,
                    "function_class": name,
                    "threshold": threshold,
                    "n_left": n_left,
                    "n_seeds": n_seeds,
                    "share": n_left / n_seeds,
                    "low": low,
                    "high": high,
                    "n_ever": sum(not math.isnan(step) for step in steps),
                    "n_histories": len(steps),
                }
            )
    return pd.DataFrame(rows)


def fisher(ours: tuple[int, int], theirs: tuple[int, int]) -> float:
    """Two-sided p of Fisher's exact test of two counts (k of n each).

    >>> round(fisher((3, 5), (0, 5)), 4), round(fisher((5, 5), (0, 5)), 4)
    (0.1667, 0.0079)
    """
    from scipy.stats import fisher_exact

    table = [[k, n - k] for k, n in (ours, theirs)]
    return float(fisher_exact(table)[1])  # pyright: ignore


def counted(counts: pd.DataFrame, threshold: float) -> dict[tuple[str, str], tuple[int, int]]:
    """By curriculum and class how many seeds of how many are at or below a threshold."""
    rows = records(counts.loc[counts["threshold"] == threshold])
    return {(row["curriculum"], row["function_class"]): (row["n_left"], row["n_seeds"]) for row in rows}


def fisher_table(counts: pd.DataFrame) -> pd.DataFrame:
    """One row per threshold (left, and converged) and class with mixed and single runs: both counts, Fisher's p, the
    smallest that so many seeds allow, and p after Holm over classes."""
    rows = []
    for threshold in (LEFT, FRACTION):
        cells = counted(counts, threshold)
        names = dict.fromkeys(name for _, name in cells)
        pairs = {name: (cells.get(("mixed", name)), cells.get((single(name), name))) for name in names}
        family = [(name, ours, theirs) for name, (ours, theirs) in pairs.items() if ours and theirs]
        p_values = [fisher(ours, theirs) for _, ours, theirs in family]
        for (name, ours, theirs), p_value, p_holm in zip(family, p_values, holm(p_values), strict=True):
            about = {"threshold": threshold, "function_class": name, "mixed_left": ours[0], "mixed_seeds": ours[1]}
            about |= {"single_left": theirs[0], "single_seeds": theirs[1], "p_value": p_value, "p_holm": p_holm}
            rows.append(about | {"smallest_p": fisher((ours[1], ours[1]), (0, theirs[1]))})
    columns = ["threshold", "function_class", "mixed_left", "mixed_seeds", "single_left", "single_seeds"]
    return pd.DataFrame(rows, columns=[*columns, "p_value", "p_holm", "smallest_p"])


def paper_table(counts: pd.DataFrame) -> pd.DataFrame:
    """Our counts of converged seeds beside the paper's (Figure 3): Fisher's p of a difference, and of its own."""
    cells, own = counted(counts, FRACTION), fisher(PAPER["mixed"], PAPER["single:quadratic"])
    rows = []
    for curriculum, theirs in PAPER.items():
        if (curriculum, PAPER_CLASS) in cells:
            ours = cells[curriculum, PAPER_CLASS]
            about = {"curriculum": curriculum, "function_class": PAPER_CLASS, "n_left": ours[0], "n_seeds": ours[1]}
            about |= {"published_left": theirs[0], "published_seeds": theirs[1]}
            rows.append(about | {"p_value": fisher(ours, theirs), "published_p": own})
    columns = ["curriculum", "function_class", "n_left", "n_seeds", "published_left", "published_seeds"]
    return pd.DataFrame(rows, columns=[*columns, "p_value", "published_p"])
