"""Effects of head sets beside the whole distribution of what other sets of heads cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from interp.display.svg import (
    GREY,
    INK,
    NULL,
    SOFT,
    Number,
    Scale,
    dot,
    drawing,
    element,
    key,
    line,
    room_for,
    text,
    ticks,
    told,
)
from interp.statistics.p_values import draws_behind, p_text
from training.common.output import interval, number

WIDTH, LEFT, RIGHT = 332, 66, 14
ROW, SWARM = 74, 26
RADIUS = 2.4
BEYOND = 0.25


class Row(NamedTuple):
    """One effect with what it is compared with.

    Attributes:
        label: at the left.
        effect: a row of `interp.ablation.ablate.Ablation.table`.
        null: effects of the layer-matched sets, by their heads; drawn above the line.
        other: of sets from any layer; drawn below it.
        colour: of the effect.
    """

    label: str
    effect: Mapping[str, Any]
    null: Mapping[str, float]
    other: Mapping[str, float]
    colour: str


def extent(rows: Sequence[Row]) -> tuple[float, float]:
    """The ends of an axis that holds every effect and null effect of these rows, and 0 and 1.

    Intervals may reach beyond by `BEYOND` of that and are cut there: one heavy tail would flatten everything else.
    """
    values, ends = [0.0, 1.0], [0.0]
    for row in rows:
        values += [row.effect["effect"], *row.null.values(), *row.other.values(), row.effect.get("direct_effect", 0.0)]
        ends += [row.effect["ci_low"], row.effect["ci_high"]]
    low, high = (end([value for value in values if not math.isnan(value)]) for end in (min, max))
    far_low, far_high = (end([value for value in ends if not math.isnan(value)]) for end in (min, max))
    width = high - low
    return max(min(low, far_low), low - BEYOND * width) - 0.04 * width, min(
        max(high, far_high), high + BEYOND * width
    ) + 0.04 * width


def against_null(rows: Sequence[Row], title: str, ends: tuple[float, float]) -> str:
    """One line per mode: the set's effect with its interval, the null sets as dots above and below."""
    top = 24
    bottom = top + ROW * len(rows)
    x = Scale(*ends, LEFT, WIDTH - RIGHT)
    marks = [text(LEFT, 13, title, size=12, fill=INK), *grid(x, top, bottom)]
    for place, row in enumerate(rows):
        middle = top + ROW * place + 36
        marks.append(text(LEFT - 8, middle + 4, row.label, size=11, anchor="end", fill=INK))
        if math.isnan(row.effect["effect"]):
            marks.append(text(x(0) + 6, middle + 4, "no effect to measure", size=10.5))
            continue
        marks.append(line(LEFT, middle, WIDTH - RIGHT, middle))
        marks += swarm(row.null, x, middle - 5, -SWARM, "layer-matched set", fill=NULL, stroke="#8a949e")
        marks += swarm(row.other, x, middle + 5, SWARM, "set from any layer", fill="#ffffff", stroke="#8a949e")
        marks += effect_mark(row, x, middle)
    return drawing(WIDTH, bottom + 36, *marks, label=label_of(rows, title))


def forest(rows: Sequence[Row], title: str, ends: tuple[float, float]) -> str:
    """One line per model: the found heads' effect, and the layer-matched sets as faint dots on the line."""
    height, top = 22, 24
    left = 14 + room_for([row.label for row in rows], 10.5)
    width = left + 250
    bottom = top + height * len(rows)
    x = Scale(*ends, left, width - RIGHT)
    marks = [text(left, 13, title, size=12, fill=INK), *grid(x, top, bottom)]
    for place, row in enumerate(rows):
        middle = top + height * (place + 0.5)
        marks.append(text(left - 8, middle + 4, row.label, size=10.5, anchor="end", fill=INK))
        if math.isnan(row.effect["effect"]):
            marks.append(text(x(0) + 6, middle + 4, str(row.effect.get("why", "undefined")), size=10))
            continue
        marks += [
            dot(x(value), middle, 2.2, f"{row.label}: {name} costs {number(value)}", fill=NULL, fill_opacity=0.75)
            for name, value in row.null.items()
        ]
        marks += effect_mark(row, x, middle)
    return drawing(width, bottom + 36, *marks, label=label_of(rows, title))


