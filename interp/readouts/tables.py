"""Tables of readouts."""

import math
from typing import Any

import pandas as pd

from interp.display.heat_maps import head_map
from interp.display.result import displays
from interp.display.text import decimals
from interp.model.heads import head_grid
from interp.readouts.head_decoding import N_PERMUTATIONS, HeadDecoding
from interp.readouts.head_weights import SCORES, HeadWeights
from interp.readouts.lens import Lens
from interp.readouts.probes import Probes
from interp.readouts.subspace_patching import Swaps
from interp.statistics.p_values import p_number, p_text
from training.common.output import Table, interval, number, records
from training.common.table_rows import distinct, where

MOST_ROWS = 24
"""Beyond so many rows a table of probes is limited to the largest number of examples."""
LEAST_OF_SWAPS = ("p matched", "p", "weights", "matched", "rank", "random", "p chosen", "whole")
LEAST_REFERENCES = ("GD 8", "GD 2", "GD 16", "no context", "knows class", "ridge", "GD 1", "GD 4")
"""Columns of a lens that a narrow screen leaves out first."""
REFERENCES = {
    "target": "y_i",
    "model": "the model's own prediction",
    "no context": "the optimum without examples",
    "ridge": "ridge regression on the examples",
    "least squares": "least squares on them",
    "knows class": "the baseline of the class",
    "dMMSE": "the posterior mean over the pool",
}
ABBREVIATIONS = {"no_context": "no context", "least_squares": "least squares", "single_index": "knows class"} | {
    "dmmse": "dMMSE"
}


def select_rows(table: pd.DataFrame, **values: Any) -> list[dict[str, Any]]:
    """The rows with these values, as dictionaries."""
    return records(where(table, **values))


