"""Comparison of curricula on function classes, or on input distributions, that they may have learned.

For each curriculum and condition (function class or input distribution) the error over the last quarter of the points
is given in units of the no-context optimum: the mean over independent seeds, with a t-interval widened by the sampling
of prompts. A condition is learned if the interval lies at or below one half (as in `interp history`), learned in part
if it lies between one half and 1, not learned if it lies higher, and open if it includes one half. If some seeds
learned it and others did not (`interp.statistics.seeds.all_or_nothing`), the outcome is all or nothing, and the count
of seeds with its exact interval replaces the interval of the mean. The cost of a condition is the difference to the
curriculum that trains on it alone, with a Welch interval widened in the same way. In the tables the condition is the
`function_class`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.comparison.forgetting import by_curriculum, forgetting_sentences, losses
from analyses.comparison.groups import Groups, single
from analyses.comparison.histories import tidy
from analyses.comparison.paired_errors import ClassErrors
from analyses.comparison.seed_figures import plot_curves, plot_training
from analyses.findings import Findings
from interp.display.text import listed
from interp.statistics.seeds import exact_interval
from training.common.output import interval, number, records
from training.evaluation.convergence import FRACTION

SEVERAL = ("mixed", "random", "sequential")
SPLIT = "all or nothing"
OUTCOMES = ("learned", "in part", "not learned", "open", SPLIT)
PAPER_COLUMNS = ("curriculum", "function_class", "ratio", "low", "high", "n_learned", "n_seeds", "outcome")
PAPER_COLUMNS += ("published", "agrees")
Published = Mapping[tuple[str, str], float]
"""The paper's error by curriculum and condition, in units of the no-context optimum."""
SENTENCES = {
    "learned": "{curriculum} ({seeds}) - {outcomes}.",
    "learned all": "All of {conditions}: learned by {curricula}.",
    "no history": "It cannot be determined whether {runs} forgot: their histories do not hold the error over the last "
    "points.",
    "intervals": "Shares of seeds have exact 95 % intervals (Clopper-Pearson); no mean is over both seeds that learned "
    "and seeds that did not.",
    "split": "Shares of seeds have exact 95 % intervals (Clopper-Pearson). Some seeds learned and others did not (all "
    "or nothing): {cells}; these means have no interval.",
    "cost": "On {function_class} mixed ends at {ratio:.3f} of the no-context optimum, {alone} at {single:.3f}: "
    "difference {interval}, {verdict}.",
    "one seed": "no interval with one seed",
    "mixed outcomes": "no interval where some seeds learn it and others do not",
    "worse": "a cost of training on several classes",
    "better": "a gain from training on several classes",
    "no difference": "not distinguishable from no difference",
    "paper": "Of the paper's {n_cells} cells (curriculum, class; one seed each) {n_agree} agree on learned or not"
    "{others}. Sizes, steps and dimensions differ from the paper's, so a disagreement is about this setting.",
    "paper cells": "; {n} {label}: {cells}",
    "paper cell": "{curriculum} on {function_class} (paper {published:.2f}, here {mean}, {n_learned} of {n_seeds} "
    "learned it)",
}


def in_units(errors: Mapping[str, Mapping[str, float]], no_context: Mapping[str, float]) -> Published:
    """The paper's errors by curriculum and condition, divided by those of the no-context optimum.

    >>> in_units({"mixed": {"linear": 0.56}}, {"linear": 1.12})
    {('mixed', 'linear'): 0.5}
    """
    return {(key, name): error / no_context[name] for key, row in errors.items() for name, error in row.items()}


def compare(
    question: str,
    groups: Groups,
    errors: Mapping[str, ClassErrors],
    histories: Mapping[str, pd.DataFrame],
    published: Published,
    protocol: Mapping[str, Any],
) -> Findings:
    """Errors over seeds, forgetting, costs, and a comparison with the paper's cells.

    Args:
        question: in one line.
        groups: the runs by curriculum.
        errors: of all runs, by condition.
        histories: by run, where they exist.
        published: the paper's cells.
        protocol: prompts and seed.
    """
    pooled, costs = pooled_errors(groups, errors), cost_table(groups, errors)
    lost = losses(histories, groups.curriculum_of)
    pooled_losses = by_curriculum(lost) if len(lost) else lost
    compared = against_paper(pooled, published)
    without = [checkpoint.name for checkpoint in groups.checkpoints if checkpoint.name not in histories]
    learned = learned_sentences(pooled, groups.conditions)
    sentences = [
        *learned,
        *(forgetting_sentences(lost, pooled_losses) if len(lost) else []),
        *cost_sentences(costs),
        *paper_sentences(compared),
        split_note(pooled),
        *groups.notes(),
        *([SENTENCES["no history"].format(runs=listed(without))] if without else []),
    ]
    curves = curve_table(groups, errors)
    tables = {"curves": curves, "ends": end_errors(groups, errors), "by_curriculum": pooled, "costs": costs}
    tables["paper"] = compared
    figures = {"curves": lambda: plot_curves(curves)}
    if len(lost):
        training = tidy(histories, groups.curriculum_of)
        tables |= {"forgetting": lost, "forgetting_by_curriculum": pooled_losses, "training": training}
        figures["training"] = lambda: plot_training(training)
    whole = {**groups.protocol, **protocol, "learned at or below": FRACTION}
    overview = overview_tables(pooled, costs, pooled_losses)
    details = learned[:-1] if len(groups.conditions) > 1 else learned  # the last one is about all curricula
    return Findings(question, sentences, whole, tables, overview, figures, details=details)


