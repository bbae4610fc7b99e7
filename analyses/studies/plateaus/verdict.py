"""The words for `analyses.studies.plateaus.study`: what its tables say, by rule, and small tables for people."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.statistics.effects import SIGNIFICANT
from training.common.output import count, interval, records
from training.evaluation.convergence import FRACTION


def verdict(
    runs: pd.DataFrame,
    counts: pd.DataFrame,
    exits: pd.DataFrame,
    tests: pd.DataFrame,
    paper: pd.DataFrame,
    left: float,
    margin: float,
) -> list[str]:
    """Counts, tests, where the others stand, when they left, and the paper."""
    return [
        *count_sentences(counts, left),
        *fisher_sentences(tests),
        *stayed_sentences(runs, margin),
        *threshold_sentences(counts, left),
        *exit_sentences(exits, left),
        *paper_sentences(paper),
    ]


def count_sentences(counts: pd.DataFrame, left: float) -> list[str]:
    """By class, how many seeds of each curriculum have left; and who left and came back."""
    sentences = []
    for name, arms in counts.loc[counts["threshold"] == left].groupby("function_class", sort=False):
        rows = records(arms)
        sentences.append(f"{name}: left the plateau in {'; '.join(map(count_text, rows))} (exact 95 % of the share).")
        sentences += [
            f"On {name} {row['n_ever']} {row['curriculum']} seeds had left it at some time and {row['n_left']} have at "
            "the end: forgotten, or near the threshold."
            for row in rows
            if row["n_histories"] == row["n_seeds"] and row["n_ever"] > row["n_left"]
        ]
    return sentences


def count_text(row: Mapping[str, Any]) -> str:
    return f"{row['n_left']} of {row['n_seeds']} {row['curriculum']} seeds [{row['low']:.2f}, {row['high']:.2f}]"


def fisher_sentences(tests: pd.DataFrame) -> list[str]:
    """Mixed against single, a sentence per threshold."""
    sentences = []
    for threshold, arms in tests.groupby("threshold", sort=False):
        said = [
            f"{row['function_class']} {row['mixed_left']} of {row['mixed_seeds']} against {row['single_left']} of "
            f"{row['single_seeds']}, {'a difference' if row['p_holm'] <= SIGNIFICANT else 'no difference shown'} "
            f"(p = {row['p_value']:.3f}, Holm {row['p_holm']:.3f}, {row['smallest_p']:.3f} the least possible)"
            for row in records(arms)
        ]
        sentences.append(
            f"At or below {threshold:g} of the no-context optimum, mixed against single (Fisher): {'; '.join(said)}."
        )
    return sentences


def stayed_sentences(runs: pd.DataFrame, margin: float) -> list[str]:
    """Where the runs stand that have not left."""
    sentences = []
    stayed = runs.loc[~runs["left"].astype(bool)]
    for (curriculum, name), arm in stayed.groupby(["curriculum", "function_class"], sort=False):  # pyright: ignore
        states = arm["state"].tolist()
        said = ", ".join(f"{states.count(what)} {what}" for what in dict.fromkeys(states))
        low, high = min(arm["ratio"].tolist()), max(arm["ratio"].tolist())
        span = f"{low:.3f} to {high:.3f}" if len(arm) > 1 else f"{low:.3f}"
        sentences.append(
            f"{curriculum} on {name}, the {len(arm)} that stayed: {said} (error / no-context optimum {span}; at = each "
            f"run's interval over prompts lies within 1 ± {margin:g})."
        )
    return sentences


def threshold_sentences(counts: pd.DataFrame, left: float) -> list[str]:
    """Which counts hang on where the threshold lies."""
    said, lowest = [], min(counts["threshold"].tolist())
    cells = counts.groupby(["curriculum", "function_class"], sort=False)
    for (curriculum, name), arm in cells:  # pyright: ignore
        rows = records(arm)
        if len({row["n_left"] for row in rows}) > 1:
            by_threshold = ", ".join(f"{row['n_left']} at {row['threshold']:g}" for row in rows)
            said.append(f"{curriculum} on {name} ({by_threshold})")
    if not said:
        return [f"No count depends on the threshold, from {lowest:g} to {left:g} of the no-context optimum."]
    return [
        f"{len(said)} of {len(cells)} counts depend on the threshold ({FRACTION:g} is what `interp history` calls "
        f"converged): {'; '.join(said)}."
    ]


def exit_sentences(exits: pd.DataFrame, left: float) -> list[str]:
    """By class, when runs left: medians, with the range over the seeds that did."""
    sentences = []
    reached = exits.loc[(exits["threshold"] == left) & exits["step"].notna()]
    for name, arms in reached.groupby("function_class", sort=False):
        said = [f"{curriculum} at {exit_text(arm)}" for curriculum, arm in arms.groupby("curriculum", sort=False)]
        unseen = "; 0 = before it saw the class" if min(arms["prompts_seen"].tolist()) == 0 else ""
        sentences.append(f"{name} was left by {'; '.join(said)} (median [range] over the seeds that left{unseen}).")
    return sentences


def exit_text(arm: pd.DataFrame) -> str:
    return (
        f"step {span(arm['step'])}, {span(arm['prompts_seen'])} prompts of the class, {span(arm['flops'])} operations"
    )


def span(values: Any) -> str:
    """
    >>> span(pd.Series([100.0, 300.0, 200.0]))
    '200 [100-300]'
    """
    ordered = sorted(values.dropna().tolist())
    if not ordered:
        return "-"
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return count(middle) + (f" [{count(ordered[0])}-{count(ordered[-1])}]" if ordered[0] != ordered[-1] else "")


def paper_sentences(paper: pd.DataFrame) -> list[str]:
    """Beside the counts of the paper's Figure 3."""
    rows = records(paper)
    if not rows:
        return []
    said = [
        f"{row['curriculum']} {row['published_left']} of {row['published_seeds']} there, {row['n_left']} of "
        f"{row['n_seeds']} here, {'DIFFERENT' if row['p_value'] <= SIGNIFICANT else 'no difference shown'} "
        f"(p = {row['p_value']:.3f})"
        for row in rows
    ]
    return [
        f"Beside the paper on {rows[0]['function_class']}: {'; '.join(said)}. Its own 3 of 5 against 0 of 5 has "
        f"p = {rows[0]['published_p']:.2f}: five seeds a side show no difference smaller than 4 of 5."
    ]


