"""The figures of the study of pools: distances to both predictors by pool size and by training step."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from interp.display.axes import legend_beside, row_of_axes
from training.common.table_rows import where

PREDICTORS = {"to_memory": ("#c8553d", "to dMMSE"), "to_regression": ("#2a6f97", "to regression")}
SOURCES = {"pool": "functions of the pool", "fresh": "fresh functions"}


def plot_distances(distances: pd.DataFrame) -> list[Axes]:
    """A panel per source: a dot per model, lines through the means; runs without a pool are at the right edge."""
    sizes = sorted({*distances["n_functions"]} - {0})
    edge = 4 * max(sizes)
    axes = row_of_axes(len(SOURCES), width=3.4, height=2.8)
    for ax, (source, title) in zip(axes, SOURCES.items(), strict=True):
        rows = where(distances, functions=source).assign(x=lambda table: table["n_functions"].replace(0, edge))
        for column, (colour, label) in PREDICTORS.items():
            ax.plot(rows["x"], rows[column], "o", color=colour, ms=4, alpha=0.5, mec="none")
            means = rows.loc[rows["n_functions"] > 0].groupby("x")[column].mean()
            ax.plot(means.index, means, color=colour, lw=1.5, label=label)
        ax.set_xscale("log", base=2)
        ax.set_yscale("symlog", linthresh=1e-4)
        ticks = [*sizes, *([edge] if source == "fresh" and (rows["x"] == edge).any() else [])]
        ax.set_xticks(ticks, [str(size) if size < edge else "fresh" for size in ticks], rotation=45, fontsize=7)
        ax.set(title=title, xlabel="functions in the pool", ylim=(0, None))
    axes[0].set_ylabel("squared distance / n_dims")
    legend_beside(axes)
    return axes


def plot_course(course: pd.DataFrame) -> list[Axes]:
    """A panel per source: the leaning of every run by training step, coloured by pool size."""
    sizes = sorted({*course["n_functions"]} - {0})
    axes = row_of_axes(len(SOURCES), width=3.4, height=2.8)
    for ax, (source, title) in zip(axes, SOURCES.items(), strict=True):
        for size, colour in zip(sizes, sns.color_palette("crest", len(sizes)), strict=True):
            runs = where(course, functions=source, n_functions=size).groupby("checkpoint", sort=False)
            for i, (_, run) in enumerate(runs):
                label = f"{size} functions" if i == 0 else None
                ax.plot(run["step"] + 1, run["leaning"], "o-", color=colour, ms=3, lw=1, label=label)
        ax.axhline(0, color="#999999", lw=0.8)
        ax.set_xscale("log")
        ax.set(title=title, xlabel="step + 1", ylim=(-1.05, 1.05))
    axes[0].set_ylabel("leaning (1 dMMSE, -1 regression)")
    legend_beside(axes)
    return axes
