"""Figures of several runs: a thin line per seed, a thick line for their mean, a colour per curriculum."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from interp.display.axes import GREY, grid_of_axes, legend_beside, row_of_axes
from training.common.output import records
from training.common.table_rows import distinct, where

COLOURS = {
    "mixed": "#1b6ca8",
    "random": "#e0a458",
    "sequential": "#3f7d58",
    "single:linear": "#c8553d",
    "single:quadratic": "#7a5195",
    "single:cubic": "#8d6e63",
}


def colours(curricula: Sequence[str]) -> dict[str, str]:
    """A fixed colour for the paper's curricula, others from a palette."""
    others = [name for name in curricula if name not in COLOURS]
    return COLOURS | dict(zip(others, sns.color_palette("husl", len(others)).as_hex(), strict=True))


def draw_seeds(
    ax: Axes, table: pd.DataFrame, x: str, y: str, colour: str, label: str, *, along: str | None = None
) -> None:
    """One curriculum's runs, and their mean at every x; drawn against another column if `along` names one."""
    if table.empty:  # runs on other input distributions are not evaluated on this one
        return
    along = along or x
    for _, run in table.groupby("checkpoint", sort=False):
        ax.plot(run[along], run[y], color=colour, lw=0.6, alpha=0.45)
    mean = table.pivot_table(index=x, values=list({y, along} - {x})).reset_index()
    ax.plot(mean[along], mean[y], color=colour, lw=2, label=label)


def plot_curves(curves: pd.DataFrame) -> list[Axes]:
    """Error by number of in-context examples, a panel per class."""
    names = list(curves["function_class"].unique())
    axes = row_of_axes(len(names), width=3.1, height=2.9)
    for ax, name in zip(axes, names, strict=True):
        rows = where(curves, function_class=name)
        no_context = where(rows, curriculum="no context")
        models = rows.loc[rows["curriculum"] != "no context"]
        palette = colours(list(models["curriculum"].unique()))
        for curriculum, runs in models.groupby("curriculum", sort=False):
            draw_seeds(ax, runs, "examples", "error", palette[str(curriculum)], str(curriculum))
        ax.plot(no_context["examples"], no_context["error"], ":", color="black", lw=1.4, label="no-context optimum")
        ax.set(title=name, xlabel="in-context examples", yscale="log")
        ax.set_ylim(0.7 * float(models["error"].to_numpy().min()), 3 * float(no_context["error"].to_numpy().max()))
    axes[0].set_ylabel("MSE / E[y²]")
    legend_beside(axes)
    return axes


def plot_training(training: pd.DataFrame) -> list[Axes]:
    """Error in units of the no-context optimum by training step, a row per class and a column per curriculum."""
    names, curricula = list(training["function_class"].unique()), list(training["curriculum"].unique())
    axes = grid_of_axes(len(names), len(curricula), width=2.0, height=1.9)
    palette = colours(curricula)
    ratios = training["ratio"].to_numpy()
    limits = (0.7 * ratios.min(), 1.3 * min(ratios.max(), 100.0))
    for row, name in zip(axes, names, strict=True):
        for ax, curriculum in zip(row, curricula, strict=True):
            runs = where(training, function_class=name, curriculum=curriculum)
            draw_seeds(ax, runs, "step", "ratio", palette[curriculum], curriculum)
            ax.axhline(1, color=GREY, lw=0.8, ls=":")
            ax.set(yscale="log", ylim=limits)
            if ax is not row[0]:
                ax.set_yticklabels([])
            if row is axes[0]:
                ax.set_title(curriculum)
            if row is axes[-1]:
                ax.set_xlabel("step")
        row[0].set_ylabel(f"{name}\nerror / no-context", fontsize=8)
    return [ax for row in axes for ax in row]


def spread(n: int, width: float = 0.5) -> np.ndarray:
    """Offsets that separate n marks at the same x."""
    return np.linspace(-width / 2, width / 2, n) if n > 1 else np.zeros(1)