def curve_table(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """The error by number of examples of every run and of the no-context optimum."""
    parts = [measured.curves().assign(function_class=name) for name, measured in errors.items()]
    curves = pd.concat(parts, ignore_index=True)
    curricula = {"": "no context"} | groups.curriculum_of
    curves.insert(0, "curriculum", [curricula[name] for name in curves["checkpoint"]])
    return curves


def end_errors(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per checkpoint and class: `nmse` and `no_context` over the last quarter of the points, their `ratio` with
    its interval over prompts, and whether the run `trained` on the class."""
    rows = []
    for checkpoint in groups.checkpoints:
        for function_class, measured in errors.items():
            ratio = measured.ratio(checkpoint.name)
            rows.append(
                {
                    "curriculum": groups.curriculum_of[checkpoint.name],
                    "checkpoint": checkpoint.name,
                    "function_class": function_class,
                    "trained": function_class in groups.kind.trains_on(checkpoint.config),
                    "nmse": measured.tails(checkpoint.name).mean(),
                    "no_context": measured.tails().mean(),
                    "ratio": ratio.value,
                    "ci_low": ratio.low,
                    "ci_high": ratio.high,
                }
            )
    return pd.DataFrame(rows)


def pooled_errors(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per curriculum and class: the mean `ratio` over seeds with its interval `low`, `high` over seeds and
    prompts (prompts alone for one seed, none where seeds are all or nothing), its range, the number of seeds at or
    below one half with the exact interval of their share, `share_low`, `share_high`, and the `outcome`."""
    rows = []
    for curriculum, checkpoints in groups.by_curriculum.items():
        names = [checkpoint.name for checkpoint in checkpoints]
        for function_class, measured in errors.items():
            ratios, mean = measured.values(names), measured.mean_ratio(names)
            n_learned = int(np.sum(ratios <= FRACTION))
            share_low, share_high = exact_interval(n_learned, len(ratios))
            rows.append(
                {
                    "curriculum": curriculum,
                    "function_class": function_class,
                    "trained": function_class in groups.kind.trains_on(checkpoints[0].config),
                    "ratio": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "ratio_min": ratios.min(),
                    "ratio_max": ratios.max(),
                    "n_learned": n_learned,
                    "n_seeds": len(ratios),
                    "share_low": share_low,
                    "share_high": share_high,
                    "outcome": outcome(mean.low, mean.high),
                }
            )
    return pd.DataFrame(rows)


def outcome(low: float, high: float) -> str:
    """The outcome that follows from the interval of the mean ratio.

    >>> [outcome(*limits) for limits in ((0.1, 0.2), (0.4, 0.6), (0.6, 0.8), (0.9, 1.1), (math.nan, math.nan))]
    ['learned', 'open', 'in part', 'not learned', 'all or nothing']
    """
    if math.isnan(low):
        return SPLIT
    if low <= FRACTION:
        return "learned" if high <= FRACTION else "open"
    return "in part" if high < 1 else "not learned"


def cost_table(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per curriculum of several classes and class with single runs: `difference` of the mean ratios (above 0 =
    worse than training on the class alone) with its interval over seeds (Welch) and prompts; NaN with one seed."""
    columns = ["curriculum", "function_class", "ratio", "single", "difference", "low", "high", "n_seeds", "n_single"]
    rows = []
    for curriculum in (name for name in SEVERAL if name in groups.by_curriculum):
        for function_class, measured in errors.items():
            several, alone = (
                [checkpoint.name for checkpoint in groups.by_curriculum.get(name, ())]
                for name in (curriculum, single(function_class))
            )
            if alone:
                ratios = measured.values(several).mean(), measured.values(alone).mean()
                difference = measured.difference(several, alone)
                rows.append((curriculum, function_class, *ratios, *difference, len(several), len(alone)))
    return pd.DataFrame(rows, columns=columns)


def learned_sentences(pooled: pd.DataFrame, conditions: Sequence[str]) -> list[str]:
    """What each curriculum learned of the conditions that it trains on, and which curricula learned all there are."""
    sentences, learned_all = [], []
    for curriculum, table in pooled.loc[pooled["trained"]].groupby("curriculum", sort=False):
        rows = records(table)
        by_outcome = {name: [row for row in rows if row["outcome"] == name] for name in OUTCOMES}
        outcomes = [f"{name}: {', '.join(map(cell_text, cells))}" for name, cells in by_outcome.items() if cells]
        n_seeds = rows[0]["n_seeds"]
        seeds = f"{n_seeds} seeds" if n_seeds > 1 else "1 seed, interval over prompts only"
        values = {"curriculum": curriculum, "seeds": seeds, "outcomes": "; ".join(outcomes)}
        sentences.append(SENTENCES["learned"].format(**values))
        if len(by_outcome["learned"]) == len(conditions):
            learned_all.append(str(curriculum))
    if len(conditions) > 1:
        curricula = listed(learned_all or ["no curriculum here"])
        sentences.append(SENTENCES["learned all"].format(conditions=listed(conditions), curricula=curricula))
    return sentences


def cell_text(row: Mapping[str, Any]) -> str:
    """One class's error in units of the no-context optimum, and the number of seeds that learned it."""
    return f"{row['function_class']} {mean_text(row)}, {share_text(row)}"


def split_note(pooled: pd.DataFrame) -> str:
    """The intervals that are given, and the cells whose mean has none."""
    cells = [f"{row['curriculum']} on {row['function_class']}" for row in records(pooled) if row["outcome"] == SPLIT]
    return SENTENCES["split"].format(cells=listed(cells)) if cells else SENTENCES["intervals"]


def mean_text(row: Mapping[str, Any]) -> str:
    """The mean with its interval, if it has one."""
    if row["outcome"] == SPLIT:
        return f"mean {number(row['ratio'])}"
    return interval(row["ratio"], row["low"], row["high"])


def share_text(row: Mapping[str, Any]) -> str:
    """The number of seeds that learned it, with the exact interval of their share."""
    return f"{row['n_learned']} of {row['n_seeds']} seeds [{row['share_low']:.2f}, {row['share_high']:.2f}]"


def cost_sentences(costs: pd.DataFrame) -> list[str]:
    """Mixed against the class alone, at the same number of steps."""
    return [
        SENTENCES["cost"].format(
            **row,
            alone=single(row["function_class"]),
            interval=interval(row["difference"], row["low"], row["high"]),
            verdict=SENTENCES[cost_verdict(row)],
        )
        for row in records(costs.loc[costs["curriculum"] == "mixed"])
    ]


def cost_verdict(row: Mapping[str, Any]) -> str:
    """The name of the sentence that the interval of a difference allows."""
    if math.isnan(row["low"]):
        return "one seed" if min(row["n_seeds"], row["n_single"]) < 2 else "mixed outcomes"
    if row["low"] > 0:
        return "worse"
    return "better" if row["high"] < 0 else "no difference"


def overview_tables(pooled: pd.DataFrame, costs: pd.DataFrame, lost: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables of curricula by classes."""
    title = "error / no-context optimum at the last points, mean over seeds [interval], seeds at or below 0.5 [exact]"
    tables = {f"{title}; (not trained on)": grid(pooled, error_cell)}
    if len(costs):
        tables["difference to training on the class alone, above 0 = worse [interval over seeds and prompts]"] = grid(
            costs, lambda row: interval(row["difference"], row["low"], row["high"])
        )
    if len(lost):
        tables["share of the in-context gain lost by the end, seeds that forgot of those that had learned"] = grid(
            lost,
            lambda row: f"{number(row['lost'])}, {row['n_forgot']} of {row['n_learned']}" if row["n_learned"] else "-",
        )
    return tables


def error_cell(row: Mapping[str, Any]) -> str:
    return f"{mean_text(row)}, {share_text(row)}" if row["trained"] else f"({number(row['ratio'])})"


def grid(table: pd.DataFrame, cell: Callable[[Mapping[str, Any]], str]) -> pd.DataFrame:
    """A table of curricula by classes, cells as text."""
    rows: dict[str, dict[str, str]] = {}
    for row in records(table):
        rows.setdefault(row["curriculum"], {"curriculum": row["curriculum"]})[row["function_class"]] = cell(row)
    return pd.DataFrame(list(rows.values())).fillna("-")


def against_paper(pooled: pd.DataFrame, published: Published) -> pd.DataFrame:
    """The cells that the paper also has: its ratio, ours, and whether both are learned (`agrees`: yes, no, open)."""
    rows = []
    for row in records(pooled):
        ratio = published.get((row["curriculum"], row["function_class"]))
        if ratio is not None:
            is_same = (row["outcome"] == "learned") == (ratio <= FRACTION)
            agrees = "open" if row["outcome"] in ("open", SPLIT) else "yes" if is_same else "no"
            rows.append(row | {"published": ratio, "agrees": agrees})
    return pd.DataFrame(rows, columns=list(PAPER_COLUMNS))


def paper_sentences(compared: pd.DataFrame) -> list[str]:
    """Which cells of the paper agree on whether a condition is learned."""
    if compared.empty:
        return []
    others = ""
    for agrees, label in (("no", "DISAGREE"), ("open", "open")):
        rows = records(compared.loc[compared["agrees"] == agrees])
        cells = [SENTENCES["paper cell"].format(**row, mean=mean_text(row)) for row in rows]
        others += SENTENCES["paper cells"].format(n=len(cells), label=label, cells=", ".join(cells)) if cells else ""
    n_agree = int((compared["agrees"] == "yes").to_numpy().sum())
    return [SENTENCES["paper"].format(n_cells=len(compared), n_agree=n_agree, others=others)]
