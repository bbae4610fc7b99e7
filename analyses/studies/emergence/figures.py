"""The figure of the study of emergence."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from analyses.studies.emergence.measures import Course
from interp.display.axes import GREY, INTACT, MODES, NULL, grid_of_axes, legend_beside, title_figure
from training.common.table_rows import where

LINES = {
    "score": ("score of the heads", INTACT),
    "gain": ("gain of the model", GREY),
    "effect": ("effect of removal", MODES["mean"]),
}


def plot_courses(courses: Sequence[Course]) -> list[Axes]:
    """A row per run, a column per class: score, gain and effect by step; task switches dotted."""
    grid = grid_of_axes(len(courses), max(len(course.classes) for course in courses), width=2.7, height=1.8)
    for row, course in zip(grid, courses, strict=True):
        for ax, function_class in zip(row, course.classes, strict=False):
            table = where(course.table, function_class=function_class)
            for column, (label, colour) in LINES.items():
                ax.plot(table["step"] + 1, table[column], color=colour, lw=1.3, label=label)
            for switch in course.switches:
                ax.axvline(switch + 1, color=NULL, ls=":", lw=1)
            ax.set(xscale="log", ylim=(-0.25, 2))
            ax.set_title(f"{course.checkpoint.name.rsplit('/', 1)[-1]}, {function_class}", fontsize=8)
    for ax in grid[-1]:
        ax.set_xlabel("step + 1")
    axes = [ax for row in grid for ax in row]
    legend_beside(axes)
    title_figure(axes, "heads that end as retrospective ones: score, effect, and the model's gain")
    return axes
