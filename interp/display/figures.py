"""One figure per result type; each takes a result and returns matplotlib axes, and changes no global style."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from interp.ablation.ablate import Ablation
from interp.ablation.designs import CumulativeAblation, PairAblation
from interp.model.heads import head_grid
from interp.model.positions import show_points
from interp.scores.patterns import Patterns
from interp.scores.score import HeadScores
from training.common.atomic_files import write_atomically
from training.common.output import records
from training.common.table_rows import where

BASELINE_STYLES = {"no_context": ("#666666", ":"), "least_squares": ("#c8553d", "--"), "ridge": ("#e0a458", "--")}
OTHER_BASELINES = ("#3f7d58", "#7a5195", "#8d6e63", "#00838f", "#ad1457")
LABELS = {"no_context": "no-context optimum", "ridge": "ridge, best penalty"}
MODES = {
    "zero": "#c8553d",
    "mean": "#3f7d58",
    "mean:global": "#7fb28f",
    "mean:parity": "#a5c9a1",
    "resample": "#7a5195",
    "resample:function": "#a05195",
    "resample:class": "#bc6ba8",
    "resample:inputs": "#5a4fa0",
    "noise": "#e0a458",
    "optimal": "#00838f",
    "uniform": "#8d6e63",
}
DPI = 120
INTACT, NULL, GREY = "#1b6ca8", "#b9c0c7", "#666666"


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


def plot_error_curves(curves: pd.DataFrame) -> list[Axes]:
    """Error by number of in-context examples, one panel per class and input distribution.

    Every checkpoint's model has a line with its 95 % band; the reference predictors are those of the first checkpoint.
    """
    panels = list(dict.fromkeys(zip(curves["function_class"], curves["inputs"], strict=True)))
    axes = row_of_axes(len(panels), width=2.9, height=2.7)
    for ax, (name, inputs) in zip(axes, panels, strict=True):
        of_panel = where(curves, function_class=name, inputs=inputs)
        models = where(of_panel, predictor="model").groupby("checkpoint", sort=False)
        colours = sns.color_palette("crest", len(models)) if len(models) > 1 else [INTACT]
        for colour, (checkpoint, curve) in zip(colours, models, strict=True):
            label = str(checkpoint) if len(models) > 1 else "model"
            ax.plot(curve["examples"], curve["error"], color=colour, label=label, lw=2)
            ax.fill_between(curve["examples"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.2, lw=0)
        first = where(of_panel, checkpoint=of_panel["checkpoint"].iloc[0])
        draw_baselines(ax, first)
        ax.set(
            title=name if len({*curves["inputs"]}) == 1 else f"{name}, {inputs}",
            xlabel="in-context examples",
            ylim=(0, 1.6 * where(first, predictor="zero")["error"].mean()),
        )
    shift = curves["shift"].iloc[0]
    units = {"nmse": "MSE / E[y²]", "paper": "MSE / n_dims"}[curves["units"].iloc[0]]
    axes[0].set_ylabel(units if shift == "none" else f"{units}, {shift}")
    legend_beside(axes)
    return axes


def draw_baselines(ax: Axes, curves: pd.DataFrame) -> None:
    """The reference predictors of one panel as thin lines."""
    names = [name for name in curves["predictor"].unique() if name not in ("model", "zero")]
    others = dict(zip((name for name in names if name not in BASELINE_STYLES), OTHER_BASELINES, strict=False))
    for name in names:
        colour, style = BASELINE_STYLES.get(name, (others.get(name, GREY), "-."))
        curve = where(curves, predictor=name)
        ax.plot(curve["examples"], curve["error"], style, color=colour, label=LABELS.get(name, words(name)), lw=1.2)


def words(name: str) -> str:
    return name.replace("_", " ")


def plot_ablation_curves(result: Ablation, heads: str) -> list[Axes]:
    """Error by number of in-context examples with and without one head set, one panel per class."""
    curves = result.curves
    names = list(curves["function_class"].unique())
    axes = row_of_axes(len(names), width=2.9, height=2.7)
    for ax, name in zip(axes, names, strict=True):
        of_class = where(curves, function_class=name)
        for mode, colour, style, label in (
            ("intact", INTACT, "-", "intact"),
            ("no_context", GREY, ":", "no-context optimum"),
        ):
            curve = where(of_class, mode=mode)
            ax.plot(
                curve["examples"],
                curve["nmse"],
                style,
                color=colour,
                lw=2 if mode == "intact" else 1.2,
                label=label,
            )
        for mode, curve in of_class[of_class["heads"] == heads].groupby("mode", sort=False):
            ax.plot(
                curve["examples"],
                curve["nmse"],
                color=MODES.get(str(mode), GREY),
                lw=1.2,
                label=f"without {heads}: {mode}",
            )
        ax.set(title=name, xlabel="in-context examples", ylim=(0, None))
    axes[0].set_ylabel("MSE / E[y²]")
    legend_beside(axes)
    return axes


def plot_ablation(result: Ablation, heads: str) -> list[Axes]:
    """A set's effect with its interval, per class and mode, against its layer-matched null sets (dots).

    Where several ranges of pairs were measured it shows the last one; `plot_ablation_curves` shows all positions.
    """
    points = result.table["points"].iloc[-1]
    table = where(result.table, heads=heads, points=points)
    null = where(result.null, heads=heads, points=points, match="layer")
    names, modes = list(table["function_class"].unique()), list(table["mode"].unique())
    axes = row_of_axes(len(names), width=max(2.9, 0.75 * len(modes)), height=2.7)
    rng = np.random.default_rng(0)  # sideways jitter only
    for ax, name in zip(axes, names, strict=True):
        for x, mode in enumerate(modes):
            cell = where(null, function_class=name, mode=mode)["effect"]
            ax.plot(
                x + rng.uniform(-0.22, 0.22, len(cell)),
                cell,
                ".",
                color=NULL,
                ms=5,
                label="layer-matched sets",
            )
            (row,) = records(where(table, function_class=name, mode=mode))
            spread = [[row["effect"] - row["ci_low"]], [row["ci_high"] - row["effect"]]]
            ax.errorbar([x], [row["effect"]], yerr=spread, fmt="o", color=MODES.get(mode, GREY), capsize=3, ms=6)
            ax.plot([x + 0.12], [row["direct_effect"]], "x", color=MODES.get(mode, GREY), ms=5)
        for level in (0, 1):
            ax.axhline(level, color=GREY, lw=0.8, ls=":", zorder=0)
        turned = 30 if len(modes) > 3 else 0
        ax.set(title=name, xticks=range(len(modes)), xlim=(-0.6, len(modes) - 0.4))
        ax.set_xticklabels(modes, rotation=turned, ha="right" if turned else "center")
    axes[0].set_ylabel("share of the in-context gain lost")
    named = heads if len(heads) <= 40 else f"{heads.count(',') + 1} heads"
    done = "removing" if result.design == "remove" else "keeping only"
    title = f"{done} {named} (dot; x: direct effect) against layer-matched head sets (grey)"
    figure_of(axes).suptitle(title, fontsize=10)
    return axes


def plot_effects(result: Ablation) -> list[Axes]:
    """Many sets at once: effects as a heat map [layer x head], or a row per set, one panel per class and mode.

    Where several ranges of pairs were measured it shows the last one.
    """
    table = where(result.table, points=result.table["points"].iloc[-1])
    names, modes = list(table["function_class"].unique()), list(table["mode"].unique())
    heads = list(table["heads"].unique())
    shape = head_grid(heads) or (len(heads), 1)
    height = 0.42 * shape[0] + 0.7
    _, grid = plt.subplots(
        len(modes),
        len(names),
        figsize=((0.42 * shape[1] + 1.0) * len(names) + 0.9, height * len(modes) + 0.4),
        layout="constrained",
        dpi=DPI,
        squeeze=False,
    )
    for row, mode in enumerate(modes):
        for column, name in enumerate(names):
            ax, cell = grid[row, column], where(table, function_class=name, mode=mode)
            values = np.full(shape, np.nan)
            for place, one in enumerate(records(cell)):
                values[place // shape[1], place % shape[1]] = one["effect"]
            sns.heatmap(
                pd.DataFrame(values),
                ax=ax,
                vmin=-1,
                vmax=1,
                cmap="vlag",
                annot=values.size <= 48,
                fmt=".2f",
                annot_kws={"size": 6.5},
                cbar=column == len(names) - 1,
                cbar_kws={"shrink": 0.8},
                linewidths=0.5,
            )
            ax.set(title=f"{name}, {mode}", xlabel="head", ylabel="layer" if column == 0 else "")
            ax.title.set_fontsize(10)
            ax.tick_params(length=0)
            if shape[1] == 1:
                ax.set(xlabel="", xticks=[])
                ax.set_yticklabels(list(cell["heads"]), rotation=0)
                ax.set_ylabel("")
    axes = list(grid.ravel())
    done = "removing each alone" if result.design == "remove" else "keeping each alone"
    figure_of(axes).suptitle(f"share of the in-context gain lost by {done}", fontsize=10)
    return axes


def plot_cumulative(result: CumulativeAblation) -> list[Axes]:
    """Effect by number of removed heads in each mode, with its band; the range of random orders in grey.

    Where several ranges of pairs were measured it shows the last one.
    """
    table = where(result.table, points=result.table["points"].iloc[-1])
    names = list(table["function_class"].unique())
    axes = row_of_axes(len(names), width=3.2, height=2.7)
    for ax, name in zip(axes, names, strict=True):
        for mode, curve in where(table, function_class=name).groupby("mode", sort=False):
            colour = MODES.get(str(mode), GREY)
            ax.fill_between(curve["k"], curve["random_low"], curve["random_high"], color=NULL, alpha=0.25, lw=0)
            ax.plot(curve["k"], curve["random_effect"], color=colour, lw=0.9, ls=":", label=f"{mode}, random order")
            ax.fill_between(curve["k"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.2, lw=0)
            ax.plot(curve["k"], curve["effect"], color=colour, lw=1.8, label=str(mode))
        ax.axhline(1, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.set(title=name, xlabel="heads removed", ylim=(-0.1, 2.5))
    axes[0].set_ylabel("share of the in-context gain lost")
    legend_beside(axes)
    return axes


def plot_pairs(result: PairAblation) -> list[Axes]:
    """Interactions as a heat map [head x head], one panel per class, of the first mode and the last range of pairs."""
    table = where(result.table, points=result.table["points"].iloc[-1], mode=result.table["mode"].iloc[0])
    names = list(table["function_class"].unique())
    heads = list(dict.fromkeys(head for pair in table["heads"] for head in pair.split(",")))
    axes = row_of_axes(len(names), width=0.4 * len(heads) + 1.2, height=0.4 * len(heads) + 0.9)
    limit = max(0.1, *(abs(row["interaction"]) for row in records(table)))
    for ax, name in zip(axes, names, strict=True):
        grid = pd.DataFrame(np.nan, index=heads, columns=heads)
        for row in records(where(table, function_class=name)):
            first, second = row["heads"].split(",")
            grid.loc[second, first] = row["interaction"]
        sns.heatmap(grid, ax=ax, vmin=-limit, vmax=limit, cmap="vlag", square=True, cbar=ax is axes[-1], linewidths=0.5)
        ax.set(title=name)
        ax.tick_params(length=0)
    title = f"interaction of two removals ({table['mode'].iloc[0]}): both less the sum of each"
    figure_of(axes).suptitle(title, fontsize=10)
    return axes


def row_of_axes(n: int, *, width: float, height: float) -> list[Axes]:
    """Panels side by side on a figure of its own."""
    return grid_of_axes(1, n, width=width, height=height)[0]


def panels(n: int, n_columns: int, *, width: float, height: float) -> list[Axes]:
    """So many panels in rows of `n_columns`; what is left of the last row stays blank."""
    grid = grid_of_axes(-(-n // n_columns), min(n_columns, n), width=width, height=height)
    axes = [ax for row in grid for ax in row]
    for ax in axes[n:]:
        ax.set_axis_off()
    return axes[:n]


def grid_of_axes(n_rows: int, n_columns: int, *, width: float, height: float) -> list[list[Axes]]:
    """Rows of panels on a figure of its own."""
    size = (width * n_columns + 0.9, height * n_rows)
    _, grid = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", dpi=DPI, squeeze=False)
    for ax in grid.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(10)
    return [list(row) for row in grid]


def legend_beside(axes: list[Axes]) -> None:
    """One legend for all panels, to their right."""
    entries = [entry for ax in axes for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    by_label = {label: handle for handle, label in reversed(entries)}
    labels = list(dict.fromkeys(label for _, label in entries))
    handles = [by_label[label] for label in labels]
    figure_of(axes).legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)


def figure_of(axes: list[Axes]) -> Figure:
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    return figure


def image(axes: list[Axes], said: str) -> str:
    """The figure of these axes as an HTML image that holds its own data; closes it.

    Args:
        axes: of one figure.
        said: for those who do not see it.
    """
    width = 0.8 * figure_of(axes).get_figwidth() * DPI
    data = b64encode(png(axes)).decode()
    return f'<img alt="{escape(said)}" width="{width:.0f}" src="data:image/png;base64,{data}">'


def save_figure(axes: list[Axes], path: Path) -> None:
    """Write the figure of these axes as PNG and close it."""
    write_atomically(path, png(axes))


def png(axes: list[Axes]) -> bytes:
    """The figure of these axes as a file's content; closes it."""
    written, figure = BytesIO(), figure_of(axes)
    figure.savefig(written, format="png")
    plt.close(figure)
    return written.getvalue()
