"""Which curricula learn which function classes, and which forget? (paper.md, section 6)

1. Errors of every checkpoint on all classes, on the same prompts.
2. For each curriculum and class the error over the last quarter of the points in units of the no-context optimum: mean
   over independent seeds, with a t-interval widened by the sampling of prompts. A class is learned if the interval lies
   at or below one half, as `interp history` has it; in part if it lies between one half and 1; not learned if it lies
   higher; open if it holds one half.
3. What a class costs beside others: the difference to the curriculum that trains on it alone, Welch interval likewise.
4. What was learned and lost again, from the histories (`analyses.curves.forgetting`).
5. The same cells in the paper's figures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.curves.forgetting import by_curriculum, forgetting_sentences, losses
from analyses.curves.histories import histories, tidy
from analyses.curves.same_prompts import ClassErrors, measure
from analyses.curves.seed_plots import plot_curves, plot_training
from analyses.findings import Findings
from analyses.groups import Groups, group, single
from analyses.words import listed
from training.checkpoint import Checkpoint
from training.convergence import FRACTION
from training.output import interval, number, records

QUESTION = "Which curricula learn which function classes, and which forget?"
SEVERAL = ("mixed", "random", "sequential")
OUTCOMES = ("learned", "in part", "not learned", "open")
PAPER_COLUMNS = ("curriculum", "function_class", "ratio", "low", "high", "n_learned", "n_seeds", "outcome")
PAPER_COLUMNS += ("published", "agrees")
PAPER_NO_CONTEXT = {"linear": 1.12, "quadratic": 14.7, "cubic": 619.0}
PAPER = {
    ("mixed", "linear"): 0.027,
    ("mixed", "quadratic"): 0.61,
    ("mixed", "cubic"): 8.0,
    ("random", "linear"): 0.078,
    ("random", "quadratic"): 8.6,
    ("random", "cubic"): 21.0,
    ("sequential", "linear"): 17.0,
    ("sequential", "quadratic"): 29.0,
    ("sequential", "cubic"): 5.0,
    ("single:linear", "linear"): 0.007,
    ("single:quadratic", "quadratic"): 14.3,
    ("single:cubic", "cubic"): 5.0,
}
"""MSE / n_dims after 90 examples (upper bounds where the line lies on the axis), and the no-context optimum on the same
64 prompts: paper.md, sections 5 and 6. One seed each."""


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int, seed: int) -> Findings:
    """Errors over seeds, forgetting, costs, and the paper's cells beside them.

    Args:
        checkpoints: runs that differ in curriculum and seeds only.
        n_prompts: per class.
        seed: of the prompts and the resampling.

    Raises:
        UserError: the runs cannot be compared.
    """
    groups = group(checkpoints)
    errors = measure(groups.checkpoints, groups.classes, n_prompts=n_prompts, seed=seed)
    found, without = histories(groups.checkpoints)
    ends = end_errors(groups, errors)
    pooled = pooled_errors(groups, errors)
    costs = cost_table(groups, errors)
    lost = losses(found, groups.curriculum_of)
    pooled_losses = by_curriculum(lost) if len(lost) else lost
    compared = against_paper(pooled)
    curves = pd.concat([one.curves() for one in errors.values()], ignore_index=True)
    curriculum_of = {"": "no context"} | groups.curriculum_of
    curves.insert(0, "curriculum", [curriculum_of[name] for name in curves["checkpoint"]])
    training = tidy(found, groups.curriculum_of)
    sentences = [
        *learned_sentences(pooled, groups.classes),
        *(forgetting_sentences(lost, pooled_losses) if len(lost) else []),
        *cost_sentences(costs),
        *paper_sentences(compared),
        *groups.notes(),
    ]
    if without:
        sentences.append(
            f"Whether {listed(without)} forgot cannot be said: no history of the error over the last points."
        )
    tables = {"curves": curves, "ends": ends, "by_curriculum": pooled, "costs": costs, "paper": compared}
    figures = {"curves": lambda: plot_curves(curves)}
    if len(lost):
        tables |= {"forgetting": lost, "forgetting_by_curriculum": pooled_losses, "training": training}
        figures["training"] = lambda: plot_training(training)
    protocol = groups.protocol | {"prompts": n_prompts, "seed": seed, "learned at or below": FRACTION}
    return Findings(QUESTION, sentences, protocol, tables, shown(pooled, costs, pooled_losses), figures)


def end_errors(groups: Groups, errors: Mapping[str, ClassErrors]) -> pd.DataFrame:
    """One row per checkpoint and class: `nmse` and `no_context` over the last quarter of the points, their `ratio` with
    its interval over prompts, and whether the run `trained` on the class."""
    rows = []
    for one in groups.checkpoints:
        for name, of_class in errors.items():
            ratio = of_class.ratio(one.name)
            rows.append(
                {
                    "curriculum": one.config.curriculum,
                    "checkpoint": one.name,
                    "function_class": name,
                    "trained": name in one.config.trained_classes,
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
    prompts (prompts alone for one seed), its range, how many seeds are at or below one half, and the `outcome`."""
    rows = []
    for curriculum, same in groups.by_curriculum.items():
        for name, of_class in errors.items():
            names = [one.name for one in same]
            ratios = of_class.values(names)
            mean = of_class.mean_ratio(names)
            rows.append(
                {
                    "curriculum": curriculum,
                    "function_class": name,
                    "trained": name in same[0].config.trained_classes,
                    "ratio": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "ratio_min": ratios.min(),
                    "ratio_max": ratios.max(),
                    "n_learned": int(np.sum(ratios <= FRACTION)),
                    "n_seeds": len(ratios),
                    "outcome": outcome(mean.low, mean.high),
                }
            )
    return pd.DataFrame(rows)


