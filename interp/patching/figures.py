"""Figures of patching: maps of effects, and the paths that start from a set of components."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from interp.display.axes import GREY, INTACT, NULL, figure_of, grid_of_axes, row_of_axes, title_figure
from interp.display.result import displays
from interp.patching.composition import CHANNELS, Composition
from interp.patching.maps import PatchMap
from interp.patching.paths import PathEffects
from interp.patching.tables import grid_of
from training.common.output import records
from training.common.table_rows import distinct, where

MOST_PATHS = 16
CELLS_WITH_NUMBERS = 60
WIDE = 16  # columns: more of them get a panel below the others, not beside them
MOST_NAMES = 32  # of rows or columns: of more, only every second or fewer is named


@displays(PatchMap, "plot")
def plot_map(result: PatchMap, metric: str = "effect") -> list[Axes]:
    """Heat maps, a panel per class: layers x heads, layers x tokens, or heads x tokens.

    White is the value of the unpatched run; a dot marks cells whose 95 % interval does not contain it.

    Args:
        result: the map.
        metric: a name in `interp.patching.effects.METRICS`.
    """
    tables = {name: where(result.table, function_class=name) for name in distinct(result.table, "function_class")}
    grids = {name: grid_of(table, metric) for name, table in tables.items()}
    n_rows, n_columns = next(iter(grids.values())).shape
    is_wide = n_columns > WIDE
    width, height = max(2.6, 0.36 * n_columns + 0.7), max(1.7, 0.34 * n_rows + 0.9)
    panels = grid_of_axes(*((len(grids), 1) if is_wide else (1, len(grids))), width=width, height=height)
    axes = [ax for row in panels for ax in row]
    centres = {name: unpatched_value(result, name, metric) for name in grids}
    limit = max(0.1, *(np.abs(grid.to_numpy() - centres[name]).max() for name, grid in grids.items()))
    limit = 1.0 if metric == "effect" else limit
    for ax, (name, grid) in zip(axes, grids.items(), strict=True):
        draw_cells(ax, grid, centres[name], limit, numbers=grid.size <= CELLS_WITH_NUMBERS, bar=metric)
        ax.set(title=name, xlabel=str(grid.columns.name), ylabel=str(grid.index.name))
        ax.tick_params(axis="x", rotation=90 if is_wide else 0)
        mark_changes(ax, tables[name], metric, centres[name], limit)
    question = result.question
    title = f"{result.site} patched from the {'clean' if question.direction == 'denoise' else 'corrupt'} run "
    title_figure(axes, f"{title}({question.corrupt}); dot: 95 % interval excludes no change", fontsize=9.0)
    return axes


def unpatched_value(result: PatchMap, function_class: str, metric: str) -> float:
    """The metric of the unpatched run."""
    errors, base = result.class_errors(function_class), result.question.base
    return {
        "effect": 0.0,
        "nmse": errors[f"nmse_{base}"],
        "distance_to_clean": 0.0 if base == "clean" else errors["gap"],
        "nmse_above_no_context": errors[f"nmse_{base}"] - errors["nmse_no_context"],
    }[metric]


def draw_cells(
    ax: Axes,
    grid: pd.DataFrame,
    centre: float,
    limit: float,
    *,
    numbers: bool,
    bar: str | None,
    label_size: float = 7,
) -> None:
    """A heat map with its labels.

    Args:
        ax: to draw on.
        grid: the values.
        centre: the value that is white.
        limit: the distance from it at which colours end.
        numbers: whether to write the values into the cells.
        bar: label of a colour bar; None for no bar.
        label_size: of rows and columns.
    """
    cells = ax.imshow(grid, vmin=centre - limit, vmax=centre + limit, cmap="vlag", aspect="auto")
    ax.set_xticks(range(grid.shape[1]), list(grid.columns), fontsize=label_size)
    ax.set_yticks(range(grid.shape[0]), list(grid.index), fontsize=label_size)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    for (row, column), value in np.ndenumerate(grid.to_numpy()) if numbers else ():
        if np.isnan(value):
            continue
        colour = readable_colour(value, centre, limit)
        ax.text(column, row, f"{value:z.2f}", ha="center", va="center", size=6.5, color=colour)
    if bar is not None:
        figure_of([ax]).colorbar(cells, ax=ax, shrink=0.9, label=bar).outline.set_visible(False)


def readable_colour(value: float, centre: float, limit: float) -> str:
    return "white" if abs(value - centre) > 0.6 * limit else "black"


def mark_changes(ax: Axes, table: pd.DataFrame, metric: str, centre: float, limit: float) -> None:
    """A dot in every cell whose interval does not contain the unpatched run's value."""
    prefix = "ci" if metric == "effect" else metric
    values, low, high = (grid_of(table, column).to_numpy() for column in (metric, f"{prefix}_low", f"{prefix}_high"))
    for row, column in np.argwhere(~((low <= centre) & (centre <= high))).tolist():
        colour = readable_colour(values[row, column], centre, limit)
        ax.plot(column + 0.36, row - 0.34, ".", color=colour, ms=2.5)


