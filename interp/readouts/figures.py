"""Figures of readouts: each function takes a result and returns matplotlib axes."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from interp.display.axes import GREY, INTACT, NULL, figure_of, grid_of_axes, legend_beside, row_of_axes, title_figure
from interp.display.result import displays
from interp.model.heads import head_grid
from interp.readouts.head_decoding import HeadDecoding
from interp.readouts.head_weights import SCORES, HeadWeights
from interp.readouts.lens import Lens
from interp.readouts.probes import Probes
from interp.readouts.subspace_patching import Swaps
from interp.readouts.tables import abbreviate_reference, copying_size
from training.common.output import records
from training.common.table_rows import distinct, where

CONDITION_COLOURS = (INTACT, "#c8553d")
MOST_PLANES = 8  # heads whose eigenvalues are drawn
SUBSPACE_STYLES = {"pattern": ("#c8553d", "o"), "weights": ("#e0a458", "s")}


@displays(Lens, "plot")
def plot_lens(result: Lens) -> list[Axes]:
    """A column per class: the tuned lens's error by number of examples at every stage, and its distances by depth."""
    names = distinct(result.table, "function_class")
    n_stages, n_references = len(distinct(result.depth, "stage")), len(distinct(result.depth, "reference"))
    grid = grid_of_axes(2, len(names), width=max(3.4, 0.55 * n_stages + 1.0), height=max(2.6, 0.24 * n_references))
    for i, (top, bottom, name) in enumerate(zip(*grid, names, strict=True)):
        draw_lens_curves(top, where(result.table, function_class=name, kind="tuned", reference="target"))
        draw_distances(bottom, where(result.depth, function_class=name, kind="tuned"), bar=i == len(names) - 1)
        top.set_title(name)
    grid[0][0].set_ylabel("MSE / E[y²]")
    title_figure(grid[0], f"tuned lens of {result.checkpoint} at {result.token} tokens")
    legend_beside(grid[0])
    return [ax for row in grid for ax in row]


