"""The tables that `interp ablate` prints, one layout for each design."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from interp.ablation.ablate import PREFIXES, Ablation
from interp.ablation.control_sets import MATCHES
from interp.ablation.cumulative import CumulativeAblation
from interp.ablation.errors import merge_notes
from interp.ablation.pairs import PairAblation
from interp.display.heat_maps import head_map
from interp.display.result import displays
from interp.display.text import counted
from interp.model.heads import head_grid
from interp.statistics.p_values import draws_behind, p_number
from training.common.bootstrap import N_RESAMPLES
from training.common.output import Table, interval, number, records
from training.common.table_rows import distinct, where

STRONGEST = 12
LEAST = ("frozen LN", "controls", "direct", "control mean")
"""Columns that a narrow screen leaves out first."""


@displays(Ablation, "maps")
def effect_maps(result: Ablation) -> list[str]:
    """A heat map of effects per class and mode, if every head of the model was removed alone; else none."""
    heads = distinct(result.table, "heads")
    shape = head_grid(heads)
    if shape is None:
        return []
    points = result.table["points"].iloc[-1]
    grids = {
        f"{name}, {mode}": where(result.table, function_class=name, mode=mode, points=points)["effect"].to_numpy()
        for name in distinct(result.table, "function_class")
        for mode in distinct(result.table, "mode")
    }
    return [head_map(np.reshape(grid, shape), title, "effect", diverging=True) for title, grid in grids.items()]


@displays(Ablation, "tables")
def ablation_tables(result: Ablation, match: str = "layer") -> list[Table]:
    """One row per set, class, mode and range.

    Args:
        result: the effects.
        match: `layer` has p-values against layer-matched control sets, `all` those of every matching.
    """
    several = len(set(result.table["points"])) > 1
    columns = {**effect_columns(result), **control_set_columns(result), **(OTHER_COLUMNS if match == "all" else {})}
    rows = [
        [
            f"{row['heads']} {row['function_class']} {row['mode']}" + (f" {row['points']}" if several else ""),
            *(column.cell(row) for column in columns.values()),
        ]
        for row in records(result.table)
    ]
    more = "p against other control sets: --match all; " if "p" in columns and match == "layer" else ""
    caption = (
        f"{more}seed {result.seed}; predictions in float32 and float64 differ by less than "
        f"{power_of_ten_above(result.spot_check):.0e}"
        f"{''.join(f'; {note}' for note in merge_notes(result.table['note']))}"
    )
    meanings = {name: column.meaning for name, column in columns.items()}
    return [Table(result.title, ["heads, class, mode", *columns], rows, caption, meanings, LEAST)]


class Column(NamedTuple):
    """A column of the table of ablations: what it holds, and its cell of a row of the data."""

    meaning: str
    cell: Callable[[dict[str, Any]], str]


def effect_columns(result: Ablation) -> dict[str, Column]:
    """Columns of effects, by name."""
    points = ", ".join(result.table["points"].unique())
    action = "the set is removed" if result.design == "remove" else "every head but the set is removed"
    return {
        "effect": Column(
            f"share of the way from the intact model to the no-context optimum when {action}, pairs {points}",
            lambda row: interval(row["effect"], row["ci_low"], row["ci_high"]),
        ),
        "direct": Column(
            "effect if later components keep their outputs of the intact run", lambda row: number(row["direct_effect"])
        ),
        "frozen LN": Column(
            "effect if every LayerNorm divides by its scale in the intact model",
            lambda row: number(row["frozen_effect"]),
        ),
    }


def control_set_columns(result: Ablation) -> dict[str, Column]:
    """Columns of layer-matched control sets, by name; empty if no set has any."""
    if not result.table["n_controls"].to_numpy().any():
        return {}
    n_sets = len(distinct(result.table, "heads"))
    n_classes = len(distinct(result.table.dropna(subset=["p_value"]), "function_class"))  # others have no effect
    columns = {
        "control mean": Column(
            "mean effect of layer-matched control sets without these heads, on the first "
            f"{result.protocol.n_shared_prompts} of {result.n_prompts} prompts",
            lambda row: number(row["control_effect"]),
        ),
        "controls": Column(
            "number of layer-matched control sets", lambda row: f"{row['n_controls']}{' (all)' if row['exact'] else ''}"
        ),
        "p": Column("against layer-matched control sets", lambda row: p_cells(row)[0]),
        "p Holm": Column(
            f"p adjusted over {counted(n_classes, 'function class', 'function classes')} (Holm)",
            lambda row: p_cells(row)[1],
        ),
    }
    if n_sets > 1:
        columns["p heads"] = Column(f"p adjusted over the {n_sets} sets of heads, on one class (Holm)", heads_cell)
    return columns


OTHER_COLUMNS = {
    f"p {match}": Column(
        f"against control sets with {MATCHES[match]}, from any layer",
        lambda row, prefix=PREFIXES[match]: p_number(row[f"{prefix}p_value"], draws_behind(row, prefix)),
    )
    for match in MATCHES
    if match != "layer"
}
"""Columns of p-values against the other kinds of control sets, by name."""


def power_of_ten_above(difference: float) -> float:
    """A bound of a rounding error, whose digits differ between machines.

    >>> power_of_ten_above(7e-7), power_of_ten_above(0.0)
    (1e-06, 1e-16)
    """
    return 10.0 ** math.ceil(math.log10(max(difference, 1e-16)))


def p_cells(row: dict[str, Any]) -> list[str]:
    """p against layer-matched control sets, and the same after Holm."""
    n_draws = draws_behind(row)
    return [p_number(row["p_value"], n_draws), p_number(row["p_holm"], n_draws, unadjusted=row["p_value"])]


def heads_cell(row: dict[str, Any]) -> str:
    """p against layer-matched control sets, after Holm over the sets under test."""
    return p_number(row["p_holm_heads"], draws_behind(row), unadjusted=row["p_value"])


@displays(CumulativeAblation, "tables")
def cumulative_tables(result: CumulativeAblation) -> list[Table]:
    """The effect at a few numbers of removed heads, and the area."""
    last = max(distinct(result.table, "k"))
    steps = sorted({1, 2, 3, 4, round(last / 2), last} & set(range(1, last + 1)))
    rows = []
    for area in records(result.area):
        labels = {column: area[column] for column in ("function_class", "mode", "points")}
        effects = {row["k"]: row for row in records(where(result.table, **labels))}
        rows.append(
            [
                f"{area['function_class']} {area['mode']}",
                *(f"{number(effects[k]['effect'], 2)} ({number(effects[k]['random_effect'], 2)})" for k in steps),
                interval(area["area"], area["ci_low"], area["ci_high"]),
                number(area["random_area"]),
                p_number(area["p_value"], area["n_orders"]),
            ]
        )
    order = list(dict.fromkeys(result.table["added"]))
    header = ["class, mode", *(f"k = {k}" for k in steps), "area", "random", "p"]
    n_orders = result.area["n_orders"].iloc[0]
    caption = (
        f"k: effect of removing the first k heads in the order {' '.join(order[:8])}{' ...' if len(order) > 8 else ''} "
        f"(in brackets the mean of random orders); {result.protocol.n_prompts} prompts, seed {result.protocol.seed}"
    )
    meanings = {
        "area": "mean of the effect over k",
        "random": "mean area of random orders",
        "p": f"against {n_orders} random orders of the same heads",
    }
    return [Table(result.title, header, rows, caption, meanings, [f"k = {k}" for k in steps[1:-1]][::-1])]


@displays(PairAblation, "tables")
def pair_tables(result: PairAblation) -> list[Table]:
    """The `STRONGEST` interactions."""
    n_pairs = len(result.table)
    ranked = sorted(records(result.table), key=lambda row: -abs(row["interaction"]))[:STRONGEST]
    rows = [
        [
            f"{row['heads']} {row['function_class']} {row['mode']}",
            *(number(row[column]) for column in ("effect_first", "effect_second", "effect")),
            interval(row["interaction"], row["ci_low"], row["ci_high"]),
            p_number(row["p_holm"], N_RESAMPLES // 2, unadjusted=row["p_value"]),  # two-sided: at least 2 / (n + 1)
        ]
        for row in ranked
    ]
    caption = (
        f"{f'the {len(rows)} strongest of {n_pairs}; ' if len(rows) < n_pairs else ''}"
        f"{result.protocol.n_prompts} prompts, seed {result.protocol.seed}"
    )
    header = ["heads, class, mode", "first", "second", "both", "interaction", "p Holm"]
    meanings = {
        "first": "effect of removing the first head",
        "second": "of the second",
        "both": "of both together",
        "interaction": "effect of both minus the sum of each alone, above 0 where one can replace the other or what "
        "they write adds up (errors are squared), below 0 where each costs less once the other is removed",
        "p Holm": "of the interaction, two-sided, adjusted over pairs",
    }
    return [Table(result.title, header, rows, caption, meanings, ["both", "second", "first"])]


def pooled_table(table: pd.DataFrame, title: str) -> Table:
    """One row per class and mode over all checkpoints."""
    rows = [
        [
            f"{row['function_class']} {row['mode']} {row['points']}",
            interval(row["effect"], row["ci_low"], row["ci_high"]),
            "-" if math.isnan(row["t_low"]) else f"[{number(row['t_low'])}, {number(row['t_high'])}]",
            f"{row['n_half']} [{row['share_low']:.2f}, {row['share_high']:.2f}]" if row["n_seeds"] else "-",
            f"{number(row['effect_min'])} to {number(row['effect_max'])}" if row["n_seeds"] else "-",
            f"{row['n_seeds']} ({row['n_checkpoints']})",
            p_number(row["p_value"], row["n_draws"]),
            p_number(row["p_holm"], row["n_draws"], unadjusted=row["p_value"]),
        ]
        for row in records(table)
    ]
    header = ["class, mode, pairs", "effect", "t over seeds", ">= half", "range", "seeds (models)", "p", "p Holm"]
    caption = (
        "the unit of evidence is the independent seed; models that share a stream of random numbers count once; "
        "where seeds are of two kinds (all or nothing) their mean has no interval"
    )
    meanings = {
        "effect": "mean over models, with the interval over prompts",
        "t over seeds": "t-interval of the mean over seeds",
        ">= half": "seeds that lose at least half of the gain, with the exact 95 % interval of their share "
        "(Clopper-Pearson)",
        "range": "of the effects of single models",
        "seeds (models)": "number of independent seeds and of models",
        "p": "against a layer-matched set in every model",
        "p Holm": "adjusted over function classes",
    }
    return Table(title, header, rows, caption, meanings, ["range", "seeds (models)", ">= half"])