def plot_counts(counts: pd.DataFrame, main: float) -> list[Axes]:
    """Share of seeds at or below each threshold with its exact interval, the main one in colour; a panel per class."""
    names, curricula = list(counts["function_class"].unique()), list(counts["curriculum"].unique())
    axes, palette = row_of_axes(len(names), width=2.8, height=2.9), colours(curricula)
    for ax, name in zip(axes, names, strict=True):
        present = distinct(where(counts, function_class=name), "curriculum")
        for x, curriculum in enumerate(present):
            rows = records(where(counts, function_class=name, curriculum=curriculum))
            for offset, row in zip(spread(len(rows)), rows, strict=True):
                is_main = row["threshold"] == main
                colour = palette[curriculum] if is_main else GREY
                ax.plot([x + offset] * 2, [row["low"], row["high"]], color=colour, lw=2 if is_main else 0.8)
                ax.plot(x + offset, row["share"], "o", color=colour, ms=6 if is_main else 3)
                if is_main:
                    ax.text(x, 1.06, f"{row['n_left']}/{row['n_seeds']}", ha="center", size=8)
        ax.set_xticks(range(len(present)), [curriculum.replace(":", ":\n") for curriculum in present], fontsize=7)
        ax.set(title=name, ylim=(-0.03, 1.15), xlim=(-0.6, len(present) - 0.4))
    thresholds = ", ".join(f"{threshold:g}" for threshold in counts["threshold"].unique())
    axes[0].set_ylabel(f"share of seeds at or below {main:g}\n(left to right: {thresholds})", fontsize=8)
    return axes


def plot_ratios(runs: pd.DataFrame, margin: float, converged: float) -> list[Axes]:
    """Every run's error in units of the no-context optimum with its interval over prompts, a panel per class."""
    names, curricula = list(runs["function_class"].unique()), list(runs["curriculum"].unique())
    axes, palette = row_of_axes(len(names), width=2.8, height=2.9), colours(curricula)
    for ax, name in zip(axes, names, strict=True):
        present = distinct(where(runs, function_class=name), "curriculum")
        ax.axhspan(1 - margin, 1 + margin, color=GREY, alpha=0.2, lw=0)
        ax.axhline(converged, color=GREY, lw=0.8, ls=":")
        for x, curriculum in enumerate(present):
            rows = records(where(runs, function_class=name, curriculum=curriculum))
            for offset, row in zip(spread(len(rows)), rows, strict=True):
                ax.plot([x + offset] * 2, [row["ci_low"], row["ci_high"]], color=palette[curriculum], lw=1.2)
                ax.plot(x + offset, row["ratio"], "o", color=palette[curriculum], ms=4)
        ax.set_xticks(range(len(present)), [curriculum.replace(":", ":\n") for curriculum in present], fontsize=7)
        ax.set(title=name, yscale="log", xlim=(-0.6, len(present) - 0.4))
    axes[0].set_ylabel(f"error / no-context optimum\n(band: 1 ± {margin:g}; dotted: {converged:g})", fontsize=8)
    return axes


def plot_spending(training: pd.DataFrame, measures: Mapping[str, str]) -> list[Axes]:
    """Error in units of the no-context optimum by measure of training, a row per class and a column per measure."""
    names = list(training["function_class"].unique())
    axes = grid_of_axes(len(names), len(measures), width=2.7, height=2.1)
    palette = colours(list(training["curriculum"].unique()))
    for row, name in zip(axes, names, strict=True):
        for ax, (measure, what) in zip(row, measures.items(), strict=True):
            rows = where(training, function_class=name)
            for curriculum, runs in rows.groupby("curriculum", sort=False):
                spent = runs.loc[runs[measure] > 0]
                draw_seeds(ax, spent, "step", "ratio", palette[str(curriculum)], str(curriculum), along=measure)
            ax.axhline(1, color=GREY, lw=0.8, ls=":")
            ax.set(xscale="log", yscale="log", xlabel=what if row is axes[-1] else "")
            ax.xaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel(f"{name}\nerror / no-context", fontsize=8)
    panels = [ax for row in axes for ax in row]
    legend_beside(panels)
    return panels
