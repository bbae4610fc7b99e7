"""The figure of a checked function class."""

import numpy as np
from matplotlib.axes import Axes

from interp.display.axes import GREY, INTACT, MODES, row_of_axes, title_figure
from interp.display.result import displays
from interp.doctor.class_checks import KINDS, ClassCheck
from training.common.output import records
from training.common.table_rows import where


@displays(ClassCheck, "plot")
def plot_class(result: ClassCheck) -> list[Axes]:
    """What was measured over what was declared, with its interval: a panel per kind of weights; red: they disagree."""
    axes = row_of_axes(len(KINDS), width=3.2, height=1.8)
    for ax, kind in zip(axes, KINDS, strict=True):
        rows = [row for row in records(where(result.table, weights=kind)) if row["declared"]]
        ax.axvline(1, color=GREY, lw=0.8, ls=":")
        for y, row in enumerate(rows):
            value, low, high = (row[column] / row["declared"] for column in ("measured", "ci_low", "ci_high"))
            spread = np.maximum(0, [[value - low], [high - value]])
            colour = INTACT if row["agrees"] else MODES["zero"]
            ax.errorbar([value], [y], xerr=spread, fmt="o", ms=4, color=colour, capsize=2)
        ax.set(title=f"{kind} weights", xlabel="measured / declared", ylim=(-0.6, max(1, len(rows)) - 0.4))
        ax.set_yticks(range(len(rows)), [row["check"] for row in rows], fontsize=7)
        ax.invert_yaxis()
    n_problems = len(result.problems)
    title_figure(
        axes, f"{n_problems} of {len(result.table)} checks disagree with what the class declares", fontsize=9.0
    )
    return axes
