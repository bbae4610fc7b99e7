"""Heat maps: one value per head of a model, or one per pair of things compared."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from analyses.report.svg import (
    DIVERGING,
    INK,
    SEQUENTIAL,
    SOFT,
    Number,
    colour,
    drawing,
    element,
    readable_on,
    room_for,
    text,
    told,
)
from interp.heads import Head, HeadSet
from training.output import number

NUMBERED = 48
"""Cells, beyond which numbers do not fit (as in `interp.plots`)."""
CELL, SMALL = 31, 17
NOTHING = colour(math.nan, 0, 1)
"""Of the diagonal of a matrix, which says nothing."""


def head_map(
    values: Float[np.ndarray, "layer head"],
    title: str,
    what: str,
    *,
    found: HeadSet = (),
    best: float = 1.0,
    diverging: bool = False,
    small: bool = False,
) -> str:
    """Layers downwards, heads to the right; found heads have a frame.

    Args:
        values: one per head.
        title: above the map.
        what: the quantity, said when a cell is pointed at.
        found: heads to frame.
        best: the value at the end of the colours; they start at 0, or at `-best` if `diverging`.
        diverging: whether values have a sign that matters.
        small: for small multiples: no numbers in cells.
    """
    n_layers, n_heads = values.shape
    cell = SMALL if small or values.size > NUMBERED else CELL
    left, top = 24, 22
    marks = [text(left, 13, title, size=12, fill=INK)]
    for (layer, number_of_head), value in np.ndenumerate(values):
        x, y = left + cell * number_of_head, top + cell * layer
        low, stops = (-best, DIVERGING) if diverging else (0.0, SEQUENTIAL)
        fill = colour(float(value), low, best, stops)
        hover = f"head {Head(layer, number_of_head)}, {title}: {what} {number(float(value))}"
        marks.append(element("rect", told(hover), x=x, y=y, width=cell - 1, height=cell - 1, fill=fill, rx=2))
        if cell == CELL and not math.isnan(value):
            marks.append(
                text(
                    x + cell / 2 - 0.5,
                    y + cell / 2 + 3,
                    f"{value:z.2f}",
                    size=9.5,
                    anchor="middle",
                    fill=readable_on(fill),
                )
            )
    for layer, number_of_head in found:
        x, y = left + cell * number_of_head, top + cell * layer
        marks.append(element("rect", x=x - 0.5, y=y - 0.5, width=cell, height=cell, rx=2.5, class_="found"))
    marks += [
        text(left - 8, top + cell * (layer + 0.5) + 3, str(layer), size=10, anchor="end") for layer in range(n_layers)
    ]
    if not small:
        marks += [
            text(left + cell * (place + 0.5), top + cell * n_layers + 13, str(place), size=10, anchor="middle")
            for place in range(n_heads)
        ]
    width = max(left + cell * n_heads + 4, left + room_for([title], 12))
    height = top + cell * n_layers + (4 if small else 18)
    highest = f", highest {np.nanmax(values):.2f}" if not np.isnan(values).all() else ""
    return drawing(width, height, *marks, label=f"{title}: {what} of every head, layers downwards{highest}")


def matrix(
    values: Float[np.ndarray, "row column"],
    names: Sequence[str],
    title: str,
    *,
    low: float = -1.0,
    hover: str = "",
) -> str:
    """Every thing against every other; `low` is -1 for correlations and 0 for shares."""
    n = len(names)
    cell = 46 if n <= 5 else 30 if n <= 12 else 15
    room = room_for(names, 10.5)
    left, top = 10 + room, 26
    marks = [text(0, 13, title, size=12, fill=INK)]
    stops = DIVERGING if low < 0 else SEQUENTIAL[:6]
    for (row, column), value in np.ndenumerate(values):
        x, y = left + cell * column, top + cell * row
        fill = NOTHING if row == column else colour(float(value), low, 1.0, stops)
        said = f"{names[row]} and {names[column]}: {hover or title} {number(float(value), 2)}"
        marks.append(element("rect", told(said), x=x, y=y, width=cell - 1, height=cell - 1, rx=2, fill=fill))
        if cell >= 30:
            shown = "–" if math.isnan(value) else f"{value:z.2f}"
            marks.append(
                text(
                    x + cell / 2,
                    y + cell / 2 + 3.5,
                    shown,
                    size=10,
                    anchor="middle",
                    fill=SOFT if math.isnan(value) else readable_on(fill),
                )
            )
    marks += [
        text(left - 6, top + cell * (place + 0.5) + 3.5, name, size=10.5, anchor="end")
        for place, name in enumerate(names)
    ]
    bottom = top + cell * n
    marks += [tilted(left + cell * (place + 0.5), bottom + 9, name) for place, name in enumerate(names)]
    height = bottom + 14 + room / math.sqrt(2)
    width = max(left + cell * n + 4, room_for([title], 12))
    return drawing(width, height, *marks, label=f"{title}, between {', '.join(names)}")


def tilted(x: Number, y: Number, content: str) -> str:
    """A column's name, rising to the column from the lower left."""
    turned = f"translate({x:.1f} {y:.1f}) rotate(-45)"
    return element("g", text(0, 4, content, size=10.5, anchor="end"), transform=turned)
