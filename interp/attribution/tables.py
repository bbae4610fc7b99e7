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
        f"effect: share of the way from the {question.base} run to the other; {question.direction}, "
        f"{question.corrupt}; the {top} strongest by {methods[0]}; {question.n_prompts} prompts, seed {question.seed}"
    )
    meanings = {name: "effect measured" if name == "exact" else "effect estimated by this method" for name in methods}
    header = [f"class: {result.of}", *methods]
    return Table(f"{result.title}: effects of patching {result.of}", header, rows, caption, meanings)


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
    caption = f"{validation[0]['n']} compared on {validation[0]['n_prompts']} prompts"
    meanings = {
        "Spearman": "rank correlation, over those whose exact effect differs from 0 by its interval",
        "of sizes": "the same of absolute values",
        **{
            f"top {k}": f"share of the {k} largest exact effects that are among the {k} largest estimates (by chance), "
            f"if at least {k} differ from 0"
            for k in tops
        },
        "signs": "share with the right sign where the exact effect differs from 0 and is at least 1 % of the largest",
        "worst estimate": "the largest difference",
    }
    least = ["of sizes", "signs", *(f"top {k}" for k in tops), "worst estimate"]
    return Table("validation: estimated against exact effects", header, rows, caption, meanings, least)


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
        f"{question.n_prompts} prompts, seed {question.seed}"
    )
    meanings = {
        "on paths": "number of these edges on a path from input to output",
        "faithfulness": "share of the difference between the runs that these edges carry",
        "all other edges": "share that the others carry",
        "distance": "squared, to the clean prediction, over that of the corrupt run",
        "random [range]": f"share that {n_random} random graphs with as many edges on paths carry",
        "p": "of the faithfulness against these graphs",
    }
    least = ["distance", "random [range]", "all other edges", "on paths"]
    return [Table(f"{result.title}: circuits of the best edges", header, rows, caption, meanings, least)]
