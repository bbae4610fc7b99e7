"""What `interp attribute` and `interp circuit` print, as tables for people."""

import math

from interp.attribution.attribute import Attribution
from interp.attribution.circuits import Circuits
from interp.display.result import displays
from interp.statistics.p_values import p_number
from training.common.output import Table, interval, number, records


def attribution_table(found: Attribution, top: int) -> Table:
    """The strongest nodes or edges by every method."""
    everything = records(found.table)
    names, methods = ([*dict.fromkeys(row[key] for row in everything)] for key in ("function_class", "method"))
    rows = []
    for name in names:
        tables = [
            [row for row in everything if (row["function_class"], row["method"]) == (name, method)]
            for method in methods
        ]
        order = sorted(range(len(tables[0])), key=lambda place, first=tables[0]: -first[place]["size"])
        rows += [
            [f"{name}: {found.name(tables[0][place])}"]
            + [interval(*(table[place][key] for key in ("effect", "ci_low", "ci_high"))) for table in tables]
            for place in order[:top]
        ]
    question = found.question
    caption = (
        f"{question.direction}, {question.corrupt}; effect: share of the way from the {question.base} run to the "
        f"other; the {top} strongest by {methods[0]}; {question.n_prompts} prompts, seed {question.seed}"
    )
    return Table(f"{found.title}: effects of patching {found.of}", [f"class: {found.of}", *methods], rows, caption)


def receipt_table(found: Attribution) -> Table:
    """One row per class and approximate method."""
    receipts = records(found.receipts)
    tops = [key[4:] for key in receipts[0] if key.startswith("top_")]
    rows = [
        [
            f"{one['function_class']}: {one['method']}",
            number(one["spearman"], 2),
            number(one["spearman_size"], 2),
            *(f"{percent(one[f'top_{k}'])} ({percent(one[f'chance_{k}'])})" for k in tops),
            percent(one["signs"]),
            f"{one['worst']}: {number(one['worst_approximate'], 2)}, exact {number(one['worst_exact'], 2)}",
        ]
        for one in receipts
    ]
    header = ["class: method", "Spearman", "of sizes", *(f"top {k}" for k in tops), "signs", "worst miss"]
    caption = (
        f"{receipts[0]['n']} compared on {receipts[0]['n_prompts']} prompts; correlations: over those with an exact "
        "effect that differs from 0 by its interval; top k: share of the k largest exact effects that are among the k "
        "largest approximate ones (chance), if at least k differ from 0; signs: where the exact effect differs from 0 "
        "and is at least 1 % of the largest"
    )
    return Table("receipt: approximate against exact effects", header, rows, caption)


def percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def circuit_table(found: Circuits) -> Table:
    """Every size of every class."""
    rows = [
        [
            f"{row['function_class']}: {row['n_best']}",
            str(row["n_edges"]),
            interval(row["faithfulness"], row["faithfulness_low"], row["faithfulness_high"]),
            interval(row["completeness"], row["completeness_low"], row["completeness_high"]),
            number(row["distance"]),
            interval(row["random"], row["random_low"], row["random_high"]),
            p_number(row["p_value"], row["n_random"]),
        ]
        for row in records(found.curve)
    ]
    question = found.question
    n_random = max(row["n_random"] for row in records(found.curve))
    header = ["class: best edges", "on paths", "faithfulness", "everything else", "distance", "random [range]", "p"]
    caption = (
        f"{found.method} scores, {question.corrupt}, {question.direction}; 0: the corrupt run, 1: the clean run; "
        f"distance: squared, to the clean prediction, over that of the corrupt run; {n_random} random graphs with as "
        f"many edges on paths; {question.n_prompts} prompts, seed {question.seed}"
    )
    return Table(f"{found.title}: circuits of the best edges", header, rows, caption)


@displays(Attribution, "tables")
def attribution_tables(result: Attribution, top: int = 10) -> list[Table]:
    """The strongest nodes or edges of every class, and the receipts."""
    return [attribution_table(result, top), *([receipt_table(result)] if len(result.receipts) else [])]


@displays(Circuits, "tables")
def circuit_tables(result: Circuits) -> list[Table]:
    return [circuit_table(result)]
