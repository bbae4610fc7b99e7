"""Figures of ablations. Effects are shares of the in-context gain."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from interp.ablation.ablate import Ablation
from interp.ablation.cumulative import CumulativeAblation
from interp.ablation.pairs import PairAblation
from interp.display.axes import DPI, GREY, INTACT, MODES, NULL, legend_beside, row_of_axes, title_figure
from interp.display.result import displays
from interp.model.heads import head_grid
from training.common.output import records
from training.common.table_rows import distinct, where

GAIN_LOST = "share of the in-context gain lost"


@displays(Ablation, "plot_curves")
def plot_ablation_curves(result: Ablation, heads: str) -> list[Axes]:
    """Error by number of in-context examples with and without one head set, one panel per class."""
    classes = distinct(result.curves, "function_class")
    axes = row_of_axes(len(classes), width=2.9, height=2.7)
    for ax, function_class in zip(axes, classes, strict=True):
        curves = where(result.curves, function_class=function_class)
        intact, no_context = (where(curves, mode=mode) for mode in ("intact", "no_context"))
        ax.plot(intact["examples"], intact["nmse"], "-", color=INTACT, lw=2, label="intact")
        ax.plot(no_context["examples"], no_context["nmse"], ":", color=GREY, lw=1.2, label="no-context optimum")
        for mode, curve in where(curves, heads=heads).groupby("mode", sort=False):
            colour, label = MODES.get(str(mode), GREY), f"without {heads}: {mode}"
            ax.plot(curve["examples"], curve["nmse"], color=colour, lw=1.2, label=label)
        ax.set(title=function_class, xlabel="in-context examples", ylim=(0, None))
    axes[0].set_ylabel("MSE / E[y²]")
    legend_beside(axes)
    return axes


@displays(Ablation, "plot")
def plot_ablation(result: Ablation, heads: str) -> list[Axes]:
    """A set's effect with its interval, per class and mode, beside its layer-matched control sets (dots).

    Control sets from any layer, where there are any, are hollow dots to the right of the layer-matched ones.
    Where several ranges of pairs were measured it shows the last one; `plot_ablation_curves` shows all positions.
    """
    table = where(last_range(result.table), heads=heads)
    null = where(last_range(result.null), heads=heads)
    any_layer = "size" in set(null["match"])
    sides = {"layer": (-0.36, -0.04), "size": (0.04, 0.36)} if any_layer else {"layer": (-0.22, 0.22)}
    classes, modes = distinct(table, "function_class"), distinct(table, "mode")
    axes = row_of_axes(len(classes), width=max(2.9, 0.75 * len(modes)), height=2.7)
    rng = np.random.default_rng(0)  # sideways jitter only
    for ax, function_class in zip(axes, classes, strict=True):
        for x, mode in enumerate(modes):
            colour = MODES.get(mode, GREY)
            for match, ends in sides.items():
                controls = where(null, function_class=function_class, mode=mode, match=match)["effect"]
                fill = NULL if match == "layer" else "none"
                ax.plot(x + rng.uniform(*ends, len(controls)), controls, ".", color=NULL, mfc=fill, ms=5)
            (row,) = records(where(table, function_class=function_class, mode=mode))
            spread = [[row["effect"] - row["ci_low"]], [row["ci_high"] - row["effect"]]]
            ax.errorbar([x], [row["effect"]], yerr=spread, fmt="o", color=colour, capsize=3, ms=6)
            ax.plot([x + 0.12], [row["direct_effect"]], "x", color=colour, ms=5)
            if np.isnan(row["effect"]):
                ax.annotate("undefined", (x, 0), rotation=90, ha="center", va="bottom", fontsize=7, color=GREY)
        for level in (0, 1):
            ax.axhline(level, color=GREY, lw=0.8, ls=":", zorder=0)
        angle = 30 if len(modes) > 3 else 0
        ax.set(title=function_class, xticks=range(len(modes)), xlim=(-0.6, len(modes) - 0.4))
        ax.set_xticklabels(modes, rotation=angle, ha="right" if angle else "center")
    axes[0].set_ylabel(GAIN_LOST)
    name = heads if len(heads) <= 40 else f"{heads.count(',') + 1} heads"
    action = "removing" if result.design == "remove" else "keeping only"
    hollow = "; hollow: from any layer" if any_layer else ""
    title = f"{action} {name} (dot; x: direct effect) against layer-matched head sets (grey{hollow})"
    title_figure(axes, title)
    return axes


@displays(Ablation, "plot_effects")
def plot_effects(result: Ablation) -> list[Axes]:
    """Effects of many sets as heat maps [layer x head], or a row per set; one panel per class and mode.

    Where several ranges of pairs were measured it shows the last one.
    """
    table = last_range(result.table)
    classes, modes, heads = (distinct(table, column) for column in ("function_class", "mode", "heads"))
    shape = head_grid(heads) or (len(heads), 1)
    size = (0.42 * shape[1] + 1.0) * len(classes) + 0.9, (0.42 * shape[0] + 0.7) * len(modes) + 0.4
    _, grid = plt.subplots(len(modes), len(classes), figsize=size, layout="constrained", dpi=DPI, squeeze=False)
    for row, mode in zip(grid, modes, strict=True):
        for ax, function_class in zip(row, classes, strict=True):
            effects = where(table, function_class=function_class, mode=mode)["effect"].to_numpy()
            sns.heatmap(
                pd.DataFrame(effects.reshape(shape)),
                ax=ax,
                vmin=-1,
                vmax=1,
                cmap="vlag",
                annot=effects.size <= 48,
                fmt=".2f",
                annot_kws={"size": 6.5},
                cbar=ax is row[-1],
                cbar_kws={"shrink": 0.8},
                linewidths=0.5,
            )
            ax.set(title=f"{function_class}, {mode}", xlabel="head", ylabel="layer" if ax is row[0] else "")
            ax.title.set_fontsize(10)
            ax.tick_params(length=0)
            if shape[1] == 1:
                ax.set(xlabel="", ylabel="", xticks=[])
                ax.set_yticklabels(heads, rotation=0)
    axes = list(grid.ravel())
    action = "removing each alone" if result.design == "remove" else "keeping each alone"
    title_figure(axes, f"{GAIN_LOST} by {action}")
    return axes


@displays(CumulativeAblation, "plot")
def plot_cumulative(result: CumulativeAblation) -> list[Axes]:
    """Effect by number of removed heads in each mode, with its band; the range of random orders in grey.

    Where several ranges of pairs were measured it shows the last one.
    """
    table = last_range(result.table)
    classes = distinct(table, "function_class")
    axes = row_of_axes(len(classes), width=3.2, height=2.7)
    for ax, function_class in zip(axes, classes, strict=True):
        for mode, curve in where(table, function_class=function_class).groupby("mode", sort=False):
            colour = MODES.get(str(mode), GREY)
            ax.fill_between(curve["k"], curve["random_low"], curve["random_high"], color=NULL, alpha=0.25, lw=0)
            ax.plot(curve["k"], curve["random_effect"], color=colour, lw=0.9, ls=":", label=f"{mode}, random order")
            ax.fill_between(curve["k"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.2, lw=0)
            ax.plot(curve["k"], curve["effect"], color=colour, lw=1.8, label=str(mode))
        ax.axhline(1, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.set(title=function_class, xlabel="heads removed", ylim=(-0.1, 2.5))
    axes[0].set_ylabel(GAIN_LOST)
    legend_beside(axes)
    return axes


@displays(PairAblation, "plot")
def plot_pairs(result: PairAblation) -> list[Axes]:
    """Interactions as a heat map [head x head], one panel per class, of the first mode and the last range of pairs."""
    table = where(last_range(result.table), mode=result.table["mode"].iloc[0])
    classes = distinct(table, "function_class")
    heads = list(dict.fromkeys(head for pair in table["heads"] for head in pair.split(",")))
    axes = row_of_axes(len(classes), width=0.4 * len(heads) + 1.2, height=0.4 * len(heads) + 0.9)
    limit = max(0.1, *(abs(row["interaction"]) for row in records(table)))
    for ax, function_class in zip(axes, classes, strict=True):
        grid = pd.DataFrame(np.nan, index=heads, columns=heads)
        for row in records(where(table, function_class=function_class)):
            first, second = row["heads"].split(",")
            grid.loc[second, first] = row["interaction"]
        sns.heatmap(grid, ax=ax, vmin=-limit, vmax=limit, cmap="vlag", square=True, cbar=ax is axes[-1], linewidths=0.5)
        ax.set(title=function_class)
        ax.tick_params(length=0)
    title = f"interaction of two removals ({table['mode'].iloc[0]}): effect of both minus the sum of each"
    title_figure(axes, title)
    return axes


def last_range(table: pd.DataFrame) -> pd.DataFrame:
    return where(table, points=table["points"].iloc[-1]) if len(table) else table
