"""Figures of the study of success."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analyses.comparison.seed_figures import colours, spread
from analyses.studies.success.measures.by_class import DEPTH, MEASURES, PROBE
from interp.display.axes import GREY, figure_of, panels, row_of_axes
from training.common.output import records
from training.common.table_rows import distinct, where

SIDES = {True: "successful", False: "failed"}
N_COLUMNS = 4


def plot_measures(models: pd.DataFrame) -> list[Axes]:
    """A panel per measure: a dot per model, successful against failed, coloured by curriculum; bars are means.

    Grey: the mean score of the untrained twins; for probes, whose values are above controls, 0.
    """
    names = [name for name in MEASURES if name in distinct(models, "measure")]
    axes = panels(len(names), N_COLUMNS, width=2.2, height=2.3)
    for ax, name in zip(axes, names, strict=True):
        table = where(models, measure=name)
        is_probe = table["kind"].iloc[0] == PROBE
        ax.axhline(0 if is_probe else pd.Series(table["untrained"]).mean(), color=GREY, lw=0.8, ls=":")
        for x, kind in enumerate(SIDES):
            draw_dots(ax, x, where(table, succeeded=kind), distinct(models, "curriculum"))
        ax.set(title=name, xticks=[0, 1], xlim=(-0.6, 1.6))
        ax.set_xticklabels(SIDES.values())
    for ax in axes[::N_COLUMNS]:
        ax.set_ylabel("score, or R² above controls", fontsize=8)
    add_legend(axes, distinct(models, "curriculum"))
    return axes


def draw_dots(ax: Axes, x: int, models: pd.DataFrame, curricula: list[str]) -> None:
    palette, rows = colours(curricula), records(models)
    for offset, row in zip(spread(len(rows)), rows, strict=False):
        ax.plot(x + offset, row["value"], "o", ms=4, alpha=0.8, color=palette[row["curriculum"]])
    if rows:
        ax.plot(x, np.mean([row["value"] for row in rows]), "_", ms=26, color="black")


def plot_depth(models: pd.DataFrame) -> list[Axes]:
    """Error of the tuned implied prediction by stage, a thin line per model, the median dashed; 1 is no context."""
    depth = where(models, kind=DEPTH)
    curricula, names = distinct(depth, "curriculum"), distinct(depth, "measure")
    palette, axes = colours(curricula), row_of_axes(2, width=3.2, height=2.9)
    for ax, (kind, label) in zip(axes, SIDES.items(), strict=True):
        side = where(depth, succeeded=kind)
        for name in distinct(side, "checkpoint"):
            table = where(side, checkpoint=name)
            colour = palette[table["curriculum"].iloc[0]]
            ax.plot(range(len(names)), table["value"], lw=0.8, alpha=0.7, color=colour)
        if len(side):
            medians = side.groupby("measure")["value"].median().loc[names]
            ax.plot(range(len(names)), medians, "--", lw=1.4, color="black")
        ax.axhline(1, color=GREY, lw=0.8, ls=":")
        ax.set(title=label, yscale="log", xticks=range(len(names)))
        ax.set_xticklabels(names, rotation=40, ha="right")
        ax.set_ylim(0.8 * min(depth["value"].tolist()), 1.2 * max(depth["value"].tolist()))
    axes[0].set_ylabel("error of the tuned implied prediction\n/ no-context optimum", fontsize=8)
    add_legend(axes, curricula)
    return axes


def add_legend(axes: list[Axes], curricula: list[str]) -> None:
    palette = colours(curricula)
    marks = [Line2D([], [], color=palette[name], marker="o", ls="", ms=4) for name in curricula]
    figure_of(axes).legend(marks, curricula, loc="outside right center", frameon=False, fontsize=8)
