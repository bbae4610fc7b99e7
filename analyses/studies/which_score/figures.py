"""Figures of the study of guides."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.studies.which_score.measures import FUNCTION_VECTOR, GUIDES, REFERENCE
from interp.display.axes import NULL
from training.common.output import records
from training.common.table_rows import distinct, where


def plot_guides(guides: pd.DataFrame) -> list[Axes]:
    """The rank correlation of every guide with the exact effect, with its t-interval over seeds, by curriculum."""
    curricula = distinct(guides, "curriculum") if len(guides) else []
    _, ax = plt.subplots(figsize=(6.5, 0.32 * len(GUIDES) + 1.2), layout="constrained")
    for index, curriculum in enumerate(curricula):
        rows = records(where(guides, curriculum=curriculum))
        heights = [GUIDES.index(row["guide"]) + 0.6 * (index + 0.5) / len(curricula) - 0.3 for row in rows]
        values = np.array([[row["spearman"], row["t_low"], row["t_high"]] for row in rows])
        spread = np.nan_to_num(np.abs(values[:, 1:] - values[:, :1])).T
        ax.errorbar(values[:, 0], heights, xerr=spread, fmt="o", ms=4, lw=1, label=curriculum)
    ax.set_yticks(range(len(GUIDES)), [guide.replace("_", " ") for guide in GUIDES])
    ax.invert_yaxis()
    ax.axvline(0, color=NULL, lw=0.8, zorder=0)
    ax.set(xlabel="rank correlation with the exact effect over heads", xlim=(-1, 1))
    if curricula:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return [ax]


def plot_courses(course: pd.DataFrame) -> list[Axes]:
    """The highest score of any head over training, a panel per kind of score, a line per run."""
    _, axes = plt.subplots(1, 2, figsize=(7.5, 2.8), layout="constrained", sharex=True)
    for ax, guide in zip(axes, (REFERENCE, FUNCTION_VECTOR), strict=True):
        for name in distinct(course, "checkpoint"):
            rows = where(course, checkpoint=name, guide=guide)
            ax.plot(rows["step"], rows["highest"], "-o", ms=3, label=name)
        ax.set(title=guide.replace("_", " "), xlabel="step", ylabel="highest score of any head")
        ax.set_xscale("symlog", linthresh=10)
        ax.axhline(0, color=NULL, lw=0.8, zorder=0)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=7)
    return list(axes)
