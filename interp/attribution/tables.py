"""Tables of `interp attribute` and `interp circuit`."""

import math

from interp.attribution.attribute import Attribution
from interp.attribution.circuits import Circuits
from interp.display.result import displays
from interp.statistics.p_values import p_number
from training.common.output import Table, interval, number, records
from training.common.table_rows import distinct, where


@displays(Attribution, "tables")
def attribution_tables(result: Attribution, top: int = 10) -> list[Table]:
    """The strongest nodes or edges of every class, and the validation."""
    return [effect_table(result, top), *([validation_table(result)] if len(result.validation) else [])]


def effect_table(result: Attribution, top: int) -> Table:
    """The strongest nodes or edges by the first method, with their effects by every method."""
    classes, methods = (distinct(result.table, column) for column in ("function_class", "method"))
    rows = []
    for function_class in classes:
        of_methods = [records(where(result.table, function_class=function_class, method=name)) for name in methods]
        by_node = sorted(zip(*of_methods, strict=True), key=lambda effects: -effects[0]["size"])
        rows += [
            [f"{function_class}: {result.name(effects[0])}"]
            + [interval(row["effect"], row["ci_low"], row["ci_high"]) for row in effects]
            for effects in by_node[:top]
        ]
    question = result.question
    caption = (
        f"{question.direction}, {question.corrupt}; effect: share of the way from the {question.base} run to the "
        f"other; the {top} strongest by {methods[0]}; {question.n_prompts} prompts, seed {question.seed}"
    )
    return Table(f"{result.title}: effects of patching {result.of}", [f"class: {result.of}", *methods], rows, caption)


def validation_table(result: Attribution) -> Table:
    """One row per class and estimating method."""
    validation = records(result.validation)
    tops = [key.removeprefix("top_") for key in validation[0] if key.startswith("top_")]
    rows = [
        [
            f"{row['function_class']}: {row['method']}",
            number(row["spearman"], 2),
            number(row["spearman_size"], 2),
            *(f"{percent(row[f'top_{k}'])} ({percent(row[f'chance_{k}'])})" for k in tops),
            percent(row["signs"]),
            f"{row['worst']}: {number(row['worst_approximate'], 2)}, exact {number(row['worst_exact'], 2)}",
        ]
        for row in validation
    ]
    header = ["class: method", "Spearman", "of sizes", *(f"top {k}" for k in tops), "signs", "worst estimate"]
    caption = (
        f"{validation[0]['n']} compared on {validation[0]['n_prompts']} prompts; correlations: over those whose exact "
        "effect differs from 0 by its interval; top k: share of the k largest exact effects that are among the k "
        "largest estimates (by chance), if at least k differ from 0; signs: where the exact effect differs from 0 and "
        "is at least 1 % of the largest"
    )
    return Table("validation: estimated against exact effects", header, rows, caption)


def percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


@displays(Circuits, "tables")
def circuit_tables(result: Circuits) -> list[Table]:
    """Every size of every class."""
    curve = records(result.curve)
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
        for row in curve
    ]
    question, n_random = result.question, max(row["n_random"] for row in curve)
    header = ["class: best edges", "on paths", "faithfulness", "all other edges", "distance", "random [range]", "p"]
    caption = (
        f"{result.method} scores, {question.corrupt}, {question.direction}; 0: the corrupt run, 1: the clean run; "
        f"distance: squared, to the clean prediction, over that of the corrupt run; {n_random} random graphs with as "
        f"many edges on paths; {question.n_prompts} prompts, seed {question.seed}"
    )
    return [Table(f"{result.title}: circuits of the best edges", header, rows, caption)]