def outcome(low: float, high: float) -> str:
    """
    >>> [outcome(*limits) for limits in ((0.1, 0.2), (0.4, 0.6), (0.6, 0.8), (0.9, 1.1))]
    ['learned', 'open', 'in part', 'not learned']
    """
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


def against_paper(pooled: pd.DataFrame) -> pd.DataFrame:
    """The cells that the paper has too: its ratio, ours, and whether both are learned (`agrees`: yes, no, open)."""
    rows = []
    for row in records(pooled):
        theirs = PAPER.get((row["curriculum"], row["function_class"]), math.nan)
        if math.isnan(theirs):
            continue
        published = theirs / PAPER_NO_CONTEXT[row["function_class"]]
        same = (row["outcome"] == "learned") == (published <= FRACTION)
        agrees = "open" if row["outcome"] == "open" else "yes" if same else "no"
        kept = {key: row[key] for key in PAPER_COLUMNS[:-2]}
        rows.append(kept | {"published": published, "agrees": agrees})
    return pd.DataFrame(rows, columns=list(PAPER_COLUMNS))


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
    """One class's error in units of the no-context optimum."""
    seeds = "" if row["n_learned"] in (0, row["n_seeds"]) else f", {row['n_learned']} of {row['n_seeds']} seeds"
    return f"{row['function_class']} {interval(row['ratio'], row['low'], row['high'])}{seeds}"


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
        return "no interval with one seed"
    if row["low"] > 0:
        return "a cost of training on several classes"
    return "a gain from training on several classes" if row["high"] < 0 else "which these seeds cannot tell from none"


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
                f"{interval(row['ratio'], row['low'], row['high'])}, {row['n_learned']} of {row['n_seeds']} learned it)"
                for row in by_verdict[what]
            ]
            text += f"; {len(said)} {word}: {', '.join(said)}"
    return [f"{text}. Sizes, steps and dimensions differ from the paper's, so a disagreement is about this setting."]


def shown(pooled: pd.DataFrame, costs: pd.DataFrame, lost: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Curricula down, classes across."""
    title = "error / no-context optimum at the last points, mean over seeds [interval], seeds at or below 0.5"
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
    text = f"{interval(row['ratio'], row['low'], row['high'])}, {row['n_learned']} of {row['n_seeds']}"
    return text if row["trained"] else f"({number(row['ratio'])})"


def grid(table: pd.DataFrame, cell: Callable[[Mapping[str, Any]], str]) -> pd.DataFrame:
    """A table of curricula by classes, cells as text."""
    rows: dict[str, dict[str, str]] = {}
    for row in records(table):
        rows.setdefault(row["curriculum"], {"curriculum": row["curriculum"]})[row["function_class"]] = cell(row)
    return pd.DataFrame(list(rows.values())).fillna("-")