def shown(
    runs: pd.DataFrame, counts: pd.DataFrame, exits: pd.DataFrame, left: float, margin: float
) -> dict[str, pd.DataFrame]:
    """Counts, curricula by classes; the runs that have not left; when the others did."""
    cells: dict[str, dict[str, str]] = {}
    for row in records(counts.loc[counts["threshold"] == left]):
        cell = f"{row['n_left']} of {row['n_seeds']} [{row['low']:.2f}, {row['high']:.2f}]"
        cells.setdefault(row["curriculum"], {"curriculum": row["curriculum"]})[row["function_class"]] = cell
    title = f"seeds that have left the plateau (error <= {left:g} of the no-context optimum) [exact 95 % of the share]"
    tables = {title: pd.DataFrame(list(cells.values())).fillna("-")}
    stayed = [
        {
            "run": row["checkpoint"],
            "class": row["function_class"],
            "error / no-context": interval(row["ratio"], row["ci_low"], row["ci_high"]),
            "where": row["state"],
        }
        for row in records(runs.loc[~runs["left"].astype(bool)])
    ]
    if stayed:
        tables[f"runs that have not left [interval over prompts]; at = within 1 ± {margin:g}"] = pd.DataFrame(stayed)
    when = when_table(exits.loc[exits["threshold"].isin([FRACTION, left])])
    return tables | ({"first of three evaluations at or below a threshold, median [range]": when} if len(when) else {})


def when_table(exits: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (curriculum, name, threshold), arm in exits.groupby(  # pyright: ignore
        ["curriculum", "function_class", "threshold"], sort=False
    ):
        about = {"curriculum, class": f"{curriculum}, {name}", "threshold": f"{threshold:g}"}
        n_left = int(arm["step"].notna().to_numpy().sum())
        spans = {"step": span(arm["step"]), "prompts of the class": span(arm["prompts_seen"])}
        rows.append(about | {"seeds": f"{n_left} of {len(arm)}"} | spans | {"operations": span(arm["flops"])})
    return pd.DataFrame(rows)