@displays(PathEffects, "plot")
def plot_paths(result: PathEffects) -> list[Axes]:
    """The strongest paths of the first set of senders with their intervals, a panel per class."""
    sender = result.table["sender"].iloc[0]
    table = where(result.table, sender=sender)
    classes = distinct(table, "function_class")
    n_paths = min(MOST_PATHS, len(table) // len(classes) - 1)
    axes = row_of_axes(len(classes), width=2.8, height=0.24 * (n_paths + 1) + 1.0)
    for ax, function_class in zip(axes, classes, strict=True):
        total, *paths = records(where(table, function_class=function_class))
        bars = [total, *sorted(paths, key=lambda row: -abs(row["effect"]))[:n_paths]]
        effects = np.array([row["effect"] for row in bars])
        spread = [effects - [row["ci_low"] for row in bars], [row["ci_high"] for row in bars] - effects]
        ax.barh(range(len(bars)), effects, color=[GREY] + [INTACT] * n_paths, height=0.7)
        ax.errorbar(effects, range(len(bars)), xerr=spread, fmt="none", ecolor="black", elinewidth=0.8)
        ax.axvline(0, color=GREY, lw=0.8)
        ax.set(title=function_class, yticks=range(len(bars)), xlabel="effect")
        ax.set_yticklabels(["total", *(row["receiver"] for row in bars[1:])], fontsize=7)
        ax.invert_yaxis()
    question = result.question
    title_figure(axes, f"paths from {sender} to ... ({question.corrupt}, {question.direction})", fontsize=9.0)
    return axes


@displays(Composition, "plot")
def plot_composition(result: Composition) -> list[Axes]:
    """Heat maps of score minus chance, senders by receivers, a panel per input (Q, K, V); all with the same colours."""
    grids = [channel_grid(result.table, channel) for channel in CHANNELS]
    n_rows, n_columns = grids[0].shape
    is_wide = n_columns > WIDE
    width, height = min(14.0, max(2.4, 0.27 * n_columns + 0.8)), min(12.0, max(1.9, 0.2 * n_rows + 0.8))
    panels = grid_of_axes(*((3, 1) if is_wide else (1, 3)), width=width, height=height)
    axes = [ax for row in panels for ax in row]
    limit = max(0.01, *(np.nanmax(np.abs(grid)) for grid in grids))
    for ax, grid, channel in zip(axes, grids, CHANNELS, strict=True):
        bar = "score - chance" if is_wide or ax is axes[-1] else None
        draw_cells(ax, grid, 0.0, limit, numbers=grid.size <= CELLS_WITH_NUMBERS, bar=bar)
        thin_names(ax, grid)
        ax.set_facecolor(NULL)
        ax.set(
            title=f"read as {channel.upper()}", xlabel="receiver", ylabel="sender" if is_wide or ax is axes[0] else ""
        )
    grey = "; grey: the receiver is not in a later layer" if any(grid.isna().any(axis=None) for grid in grids) else ""
    title_figure(axes, f"composition score minus its mean over {result.n_rotations} random rotations{grey}", 9.0)
    return axes


def channel_grid(table: pd.DataFrame, channel: str) -> pd.DataFrame:
    """Score minus chance of one input: senders by receivers; NaN where the receiver is not in a later layer."""
    rows = table.loc[table["receiver"].str.endswith(f".{channel}")]
    cells = rows.assign(head=rows["receiver"].str.removesuffix(f".{channel}"), excess=rows["score"] - rows["chance"])
    grid = cells.pivot(index="sender", columns="head", values="excess")
    receivers = sorted(distinct(cells, "head"), key=lambda name: [int(part) for part in name.split(".")])
    return grid.loc[distinct(cells, "sender"), receivers]


def thin_names(ax: Axes, grid: pd.DataFrame) -> None:
    """Name so few rows and columns that their names do not meet; columns upright unless they are few."""
    for axis, names in ((ax.xaxis, list(grid.columns)), (ax.yaxis, list(grid.index))):
        step = -(-len(names) // MOST_NAMES)
        axis.set_ticks(range(0, len(names), step), names[::step], fontsize=7)
    ax.tick_params(axis="x", rotation=90 if grid.shape[1] > 6 else 0)
