"""Figure of the study of layers."""

import pandas as pd
from matplotlib.axes import Axes

from analyses.studies.layers.measures import KEPT
from interp.display.axes import NULL, row_of_axes
from training.common.table_rows import distinct, where


def plot_layers(tables: pd.DataFrame) -> list[Axes]:
    """The cost against the number of heads that are left, a panel per layer, a line per model and class."""
    layers = sorted(distinct(tables, "layer")) if len(tables) else []
    axes = row_of_axes(max(1, len(layers)), width=2.6, height=2.6)
    for ax, layer in zip(axes, layers, strict=False):
        cells = where(tables, layer=layer)
        for _, curve in cells.groupby(["checkpoint", "function_class"], sort=False):
            ax.plot(curve["k"], curve["effect"], "-", color="#1b6ca8", alpha=0.3, lw=1)
        median = cells.groupby("k")["effect"].median()
        ax.plot(median.index, median.to_numpy(), "-o", color="black", ms=4, label="median")
        ax.axhline(1 - KEPT, color=NULL, lw=0.8, zorder=0)
        ax.set(title=f"layer {layer}", xlabel="heads left in the layer")
    axes[0].set_ylabel("share of the\nin-context gain lost")
    axes[-1].legend(frameon=False)
    return axes
