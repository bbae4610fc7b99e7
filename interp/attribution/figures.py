"""Figures of attribution: maps of effects, approximate against exact effects, circuits and their curves."""

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
from interp.attribution.graph import OUT
from interp.display.axes import DPI, GREY, INTACT, NULL, figure_of, grid_of_axes, legend_beside, row_of_axes
from interp.display.result import displays
from training.common.output import records
from training.common.table_rows import where

CHANNEL_COLOURS = {"q": "#1b6ca8", "k": "#e0a458", "v": "#3f7d58", "": "#7a5195"}
CHANNEL_LABELS = {"q": "into queries", "k": "into keys", "v": "into values", "": "into MLPs and the read-out"}
DRAWN = 60  # edges; more of them cannot be told apart
LABELLED = 3  # points of a receipt that are named


@displays(Attribution, "plot")
def plot_attribution(found: Attribution) -> list[Axes]:
    """Effects as heat maps, a row per class and a panel per method.

    Nodes: layers by heads, or layers (or heads) by tokens. Edges: senders by receivers, of which those that no effect
    reaches are left white.
    """
    names, methods = (list(found.table[column].unique()) for column in ("function_class", "method"))
    grids = {
        (name, method): grid_of(found, where(found.table, function_class=name, method=method))
        for name in names
        for method in methods
    }
    n_rows, n_columns = next(iter(grids.values())).shape
    cell = 0.14 if found.of == "edges" or n_columns > 24 else 0.42
    axes = grid_of_axes(len(names), len(methods), width=cell * n_columns + 1.0, height=max(2.0, cell * n_rows + 1.1))
    limit = max(0.05, *(float(np.nanmax(np.abs(grid.to_numpy()))) for grid in grids.values()))
    for row, name in zip(axes, names, strict=True):
        for ax, method in zip(row, methods, strict=True):
            draw_grid(ax, grids[name, method], limit, numbers=n_columns <= 12 and n_rows <= 12, bar=ax is row[-1])
            ax.set_title(f"{name}: {method}", fontsize=10)
    flat = [ax for row in axes for ax in row]
    what = "edges (rows: senders, columns: receivers)" if found.of == "edges" else found.of
    figure_of(flat).suptitle(
        f"effect of patching {what}, {found.question.corrupt} {found.question.direction}", fontsize=10
    )
    return flat


def grid_of(found: Attribution, table: pd.DataFrame) -> pd.DataFrame:
    """One method's effects on one class as a rectangle, in the order of the table."""
    cells = {cell_of(found, row): row["effect"] for row in records(table)}
    rows, columns = (list(dict.fromkeys(cell[axis] for cell in cells)) for axis in (0, 1))
    return pd.DataFrame([[cells.get((row, column), np.nan) for column in columns] for row in rows], rows, columns)


def cell_of(found: Attribution, row: dict[str, Any]) -> tuple[str, str]:
    """The row and the column of one effect."""
    if found.of == "edges":
        return row["sender"], row["receiver"]
    if not row["heads"]:
        return f"layer {row['layer']}", row["tokens"]
    if row["tokens"] == "all":
        return f"layer {row['layer']}", f"head {row['heads'].rpartition('.')[2]}"
    return row["heads"], row["tokens"]


def draw_grid(ax: Axes, grid: pd.DataFrame, limit: float, *, numbers: bool, bar: bool) -> None:
    cells = ax.imshow(grid, vmin=-limit, vmax=limit, cmap="vlag", aspect="auto")
    size = 8 if max(grid.shape) <= 24 else 5
    turned = 90 if grid.shape[1] > 4 else 0
    ax.set_xticks(range(grid.shape[1]), list(grid.columns), rotation=turned, fontsize=size)
    ax.set_yticks(range(grid.shape[0]), list(grid.index), fontsize=size)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if numbers:
        for (row, column), value in np.ndenumerate(grid.to_numpy()):
            colour = "white" if abs(value) > 0.6 * limit else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", size=6.5, color=colour)
    if bar:
        figure_of([ax]).colorbar(cells, ax=ax, shrink=0.8).outline.set_visible(False)


