"""The figure of the study of what heads carry."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.studies.trace.measures import READERS
from interp.display.axes import MODES, NULL, row_of_axes
from training.common.table_rows import distinct, where


def plot_readers(readers: pd.DataFrame) -> list[Axes]:
    """The share through every group of readers: a dot per head and model, a panel per curriculum."""
    curricula = distinct(readers, "curriculum")
    axes = row_of_axes(len(curricula), width=2.4, height=2.6)
    for ax, curriculum in zip(axes, curricula, strict=True):
        for x, reader in enumerate(READERS):
            rows = where(readers, curriculum=curriculum, reader=reader)
            ends = np.abs(rows[["share_low", "share_high"]].to_numpy().T - rows["share"].to_numpy())
            xs = x + np.linspace(-0.2, 0.2, len(rows)) if len(rows) > 1 else [x] * len(rows)
            ax.errorbar(xs, rows["share"], yerr=ends, fmt="o", ms=4, lw=1, color=MODES["resample"], alpha=0.8)
        for level in (0, 1):
            ax.axhline(level, color=NULL, lw=0.8, zorder=0)
        ax.set(title=curriculum, xticks=range(len(READERS)), xlim=(-0.6, len(READERS) - 0.4))
        ax.set_xticklabels(READERS, rotation=40, ha="right")
    axes[0].set_ylabel("share of the head's effect")
    return axes
