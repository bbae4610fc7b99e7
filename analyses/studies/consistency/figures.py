"""Figures of the consistency study."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analyses.studies.consistency.tables import NAMES
from analyses.studies.consistency.within import TOP, Model, by_seed, seed_interval
from interp.display.axes import GREY, INTACT, NULL, figure_of, legend_beside, row_of_axes
from training.common.output import records
from training.common.table_rows import where

COLOURS = ("#1b6ca8", "#c8553d", "#3f7d58", "#7a5195", "#e0a458", "#00838f")


def plot_within(within: pd.DataFrame) -> list[Axes]:
    """Agreement between classes, a dot per model, by curriculum: trained, and the untrained twins beside them."""
    statistics = ("spearman", "pearson", f"top{TOP}")
    names = list(dict.fromkeys(within["curriculum"]))
    axes = row_of_axes(len(statistics), width=max(2.4, 0.62 * len(names) + 0.9), height=2.9)
    for ax, statistic in zip(axes, statistics, strict=True):
        of_statistic = where(within, classes="all", statistic=statistic)
        for x, name in enumerate(names):
            for shift, state, colour in ((-0.17, "trained", INTACT), (0.17, "untrained", NULL)):
                rows = where(of_statistic, curriculum=name, state=state)
                draw_dots(ax, x + shift, rows, colour)
        ax.set(title=NAMES[statistic], xticks=range(len(names)), xlim=(-0.6, len(names) - 0.4), ylim=(None, 1.02))
        ax.set_xticklabels(names, rotation=30, ha="right")
        chance = records(of_statistic)[0]["chance"]
        if chance:
            ax.axhline(chance, color=GREY, ls=":", lw=0.8)
            ax.set_ylim(0, 1.04)
    axes[0].set_ylabel("mean over pairs of classes")
    legend_beside(axes)
    return axes


def draw_dots(ax: Axes, x: float, rows: pd.DataFrame, colour: str) -> None:
    """A dot per model, and the mean over seeds with its t-interval where there are several."""
    state, statistic = (rows[column].iloc[0] for column in ("state", "statistic"))
    places = x + np.linspace(-0.09, 0.09, len(rows)) if len(rows) > 1 else [x]
    ax.plot(places, rows["value"], "o", ms=4, color=colour, alpha=0.85, label=state)
    values = by_seed(records(rows))
    low, high = seed_interval(values, statistic, state)
    if low < high:
        spread = [[values.mean() - low], [high - values.mean()]]
        ax.errorbar([x], [values.mean()], yerr=spread, fmt="_", color="black", ms=9, lw=1, capsize=2, zorder=3)


def plot_between(models: Sequence[Model], pairs: pd.DataFrame) -> list[Axes]:
    """Models against models, a matrix each: shared heads above one half, likeness by number, likeness of matches.

    Pairs that share a stream of random numbers are framed; those that cannot be compared are blank.
    """
    trained = where(where(pairs, within="layer"), state="trained")
    rows = records(trained)
    shares = [
        row["n_coincide"] / min(row["n_found"], row["n_found_other"])
        if min(row["n_found"], row["n_found_other"])
        else np.nan
        for row in rows
    ]
    panels = {
        "heads > 1/2 with the same number": np.array(shares),
        "likeness, same number": np.array([row["by_index"] for row in rows]),
        "likeness, matched in the layer": np.array([row["matched"] for row in rows]),
    }
    side = max(2.4, 0.24 * len(models) + 1.2)
    axes = row_of_axes(len(panels), width=side, height=side + 0.4)
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        draw_matrix(ax, models, trained, values, first=ax is axes[0], last=ax is axes[-1])
        ax.set_title(title, fontsize=9)
    figure_of(axes).suptitle(
        "black frames: models that share a stream of random numbers; blank: no such head, or not comparable", fontsize=9
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
    places = {model.checkpoint.name: place for place, model in enumerate(models)}
    labels = [model.label for model in models]
    grid = np.full((len(models), len(models)), np.nan)
    for row, value in zip(records(pairs), values, strict=True):
        a, b = places[row["checkpoint"]], places[row["other"]]
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
    """Correlation of earlier maps with the last one: runs thin, the median of a curriculum's runs thick.

    Grey: with the last maps of independent models.
    """
    panels = {
        "spearman": "with the last map (Spearman)",
        "top_found": "heads > 1/2 already highest",
        "between_classes": "between classes (Spearman)",
    }
    axes = row_of_axes(len(panels), width=3.0, height=2.8)
    colours = dict(zip(dict.fromkeys(steps["curriculum"]), COLOURS * 3, strict=False))
    for ax, (column, title) in zip(axes, panels.items(), strict=True):
        for name in dict.fromkeys(steps["checkpoint"]):
            run = where(steps, checkpoint=name)
            colour = colours[records(run)[0]["curriculum"]]
            ax.plot(run["step"], run[column], lw=0.7, alpha=0.4, color=colour)
            if column == "spearman":
                ax.plot(run["step"], run["others"], lw=0.7, color=NULL, label="with independent models")
        for name, colour in colours.items():
            median = where(steps, curriculum=name)[["step", column]].groupby("step").median()
            ax.plot(median.index, median[column], lw=1.8, color=colour, label=name)
        ax.set_xscale("symlog", linthresh=1)
        ax.set(title=title, xlabel="step", ylim=(None, 1.03))
    legend_beside(axes)
    return axes
