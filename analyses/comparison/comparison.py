"""Curricula side by side on what they may have learned: function classes, or input distributions.

For each curriculum and condition the error over the last quarter of the points in units of the no-context optimum: mean
over independent seeds, with a t-interval widened by the sampling of prompts. A condition is learned if the interval
lies at or below one half, as `interp history` has it; in part if it lies between one half and 1; not learned if it lies
higher; open if it holds one half. Where some seeds learned it and others did not
(`interp.statistics.seeds.all_or_nothing`), the outcome is all or nothing: the count with its exact interval stands in
the place of an interval for the mean. What a condition costs beside others is the difference to the curriculum that
trains on it alone, Welch interval likewise. In the tables the condition is the `function_class`.
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
"""By curriculum and condition, an error of the paper's in units of the no-context optimum."""


def in_units(errors: Mapping[str, Mapping[str, float]], no_context: Mapping[str, float]) -> Published:
    """The paper's errors by curriculum and condition, over those of the no-context optimum.

    >>> in_units({"mixed": {"linear": 0.56}}, {"linear": 1.12})
    {('mixed', 'linear'): 0.5}
    """
    return {(key, name): error / no_context[name] for key, row in errors.items() for name, error in row.items()}


def compare(
    question: str,
    groups: Groups,
    errors: Mapping[str, ClassErrors],
    found: Mapping[str, pd.DataFrame],
    published: Published,
    protocol: Mapping[str, Any],
) -> Findings:
    """Errors over seeds, forgetting, costs, and the paper's cells beside them.

    Args:
        question: in one line.
        groups: the runs by curriculum.
        errors: of all of them, by condition.
        found: the histories that there are, by run.
        published: the paper's cells.
        protocol: prompts and seed.
    """
    ends = end_errors(groups, errors)
    pooled = pooled_errors(groups, errors)
    costs = cost_table(groups, errors)
    lost = losses(found, groups.curriculum_of)
    pooled_losses = by_curriculum(lost) if len(lost) else lost
    compared = against_paper(pooled, published)
    curves = pd.concat([one.curves().assign(function_class=name) for name, one in errors.items()], ignore_index=True)
    curriculum_of = {"": "no context"} | groups.curriculum_of
    curves.insert(0, "curriculum", [curriculum_of[name] for name in curves["checkpoint"]])
    training = tidy(found, groups.curriculum_of)
    sentences = [
        *learned_sentences(pooled, groups.conditions),
        *(forgetting_sentences(lost, pooled_losses) if len(lost) else []),
        *cost_sentences(costs),
        *paper_sentences(compared),
        *split_note(pooled),
        *groups.notes(),
    ]
    without = [one.name for one in groups.checkpoints if one.name not in found]
    if without:
        sentences.append(
            f"Whether {listed(without)} forgot cannot be said: no history of the error over the last points."
        )
    tables = {"curves": curves, "ends": ends, "by_curriculum": pooled, "costs": costs, "paper": compared}
    figures = {"curves": lambda: plot_curves(curves)}
    if len(lost):
        tables |= {"forgetting": lost, "forgetting_by_curriculum": pooled_losses, "training": training}
        figures["training"] = lambda: plot_training(training)
    whole = {**groups.protocol, **protocol, "learned at or below": FRACTION}
    return Findings(question, sentences, whole, tables, shown(pooled, costs, pooled_losses), figures)


