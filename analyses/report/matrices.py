"""Matrices: one value per pair of things compared."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.display.svg import (
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
from training.common.output import number

NOTHING = colour(math.nan, 0, 1)
"""Of the diagonal, which says nothing."""


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
