"""Figures of the consistency study."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analyses.studies.consistency.measures.attention import Model
from analyses.studies.consistency.measures.within import TOP, seed_interval, seed_means
from analyses.studies.consistency.tables import NAMES
from interp.display.axes import GREY, INTACT, NULL, figure_of, legend_beside, row_of_axes, title_figure
from training.common.output import records
from training.common.table_rows import distinct, where

COLOURS = ("#1b6ca8", "#c8553d", "#3f7d58", "#7a5195", "#e0a458", "#00838f")


def plot_within(within: pd.DataFrame) -> list[Axes]:
    """Agreement between classes, a dot per model, by curriculum: trained, and the untrained twins beside them."""
    statistics = ("spearman", "pearson", f"top{TOP}")
    curricula = distinct(within, "curriculum")
    axes = row_of_axes(len(statistics), width=max(2.4, 0.62 * len(curricula) + 0.9), height=2.9)
    for ax, statistic in zip(axes, statistics, strict=True):
        table = where(within, classes="all", statistic=statistic)
        for x, curriculum in enumerate(curricula):
            for shift, state, colour in ((-0.17, "trained", INTACT), (0.17, "untrained", NULL)):
                draw_dots(ax, x + shift, where(table, curriculum=curriculum, state=state), colour)
        ax.set(title=NAMES[statistic], xticks=range(len(curricula)), ylim=(None, 1.02))
        ax.set_xlim(-0.6, len(curricula) - 0.4)
        ax.set_xticklabels(curricula, rotation=30, ha="right")
        chance = records(table)[0]["chance"]
        if chance:
            ax.axhline(chance, color=GREY, ls=":", lw=0.8)
            ax.set_ylim(0, 1.04)
    axes[0].set_ylabel("mean over pairs of classes")
    legend_beside(axes)
    return axes


def draw_dots(ax: Axes, x: float, rows: pd.DataFrame, colour: str) -> None:
    """A dot per model, and the mean over seeds with its t-interval where there are several."""
    state, statistic = (rows[column].iloc[0] for column in ("state", "statistic"))
    xs = x + np.linspace(-0.09, 0.09, len(rows)) if len(rows) > 1 else [x]
    ax.plot(xs, rows["value"], "o", ms=4, color=colour, alpha=0.85, label=state)
    values = seed_means(records(rows))
    low, high = seed_interval(values, statistic, state)
    if low < high:
        spread = [[values.mean() - low], [high - values.mean()]]
        ax.errorbar([x], [values.mean()], yerr=spread, fmt="_", color="black", ms=9, lw=1, capsize=2, zorder=3)


def plot_between(models: Sequence[Model], pairs: pd.DataFrame) -> list[Axes]:
    """Matrices of models by models: shared heads above one half, similarity by number, similarity of matched heads.

    Pairs that share a stream of random numbers are framed; those that cannot be compared are blank.
    """
    trained = where(pairs, within="layer", state="trained")
    fewest = trained[["n_found", "n_found_other"]].min(axis=1)
    panels = {
        "heads > 1/2 with the same number": (trained["n_coincide"] / fewest.where(fewest > 0)).to_numpy(),
        "similarity, same number": trained["by_index"].to_numpy(),
        "similarity, matched in the layer": trained["matched"].to_numpy(),
    }
    side = max(2.4, 0.24 * len(models) + 1.2)
    axes = row_of_axes(len(panels), width=side, height=side + 0.4)
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        draw_matrix(ax, models, trained, values, first=ax is axes[0], last=ax is axes[-1])
        ax.set_title(title, fontsize=9)
    title_figure(
        axes,
        "black frames: models that share a stream of random numbers; blank: no such head, or not comparable",
        fontsize=9,
    )
    return axes


def draw_matrix(
    ax: Axes,
    models: Sequence[Model],
    pairs: pd.DataFrame,
    values: Float[np.ndarray, " pair"],
    *,
    first: bool,
    last: bool,
) -> None:
    numbers = {model.checkpoint.name: i for i, model in enumerate(models)}
    labels = [model.label for model in models]
    grid = np.full((len(models), len(models)), np.nan)
    for row, value in zip(records(pairs), values, strict=True):
        a, b = numbers[row["checkpoint"]], numbers[row["other"]]
        grid[a, b] = grid[b, a] = value
        if row["same_stream"]:
            for x, y in ((a, b), (b, a)):
                ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="black", lw=1.2, zorder=3))
    cells = ax.imshow(grid, vmin=0, vmax=1, cmap=sns.color_palette("mako_r", as_cmap=True))
    ax.set(xticks=range(len(models)), yticks=range(len(models)))
    ax.set_xticklabels(labels, rotation=90, fontsize=7)
    ax.set_yticklabels(labels if first else [], fontsize=7)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if last:
        figure_of([ax]).colorbar(cells, ax=ax, shrink=0.8).outline.set_visible(False)


def plot_steps(steps: pd.DataFrame) -> list[Axes]:
    """Correlation of the maps of snapshots with the last map: runs thin, the median of a curriculum's runs thick.

    Grey: with the last maps of independent models.
    """
    panels = {
        "spearman": "with the last map (Spearman)",
        "top_found": "heads > 1/2 already highest",
        "between_classes": "between classes (Spearman)",
    }
    axes = row_of_axes(len(panels), width=3.0, height=2.8)
    colours = dict(zip(distinct(steps, "curriculum"), COLOURS * 3, strict=False))
    for ax, (column, title) in zip(axes, panels.items(), strict=True):
        for name in distinct(steps, "checkpoint"):
            run = where(steps, checkpoint=name)
            colour = colours[records(run)[0]["curriculum"]]
            ax.plot(run["step"], run[column], lw=0.7, alpha=0.4, color=colour)
            if column == "spearman":
                ax.plot(run["step"], run["others"], lw=0.7, color=NULL, label="with independent models")
        for curriculum, colour in colours.items():
            median = where(steps, curriculum=curriculum)[["step", column]].groupby("step").median()
            ax.plot(median.index, median[column], lw=1.8, color=colour, label=curriculum)
        ax.set_xscale("symlog", linthresh=1)
        ax.set(title=title, xlabel="step", ylim=(None, 1.03))
    legend_beside(axes)
    return axes
