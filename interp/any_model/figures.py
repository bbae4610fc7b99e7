"""Figures of ablations and patches of any model."""

import numpy as np
from matplotlib.axes import Axes

from interp.any_model.judge import UNITS, LossAblation
from interp.any_model.patch import LossPatchMap
from interp.display.axes import GREY, MODES, NULL, figure_of, grid_of_axes, row_of_axes, title_figure
from interp.display.result import displays
from interp.model.heads import head_grid
from interp.patching.tables import grid_of
from training.common.output import records
from training.common.table_rows import distinct, where


@displays(LossAblation, "plot")
def plot_losses(result: LossAblation, heads: str) -> list[Axes]:
    """A set's effect with its interval, per condition and mode, against its layer-matched control sets (dots)."""
    table, null = where(result.table, heads=heads), where(result.null, heads=heads, match="layer")
    conditions, modes = distinct(table, "condition"), distinct(table, "mode")
    axes = row_of_axes(len(conditions), width=max(2.9, 0.75 * len(modes)), height=2.7)
    rng = np.random.default_rng(0)  # sideways jitter only
    for ax, condition in zip(axes, conditions, strict=True):
        for x, mode in enumerate(modes):
            controls = where(null, condition=condition, mode=mode)["effect"]
            ax.plot(x + rng.uniform(-0.22, 0.22, len(controls)), controls, ".", color=NULL, ms=5)
            (row,) = records(where(table, condition=condition, mode=mode))
            spread = [[row["effect"] - row["ci_low"]], [row["ci_high"] - row["effect"]]]
            ax.errorbar([x], [row["effect"]], yerr=spread, fmt="o", color=MODES.get(mode, GREY), capsize=3, ms=6)
        for level in (0, 1) if result.unit == "gain" else (0,):
            ax.axhline(level, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.set(title=condition, xticks=range(len(modes)), xlim=(-0.6, len(modes) - 0.4))
        ax.set_xticklabels(modes, rotation=30 if len(modes) > 3 else 0)
    axes[0].set_ylabel(UNITS[result.unit].replace(", ", ",\n"))
    named = heads if len(heads) <= 40 else f"{heads.count(',') + 1} heads"
    title_figure(axes, f"removing {named} (dot) against layer-matched control sets (grey)")
    return axes


@displays(LossAblation, "plot_effects")
def plot_effect_maps(result: LossAblation) -> list[Axes]:
    """Many sets at once: effects as a heat map [layer x head], or a row per set, a panel per condition and mode."""
    heads = distinct(result.table, "heads")
    conditions, modes = distinct(result.table, "condition"), distinct(result.table, "mode")
    shape = head_grid(heads) or (len(heads), 1)
    size = {"width": max(2.4, 0.36 * shape[1] + 1.0), "height": max(1.7, 0.3 * shape[0] + 0.8)}
    grid = grid_of_axes(len(modes), len(conditions), **size)
    limit = 1.0 if result.unit == "gain" else max(float(np.abs(result.table["effect"].to_numpy()).max()), 1e-9)
    for row, mode in enumerate(modes):
        for column, condition in enumerate(conditions):
            ax, effects = grid[row][column], where(result.table, condition=condition, mode=mode)["effect"]
            cells = ax.imshow(
                np.reshape(effects.to_numpy(), shape), vmin=-limit, vmax=limit, cmap="vlag", aspect="auto"
            )
            ax.set(title=f"{condition}, {mode}", xlabel="head" if shape[1] > 1 else "", ylabel="layer")
            if shape[1] == 1:
                ax.set(xticks=[], yticks=range(len(heads)), yticklabels=heads, ylabel="")
            figure_of([ax]).colorbar(cells, ax=ax, shrink=0.9)
    axes = [ax for row in grid for ax in row]
    title_figure(axes, f"effect of removing each alone: {UNITS[result.unit]}")
    return axes


@displays(LossPatchMap, "plot")
def plot_patch_map(result: LossPatchMap) -> list[Axes]:
    """Heat maps, a panel per condition: layers x heads, layers x tokens, or heads x tokens."""
    grids = {
        name: grid_of(where(result.table, condition=name), "effect") for name in distinct(result.table, "condition")
    }
    n_rows, n_columns = next(iter(grids.values())).shape
    size = {"width": max(2.6, 0.3 * n_columns + 0.9), "height": max(1.7, 0.3 * n_rows + 0.9)}
    axes = row_of_axes(len(grids), **size)
    for ax, (name, grid) in zip(axes, grids.items(), strict=True):
        cells = ax.imshow(grid, vmin=-1, vmax=1, cmap="vlag", aspect="auto")
        ax.set(title=name, xticks=range(n_columns), yticks=range(n_rows), xlabel=str(grid.columns.name))
        ax.set_xticklabels(list(grid.columns), fontsize=7)
        ax.set_yticklabels(list(grid.index), fontsize=7)
        ax.set_ylabel(str(grid.index.name))
        figure_of([ax]).colorbar(cells, ax=ax, shrink=0.9, label="effect")
    source = "clean" if result.direction == "denoise" else "corrupt"
    title_figure(axes, f"{result.site} patched from the {source} run", fontsize=9.0)
    return axes