def draw_lens_curves(ax: Axes, curves: pd.DataFrame) -> None:
    """A line with its band per stage, darker with depth."""
    stages = distinct(curves, "stage")
    for colour, stage in zip(sns.color_palette("mako_r", len(stages)), stages, strict=True):
        curve = where(curves, stage=stage)
        ax.plot(curve["examples"], curve["distance"], color=colour, label=stage, lw=1.6)
        ax.fill_between(curve["examples"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.2, lw=0)
    ax.set(xlabel="in-context examples", ylim=(0, 1.6))


def draw_distances(ax: Axes, depth: pd.DataFrame, *, bar: bool) -> None:
    """Distances by reference and stage, with a mark at the nearest reference."""
    cells = depth.pivot(index="reference", columns="stage", values="distance")
    cells = cells.loc[distinct(depth, "reference"), distinct(depth, "stage")]
    cells.index = [abbreviate_reference(name) for name in cells.index]
    sns.heatmap(
        cells,
        ax=ax,
        vmin=0,
        vmax=1,
        cmap="mako",
        annot=cells.size <= 130,
        fmt=".2f",
        annot_kws={"size": 6},
        cbar=bar,
        cbar_kws={"shrink": 0.8},
        linewidths=0.5,
    )
    near = depth.pivot(index="reference", columns="stage", values="near")
    near = near.loc[distinct(depth, "reference"), distinct(depth, "stage")]
    for row, column in np.argwhere(near.to_numpy(dtype=bool)):
        ax.plot(column + 0.88, row + 0.5, marker="<", color="#e0a458", ms=3.5)
    points = distinct(depth, "points")[0]
    ax.set(xlabel=f"stage; distance² / E[y²] to each\npredictor, pairs {points}; ◂ the nearest", ylabel="")
    ax.tick_params(length=0, labelsize=8, rotation=0)


@displays(Probes, "plot")
def plot_probes(result: Probes) -> list[Axes]:
    """A panel per class: R² by target, token type and stage after the most examples; the colour is its excess."""
    table = where(result.table, condition="intact", examples=max(distinct(result.table, "examples")))
    names = distinct(table, "function_class")
    n_rows = max(len(where(table, function_class=name)[["target", "token"]].drop_duplicates()) for name in names)
    axes = row_of_axes(len(names), width=3.9, height=0.34 * n_rows + 1.3)
    for ax, name in zip(axes, names, strict=True):
        cells = where(table, function_class=name)
        order = {target: i for i, target in enumerate(distinct(cells, "target"))}
        cells = cells.sort_values("target", key=lambda column, order=order: column.map(order), kind="stable")
        cells = cells.assign(row=cells["target"] + " at " + cells["token"])
        above, value = (
            cells.pivot(index="row", columns="stage", values=column).loc[
                distinct(cells, "row"), distinct(cells, "stage")
            ]
            for column in ("above", "value")
        )
        sns.heatmap(
            above.clip(lower=0),
            ax=ax,
            vmin=0,
            vmax=1,
            cmap="mako_r",
            annot=value,
            fmt=".2f",
            annot_kws={"size": 7},
            cbar=ax is axes[-1],
            cbar_kws={"shrink": 0.8, "label": "above controls"},
            linewidths=0.5,
        )
        ax.set(title="class" if "," in name else name, xlabel="stage", ylabel="")
        ax.tick_params(length=0, labelsize=8, rotation=0)
    examples = distinct(table, "examples")[0]
    title_figure(axes, f"held-out R² (class: accuracy) of probes of {result.checkpoint} after {examples} examples")
    return axes


@displays(Probes, "plot_without")
def plot_without(result: Probes, target: str) -> list[Axes]:
    """One target by stage in every condition, with controls; a row per class and a column per number of examples."""
    table = where(result.table, target=target)
    token = "y" if "y" in distinct(table, "token") else "x"
    table = where(table, token=token)
    names, examples = distinct(table, "function_class"), distinct(table, "examples")
    grid = grid_of_axes(len(names), len(examples), width=2.6, height=2.4)
    for row, name in zip(grid, names, strict=True):
        for ax, k in zip(row, examples, strict=True):
            cell = where(table, function_class=name, examples=k)
            for colour, condition in zip(CONDITION_COLOURS, distinct(cell, "condition"), strict=False):
                curve = where(cell, condition=condition)
                ax.plot(curve["stage"], curve["value"], "o-", ms=3, color=colour, label=condition)
                ax.fill_between(curve["stage"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.2, lw=0)
            control = where(cell, condition="intact")
            ax.plot(control["stage"], control["untrained"], ":", color=GREY, label="untrained model")
            ax.plot(control["stage"], control["shuffled"], "-", color=NULL, lw=0.9, label="shuffled targets")
            ax.set(title=f"{name}, k = {k}", ylim=(-0.05, 1.05))
            ax.tick_params(axis="x", rotation=45)
        row[0].set_ylabel(f"R² of {target} at {token} tokens")
    legend_beside(grid[0])
    return [ax for row in grid for ax in row]


@displays(Swaps, "plot")
def plot_swaps(result: Swaps) -> list[Axes]:
    """A row per class and token type, a panel per target: effects by stage, those of controls in grey."""
    table = result.table
    rows = list(table[["function_class", "token"]].drop_duplicates().itertuples(index=False, name=None))
    targets = distinct(table, "target")
    grid = grid_of_axes(len(rows), len(targets), width=2.3, height=2.2)
    rng = np.random.default_rng(0)  # sideways jitter only
    for axes, (name, token) in zip(grid, rows, strict=True):
        for ax, target in zip(axes, targets, strict=True):
            keys = {"function_class": name, "token": token, "target": target}
            cell, controls = where(table, **keys), where(result.controls, **keys, subspace="pattern")
            if cell.empty:
                ax.set_axis_off()
                continue
            draw_swaps(ax, cell, controls, rng)
            ax.set_title(f"{target}, {name}, {'query' if token == 'x' else 'y tokens'}", fontsize=8)
        axes[0].set_ylabel("effect of the swap")
    legend_beside([ax for row in grid for ax in row])
    return [ax for row in grid for ax in row if ax.axison]


def draw_swaps(ax: Axes, cell: pd.DataFrame, controls: pd.DataFrame, rng: np.random.Generator) -> None:
    """Effects of controls as dots, of the whole stream as bars, and of the probed subspaces with their intervals."""
    stages = distinct(cell, "stage")
    for kind, side, colour in (("even", -0.2, NULL), ("matched", 0.2, "#8a9099")):
        for x, stage in enumerate(stages):
            dots = where(controls, control=kind, stage=stage)["effect"]
            jittered = x + side + rng.uniform(-0.1, 0.1, len(dots))
            ax.plot(jittered, dots, ".", ms=2, color=colour, label=f"random, {kind}")
    ax.plot(
        range(len(stages)),
        where(cell, subspace="pattern")["full"],
        "_",
        color=INTACT,
        ms=22,
        mew=1.8,
        label="whole stream",
    )
    for subspace, (colour, marker) in SUBSPACE_STYLES.items():
        for x, row in enumerate(records(where(cell, subspace=subspace))):
            spread = [[row["effect"] - row["ci_low"]], [row["ci_high"] - row["effect"]]]
            label = f"probe's {subspace}"
            ax.errorbar([x], [row["effect"]], yerr=spread, fmt=marker, color=colour, ms=4.5, capsize=2, label=label)
    ax.axhline(0, color=GREY, lw=0.8, ls=":", zorder=0)
    ax.set(xticks=range(len(stages)), xlim=(-0.5, len(stages) - 0.5), ylim=(-0.15, 1.1))
    ax.set_xticklabels(stages, fontsize=8)


@displays(HeadDecoding, "plot")
def plot_heads(result: HeadDecoding) -> list[Axes]:
    """A panel per class: R² of x_i in a head's output against its retrospective score; untrained heads in grey."""
    names = distinct(result.table, "function_class")
    axes = row_of_axes(len(names), width=3.0, height=2.9)
    for ax, name in zip(axes, names, strict=True):
        heads = where(result.table, function_class=name)
        ax.plot(heads["score"], heads["untrained"], ".", color=NULL, label="same head, untrained")
        ax.plot(heads["score"], heads["value"], "o", color=INTACT, ms=4.5, label="head")
        for row in records(heads.sort_values("value").tail(3)):
            ax.annotate(
                f"{row['layer']}.{row['head']}",
                (row["score"], row["value"]),
                textcoords="offset points",
                xytext=(-5, -2) if row["score"] > 0.5 else (5, -2),
                ha="right" if row["score"] > 0.5 else "left",
                fontsize=7,
            )
        ax.set(title=name, xlabel="retrospective score", xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))
    axes[0].set_ylabel("R² of x_i in its output")
    legend_beside(axes)
    return axes


@displays(HeadWeights, "plot")
def plot_weights(result: HeadWeights) -> list[Axes]:
    """Copying and matching scores: heat maps [layer x head] of all heads, bars of some."""
    names = [f"{row['layer']}.{row['head']}" for row in records(result.table)]
    shape = head_grid(names)
    n_rows, n_columns = (len(names), 6) if shape is None else shape
    axes = row_of_axes(
        2, width=0.45 * n_columns + 1.2, height=max(1.9, (0.22 if shape is None else 0.45) * n_rows + 0.9)
    )
    for ax, (circuit, score) in zip(axes, SCORES.items(), strict=True):
        values = result.table[f"{score}_score"].to_numpy()
        if shape is None:
            draw_bars(ax, names, values)
        else:
            draw_signed_heads(ax, values.reshape(shape), bar=ax is axes[-1])
        ax.set_title(f"{score} score (W_{circuit})")
    title_figure(axes, "sum of eigenvalues / sum of their sizes, LayerNorm folded in", fontsize=9.0)
    return axes


def draw_bars(ax: Axes, names: list[str], values: np.ndarray) -> None:
    """A bar per head, the first on top."""
    ax.barh(range(len(names)), values, color=INTACT, height=0.7)
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set(xlim=(-1.05, 1.05), ylabel="head")
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.invert_yaxis()


def draw_signed_heads(ax: Axes, values: np.ndarray, *, bar: bool) -> None:
    """A heat map [layer x head] of values from -1 to 1, with numbers if they fit."""
    cells = ax.imshow(values, vmin=-1, vmax=1, cmap="vlag")
    ax.set(xticks=range(values.shape[1]), yticks=range(values.shape[0]), xlabel="head", ylabel="layer")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    for (layer, head), value in np.ndenumerate(values) if values.size <= 48 else ():
        colour = "white" if abs(value) > 0.6 else "black"
        ax.text(head, layer, f"{value:z.2f}", ha="center", va="center", size=6.5, color=colour)
    if bar:
        figure_of([ax]).colorbar(cells, ax=ax, shrink=0.8).outline.set_visible(False)


@displays(HeadWeights, "plot_eigenvalues")
def plot_eigenvalues(result: HeadWeights) -> list[Axes]:
    """Eigenvalues in the complex plane, a column per head, W_OV above W_QK; at most `MOST_PLANES` heads."""
    strongest = sorted(records(result.table), key=copying_size, reverse=True)[:MOST_PLANES]
    heads = sorted(strongest, key=lambda row: (row["layer"], row["head"]))
    grid = grid_of_axes(2, len(heads), width=2.1, height=2.2)
    for column, head in enumerate(heads):
        key = {"layer": head["layer"], "head": head["head"]}
        for row, (circuit, score) in enumerate(SCORES.items()):
            values = where(result.eigenvalues, circuit=circuit, **key)
            draw_plane(grid[row][column], values["real"].to_numpy(), values["imaginary"].to_numpy())
            title = f"{score} {head[f'{score}_score']:z.2f}"
            grid[row][column].set_title(f"{head['layer']}.{head['head']}, {title}" if row == 0 else title, fontsize=8)
    for row, circuit in enumerate(SCORES):
        grid[row][0].set_ylabel(f"W_{circuit}\nimaginary part")
    for ax in grid[1]:
        ax.set_xlabel("real part")
    n_left_out = len(result.table) - len(heads)
    chosen = f"; the {len(heads)} heads with the largest copying scores in size" if n_left_out else ""
    title_figure(grid[0], f"eigenvalues of W_OV and W_QK, LayerNorm folded in{chosen}", fontsize=9.0)
    return [ax for row in grid for ax in row]


def draw_plane(ax: Axes, real: np.ndarray, imaginary: np.ndarray) -> None:
    """Numbers in the complex plane, 0 in the middle."""
    limit = 1.15 * max(1e-9, np.hypot(real, imaginary).max())
    ax.axhline(0, color=GREY, lw=0.6)
    ax.axvline(0, color=GREY, lw=0.6)
    ax.plot(real, imaginary, "o", color=INTACT, ms=4, alpha=0.7)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    ax.tick_params(labelsize=6)
