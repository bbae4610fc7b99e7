"""Figures of attribution: maps of effects, estimated against exact effects, circuits and their curves."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import FuncFormatter

from interp.attribution.attribute import Attribution
from interp.attribution.circuits import Circuits
from interp.attribution.graph import CHANNELS, OUT
from interp.display.axes import DPI, GREY, INTACT, NULL, grid_of_axes, legend_beside, row_of_axes, title_figure
from interp.display.result import displays
from interp.patching.figures import draw_cells
from training.common.output import records
from training.common.table_rows import distinct, where

CHANNEL_COLOURS = {"q": "#1b6ca8", "k": "#e0a458", "v": "#3f7d58", "": "#7a5195"}
CHANNEL_LABELS = {"q": "into queries", "k": "into keys", "v": "into values", "": "into MLPs and the read-out"}
CHANNEL_OFFSETS = {"q": -0.16, "k": 0.0, "v": 0.16, "": 0.0}
"""Where an edge arrives: queries left of the middle of a head, values right of it."""
DRAWN = 60  # edges; with more, single edges are hard to see
LABELLED = 3  # points of a validation that are named


@displays(Attribution, "plot")
def plot_attribution(result: Attribution) -> list[Axes]:
    """Effects as heat maps, a row per class and a panel per method.

    Nodes: layers by heads, or layers (or heads) by tokens. Edges: senders by receivers; pairs without an edge are left
    white.
    """
    classes, methods = (distinct(result.table, column) for column in ("function_class", "method"))
    grids = [
        [grid_of(result, where(result.table, function_class=name, method=method)) for method in methods]
        for name in classes
    ]
    n_rows, n_columns = grids[0][0].shape
    cell = 0.14 if result.of == "edges" or n_columns > 24 else 0.42
    axes = grid_of_axes(len(classes), len(methods), width=cell * n_columns + 1.0, height=max(2.0, cell * n_rows + 1.1))
    limit = max(0.05, *(float(np.nanmax(np.abs(grid.to_numpy()))) for row in grids for grid in row))
    numbers, size = n_columns <= 12 and n_rows <= 12, 8.0 if max(n_rows, n_columns) <= 24 else 5.0
    for name, panels, row in zip(classes, axes, grids, strict=True):
        for method, ax, grid in zip(methods, panels, row, strict=True):
            bar = "" if ax is panels[-1] else None
            draw_cells(ax, grid, 0.0, limit, numbers=numbers, bar=bar, label_size=size)
            ax.tick_params(axis="x", rotation=90 if n_columns > 4 else 0)
            ax.set_title(f"{name}: {method}")
    what = "edges (rows: senders, columns: receivers)" if result.of == "edges" else result.of
    title = f"effect of patching {what}, {result.question.corrupt} {result.question.direction}"
    flat = [ax for row in axes for ax in row]
    title_figure(flat, title)
    return flat


def grid_of(result: Attribution, table: pd.DataFrame) -> pd.DataFrame:
    """One method's effects on one class as a rectangle, in the order of the table."""
    cells = {cell_of(result, row): row["effect"] for row in records(table)}
    rows, columns = (list(dict.fromkeys(labels)) for labels in zip(*cells, strict=True))
    return pd.DataFrame([[cells.get((row, column), np.nan) for column in columns] for row in rows], rows, columns)


def cell_of(result: Attribution, row: dict[str, Any]) -> tuple[str, str]:
    """The row and the column of one effect."""
    if result.of == "edges":
        return row["sender"], row["receiver"]
    if not row["heads"]:
        return f"layer {row['layer']}", row["tokens"]
    if row["tokens"] == "all":
        return f"layer {row['layer']}", f"head {row['heads'].rpartition('.')[2]}"
    return row["heads"], row["tokens"]


