"""Figures of the study of causes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from interp.ablation.modes import DEFAULT_MODES
from interp.ablation.size_classes import ATTENDS
from interp.display.axes import GREY, MODES, NULL, grid_of_axes, legend_beside, row_of_axes, title_figure
from training.common.output import records
from training.common.table_rows import distinct, where


def plot_effects(effects: pd.DataFrame) -> list[Axes]:
    """Effects of removing every model's heads, a column per class, by curriculum and mode; bars are control sets."""
    removed = where(effects, design="remove") if len(effects) else effects
    classes, curricula = distinct(removed, "function_class"), distinct(removed, "curriculum")
    axes = row_of_axes(max(1, len(classes)), width=3.2, height=2.8)
    for ax, function_class in zip(axes, classes, strict=False):
        for offset, mode in zip((-0.2, 0, 0.2), DEFAULT_MODES, strict=True):
            rows = records(where(removed, function_class=function_class, mode=mode))
            xs = np.array([curricula.index(row["curriculum"]) + offset for row in rows])
            ax.plot(xs, [row["effect"] for row in rows], "o", ms=4, alpha=0.7, color=MODES[mode], label=mode)
            if mode == "mean":
                ax.plot(xs, [row["control_effect"] for row in rows], "_", ms=9, color=GREY, label="control sets")
        for level in (0, 1):
            ax.axhline(level, color=NULL, lw=0.8, zorder=0)
        ax.set(title=function_class, xticks=range(len(curricula)), xlim=(-0.5, len(curricula) - 0.5))
        ax.set_xticklabels(curricula, rotation=30, ha="right")
    axes[0].set_ylabel("share of the\nin-context gain lost")
    legend_beside(axes)
    return axes


def plot_dose_response(heads: pd.DataFrame) -> list[Axes]:
    """Effect against score, a dot per head and model, a row per curriculum, a column per class."""
    curricula, classes = distinct(heads, "curriculum"), distinct(heads, "function_class")
    grid = grid_of_axes(len(curricula), len(classes), width=2.4, height=1.9)
    for row, curriculum in zip(grid, curricula, strict=True):
        for ax, function_class in zip(row, classes, strict=True):
            cell = where(heads, curriculum=curriculum, function_class=function_class)
            if cell["effect"].isna().to_numpy().all():
                text = {"transform": ax.transAxes, "ha": "center", "fontsize": 7, "color": GREY}
                ax.text(0.5, 0.5, "no clear in-context gain", **text)
                ax.set_yticks([])
            ax.plot(cell["score"], cell["effect"], "o", ms=3, alpha=0.5, color=MODES["mean"], mec="none")
            ax.axhline(0, color=NULL, lw=0.8, zorder=0)
            ax.axvline(ATTENDS, color=NULL, lw=0.8, ls=":", zorder=0)
            ax.set(xlim=(0, 1))
            ax.set_title(f"{curriculum}, {function_class}", fontsize=8)
        row[0].set_ylabel("effect alone")
    for ax in grid[-1]:
        ax.set_xlabel("retrospective score")
    axes = [ax for row in grid for ax in row]
    title_figure(axes, "every head removed alone (mean ablation): effect against score")
    return axes
