"""Figures of head scores and attention patterns."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm

from interp.display.axes import GREY, INTACT, figure_of, grid_of_axes, panels
from interp.display.result import displays
from interp.model.positions import show_points
from interp.scores.patterns import Patterns
from interp.scores.score import HeadScores


@displays(HeadScores, "plot")
def plot_scores(*results: HeadScores) -> list[Axes]:
    """Heat maps [layer x head]: a row per checkpoint, score and setting, a panel per class.

    The colours of a score run from 0 to its maximum in every panel.
    """
    n_layers, n_heads = np.max([values.shape for one in results for values in one.values.values()], axis=0)
    n_columns = max(len(one.values) for one in results)
    grid = grid_of_axes(len(results), n_columns, width=0.45 * n_heads + 0.7, height=0.45 * n_layers + 0.9)
    for row, one, what in zip(grid, results, differences(results), strict=True):
        for ax in row[len(one.values) :]:
            ax.set_axis_off()
        panels = row[: len(one.values)]
        for ax, (name, values) in zip(panels, one.values.items(), strict=True):
            draw_heads(ax, values, one.kind.best, bar=ax is panels[-1])
            ax.set(title=name, xlabel="head")
        level = f"chance {one.chance:.3f}\nmaximum {one.kind.best:g}"
        panels[0].set_ylabel(f"{what or one.kind.name + by(one)}\n{level}\n\nlayer", fontsize=8)
    return [ax for row in grid for ax in row if ax.axison]


def draw_heads(ax: Axes, values: Float[np.ndarray, "layer head"], best: float, *, bar: bool) -> None:
    """One heat map, with numbers if they fit; seaborn's would draw the whole figure once per panel."""
    cells = ax.imshow(values, vmin=0, vmax=best, cmap=sns.color_palette("mako_r", as_cmap=True))
    ax.set(xticks=range(values.shape[1]), yticks=range(values.shape[0]))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if values.size <= 48:
        for (layer, head), value in np.ndenumerate(values):
            colour = "white" if value > 0.35 * best else "black"
            ax.text(head, layer, f"{value:.2f}", ha="center", va="center", size=6.5, color=colour)
    if bar:
        figure_of([ax]).colorbar(cells, ax=ax, shrink=0.8).outline.set_visible(False)


def differences(results: Sequence[HeadScores]) -> list[str]:
    """What tells each of these scores from the others."""
    told = [
        (one.checkpoint, one.kind.name + by(one), one.inputs, one.shift, show_points(one.points)) for one in results
    ]
    differs = [len(set(values)) > 1 for values in zip(*told, strict=True)]
    return ["\n".join(text for text, differ in zip(row, differs, strict=True) if differ) for row in told]


def by(one: HeadScores) -> str:
    return "" if one.by == "pattern" else f" by {one.by}"


@displays(Patterns, "plot")
def plot_patterns(found: Patterns, span: slice) -> list[Axes]:
    """A panel per head: its attention between the tokens of a span; what a token cannot see is white."""
    n_tokens = span.stop - span.start
    side = min(7.0, max(2.6, 0.26 * n_tokens)) if len(found.heads) == 1 else min(4.2, max(2.4, 0.13 * n_tokens))
    axes = panels(len(found.heads), min(4, len(found.heads)), width=side + 0.3, height=side)
    for ax, head, values in zip(axes, found.heads, found.values, strict=True):
        seen = np.where(np.tri(len(values), dtype=bool), values, np.nan)[span, span]
        cells = ax.imshow(seen, cmap="mako_r", norm=PowerNorm(0.5, vmin=0, vmax=1))
        label_tokens(ax, found.tokens[span], most=max(4, int(side / 0.2)))
        ax.set(title=f"{head}", xlabel="key", ylabel="query")
        ax.spines[:].set_visible(False)
    bar = figure_of(axes).colorbar(cells, ax=axes, shrink=0.6, ticks=[0, 0.05, 0.25, 0.5, 1])  # pyright: ignore
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    over = "one prompt" if found.n_prompts == 1 else f"mean of {found.n_prompts} prompts"
    figure_of(axes).suptitle(f"{found.checkpoint} on {found.function_class}, {over}", fontsize=10)
    return axes


def label_tokens(ax: Axes, names: Sequence[str], most: int) -> None:
    """Both axes by token, the x in blue; where there are many, the x of every so many pairs."""
    xs = [place for place, name in enumerate(names) if name.startswith("x")]
    step = next((step for step in (1, 2, 5, 10, 20, 50) if len(xs) <= most * step), 100)
    all_fit = len(names) <= most
    shown = range(len(names)) if all_fit else xs[::step]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(list(shown), [names[place] for place in shown], fontsize=7)
        for label, place in zip(axis.get_ticklabels(), shown, strict=True):
            label.set_color(INTACT if names[place].startswith("x") else GREY)
    ax.tick_params(length=0 if all_fit else 2)
    ax.tick_params(axis="x", rotation=90)