@displays(Attribution, "plot_validation")
def plot_validation(result: Attribution) -> list[Axes]:
    """Estimated against exact effects, a panel per class and method; the worst estimates are named."""
    validation = records(result.validation)
    classes, methods = (distinct(result.validation, column) for column in ("function_class", "method"))
    axes = grid_of_axes(len(classes), len(methods), width=3.0, height=3.0)
    for row in validation:
        name, method = row["function_class"], row["method"]
        pairs = where(result.validation_pairs, function_class=name, method=method)
        draw_validation(axes[classes.index(name)][methods.index(method)], pairs, row)
    for ax in axes[-1]:
        ax.set_xlabel("exact effect")
    for row in axes:
        row[0].set_ylabel("estimated effect")
    flat = [ax for row in axes for ax in row]
    title_figure(
        flat,
        f"{result.of}, {result.question.corrupt} {result.question.direction}: estimates against exact patching, "
        f"{validation[0]['n_prompts']} prompts",
    )
    return flat


def draw_validation(ax: Axes, pairs: pd.DataFrame, validation: dict[str, Any]) -> None:
    exact, estimates = pairs["exact"].to_numpy(), pairs["approximate"].to_numpy()
    low, high = (float(end([*exact, *estimates])) for end in (min, max))
    ax.plot([low, high], [low, high], color=GREY, lw=0.8, ls=":", zorder=0)
    ax.axhline(0, color=NULL, lw=0.6, zorder=0)
    ax.axvline(0, color=NULL, lw=0.6, zorder=0)
    ax.plot(exact, estimates, "o", color=INTACT, ms=4, alpha=0.55, mew=0)
    for i in np.argsort(-np.abs(exact - estimates))[:LABELLED]:
        name, is_right = pairs["name"].iloc[i], exact[i] > (low + high) / 2
        ax.annotate(
            name.partition(" of ")[2] or name,  # `0.1` for `z of 0.1`: the site is in the title
            (exact[i], estimates[i]),
            xytext=(-4 if is_right else 4, 4),
            textcoords="offset points",
            ha="right" if is_right else "left",
            fontsize=7,
        )
    tops = [f"top {key[4:]} {value:.0%}" for key, value in validation.items() if key.startswith("top_")]
    lines = [f"Spearman {validation['spearman']:.2f}", ", ".join(tops[:2]), f"signs {validation['signs']:.0%}"]
    ax.set_title(f"{validation['function_class']}: {validation['method']}\n" + "; ".join(lines), fontsize=8)


@displays(Circuits, "plot_curves")
def plot_circuit_curves(result: Circuits) -> list[Axes]:
    """Faithfulness and completeness by number of edges, with their intervals, and the range of random graphs."""
    classes = distinct(result.curve, "function_class")
    axes = row_of_axes(len(classes), width=4.0, height=3.2)
    for ax, name in zip(axes, classes, strict=True):
        curve = where(result.curve, function_class=name)
        curve = curve[curve["n_edges"] > 0]
        x = curve["n_edges"]
        ax.fill_between(x, curve["random_low"], curve["random_high"], color=NULL, alpha=0.5, lw=0)
        ax.plot(x, curve["random"], color=GREY, lw=1, ls=":", label="random graphs, mean and range")
        for measure, colour, label in (
            ("faithfulness", INTACT, "circuit alone (faithfulness)"),
            ("completeness", "#c8553d", "all other edges (completeness)"),
        ):
            ax.fill_between(x, curve[f"{measure}_low"], curve[f"{measure}_high"], color=colour, alpha=0.2, lw=0)
            ax.plot(x, curve[measure], "o-", color=colour, lw=1.8, ms=3.5, label=label)
        smallest = result.smallest[name]
        if smallest is not None:
            ax.axvline(smallest["n_edges"], color=INTACT, lw=0.8, ls="--")
            ax.text(smallest["n_edges"], 0.5, f" {smallest['n_edges']} edges", fontsize=8, color=INTACT)
        for level in (0, 1):
            ax.axhline(level, color=GREY, lw=0.6, zorder=0)
        ax.set_title(name)
        ax.set(xlabel="edges in the circuit")
        ax.set_xscale("symlog", linthresh=1)  # where no circuit has an edge on a path, the panel is empty
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].set_ylabel("share of the way from\nthe corrupt to the clean run")
    legend_beside(axes)
    return axes


