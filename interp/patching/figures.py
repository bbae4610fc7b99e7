"""Maps of patched activations, and the paths that start from a set of components."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from interp.display.axes import GREY, INTACT, figure_of, grid_of_axes, row_of_axes
from interp.display.result import displays
from interp.patching.maps import PatchMap, end_of
from interp.patching.paths import PathEffects
from interp.patching.tables import grid_of
from training.common.output import records
from training.common.table_rows import where

MOST_PATHS = 16
LOW = {"effect": "ci_low", "nmse": "nmse_low", "distance": "distance_low", "excess": "excess_low"}
CELLS_WITH_NUMBERS = 60


@displays(PatchMap, "plot")
def plot_map(found: PatchMap, metric: str = "effect") -> list[Axes]:
    """Heat maps, a panel per class: layers x heads, layers x tokens, or heads x tokens.

    White is what the unpatched run has; a dot marks cells whose 95 % interval does not contain that.

    Args:
        found: the map.
        metric: a name in `interp.patching.effects.METRICS`.
    """
    names = list(found.table["function_class"].unique())
    grids = {name: grid_of(where(found.table, function_class=name), metric) for name in names}
    n_rows, n_columns = next(iter(grids.values())).shape
    tall = n_columns > 16
    width, height = max(2.6, 0.36 * n_columns + 0.7), max(1.7, 0.34 * n_rows + 0.9)
    shape = (len(names), 1) if tall else (1, len(names))
    axes = [ax for row in grid_of_axes(*shape, width=width, height=height) for ax in row]
    rest = {name: resting(found, name, metric) for name in names}
    away = [np.abs(grid.to_numpy() - rest[name]).max() for name, grid in grids.items()]
    limit = 1.0 if metric == "effect" else max(0.1, *away)
    for ax, (name, grid) in zip(axes, grids.items(), strict=True):
        cells = ax.imshow(grid, vmin=rest[name] - limit, vmax=rest[name] + limit, cmap="vlag", aspect="auto")
        ax.set(title=name, xticks=range(n_columns), yticks=range(n_rows), xlabel=str(grid.columns.name))
        ax.set_xticklabels(list(grid.columns), rotation=90 if tall else 0, fontsize=7)
        ax.set_yticklabels(list(grid.index), fontsize=7)
        ax.set_ylabel(str(grid.index.name))
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        mark_cells(ax, where(found.table, function_class=name), metric, grid, (rest[name], limit))
        figure_of([ax]).colorbar(cells, ax=ax, shrink=0.9, label=metric).outline.set_visible(False)
    question = found.question
    title = f"{found.site} patched from the {'clean' if question.direction == 'denoise' else 'corrupt'} run "
    figure_of(axes).suptitle(f"{title}({question.corrupt}); dot: 95 % interval excludes no change", fontsize=9)
    return axes


def resting(found: PatchMap, name: str, metric: str) -> float:
    """What the metric is when nothing is patched."""
    end, base = end_of(found, name), found.question.base
    if metric == "effect":
        return 0.0
    if metric == "distance":
        return 0.0 if base == "clean" else end["gap"]
    return end[f"nmse_{base}"] - (end["nmse_no_context"] if metric == "excess" else 0.0)


def mark_cells(ax: Axes, table: pd.DataFrame, metric: str, grid: pd.DataFrame, colours: tuple[float, float]) -> None:
    """Numbers where they fit, and a dot where the interval excludes no change.

    Args:
        ax: of the map.
        table: of its class.
        metric: that it shows.
        grid: its values.
        colours: (what is white, half of the range of colours).
    """
    rest, limit = colours
    low, high = (grid_of(table, LOW[metric].replace("low", end)).to_numpy() for end in ("low", "high"))
    for (row, column), value in np.ndenumerate(grid.to_numpy()):
        colour = "white" if abs(value - rest) > 0.6 * limit else "black"
        if not low[row, column] <= rest <= high[row, column]:
            ax.plot(column + 0.36, row - 0.34, ".", color=colour, ms=2.5)
        if grid.size <= CELLS_WITH_NUMBERS:
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", size=6.5, color=colour)


@displays(PathEffects, "plot")
def plot_paths(found: PathEffects) -> list[Axes]:
    """The strongest paths of the first set of senders with their intervals, a panel per class."""
    sender = found.table["sender"].iloc[0]
    rows = records(where(found.table, sender=sender))
    names = list(dict.fromkeys(row["function_class"] for row in rows))
    n_shown = min(MOST_PATHS, len(rows) // len(names) - 1)
    axes = row_of_axes(len(names), width=2.8, height=0.24 * (n_shown + 1) + 1.0)
    for ax, name in zip(axes, names, strict=True):
        whole, *paths = [row for row in rows if row["function_class"] == name]
        bars = [whole, *sorted(paths, key=lambda row: -abs(row["effect"]))[:n_shown]]
        effects = np.array([row["effect"] for row in bars])
        spread = [effects - [row["ci_low"] for row in bars], [row["ci_high"] for row in bars] - effects]
        ax.barh(range(len(bars)), effects, color=[GREY] + [INTACT] * n_shown, height=0.7)
        ax.errorbar(effects, range(len(bars)), xerr=spread, fmt="none", ecolor="black", elinewidth=0.8)
        ax.axvline(0, color=GREY, lw=0.8)
        ax.set(title=name, yticks=range(len(bars)), xlabel="effect")
        ax.set_yticklabels(["everything", *(row["receiver"] for row in bars[1:])], fontsize=7)
        ax.invert_yaxis()
    question = found.question
    figure_of(axes).suptitle(f"paths from {sender} to ... ({question.corrupt}, {question.direction})", fontsize=9)
    return axes
