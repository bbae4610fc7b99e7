"""The figure of the study of clamping."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from analyses.comparison.histories import tidy
from analyses.comparison.seed_figures import colours, draw_seeds
from interp.display.axes import legend_beside, row_of_axes
from training.common.table_rows import distinct, where


def plot_courses(trained: Mapping[str, pd.DataFrame], arms: Mapping[str, str]) -> list[Axes]:
    """The error as trained by step, in units of the no-context optimum, a panel per class and a colour per arm."""
    table = tidy(trained, arms)
    names, curricula = distinct(table, "function_class"), distinct(table, "curriculum")
    axes, palette = row_of_axes(len(names), width=3.1, height=2.9), colours(curricula)
    for ax, name in zip(axes, names, strict=True):
        for arm in curricula:
            draw_seeds(ax, where(table, function_class=name, curriculum=arm), "step", "ratio", palette[arm], arm)
        ax.axhline(1, ls=":", color="black", lw=1)
        ax.set(title=name, xlabel="step", yscale="log")
    axes[0].set_ylabel("error / no-context optimum")
    legend_beside(axes)
    return axes
