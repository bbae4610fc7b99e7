"""Figures of head scores and attention patterns."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm

from interp.display.axes import GREY, INTACT, figure_of, grid_of_axes, name_model, panels, title_figure
from interp.display.result import displays
from interp.model.positions import show_points
from interp.scores.patterns import Patterns
from interp.scores.score import HeadScores
from interp.scores.tables import differing


@displays(HeadScores, "plot")
def plot_scores(*results: HeadScores) -> list[Axes]:
    """Heat maps [layer x head]: a row per checkpoint, score and setting, a panel per class.

    The colours of a score run from 0 to its maximum in every panel.
    """
    n_layers, n_heads = np.max([values.shape for result in results for values in result.values.values()], axis=0)
    n_columns = max(len(result.values) for result in results)
    grid = grid_of_axes(len(results), n_columns, width=0.45 * n_heads + 0.7, height=0.45 * n_layers + 0.9)
    labels = differing(
        [(r.checkpoint, name_with_weighting(r), r.inputs, r.shift, show_points(r.points)) for r in results]
    )
    for row, result, label in zip(grid, results, labels, strict=True):
        for ax in row[len(result.values) :]:
            ax.set_axis_off()
        panels = row[: len(result.values)]
        for ax, (function_class, values) in zip(panels, result.values.items(), strict=True):
            draw_heads(ax, values, result.kind.best, bar=ax is panels[-1])
            ax.set(title=function_class, xlabel="head")
        name = "\n".join(label) or name_with_weighting(result)
        levels = f"chance {result.chance:.3f}\nmaximum {result.kind.best:g}"
        panels[0].set_ylabel(f"{name}\n{levels}\n\nlayer", fontsize=8)
    if len(titles := {result.title for result in results}) == 1:
        name_model(grid[0], *titles)
    return [ax for row in grid for ax in row if ax.axison]


def name_with_weighting(result: HeadScores) -> str:
    return result.kind.name + ("" if result.by == "pattern" else f" by {result.by}")


def draw_heads(ax: Axes, values: Float[np.ndarray, "layer head"], best: float, *, bar: bool) -> None:
    """One heat map, with numbers if they fit (seaborn's heat map would draw the whole figure once per panel)."""
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


@displays(Patterns, "plot")
def plot_patterns(result: Patterns, span: slice) -> list[Axes]:
    """A panel per head: its attention between the tokens of a span; keys that a query cannot attend to are white."""
    n_tokens, n_heads = span.stop - span.start, len(result.heads)
    side = min(7.0, max(2.6, 0.26 * n_tokens)) if n_heads == 1 else min(4.2, max(2.4, 0.13 * n_tokens))
    axes = panels(n_heads, min(4, n_heads), width=side + 0.3, height=side)
    for ax, head, values in zip(axes, result.heads, result.values, strict=True):
        visible = np.where(np.tri(len(values), dtype=bool), values, np.nan)[span, span]
        cells = ax.imshow(visible, cmap="mako_r", norm=PowerNorm(0.5, vmin=0, vmax=1))
        label_tokens(ax, result.tokens[span], most=max(4, int(side / 0.2)))
        ax.set(title=f"{head}", xlabel="key", ylabel="query")
        ax.spines[:].set_visible(False)
    bar = figure_of(axes).colorbar(cells, ax=axes, shrink=0.6, ticks=[0, 0.05, 0.25, 0.5, 1])  # pyright: ignore
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    prompts = "one prompt" if result.n_prompts == 1 else f"mean of {result.n_prompts} prompts"
    title_figure(axes, f"{result.checkpoint} on {result.function_class}, {prompts}")
    return axes


def label_tokens(ax: Axes, names: Sequence[str], most: int) -> None:
    """Label both axes by token, x tokens in blue; if there are many, only the x of every few pairs."""
    xs = [index for index, name in enumerate(names) if name.startswith("x")]
    step = next((step for step in (1, 2, 5, 10, 20, 50) if len(xs) <= most * step), 100)
    all_fit = len(names) <= most
    labelled = range(len(names)) if all_fit else xs[::step]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(list(labelled), [names[index] for index in labelled], fontsize=7)
        for label, index in zip(axis.get_ticklabels(), labelled, strict=True):
            label.set_color(INTACT if names[index].startswith("x") else GREY)
    ax.tick_params(length=0 if all_fit else 2)
    ax.tick_params(axis="x", rotation=90)
