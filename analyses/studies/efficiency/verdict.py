"""The verdict of the study of data efficiency: sentences that follow from its tables by rule.

1. A curriculum is compared at the lowest error that most of its seeds reach.
2. The rank interval of its share of the prompts of the class decides between less than a ninth, more, or neither; that
   of its share of the operations between less compute, more, or no difference shown.
3. At the same compute, Welch's interval of the difference of errors decides between better, worse, or neither.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.studies.efficiency.tables import format_number, format_ratio
from training.common.output import count, interval, records
from training.common.table_rows import distinct, where

NINTH = 1 / 9
TIE = 1e-9  # rounding is no difference
SENTENCES = {
    "nothing": "Nothing to compare: mixed or random and single runs of the same class are needed (given: {curricula}).",
    "paper": "The paper's 1/9 is the share of cubic steps at equal compute, from one run each and training losses: it "
    "is not a saving of compute. Intervals are exact if the ratio is the same in all seeds (a test of ranks); fewer "
    "than four seeds on a side allow every ratio from 0 to infinity.",
    "no history": "Left out, without a history of the error over the last points: {names}.",
    "not reached": "{function_class}, {curriculum}: no error can be compared; even {threshold:g} of the no-context "
    "optimum is reached by {reached}.",
    "need": "{function_class}, to {threshold:g} of the no-context optimum (reached by {reached}): {curriculum} needs "
    "{data} of the prompts of the class that training on it alone needs - {data_verdict} - and {compute} of the "
    "operations - {compute_verdict}.{easier}{harder}",
    "easier": " At easier errors: {shares} of the prompts{zero}.",
    "harder": " {threshold:g} is reached by {reached}.",
    "matched": "{function_class}, at the same compute ({operations} operations) and with {data_share:.2f} of the "
    "prompts of the class, {curriculum} ends at {ratio:.3f} of the no-context optimum and the class alone at "
    "{single:.3f}: difference {difference}, {verdict}.",
}
Row = Mapping[str, Any]


def verdict(ratios: pd.DataFrame, matched: pd.DataFrame, needs: pd.DataFrame) -> list[str]:
    """Per curriculum and class: data to equal error, compute to equal error, error at equal compute."""
    if ratios.empty:
        return [SENTENCES["nothing"].format(curricula=", ".join(distinct(needs, "curriculum")))]
    sentences = []
    for curriculum, function_class in ratios[["curriculum", "function_class"]].drop_duplicates().to_numpy():
        names = {"curriculum": curriculum, "function_class": function_class}
        sentences.append(need_sentence(records(where(ratios, **names)), **names))
        sentences.append(matched_sentence(records(where(matched, **names))[-1]))
    return [*sentences, SENTENCES["paper"]]


def details(ratios: pd.DataFrame, matched: pd.DataFrame) -> list[str]:
    """Errors at equal compute, and all about curricula after the first one."""
    if ratios.empty:
        return []
    pairs = ratios[["curriculum", "function_class"]].drop_duplicates().to_numpy()
    names = [{"curriculum": curriculum, "function_class": function_class} for curriculum, function_class in pairs]
    others = [name for name in names if name["curriculum"] != names[0]["curriculum"]]
    return [
        *(matched_sentence(records(where(matched, **name))[-1]) for name in names),
        *(need_sentence(records(where(ratios, **name)), **name) for name in others),
    ]


def need_sentence(rows: Sequence[Row], curriculum: str, function_class: str) -> str:
    """Rules 1 and 2, and what only the single runs reach."""
    names = {"curriculum": curriculum, "function_class": function_class}
    data, compute = (
        {row["threshold"]: row for row in rows if row["measure"] == measure} for measure in ("prompts_seen", "flops")
    )
    reached = [threshold for threshold, row in data.items() if 2 * row["n_reached"] > row["n_seeds"]]
    if not reached:
        threshold = max(data)
        return SENTENCES["not reached"].format(**names, threshold=threshold, reached=format_reached(data[threshold]))
    threshold = min(reached)
    return SENTENCES["need"].format(
        **names,
        threshold=threshold,
        reached=format_reached(data[threshold]),
        data=format_ratio(data[threshold]),
        data_verdict=compare_with_ninth(data[threshold]),
        compute=format_ratio(compute[threshold]),
        compute_verdict=compare_compute(compute[threshold]),
        easier=format_easier([data[easier]["value"] for easier in reached if easier != threshold]),
        harder=format_harder({harder: row for harder, row in data.items() if harder < threshold}),
    )


def format_easier(values: Sequence[float]) -> str:
    """The range of the ratios at other errors."""
    known = sorted(value for value in values if not math.isnan(value))
    if not known:
        return ""
    shares = " to ".join(dict.fromkeys((format_number(known[0]), format_number(known[-1]))))
    return SENTENCES["easier"].format(shares=shares, zero="" if known[0] else ", 0 = before it saw the class")


def format_harder(rows: Mapping[float, Row]) -> str:
    """The lowest error that most of the single runs reach, if it is among these."""
    reached = [threshold for threshold, row in rows.items() if 2 * row["single_reached"] > row["single_seeds"]]
    if not reached:
        return ""
    return SENTENCES["harder"].format(threshold=min(reached), reached=format_reached(rows[min(reached)]))


def format_reached(row: Row) -> str:
    return (
        f"{row['n_reached']} of {row['n_seeds']} {row['curriculum']}, {row['single_reached']} of "
        f"{row['single_seeds']} single seeds"
    )


def compare_with_ninth(row: Row) -> str:
    """What the interval says about 1/9 and about 1."""
    saving = row["rank_high"] < 1
    if row["rank_high"] < NINTH * (1 - TIE):
        return "LESS than a ninth"
    if row["rank_low"] > NINTH * (1 + TIE):
        return f"MORE than a ninth, {'and less than all' if saving else 'and no saving shown'}"
    return "consistent with a ninth" + ("" if saving else ", and with no saving")


def compare_compute(row: Row) -> str:
    """What the interval says about 1."""
    if row["rank_high"] < 1 - TIE:
        return "LESS compute"
    return "MORE compute" if row["rank_low"] > 1 + TIE else "no difference in compute shown"


def matched_sentence(row: Row) -> str:
    """Rule 3: the paper's comparison, all compute spent."""
    verdict = "no interval" if math.isnan(row["low"]) else "no difference shown"
    if row["high"] < 0:
        verdict = "BETTER than the class alone"
    elif row["low"] > 0:
        verdict = "WORSE than the class alone"
    difference = interval(row["difference"], row["low"], row["high"])
    values = {key: row[key] for key in ("function_class", "curriculum", "data_share", "ratio", "single")}
    return SENTENCES["matched"].format(**values, operations=count(row["flops"]), difference=difference, verdict=verdict)