@displays(Circuits, "plot")
def plot_circuit(result: Circuits) -> list[Axes]:
    """The smallest faithful circuit of every class as a graph, from the read-in (below) to the read-out.

    The width of a line is the size of its edge's effect; negative effects are dashed. Where no size is faithful, the
    largest circuit is drawn.
    """
    classes, graph = list(result.smallest), result.graph
    size = (max(4.5, 0.62 * graph.n_heads + 1) * len(classes) + 1.6, 1.5 * (graph.n_layers + 1))
    _, grid = plt.subplots(1, len(classes), figsize=size, layout="constrained", dpi=DPI, squeeze=False)
    axes = list(grid[0])
    for ax, name in zip(axes, classes, strict=True):
        edges = result.chosen(name) or result.largest(name)
        draw_graph(ax, result, edges[:DRAWN])
        ax.set_title(circuit_title(result, name, len(edges)), fontsize=9)
    for channel, label in CHANNEL_LABELS.items():
        axes[0].plot([], [], color=CHANNEL_COLOURS[channel], lw=2, label=label)
    axes[0].plot([], [], color=GREY, lw=1.5, ls="--", label="negative effect")
    legend_beside(axes)
    return axes


def circuit_title(result: Circuits, function_class: str, n_edges: int) -> str:
    row = result.smallest[function_class]
    strongest = f", the {DRAWN} strongest drawn" if n_edges > DRAWN else ""
    title = f"{function_class}: {n_edges} of {int(result.graph.allowed.sum())} edges{strongest}\n"
    if row is None:
        return f"{title}(no requested size reaches {result.min_faithfulness:g})"
    return f"{title}faithfulness {row['faithfulness']:.2f}, without them {row['completeness']:.2f}"


def draw_graph(ax: Axes, result: Circuits, edges: Sequence[dict[str, Any]]) -> None:
    """Components in rows: heads of a layer side by side, its MLP above them."""
    positions = component_positions(result)
    largest = max((abs(edge["score"]) for edge in edges), default=1.0)
    for edge in sorted(edges, key=lambda edge: abs(edge["score"])):
        (x, y), (owner, channel) = positions[edge["sender"]], split_receiver(edge["receiver"])
        owner_x, owner_y = positions[owner]
        share = abs(edge["score"]) / largest
        bend = 0.0 if abs(owner_x - x) > 0.3 else 0.12
        ax.add_patch(
            FancyArrowPatch(
                (x, y),
                (owner_x + CHANNEL_OFFSETS[channel], owner_y),
                connectionstyle=f"arc3,rad={bend}",
                arrowstyle="-|>",
                mutation_scale=4 + 5 * share,
                shrinkA=9,
                shrinkB=9,
                lw=0.5 + 4 * share,
                ls="--" if edge["score"] < 0 else "-",
                color=CHANNEL_COLOURS[channel],
                alpha=0.35 + 0.5 * share,
                zorder=1,
            )
        )
    drawn = {edge["sender"] for edge in edges} | {split_receiver(edge["receiver"])[0] for edge in edges}
    for name, (x, y) in positions.items():
        box = {"boxstyle": "round,pad=0.3", "fc": "white", "ec": "black" if name in drawn else NULL, "lw": 0.9}
        colour = "black" if name in drawn else NULL
        ax.text(x, y, name, ha="center", va="center", fontsize=8, color=colour, bbox=box, zorder=2)
    xs, ys = zip(*positions.values(), strict=True)
    ax.set(xlim=(min(xs) - 0.6, max(xs) + 0.6), ylim=(min(ys) - 0.4, max(ys) + 0.4))
    ax.set_axis_off()


def component_positions(result: Circuits) -> dict[str, tuple[float, float]]:
    """Where each component is drawn."""
    graph = result.graph
    middle = (graph.n_heads - 1) / 2
    positions = {"embed": (middle, 0.0)}
    for component in graph.components[1:]:
        x, level = (middle, 2.0) if component.number < 0 else (float(component.number), 1.0)
        positions[str(component)] = (x, 2 * component.layer + level)
    return positions | {OUT: (middle, 2.0 * graph.n_layers + 1)}


def split_receiver(receiver: str) -> tuple[str, str]:
    """A receiver's component and channel.

    >>> split_receiver("1.2.q"), split_receiver("0.mlp"), split_receiver("out")
    (('1.2', 'q'), ('0.mlp', ''), ('out', ''))
    """
    name, _, channel = receiver.rpartition(".")
    return (name, channel) if channel in CHANNELS else (receiver, "")