def end_errors(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per checkpoint and class: `nmse` and `no_context` over the last quarter of the points, their `ratio` with
    its interval over prompts, and whether the run `trained` on the class."""
    rows = []
    for one in groups.checkpoints:
        for name, of_class in errors.items():
            ratio = of_class.ratio(one.name)
            rows.append(
                {
                    "curriculum": groups.curriculum_of[one.name],
                    "checkpoint": one.name,
                    "function_class": name,
                    "trained": name in groups.kind.trains_on(one.config),
                    "nmse": of_class.tails(one.name).mean(),
                    "no_context": of_class.tails().mean(),
                    "ratio": ratio.value,
                    "ci_low": ratio.low,
                    "ci_high": ratio.high,
                }
            )
    return pd.DataFrame(rows)


def pooled_errors(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per curriculum and class: the mean `ratio` over seeds with its interval `low`, `high` over seeds and
    prompts (prompts alone for one seed, none where seeds are all or nothing), its range, how many seeds are at or below
    one half with the exact interval of their share, `share_low`, `share_high`, and the `outcome`."""
    rows = []
    for curriculum, same in groups.by_curriculum.items():
        for name, of_class in errors.items():
            names = [one.name for one in same]
            ratios = of_class.values(names)
            mean, n_learned = of_class.mean_ratio(names), int(np.sum(ratios <= FRACTION))
            share_low, share_high = exact_interval(n_learned, len(ratios))
            rows.append(
                {
                    "curriculum": curriculum,
                    "function_class": name,
                    "trained": name in groups.kind.trains_on(same[0].config),
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
    """
    >>> [outcome(*limits) for limits in ((0.1, 0.2), (0.4, 0.6), (0.6, 0.8), (0.9, 1.1), (math.nan, math.nan))]
    ['learned', 'open', 'in part', 'not learned', 'all or nothing']
    """
    if math.isnan(low):
        return SPLIT
    if low <= FRACTION:
        return "learned" if high <= FRACTION else "open"
    return "in part" if high < 1 else "not learned"


def cost_table(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per curriculum of several classes and class with single runs: `difference` of the mean ratios, above 0 =
    worse than training on the class alone, with its interval over seeds (Welch) and prompts; NaN with one seed."""
    rows = []
    for curriculum in (name for name in SEVERAL if name in groups.by_curriculum):
        for name, of_class in errors.items():
            ours, theirs = ([one.name for one in groups.by_curriculum.get(of, ())] for of in (curriculum, single(name)))
            if not theirs:
                continue
            ratios = {"ratio": of_class.values(ours).mean(), "single": of_class.values(theirs).mean()}
            about = {"curriculum": curriculum, "function_class": name} | ratios
            value, low, high = of_class.difference(ours, theirs)
            sizes = {"n_seeds": len(ours), "n_single": len(theirs)}
            rows.append(about | {"difference": value, "low": low, "high": high} | sizes)
    columns = ["curriculum", "function_class", "ratio", "single", "difference", "low", "high", "n_seeds", "n_single"]
    return pd.DataFrame(rows, columns=columns)


def learned_sentences(pooled: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """What each curriculum learned of the classes it trains on, and who learned all classes that there are."""
    sentences, everything = [], []
    for curriculum, arms in pooled.loc[pooled["trained"]].groupby("curriculum", sort=False):
        rows = records(arms)
        by_outcome = {what: [row for row in rows if row["outcome"] == what] for what in OUTCOMES}
        said = [f"{what}: {', '.join(map(cell_text, of))}" for what, of in by_outcome.items() if of]
        n_seeds = rows[0]["n_seeds"]
        over = f"{n_seeds} seeds" if n_seeds > 1 else "1 seed, interval over prompts only"
        sentences.append(f"{curriculum} ({over}) - {'; '.join(said)}.")
        if len(by_outcome["learned"]) == len(classes):
            everything.append(str(curriculum))
    if len(classes) > 1:
        who = listed(everything) if everything else "no curriculum here"
        sentences.append(f"All of {listed(classes)}: learned by {who}.")
    return sentences


def cell_text(row: Mapping[str, Any]) -> str:
    """One class's error in units of the no-context optimum, and how many seeds learned it."""
    return f"{row['function_class']} {mean_text(row)}, {share_text(row)}"


def split_note(pooled: pd.DataFrame) -> list[str]:
    """What stands in the place of the t-interval, and where."""
    split = [f"{row['curriculum']} on {row['function_class']}" for row in records(pooled) if row["outcome"] == SPLIT]
    text = "Shares of seeds have exact 95 % intervals (Clopper-Pearson)"
    if not split:
        return [f"{text}; intervals of means are over seeds of one kind."]
    return [f"{text}. Seeds are of two kinds, all or nothing, in {listed(split)}: their means have no interval."]


def mean_text(row: Mapping[str, Any]) -> str:
    return (
        f"mean {number(row['ratio'])}" if row["outcome"] == SPLIT else interval(row["ratio"], row["low"], row["high"])
    )


def share_text(row: Mapping[str, Any]) -> str:
    """The count of seeds that learned it, with the exact interval of the share."""
    return f"{row['n_learned']} of {row['n_seeds']} seeds [{row['share_low']:.2f}, {row['share_high']:.2f}]"


def cost_sentences(costs: pd.DataFrame) -> list[str]:
    """Mixed against the class alone, at the same number of steps."""
    sentences = []
    for row in records(costs.loc[costs["curriculum"] == "mixed"]):
        text = interval(row["difference"], row["low"], row["high"])
        beside = f"mixed ends at {row['ratio']:.3f} of the no-context optimum, {single(row['function_class'])} at "
        beside = f"On {row['function_class']} {beside}{row['single']:.3f}: difference {text}"
        sentences.append(f"{beside}, {cost_verdict(row)}.")
    return sentences


def cost_verdict(row: Mapping[str, Any]) -> str:
    if math.isnan(row["low"]):
        few = min(row["n_seeds"], row["n_single"]) < 2
        return f"no interval {'with one seed' if few else 'where some seeds learn it and others do not'}"
    if row["low"] > 0:
        return "a cost of training on several classes"
    return "a gain from training on several classes" if row["high"] < 0 else "which these seeds cannot tell from none"


def shown(pooled: pd.DataFrame, costs: pd.DataFrame, lost: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Curricula down, classes across."""
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
    text = f"{mean_text(row)}, {share_text(row)}"
    return text if row["trained"] else f"({number(row['ratio'])})"


def grid(table: pd.DataFrame, cell: Callable[[Mapping[str, Any]], str]) -> pd.DataFrame:
    """A table of curricula by classes, cells as text."""
    rows: dict[str, dict[str, str]] = {}
    for row in records(table):
        rows.setdefault(row["curriculum"], {"curriculum": row["curriculum"]})[row["function_class"]] = cell(row)
    return pd.DataFrame(list(rows.values())).fillna("-")


def against_paper(pooled: pd.DataFrame, published: Published) -> pd.DataFrame:
    """The cells that the paper has too: its ratio, ours, and whether both are learned (`agrees`: yes, no, open)."""
    rows = []
    for row in records(pooled):
        theirs = published.get((row["curriculum"], row["function_class"]))
        if theirs is None:
            continue
        same = (row["outcome"] == "learned") == (theirs <= FRACTION)
        agrees = "open" if row["outcome"] in ("open", SPLIT) else "yes" if same else "no"
        kept = {key: row[key] for key in PAPER_COLUMNS[:-2]}
        rows.append(kept | {"published": theirs, "agrees": agrees})
    return pd.DataFrame(rows, columns=list(PAPER_COLUMNS))


def paper_sentences(compared: pd.DataFrame) -> list[str]:
    """Where learned means the same here and there."""
    if compared.empty:
        return []
    rows = records(compared)
    by_verdict = {what: [row for row in rows if row["agrees"] == what] for what in ("yes", "no", "open")}
    n_agree = len(by_verdict["yes"])
    text = f"Of the paper's {len(rows)} cells (curriculum, class; one seed each) {n_agree} agree on learned or not"
    for what, word in (("no", "DISAGREE"), ("open", "open")):
        if by_verdict[what]:
            said = [
                f"{row['curriculum']} on {row['function_class']} (paper {row['published']:.2f}, here "
                f"{mean_text(row)}, {row['n_learned']} of {row['n_seeds']} learned it)"
                for row in by_verdict[what]
            ]
            text += f"; {len(said)} {word}: {', '.join(said)}"
    return [f"{text}. Sizes, steps and dimensions differ from the paper's, so a disagreement is about this setting."]