@displays(Attribution, "plot_receipts")
def plot_receipts(found: Attribution) -> list[Axes]:
    """Approximate against exact effects, a panel per class and method; the worst misses are named."""
    receipts = records(found.receipts)
    names = list(found.receipts["function_class"].unique())
    methods = list(found.receipts["method"].unique())
    axes = grid_of_axes(len(names), len(methods), width=3.0, height=3.0)
    for one in receipts:
        ax = axes[names.index(one["function_class"])][methods.index(one["method"])]
        pairs = where(found.compared, function_class=one["function_class"], method=one["method"])
        draw_receipt(ax, pairs, one)
    flat = [ax for row in axes for ax in row]
    for ax in axes[-1]:
        ax.set_xlabel("exact effect")
    for row in axes:
        row[0].set_ylabel("approximate effect")
    figure_of(flat).suptitle(
        f"{found.of}, {found.question.corrupt} {found.question.direction}: gradients against exact patching, "
        f"{receipts[0]['n_prompts']} prompts",
        fontsize=10,
    )
    return flat


def draw_receipt(ax: Axes, pairs: pd.DataFrame, receipt: dict[str, Any]) -> None:
    exact, approximate = pairs["exact"].to_numpy(), pairs["approximate"].to_numpy()
    shown = np.concatenate([exact, approximate])
    low, high = float(shown.min()), float(shown.max())
    ax.plot([low, high], [low, high], color=GREY, lw=0.8, ls=":", zorder=0)
    for line in (ax.axhline, ax.axvline):
        line(0, color=NULL, lw=0.6, zorder=0)
    ax.plot(exact, approximate, "o", color=INTACT, ms=4, alpha=0.55, mew=0)
    for place in np.argsort(-np.abs(exact - approximate))[:LABELLED]:
        right = exact[place] > (low + high) / 2
        ax.annotate(
            short(pairs["name"].iloc[place]),
            (exact[place], approximate[place]),
            xytext=(-4 if right else 4, 4),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=7,
        )
    tops = [f"top {key[4:]} {value:.0%}" for key, value in receipt.items() if key.startswith("top_")]
    lines = [f"Spearman {receipt['spearman']:.2f}", ", ".join(tops[:2]), f"signs {receipt['signs']:.0%}"]
    ax.set_title(f"{receipt['function_class']}: {receipt['method']}\n" + "; ".join(lines), fontsize=8)


def short(name: str) -> str:
    """`z of 0.1` as `0.1`: the site is in the title."""
    return name.partition(" of ")[2] or name


