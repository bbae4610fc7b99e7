"""Figures of ablations. Effects are shares of the in-context gain."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from interp.ablation.ablate import Ablation
from interp.ablation.cumulative import CumulativeAblation
from interp.ablation.pairs import PairAblation
from interp.display.axes import DPI, GREY, INTACT, MODES, NULL, figure_of, legend_beside, row_of_axes
from interp.display.result import displays
from interp.model.heads import head_grid
from training.common.output import records
from training.common.table_rows import where


@displays(Ablation, "plot_curves")
def plot_ablation_curves(result: Ablation, heads: str) -> list[Axes]:
    """Error by number of in-context examples with and without one head set, one panel per class."""
    curves = result.curves
    names = list(curves["function_class"].unique())
    axes = row_of_axes(len(names), width=2.9, height=2.7)
    for ax, name in zip(axes, names, strict=True):
        of_class = where(curves, function_class=name)
        for mode, colour, style, label in (
            ("intact", INTACT, "-", "intact"),
            ("no_context", GREY, ":", "no-context optimum"),
        ):
            curve = where(of_class, mode=mode)
            ax.plot(
                curve["examples"],
                curve["nmse"],
                style,
                color=colour,
                lw=2 if mode == "intact" else 1.2,
                label=label,
            )
        for mode, curve in of_class[of_class["heads"] == heads].groupby("mode", sort=False):
            ax.plot(
                curve["examples"],
                curve["nmse"],
                color=MODES.get(str(mode), GREY),
                lw=1.2,
                label=f"without {heads}: {mode}",
            )
        ax.set(title=name, xlabel="in-context examples", ylim=(0, None))
    axes[0].set_ylabel("MSE / E[y²]")
    legend_beside(axes)
    return axes


@displays(Ablation, "plot")
def plot_ablation(result: Ablation, heads: str) -> list[Axes]:
    """A set's effect with its interval, per class and mode, against its layer-matched null sets (dots).

    Where several ranges of pairs were measured it shows the last one; `plot_ablation_curves` shows all positions.
    """
    points = result.table["points"].iloc[-1]
    table = where(result.table, heads=heads, points=points)
    null = where(result.null, heads=heads, points=points, match="layer")
    names, modes = list(table["function_class"].unique()), list(table["mode"].unique())
    axes = row_of_axes(len(names), width=max(2.9, 0.75 * len(modes)), height=2.7)
    rng = np.random.default_rng(0)  # sideways jitter only
    for ax, name in zip(axes, names, strict=True):
        for x, mode in enumerate(modes):
            cell = where(null, function_class=name, mode=mode)["effect"]
            ax.plot(
                x + rng.uniform(-0.22, 0.22, len(cell)),
                cell,
                ".",
                color=NULL,
                ms=5,
                label="layer-matched sets",
            )
            (row,) = records(where(table, function_class=name, mode=mode))
            spread = [[row["effect"] - row["ci_low"]], [row["ci_high"] - row["effect"]]]
            ax.errorbar([x], [row["effect"]], yerr=spread, fmt="o", color=MODES.get(mode, GREY), capsize=3, ms=6)
            ax.plot([x + 0.12], [row["direct_effect"]], "x", color=MODES.get(mode, GREY), ms=5)
        for level in (0, 1):
            ax.axhline(level, color=GREY, lw=0.8, ls=":", zorder=0)
        turned = 30 if len(modes) > 3 else 0
        ax.set(title=name, xticks=range(len(modes)), xlim=(-0.6, len(modes) - 0.4))
        ax.set_xticklabels(modes, rotation=turned, ha="right" if turned else "center")
    axes[0].set_ylabel("share of the in-context gain lost")
    named = heads if len(heads) <= 40 else f"{heads.count(',') + 1} heads"
    done = "removing" if result.design == "remove" else "keeping only"
    title = f"{done} {named} (dot; x: direct effect) against layer-matched head sets (grey)"
    figure_of(axes).suptitle(title, fontsize=10)
    return axes


@displays(Ablation, "plot_effects")
def plot_effects(result: Ablation) -> list[Axes]:
    """Many sets at once: effects as a heat map [layer x head], or a row per set, one panel per class and mode.

    Where several ranges of pairs were measured it shows the last one.
    """
    table = where(result.table, points=result.table["points"].iloc[-1])
    names, modes = list(table["function_class"].unique()), list(table["mode"].unique())
    heads = list(table["heads"].unique())
    shape = head_grid(heads) or (len(heads), 1)
    height = 0.42 * shape[0] + 0.7
    _, grid = plt.subplots(
        len(modes),
        len(names),
        figsize=((0.42 * shape[1] + 1.0) * len(names) + 0.9, height * len(modes) + 0.4),
        layout="constrained",
        dpi=DPI,
        squeeze=False,
    )
    for row, mode in enumerate(modes):
        for column, name in enumerate(names):
            ax, cell = grid[row, column], where(table, function_class=name, mode=mode)
            values = np.full(shape, np.nan)
            for place, one in enumerate(records(cell)):
                values[place // shape[1], place % shape[1]] = one["effect"]
            sns.heatmap(
                pd.DataFrame(values),
                ax=ax,
                vmin=-1,
                vmax=1,
                cmap="vlag",
                annot=values.size <= 48,
                fmt=".2f",
                annot_kws={"size": 6.5},
                cbar=column == len(names) - 1,
                cbar_kws={"shrink": 0.8},
                linewidths=0.5,
            )
            ax.set(title=f"{name}, {mode}", xlabel="head", ylabel="layer" if column == 0 else "")
            ax.title.set_fontsize(10)
            ax.tick_params(length=0)
            if shape[1] == 1:
                ax.set(xlabel="", xticks=[])
                ax.set_yticklabels(list(cell["heads"]), rotation=0)
                ax.set_ylabel("")
    axes = list(grid.ravel())
    done = "removing each alone" if result.design == "remove" else "keeping each alone"
    figure_of(axes).suptitle(f"share of the in-context gain lost by {done}", fontsize=10)
    return axes


@displays(CumulativeAblation, "plot")
def plot_cumulative(result: CumulativeAblation) -> list[Axes]:
    """Effect by number of removed heads in each mode, with its band; the range of random orders in grey.

    Where several ranges of pairs were measured it shows the last one.
    """
    table = where(result.table, points=result.table["points"].iloc[-1])
    names = list(table["function_class"].unique())
    axes = row_of_axes(len(names), width=3.2, height=2.7)
    for ax, name in zip(axes, names, strict=True):
        for mode, curve in where(table, function_class=name).groupby("mode", sort=False):
            colour = MODES.get(str(mode), GREY)
            ax.fill_between(curve["k"], curve["random_low"], curve["random_high"], color=NULL, alpha=0.25, lw=0)
            ax.plot(curve["k"], curve["random_effect"], color=colour, lw=0.9, ls=":", label=f"{mode}, random order")
            ax.fill_between(curve["k"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.2, lw=0)
            ax.plot(curve["k"], curve["effect"], color=colour, lw=1.8, label=str(mode))
        ax.axhline(1, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.set(title=name, xlabel="heads removed", ylim=(-0.1, 2.5))
    axes[0].set_ylabel("share of the in-context gain lost")
    legend_beside(axes)
    return axes


@displays(PairAblation, "plot")
def plot_pairs(result: PairAblation) -> list[Axes]:
    """Interactions as a heat map [head x head], one panel per class, of the first mode and the last range of pairs."""
    table = where(result.table, points=result.table["points"].iloc[-1], mode=result.table["mode"].iloc[0])
    names = list(table["function_class"].unique())
    heads = list(dict.fromkeys(head for pair in table["heads"] for head in pair.split(",")))
    axes = row_of_axes(len(names), width=0.4 * len(heads) + 1.2, height=0.4 * len(heads) + 0.9)
    limit = max(0.1, *(abs(row["interaction"]) for row in records(table)))
    for ax, name in zip(axes, names, strict=True):
        grid = pd.DataFrame(np.nan, index=heads, columns=heads)
        for row in records(where(table, function_class=name)):
            first, second = row["heads"].split(",")
            grid.loc[second, first] = row["interaction"]
        sns.heatmap(grid, ax=ax, vmin=-limit, vmax=limit, cmap="vlag", square=True, cbar=ax is axes[-1], linewidths=0.5)
        ax.set(title=name)
        ax.tick_params(length=0)
    title = f"interaction of two removals ({table['mode'].iloc[0]}): both less the sum of each"
    figure_of(axes).suptitle(title, fontsize=10)
    return axes
