"""Readouts laid out as tables."""

from typing import Any

import pandas as pd

from interp.display.result import displays
from interp.readouts.head_decoding import N_PERMUTATIONS, HeadDecoding
from interp.readouts.lens import Lens
from interp.readouts.probes import Probes
from interp.readouts.subspace_patching import Swaps
from interp.statistics.p_values import p_text
from training.common.output import Table, interval, number, records
from training.common.table_rows import distinct, where

MOST_ROWS = 24
SHORT = {"no_context": "no context", "least_squares": "least squares", "single_index": "knows class"}


def of(table: pd.DataFrame, **values: Any) -> list[dict[str, Any]]:
    """The rows with these values, as dictionaries."""
    return records(where(table, **values))


def top_row(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """The row with the largest value."""
    return max(records(table), key=lambda row: row[column])


def short(reference: str) -> str:
    """A reference predictor in few words.

    >>> short("gradient_descent_4"), short("no_context")
    ('GD 4', 'no context')
    """
    return SHORT.get(reference, reference.replace("gradient_descent_", "GD ").replace("_", " "))


@displays(Lens, "tables")
def lens_tables(result: Lens) -> list[Table]:
    """One per class: a row per stage and kind, a column per reference."""
    depth, found = result.depth, []
    for name in distinct(depth, "function_class"):
        mine = where(depth, function_class=name)
        references = distinct(mine, "reference")
        rows = []
        for kind in distinct(mine, "kind"):
            for stage in distinct(mine, "stage"):
                cells = {row["reference"]: row for row in of(mine, kind=kind, stage=stage)}
                marks = {key: "*" if row["near"] else "" for key, row in cells.items()}
                rows.append([f"{stage} {kind}", *(number(cells[key]["distance"]) + marks[key] for key in references)])
        caption = (
            f"squared distance of the implied prediction of y_i over E[y²], pairs {distinct(mine, 'points')[0]}; to "
            "the target it is the NMSE; *: the nearest predictor and those not told apart from it; "
            f"{result.n_prompts} prompts, seed {result.seed}; the tuned lens is fitted on as many others"
        )
        title = f"{result.title}: lens on {name}, at {result.token} tokens"
        found.append(Table(title, ["stage", *map(short, references)], rows, caption))
    return found


@displays(Probes, "tables")
def probe_tables(result: Probes) -> list[Table]:
    """One per class and condition: a row per target, token type and number of examples, a column per stage."""
    return [
        condition_table(result, name, condition)
        for name in distinct(result.table, "function_class")
        for condition in distinct(result.table, "condition")
    ]


def condition_table(result: Probes, name: str, condition: str) -> Table:
    mine, protocol = where(result.table, function_class=name, condition=condition), result.protocol
    stages, targets = distinct(mine, "stage"), distinct(mine, "target")
    keys = list(dict.fromkeys((row["target"], row["token"], row["examples"]) for row in records(mine)))
    if len(keys) > MOST_ROWS:
        keys = [key for key in keys if key[2] == max(distinct(mine, "examples"))]
    rows = []
    for target, token, examples in sorted(keys, key=lambda key: targets.index(key[0])):
        cells = {row["stage"]: row for row in of(mine, target=target, token=token, examples=examples)}
        shown = (f"{two(cells[stage]['value'])} ({two(cells[stage]['above'])})" for stage in stages)
        rows.append([f"{target} {token} {examples}", *shown])
    what = "accuracy" if "accuracy" in distinct(mine, "metric") else "held-out R²"
    widest = max((row["ci_high"] - row["ci_low"]) / 2 for row in records(mine))
    caption = (
        f"{what} at the x or y token that has seen k examples (what of it exceeds shuffled targets and an untrained "
        f"model); 95 % half-widths up to {widest:.3f}; fitted on {protocol.n_fit} prompts, judged on "
        f"{protocol.n_prompts} others, seed {protocol.seed}"
    )
    told = "" if condition == "intact" else f", {condition}"
    title = f"{result.title}: probes on {name}{told}"
    return Table(title, ["target, token, k", *stages], rows, caption)


def two(value: float) -> str:
    """Two digits after the point, and no minus before a zero.

    >>> two(-0.001), two(0.126)
    ('0.00', '0.13')
    """
    return f"{round(value, 2) + 0.0:.2f}"


@displays(Swaps, "tables")
def swap_tables(result: Swaps) -> list[Table]:
    """One per class: a row per target, token type and stage."""
    found = []
    for name in distinct(result.table, "function_class"):
        mine, rows = where(result.table, function_class=name), []
        for row in of(mine, subspace="pattern"):
            (seen,) = of(mine, subspace="weights", **{key: row[key] for key in ("token", "stage", "target")})
            rows.append(
                [
                    f"{row['target']} at {row['token']}, {row['stage']}",
                    str(row["rank"]),
                    interval(row["effect"], row["ci_low"], row["ci_high"]),
                    number(seen["effect"]),
                    number(row["full"]),
                    *(number(row[column]) for column in ("random", "p_value", "matched", "p_matched", "p_chosen")),
                ]
            )
        first = records(mine)[0]
        caption = (
            "share of the way to the other run's prediction when the component in the probe's pattern (or in its "
            "weights) is swapped; whole: all of the stream at these tokens; random: mean over "
            f"{first['n_controls']} even subspaces of that rank, matched: over as many drawn as the stream varies, "
            "orthogonal to the probed one; p chosen: the larger p at the place chosen on selection prompts; p for the "
            "pattern, on "
            f"{result.n_compared} prompts; x: at the query, y: at every y token before it; k = {first['examples']}, "
            f"{result.protocol.n_prompts} prompts, seed {result.protocol.seed}"
        )
        header = ["swapped", "rank", "pattern", "weights", "whole", "random", "p", "matched", "p matched", "p chosen"]
        found.append(Table(f"{result.title}: swaps on {name}", header, rows, caption))
    return found


@displays(HeadDecoding, "tables")
def head_tables(result: HeadDecoding, top: int = 8) -> list[Table]:
    """One per class: the heads that write most of x_i."""
    found = []
    for name in distinct(result.table, "function_class"):
        best = sorted(of(result.table, function_class=name), key=lambda row: -row["value"])[:top]
        rows = [
            [
                f"{row['layer']}.{row['head']}",
                interval(row["value"], row["ci_low"], row["ci_high"]),
                *(number(row[column]) for column in ("shuffled", "untrained", "above", "score")),
            ]
            for row in best
        ]
        (agreement,) = of(result.agreement, function_class=name)
        caption = (
            f"held-out R² of x_i from z W_O at y_i; Spearman's correlation with the retrospective score over "
            f"{agreement['n_heads']} heads {number(agreement['rho'])} "
            f"({p_text(agreement['p_value'], N_PERMUTATIONS)}); the {len(rows)} highest"
        )
        header = ["head", "x_i in what it writes", "shuffled", "untrained", "above", "score"]
        found.append(Table(f"{result.title}: heads on {name}", header, rows, caption))
    return found