def top_row(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """The row with the largest value in a column."""
    return max(records(table), key=lambda row: row[column])


def abbreviate_reference(reference: str) -> str:
    """A reference predictor in few words.

    >>> abbreviate_reference("gradient_descent_4"), abbreviate_reference("no_context")
    ('GD 4', 'no context')
    """
    return ABBREVIATIONS.get(reference, reference.replace("gradient_descent_", "GD ").replace("_", " "))


@displays(Lens, "tables")
def lens_tables(result: Lens) -> list[Table]:
    """One per class: a row per stage and kind, a column per reference."""
    tables = []
    for name in distinct(result.depth, "function_class"):
        depth = where(result.depth, function_class=name)
        references = distinct(depth, "reference")
        rows = []
        for kind in distinct(depth, "kind"):
            for stage in distinct(depth, "stage"):
                cells = {row["reference"]: row for row in select_rows(depth, kind=kind, stage=stage)}
                marks = {key: "*" if row["near"] else "" for key, row in cells.items()}
                rows.append([f"{stage} {kind}", *(number(cells[key]["distance"]) + marks[key] for key in references)])
        caption = (
            "cells: squared distance of the implied prediction of y_i over E[y²], pairs "
            f"{distinct(depth, 'points')[0]}; to the target it is the NMSE; *: the nearest predictor and those whose "
            f"distance does not differ clearly; {result.n_prompts} prompts, seed {result.seed}; the tuned lens is "
            "fitted on as many others"
        )
        title = f"{result.title}: lens on {name}, at {result.token} tokens"
        header = ["stage", *map(abbreviate_reference, references)]
        meanings = {name: REFERENCES[name] for name in header if name in REFERENCES}
        n_steps = "GD n: gradient descent with n steps; " if any(name.startswith("GD") for name in header) else ""
        tables.append(Table(title, header, rows, n_steps + caption, meanings, LEAST_REFERENCES))
    return tables


@displays(Probes, "tables")
def probe_tables(result: Probes) -> list[Table]:
    """One per class and condition: a row per target, token type and number of examples, a column per stage."""
    return [
        condition_table(result, name, condition)
        for name in distinct(result.table, "function_class")
        for condition in distinct(result.table, "condition")
    ]


def condition_table(result: Probes, function_class: str, condition: str) -> Table:
    table, protocol = where(result.table, function_class=function_class, condition=condition), result.protocol
    stages, targets = distinct(table, "stage"), distinct(table, "target")
    keys = list(dict.fromkeys((row["target"], row["token"], row["examples"]) for row in records(table)))
    if len(keys) > MOST_ROWS:
        keys = [key for key in keys if key[2] == max(distinct(table, "examples"))]
    rows = []
    for target, token, examples in sorted(keys, key=lambda key: targets.index(key[0])):
        cells = {row["stage"]: row for row in select_rows(table, target=target, token=token, examples=examples)}
        values = (f"{decimals(cells[stage]['value'])} ({decimals(cells[stage]['above'])})" for stage in stages)
        rows.append([f"{target} {token} {examples}", *values])
    metric = "accuracy" if "accuracy" in distinct(table, "metric") else "held-out R²"
    widest = max((row["ci_high"] - row["ci_low"]) / 2 for row in records(table))
    caption = (
        f"{metric} at the x or y token that has seen k examples (in brackets its excess over shuffled targets and an "
        f"untrained model); 95 % half-widths up to {widest:.3f}; fitted on {protocol.n_fit} prompts, tested on "
        f"{protocol.n_prompts} others, seed {protocol.seed}"
    )
    suffix = "" if condition == "intact" else f", {condition}"
    header, middle = ["target, token, k", *stages], [stage for stage in stages[1:] if stage.endswith(".mid")]
    caption = f"columns: stages of the residual stream; cells: {caption}"
    title = f"{result.title}: probes on {function_class}{suffix}"
    return Table(title, header, rows, caption, {}, [*middle, stages[0]])


@displays(Swaps, "tables")
def swap_tables(result: Swaps) -> list[Table]:
    """One per class: a row per target, token type and stage."""
    header = [
        "swapped",
        "rank",
        "pattern",
        "weights",
        "whole",
        "random",
        "p",
        "matched",
        "p matched",
        "p chosen",
        "p Holm",
    ]
    tables = []
    for name in distinct(result.table, "function_class"):
        table, rows = where(result.table, function_class=name), []
        for row in select_rows(table, subspace="pattern"):
            keys = {key: row[key] for key in ("token", "stage", "target")}
            (weights,) = select_rows(table, subspace="weights", **keys)
            rows.append(
                [
                    f"{row['target']} at {row['token']}, {row['stage']}",
                    str(row["rank"]),
                    interval(row["effect"], row["ci_low"], row["ci_high"]),
                    number(weights["effect"]),
                    number(row["full"]),
                    number(row["random"]),
                    p_number(row["p_value"], row["n_controls"]),
                    number(row["matched"]),
                    p_number(row["p_matched"], row["n_controls"]),
                    p_number(row["p_chosen"], row["n_controls"]),
                    p_number(row["p_holm"], row["n_controls"], unadjusted=row["p_chosen"]),
                ]
            )
        first = records(table)[0]
        caption = (
            "effects: share of the way to the other run's prediction when a component is swapped; p of the pattern, on "
            f"{result.n_compared} prompts; x: at the query, y: at every y token before it; k = {first['examples']}, "
            f"{result.protocol.n_prompts} prompts, seed {result.protocol.seed}"
        )
        meanings = {
            "rank": "dimensions of the component",
            "pattern": "effect of the component in the probe's pattern",
            "weights": "of that in its weights",
            "whole": "of the whole stream at these tokens",
            "random": f"mean effect over {first['n_controls']} uniform subspaces of that rank",
            "p": "against them",
            "matched": "mean effect over as many drawn from the distribution of the stream, orthogonal to the probed "
            "one",
            "p matched": "against these",
            "p chosen": "the larger p, at the position chosen on selection prompts",
            "p Holm": "p chosen adjusted over targets and classes",
        }
        tables.append(Table(f"{result.title}: swaps on {name}", header, rows, caption, meanings, LEAST_OF_SWAPS))
    return tables


@displays(HeadDecoding, "tables")
def head_tables(result: HeadDecoding, n_heads: int = 8) -> list[Table]:
    """One per class: the heads with the highest R² of x_i."""
    header = ["head", "x_i in its output", "shuffled", "untrained", "above", "score"]
    tables = []
    for name in distinct(result.table, "function_class"):
        best = sorted(select_rows(result.table, function_class=name), key=lambda row: -row["value"])[:n_heads]
        rows = [
            [
                f"{row['layer']}.{row['head']}",
                interval(row["value"], row["ci_low"], row["ci_high"]),
                *(number(row[column]) for column in ("shuffled", "untrained", "above", "score")),
            ]
            for row in best
        ]
        (agreement,) = select_rows(result.agreement, function_class=name)
        caption = (
            f"Spearman's correlation with the retrospective score over "
            f"{agreement['n_heads']} heads {number(agreement['rho'])} "
            f"({p_text(agreement['p_value'], N_PERMUTATIONS)}); the {len(rows)} highest"
        )
        meanings = {
            "x_i in its output": "held-out R² of x_i from z W_O at y_i",
            "shuffled": "the same for shuffled targets",
            "untrained": "the same in an untrained model",
            "above": "excess over the larger of the two",
            "score": "retrospective score",
        }
        tables.append(Table(f"{result.title}: heads on {name}", header, rows, caption, meanings))
    return tables


@displays(HeadWeights, "tables")
def weight_tables(result: HeadWeights) -> list[Table]:
    """The heads whose copying score is furthest from 0, at most `MOST_ROWS`."""
    strongest = sorted(records(result.table), key=copying_size, reverse=True)[:MOST_ROWS]
    rows = [
        [
            f"{row['layer']}.{row['head']}",
            *(
                cell
                for score in SCORES.values()
                for cell in (number(row[f"{score}_score"]), p_number(row[f"{score}_p"], result.n_rotations, sides=2))
            ),
            *(number(row[f"{circuit.lower()}_norm"]) for circuit in SCORES),
        ]
        for row in strongest
    ]
    header = ["head", "copying", "p copying", "matching", "p matching", "|OV|", "|QK|"]
    meanings = {
        "copying": "sum of the eigenvalues of W_OV / sum of their sizes, from -1 to 1",
        "matching": "the same of W_QK",
        "p copying": "two-sided, against random rotations of the stream between the factors, of this head alone",
        "p matching": "the same",
        "|OV|": "Frobenius norm of W_OV",
        "|QK|": "that of W_QK",
    }
    caption = (
        f"LayerNorm's gain and centring are folded in; the {len(rows)} of {len(result.table)} heads with the largest "
        f"copying score in size; {result.n_rotations} rotations, seed {result.seed}"
    )
    return [Table(f"{result.title}: weights of heads", header, rows, caption, meanings, ["p matching", "|QK|", "|OV|"])]


def copying_size(row: dict[str, Any]) -> float:
    """How far from 0 the copying score of a head is; less than any where it has none."""
    size = abs(row["copying_score"])
    return -1.0 if math.isnan(size) else size


@displays(HeadWeights, "maps")
def weight_maps(result: HeadWeights) -> list[str]:
    """A heat map [layer x head] of each score; none unless the result has all heads."""
    shape = head_grid([f"{row['layer']}.{row['head']}" for row in records(result.table)])
    if shape is None:
        return []
    grids = {score: result.table[f"{score}_score"].to_numpy().reshape(shape) for score in SCORES.values()}
    return [head_map(grid, f"{score} score", f"{score} score", diverging=True) for score, grid in grids.items()]
