"""The verdict of the study of plateaus: sentences that follow from its tables by rule.

1. Mixed and single runs of a class differ if Fisher's p is at most `SIGNIFICANT` after Holm.
2. Runs that stayed are at the no-context optimum if the interval of the ratio lies within 1 ± `MARGIN`.
3. A count depends on the threshold if it is not the same at all of `THRESHOLDS`.
4. The paper's count of a curriculum differs from ours if Fisher's p is at most `SIGNIFICANT`.
"""

import pandas as pd

from analyses.studies.plateaus.measures import CELL, LEFT, MARGIN, THRESHOLDS
from analyses.studies.plateaus.tables import format_range, format_share
from interp.display.text import counted
from interp.statistics.effects import SIGNIFICANT
from training.common.output import records
from training.common.table_rows import distinct, where
from training.evaluation.convergence import FRACTION

SENTENCES = {
    "count": "{function_class}: at the end of training {counts} had left the plateau (exact 95 % interval of the "
    "share of seeds).",
    "returned": "On {function_class} {n_ever} {curriculum} seeds had left it at some time and {n_left} have at the "
    "end: forgotten, or near the threshold.",
    "test": "At or below {threshold:g} of the no-context optimum, mixed against single (Fisher): {tests}.",
    "stayed": "{curriculum} on {function_class}, {runs} that did not leave: {states} (error over that of the "
    "no-context optimum {span}; at: the run's interval over prompts lies within 1 ± {margin:g}).",
    "no dependence": "No count depends on the threshold, from {low:g} to {high:g} of the no-context optimum.",
    "dependence": "In {n} of {n_counts} cases the number of seeds that ended below the threshold changes with it "
    "({converged:g}, at three evaluations in a row, is what `interp history` calls converged): {counts}.",
    "exit": "On {function_class} the plateau was left by {exits} (median [range] over the seeds that left{unseen}).",
    "paper": "Seeds that left the plateau on {function_class}, compared with the paper: {counts}. The paper's own 3 "
    "of 5 against 0 of 5 has p = {published_p:.2f}: with five seeds on each side only a difference of at "
    "least 4 seeds can be significant.",
    "no history": "It cannot be determined when {names} left: their histories do not hold the error over the last "
    "points.",
}


def verdict(
    runs: pd.DataFrame, counts: pd.DataFrame, exits: pd.DataFrame, tests: pd.DataFrame, paper: pd.DataFrame
) -> list[str]:
    """Counts, tests, the state of runs that stayed, the threshold, when the others left, and the paper."""
    return [
        *count_sentences(where(counts, threshold=LEFT)),
        *fisher_sentences(tests),
        *stayed_sentences(where(runs, left=False)),
        threshold_sentence(counts),
        *exit_sentences(where(exits, threshold=LEFT).dropna(subset=["step"])),
        *paper_sentences(paper),
    ]


def details(runs: pd.DataFrame, counts: pd.DataFrame, exits: pd.DataFrame) -> list[str]:
    """What the tables show row by row: how many left, how the others ended, and when the plateau was left."""
    return [
        *count_sentences(where(counts, threshold=LEFT)),
        *stayed_sentences(where(runs, left=False)),
        *exit_sentences(where(exits, threshold=LEFT).dropna(subset=["step"])),
    ]


def count_sentences(counts: pd.DataFrame) -> list[str]:
    """By class, how many seeds of each curriculum have left; and which left and came back."""
    sentences = []
    for function_class in distinct(counts, "function_class"):
        rows = records(where(counts, function_class=function_class))
        texts = [f"{row['n_left']} of {row['n_seeds']} {row['curriculum']} seeds {format_share(row)}" for row in rows]
        sentences.append(SENTENCES["count"].format(function_class=function_class, counts="; ".join(texts)))
        sentences += [
            SENTENCES["returned"].format(**row)
            for row in rows
            if row["n_histories"] == row["n_seeds"] and row["n_ever"] > row["n_left"]
        ]
    return sentences


def fisher_sentences(tests: pd.DataFrame) -> list[str]:
    """Rule 1, a sentence per threshold."""
    sentences = []
    for threshold in distinct(tests, "threshold"):
        texts = [
            f"{row['function_class']} {row['mixed_left']} of {row['mixed_seeds']} against {row['single_left']} of "
            f"{row['single_seeds']}, {'a difference' if row['p_holm'] <= SIGNIFICANT else 'no difference shown'} "
            f"(p = {row['p_value']:.3g}, Holm {row['p_holm']:.3g}, smallest possible {row['smallest_p']:.3g})"
            for row in records(where(tests, threshold=threshold))
        ]
        sentences.append(SENTENCES["test"].format(threshold=threshold, tests="; ".join(texts)))
    return sentences


def stayed_sentences(stayed: pd.DataFrame) -> list[str]:
    """Rule 2, by curriculum and class."""
    sentences = []
    for (curriculum, function_class), cell in stayed.groupby(CELL, sort=False):  # pyright: ignore
        states = ", ".join(f"{n} {state}" for state, n in cell["state"].value_counts(sort=False).items())
        span = f"{cell['ratio'].min():.3f}" + (f" to {cell['ratio'].max():.3f}" if len(cell) > 1 else "")
        names = {"curriculum": curriculum, "function_class": function_class, "runs": counted(len(cell), "run")}
        sentences.append(SENTENCES["stayed"].format(**names, states=states, span=span, margin=MARGIN))
    return sentences


def threshold_sentence(counts: pd.DataFrame) -> str:
    """Rule 3."""
    texts = []
    cells = counts.groupby(CELL, sort=False)
    for (curriculum, function_class), cell in cells:  # pyright: ignore
        if pd.Series(cell["n_left"]).nunique() > 1:
            by_threshold = ", ".join(f"{row['n_left']} at {row['threshold']:g}" for row in records(cell))
            texts.append(f"{curriculum} on {function_class} ({by_threshold})")
    if not texts:
        return SENTENCES["no dependence"].format(low=min(THRESHOLDS), high=LEFT)
    numbers = {"n": len(texts), "n_counts": len(cells), "converged": FRACTION}
    return SENTENCES["dependence"].format(**numbers, counts="; ".join(texts))


def exit_sentences(exits: pd.DataFrame) -> list[str]:
    """By class, when runs left: medians, with the range over the seeds that did."""
    sentences = []
    for function_class in distinct(exits, "function_class"):
        rows = where(exits, function_class=function_class)
        texts = [
            f"{curriculum} at step {format_range(pd.Series(cell['step']))}, "
            f"{format_range(pd.Series(cell['prompts_seen']))} prompts of the class, "
            f"{format_range(pd.Series(cell['flops']))} FLOPs"
            for curriculum, cell in rows.groupby("curriculum", sort=False)
        ]
        unseen = "; 0 = before it saw the class" if pd.Series(rows["prompts_seen"]).min() == 0 else ""
        sentences.append(SENTENCES["exit"].format(function_class=function_class, exits="; ".join(texts), unseen=unseen))
    return sentences


def paper_sentences(paper: pd.DataFrame) -> list[str]:
    """Rule 4."""
    rows = records(paper)
    texts = [
        f"{row['curriculum']} {row['published_left']} of {row['published_seeds']} there, {row['n_left']} of "
        f"{row['n_seeds']} here, {'DIFFERENT' if row['p_value'] <= SIGNIFICANT else 'no difference shown'} "
        f"(p = {row['p_value']:.3g})"
        for row in rows
    ]
    return [SENTENCES["paper"].format(**rows[0], counts="; ".join(texts))] if rows else []
