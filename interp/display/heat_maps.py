"""Heat maps as SVG: a value per head of a model, or per row and column of anything else."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from interp.display.svg import (
    DIVERGING,
    INK,
    SEQUENTIAL,
    colour,
    drawing,
    element,
    hover_title,
    readable_on,
    room_for,
    text,
)
from interp.model.heads import Head, HeadSet
from training.common.output import number

NUMBERED = 48
"""Cells, beyond which numbers do not fit (as in `interp.display.axes`)."""
CELL, SMALL = 31, 17


def head_map(
    values: Float[np.ndarray, "layer head"],
    title: str,
    what: str,
    *,
    framed: HeadSet = (),
    best: float = 1.0,
    diverging: bool = False,
    small: bool = False,
) -> str:
    """Layers downwards, heads to the right; framed heads have a frame.

    Args:
        values: one per head.
        title: above the map.
        what: the quantity, said when a cell is pointed at.
        framed: heads with a frame.
        best: the value at the end of the colours; they start at 0, or at `-best` if `diverging`.
        diverging: whether values have a sign that matters.
        small: for small multiples: no numbers in cells.
    """
    n_layers, n_heads = values.shape
    return grid_map(
        values,
        [str(layer) for layer in range(n_layers)],
        [str(head) for head in range(n_heads)],
        title,
        what,
        name=lambda layer, head: f"head {Head(layer, head)}",
        framed=framed,
        best=best,
        diverging=diverging,
        small=small,
    )


def grid_map(
    values: Float[np.ndarray, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    what: str,
    *,
    name: Callable[[int, int], str] | None = None,
    framed: Sequence[tuple[int, int]] = (),
    best: float = 1.0,
    diverging: bool = False,
    small: bool = False,
    tilted: bool = False,
) -> str:
    """A cell per row and column, with its number where there is room.

    Args:
        values: one per cell.
        rows: their names.
        columns: their names; where cells are small only every second or fewer is written.
        title: above the map.
        what: the quantity, said when a cell is pointed at.
        name: of a cell; None puts together the names of row and column.
        framed: cells with a frame.
        best: the value at the end of the colours; they start at 0, or at `-best` if `diverging`.
        diverging: whether values have a sign that matters.
        small: for small multiples: no numbers in cells, no names under columns.
        tilted: names of columns rise to their column, so that all are written however long they are.
    """
    n_rows, n_columns = values.shape
    cell = SMALL if small or values.size > NUMBERED else CELL
    left, top = 14 + room_for(rows, 10), 22
    low, stops = (-best, DIVERGING) if diverging else (0.0, SEQUENTIAL)
    marks = [text(left, 13, title, size=12, fill=INK)]
    for (row, column), value in np.ndenumerate(values):
        x, y = left + cell * column, top + cell * row
        fill = colour(float(value), low, best, stops)
        whose = name(row, column) if name else f"{rows[row]}, {columns[column]}"
        hover = hover_title(f"{whose}, {title}: {what} {number(float(value))}")
        marks.append(element("rect", hover, x=x, y=y, width=cell - 1, height=cell - 1, fill=fill, rx=2))
        if cell == CELL and not math.isnan(value):
            at = x + cell / 2 - 0.5, y + cell / 2 + 3
            marks.append(text(*at, f"{value:z.2f}", size=9.5, anchor="middle", fill=readable_on(fill)))
    for row, column in framed:
        x, y = left + cell * column - 0.5, top + cell * row - 0.5
        marks.append(element("rect", x=x, y=y, width=cell, height=cell, rx=2.5, class_="found"))
    marks += [text(left - 8, top + cell * (i + 0.5) + 3, row, size=10, anchor="end") for i, row in enumerate(rows)]
    height = top + cell * n_rows + (4 if small else 18)
    if tilted:
        height += room_for(columns, 10) / math.sqrt(2)
        for column, label in enumerate(columns):
            corner = f"translate({left + cell * (column + 0.5):.1f} {top + cell * n_rows + 9}) rotate(-45)"
            marks.append(element("g", text(0, 4, label, size=10, anchor="end"), transform=corner))
    elif not small:
        step = max(1, math.ceil(room_for(columns, 10) / cell))
        marks += [
            text(left + cell * (column + 0.5), top + cell * n_rows + 13, columns[column], size=10, anchor="middle")
            for column in range(0, n_columns, step)
        ]
    width = max(left + cell * n_columns + 4, left + room_for([title], 12))
    highest = f", highest {np.nanmax(values):.2f}" if not np.isnan(values).all() else ""
    kind = "every head, layers downwards" if name else "every cell"
    return drawing(width, height, *marks, label=f"{title}: {what} of {kind}{highest}")