def grid(x: Scale, top: Number, bottom: Number) -> list[str]:
    """Ticks below, and lines at no effect and at the whole gain."""
    marks = [line(x(value), top, x(value), bottom, stroke=GREY, dash="1 3") for value in (0, 1)]
    marks += [text(x(tick), bottom + 14, number(tick, 1), size=10, anchor="middle") for tick in ticks(x.low, x.high)]
    marks.append(line(x.start, bottom, x.stop, bottom))
    return [
        *marks,
        text((x.start + x.stop) / 2, bottom + 30, "share of the in-context gain lost", size=10.5, anchor="middle"),
    ]


def effect_mark(row: Row, x: Scale, y: Number) -> list[str]:
    """A diamond with its interval, a cross for the direct effect, and what both say when pointed at."""
    effect, low, high = (float(row.effect[key]) for key in ("effect", "ci_low", "ci_high"))
    said = f"{row.label}, {row.effect['heads']}: {interval(effect, low, high)}"
    if "p_value" in row.effect:
        said += f"; {p_text(row.effect['p_value'], draws_behind(row.effect), holm=row.effect['p_holm'])}"
    place = f"translate({x(effect):.1f} {y:.1f}) rotate(45)"
    diamond = element(
        "rect", told(said), x=-4.5, y=-4.5, width=9, height=9, fill=row.colour, stroke="#ffffff", transform=place
    )
    marks = [line(x(low), y, x(high), y, stroke=row.colour, width=2.5), diamond]
    if high > x.high:  # an open end
        marks.insert(
            0,
            element(
                "path", d=f"M{x.stop - 4:.1f} {y - 4:.1f}l5 4l-5 4", stroke=row.colour, fill="none", stroke_width=1.6
            ),
        )
    if "direct_effect" in row.effect:
        direct = float(row.effect["direct_effect"])
        arms = f"M{x(direct) - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7"
        marks.insert(
            1,
            element(
                "path",
                told(f"{row.label}: direct effect {number(direct)}"),
                d=arms,
                stroke=row.colour,
                stroke_width=1.6,
            ),
        )
    return marks


def swarm(values: Mapping[str, float], x: Scale, base: Number, room: Number, what: str, **style: str) -> list[str]:
    """Dots stacked away from the line wherever they would lie on one another, closer the more there are."""
    defined = {name: value for name, value in values.items() if not math.isnan(value)}
    bins = {name: round(x(value) / (2 * RADIUS)) for name, value in defined.items()}
    fullest = max(np.unique(list(bins.values()), return_counts=True)[1], default=1) if bins else 1
    step = math.copysign(min(2 * RADIUS, abs(room) / fullest), room)
    height: dict[int, int] = {}
    marks = []
    for name, value in sorted(defined.items(), key=lambda item: item[1]):
        level = height.get(bins[name], 0)
        height[bins[name]] = level + 1
        hover = f"{what} {name}: {number(value)}"
        marks.append(dot(x(value), base + step * level, RADIUS, hover, **style, stroke_width=0.7))
    return marks


def label_of(rows: Sequence[Row], title: str) -> str:
    """The figure in words."""
    said = [f"{row.label} {number(row.effect['effect'], 2)}" for row in rows]
    return f"{title}: share of the in-context gain lost without the found heads: {', '.join(said)}"


def key_to_null(*, forest: bool = False) -> str:
    """What the marks of these figures stand for."""
    diamond = element("rect", x=-4.5, y=-4.5, width=9, height=9, fill=SOFT, transform="rotate(45)")
    cross = element("path", d="M-3.5 -3.5l7 7m0 -7l-7 7", stroke=SOFT, stroke_width=1.6)
    full, hollow = (dot(0, 0, RADIUS, fill=fill, stroke="#8a949e", stroke_width=0.7) for fill in (NULL, "#ffffff"))
    marks = {"found heads, with 95 % interval": diamond, "direct effect alone": cross}
    if forest:
        return key(marks | {"layer-matched set": dot(0, 0, RADIUS, fill=NULL)})
    return key(marks | {"layer-matched set (above)": full, "set from any layer (below)": hollow})
