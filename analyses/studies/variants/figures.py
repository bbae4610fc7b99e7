"""The figure of the study of variants."""

from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes

from analyses.studies.variants.measures.by_model import MEASURES
from analyses.studies.variants.measures.grouping import REFERENCE
from interp.display.axes import INTACT, NULL, panels
from training.common.table_rows import distinct, where

N_COLUMNS = 4


def plot_variants(models: pd.DataFrame) -> list[Axes]:
    """A panel per measure: a dot per model, a row per variant; the line is the mean of the reference."""
    variants = distinct(models, "variant")
    axes = panels(len(MEASURES), N_COLUMNS, width=2.4, height=0.8 + 0.24 * len(variants))
    for panel, (ax, (measure, label)) in enumerate(zip(axes, MEASURES.items(), strict=True)):
        reference = pd.Series(where(models, variant=REFERENCE)[measure]).dropna()
        if len(reference):
            ax.axvline(float(reference.mean()), color=NULL, lw=1, zorder=0)
        for row, variant in enumerate(variants):
            values = where(models, variant=variant)[measure].dropna()
            ax.plot(values, [row] * len(values), "o", ms=4, alpha=0.6, mec="none", color=INTACT)
        first = panel % N_COLUMNS == 0
        ax.set_yticks(range(len(variants)), variants if first else [""] * len(variants), fontsize=7)
        ax.set(ylim=(len(variants) - 0.5, -0.5))
        ax.set_title(fill(label, 28), fontsize=8)
    return axes
