"""The words for `analyses.studies.efficiency.study`: what its tables say, by rule, and small tables for people."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from training.common.output import count, interval, number, records

NINTH = 1 / 9
TIE = 1e-9  # rounding is no difference
Row = Mapping[str, Any]


def verdict(ratios: pd.DataFrame, matched: pd.DataFrame, needs: pd.DataFrame) -> list[str]:
    """Per curriculum and class: data to equal error, compute to equal error, error at equal compute."""
    if ratios.empty:
        have = ", ".join(dict.fromkeys(needs["curriculum"]))
        return [f"Nothing to compare: mixed or random and single runs of the same class are needed (here: {have})."]
    sentences = []
    for (curriculum, name), arm in ratios.groupby(["curriculum", "function_class"], sort=False):  # pyright: ignore
        sentences.append(need_sentence(curriculum, name, records(arm)))
        here = matched.loc[(matched["curriculum"] == curriculum) & (matched["function_class"] == name)]
        sentences.append(matched_sentence(records(here)[-1]))
    return [
        *sentences,
        "The paper's 1/9 is the share of cubic steps at equal compute, from one run each and training losses: it is no "
        "saving of compute. Intervals are exact for a constant ratio between seeds (ranks); with fewer than four seeds "
        "a side there is none (0 to infinity).",
    ]


def need_sentence(curriculum: str, name: str, rows: list[dict[str, Any]]) -> str:
    """At the lowest error that most of its seeds reach, or that there is none; and what only the single runs reach."""
    classes, compute = (
        {row["threshold"]: row for row in rows if row["measure"] == of} for of in ("prompts_seen", "flops")
    )
    reached = [threshold for threshold, row in classes.items() if 2 * row["n_reached"] > row["n_seeds"]]
    if not reached:
        return (
            f"{name}, {curriculum}: no error that can be compared; even {max(classes):g} of the no-context optimum is "
            f"reached by {reached_text(curriculum, classes[max(classes)])}."
        )
    hardest = min(reached)
    data, work = classes[hardest], compute[hardest]
    text = (
        f"{name}, to {hardest:g} of the no-context optimum (reached by {reached_text(curriculum, data)}): "
        f"{curriculum} needs {ratio_text(data)} of the prompts of the class that training on it alone needs - "
        f"{ninth(data)} - and {ratio_text(work)} of the operations - {cheaper(work)}."
    )
    easier = sorted(classes[other]["value"] for other in reached if other != hardest)
    easier = [value for value in easier if not math.isnan(value)]
    if easier:
        span = " to ".join(dict.fromkeys((figure(easier[0]), figure(easier[-1]))))
        text += f" At easier errors: {span} of the prompts{', 0 = before it saw the class' if not easier[0] else ''}."
    harder = [
        other for other, row in classes.items() if other < hardest and 2 * row["single_reached"] > row["single_seeds"]
    ]
    if harder:
        text += f" {min(harder):g} is reached by {reached_text(curriculum, classes[min(harder)])}."
    return text


def reached_text(curriculum: str, row: Row) -> str:
    single = f"{row['single_reached']} of {row['single_seeds']} single seeds"
    return f"{row['n_reached']} of {row['n_seeds']} {curriculum}, {single}"


def ratio_text(row: Row) -> str:
    """The median with its rank interval, or its bounds."""
    limits = f"[{figure(row['rank_low'])}, {figure(row['rank_high'])}]"
    if not math.isnan(row["value"]):
        return f"{figure(row['value'])} {limits}"
    if row["at_least"] > 0 and math.isfinite(row["at_most"]):
        return f"{figure(row['at_least'])} to {figure(row['at_most'])} {limits}"
    if row["at_least"] > 0:
        return f"at least {figure(row['at_least'])} {limits}"
    return (
        f"at most {figure(row['at_most'])} {limits}" if math.isfinite(row["at_most"]) else f"an unknown share {limits}"
    )


def figure(value: float) -> str:
    """
    >>> figure(0.11111), figure(12.3456), figure(math.inf)
    ('0.111', '12.3', 'inf')
    """
    return f"{value:.3g}"


def ninth(row: Row) -> str:
    """What the interval says about 1/9 and about 1."""
    if row["rank_high"] < NINTH * (1 - TIE):
        return "LESS than a ninth"
    if row["rank_low"] > NINTH * (1 + TIE):
        above = "and less than all" if row["rank_high"] < 1 else "and no saving shown"
        return f"MORE than a ninth, {above}"
    return "a ninth fits" + ("" if row["rank_high"] < 1 else ", but so does no saving")


def cheaper(row: Row) -> str:
    """What the interval says about 1."""
    if row["rank_high"] < 1 - TIE:
        return "LESS compute"
    return "MORE compute" if row["rank_low"] > 1 + TIE else "no difference in compute shown"


def matched_sentence(row: Row) -> str:
    """The paper's comparison: all compute spent, errors side by side."""
    better = "no interval" if math.isnan(row["low"]) else "no difference shown"
    if row["high"] < 0:
        better = "BETTER than the class alone"
    elif row["low"] > 0:
        better = "WORSE than the class alone"
    difference = interval(row["difference"], row["low"], row["high"])
    return (
        f"{row['function_class']}, at the same compute ({count(row['flops'])} operations) and with "
        f"{row['data_share']:.2f} of the prompts of the class, {row['curriculum']} ends at {row['ratio']:.3f} of the "
        f"no-context optimum and the class alone at {row['single']:.3f}: difference {difference}, {better}."
    )


def shown(ratios: pd.DataFrame, matched: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Ratios by measure, one row per curriculum, class and error; errors at matched compute."""
    if ratios.empty:
        return {}
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in records(ratios):
        if not row["n_reached"] and not row["single_reached"]:
            continue
        cells = rows.setdefault(
            (row["curriculum"], row["function_class"], row["threshold"]),
            {
                "curriculum, class": f"{row['curriculum']}, {row['function_class']}",
                "error": f"{row['threshold']:g}",
                "reached": f"{row['n_reached']}/{row['n_seeds']}, {row['single_reached']}/{row['single_seeds']}",
            },
        )
        if row["measure"] != "prompts_total":  # as operations, in runs of one size
            cells[{"prompts_seen": "prompts of the class", "flops": "operations"}[row["measure"]]] = ratio_text(row)
    at_compute = [
        {
            "curriculum, class": f"{row['curriculum']}, {row['function_class']}",
            "compute": f"{row['compute_share']:g}",
            "prompts of the class": number(row["data_share"], 2),
            "error": number(row["ratio"]),
            "single": number(row["single"]),
            "difference": interval(row["difference"], row["low"], row["high"]),
        }
        for row in records(matched)
    ]
    title = "needed to reach an error (of the no-context optimum) / what the class alone needs [95 %, ranks of seeds]"
    return {
        f"{title}; reached: seeds, single seeds": pd.DataFrame(list(rows.values())),
        "at the same share of the compute of a run: share of the class's prompts, errors / no-context": pd.DataFrame(
            at_compute
        ),
    }