@displays(Circuits, "plot_curves")
def plot_circuit_curves(found: Circuits) -> list[Axes]:
    """Faithfulness and completeness by number of edges, with their bands, and the range of random graphs."""
    names = list(found.curve["function_class"].unique())
    axes = row_of_axes(len(names), width=4.0, height=3.2)
    for ax, name in zip(axes, names, strict=True):
        curve = where(found.curve, function_class=name)
        curve = curve[curve["n_edges"] > 0]
        x = curve["n_edges"]
        ax.fill_between(x, curve["random_low"], curve["random_high"], color=NULL, alpha=0.5, lw=0)
        ax.plot(x, curve["random"], color=GREY, lw=1, ls=":", label="random graphs, mean and range")
        for what, colour, label in (
            ("faithfulness", INTACT, "circuit alone (faithfulness)"),
            ("completeness", "#c8553d", "everything else (completeness)"),
        ):
            ax.fill_between(x, curve[f"{what}_low"], curve[f"{what}_high"], color=colour, alpha=0.2, lw=0)
            ax.plot(x, curve[what], "o-", color=colour, lw=1.8, ms=3.5, label=label)
        smallest = found.smallest[name]
        if smallest is not None:
            ax.axvline(smallest["n_edges"], color=INTACT, lw=0.8, ls="--")
            ax.text(smallest["n_edges"], 0.5, f" {smallest['n_edges']} edges", fontsize=8, color=INTACT)
        for level in (0, 1):
            ax.axhline(level, color=GREY, lw=0.6, zorder=0)
        ax.set_title(name, fontsize=10)
        ax.set(xlabel="edges in the circuit", xscale="log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].set_ylabel("share of the way from\nthe corrupt to the clean run")
    legend_beside(axes)
    return axes


@displays(Circuits, "plot")
def plot_circuit(found: Circuits) -> list[Axes]:
    """The smallest faithful circuit of every class as a graph, from the read-in (below) to the read-out.

    Lines are as wide as their edge's effect is large, dashed where it is negative. Where no size is faithful, the
    largest one stands in.
    """
    names = list(found.smallest)
    graph = found.graph
    width = max(4.5, 0.62 * graph.n_heads + 1)
    _, grid = plt.subplots(
        1,
        len(names),
        figsize=(width * len(names) + 1.6, 1.5 * (graph.n_layers + 1)),
        layout="constrained",
        dpi=DPI,
        squeeze=False,
    )
    axes = list(grid[0])
    for ax, name in zip(axes, names, strict=True):
        edges = found.shown(name)
        draw_graph(ax, found, edges[:DRAWN])
        ax.set_title(title_of(found, name, len(edges)), fontsize=9)
    for channel, label in CHANNEL_LABELS.items():
        axes[0].plot([], [], color=CHANNEL_COLOURS[channel], lw=2, label=label)
    axes[0].plot([], [], color=GREY, lw=1.5, ls="--", label="negative effect")
    legend_beside(axes)
    return axes


def title_of(found: Circuits, name: str, n_edges: int) -> str:
    smallest = found.smallest[name]
    what = f"{n_edges} of {int(found.graph.allowed.sum())} edges"
    if n_edges > DRAWN:
        what += f", the {DRAWN} strongest drawn"
    if smallest is None:
        return f"{name}: {what}\n(no size asked for reaches {found.faithful:g})"
    return f"{name}: {what}\nfaithfulness {smallest['faithfulness']:.2f}, without them {smallest['completeness']:.2f}"


def draw_graph(ax: Axes, found: Circuits, edges: Sequence[dict[str, Any]]) -> None:
    """Components in rows: heads of a layer side by side, its MLP above them."""
    places = layout(found)
    largest = max((abs(edge["score"]) for edge in edges), default=1.0)
    for edge in sorted(edges, key=lambda edge: abs(edge["score"])):
        owner, channel = owner_of(edge["receiver"])
        share = abs(edge["score"]) / largest
        bend = 0.0 if abs(places[owner][0] - places[edge["sender"]][0]) > 0.3 else 0.12
        ax.add_patch(
            FancyArrowPatch(
                places[edge["sender"]],
                entry(places[owner], channel),
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
    drawn = {edge["sender"] for edge in edges} | {owner_of(edge["receiver"])[0] for edge in edges}
    for name, (x, y) in places.items():
        inside = name in drawn
        box = {"boxstyle": "round,pad=0.3", "fc": "white", "ec": "black" if inside else NULL, "lw": 0.9}
        colour = "black" if inside else NULL
        ax.text(x, y, name, ha="center", va="center", fontsize=8, color=colour, bbox=box, zorder=2)
    xs, ys = zip(*places.values(), strict=True)
    ax.set(xlim=(min(xs) - 0.6, max(xs) + 0.6), ylim=(min(ys) - 0.4, max(ys) + 0.4))
    ax.set_axis_off()


def layout(found: Circuits) -> dict[str, tuple[float, float]]:
    """Where each component stands."""
    graph = found.graph
    middle = (graph.n_heads - 1) / 2
    places = {"embed": (middle, 0.0)}
    for component in graph.components[1:]:
        x, y = (
            (middle, 2.0 * component.layer + 2)
            if component.number < 0
            else (component.number, 2.0 * component.layer + 1)
        )
        places[str(component)] = (float(x), y)
    return places | {OUT: (middle, 2.0 * graph.n_layers + 1)}


def owner_of(receiver: str) -> tuple[str, str]:
    """A receiver's component and channel.

    >>> owner_of("1.2.q"), owner_of("0.mlp"), owner_of("out")
    (('1.2', 'q'), ('0.mlp', ''), ('out', ''))
    """
    name, _, channel = receiver.rpartition(".")
    return (name, channel) if channel in ("q", "k", "v") else (receiver, "")


def entry(place: tuple[float, float], channel: str) -> tuple[float, float]:
    """Where an edge arrives: queries from the left, keys in the middle, values from the right."""
    return place[0] + {"q": -0.16, "k": 0.0, "v": 0.16, "": 0.0}[channel], place[1]
