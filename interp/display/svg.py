"""Scalable vector graphics by hand: elements as text, linear scales, ticks. Nothing here knows what is drawn."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

INK, SOFT, RULE = "#1d2530", "#5b6673", "#dfe3e8"
INTACT, NULL, GREY = "#1b6ca8", "#b9c0c7", "#666666"
MODES = {"zero": "#c8553d", "mean": "#3f7d58", "resample": "#7a5195"}
"""As in `interp.display.axes`, which a report does not import: it would wait for matplotlib."""
Number = float | int

SEQUENTIAL = (
    "#def5e5",
    "#96ddb5",
    "#49c1ad",
    "#359eaa",
    "#357aa2",
    "#3c5598",
    "#3e3469",
    "#2a1b33",
    "#0b0405",
)
DIVERGING = ("#2369bd", "#678bbe", "#9baecb", "#cfd4e0", "#faf5f4", "#e7c8c6", "#d39794", "#bf6765", "#a9373b")
"""seaborn's mako_r and vlag at nine points."""


def element(name: str, *children: str, **attributes: object) -> str:
    """One element; `_` in a name stands for `-`, and attributes that are None are left out.

    >>> element("text", "a", font_size=9, x=None)
    '<text font-size="9">a</text>'
    """
    given = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None]
    written = "".join(f' {key}="{escape(short(value))}"' for key, value in given)
    return f"<{name}{written}>{''.join(children)}</{name}>"


def short(value: object) -> str:
    """
    >>> short(1.50001), short(2.0), short("a")
    ('1.5', '2', 'a')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def drawing(width: Number, height: Number, *body: str, label: str) -> str:
    """A whole figure with its text for those who do not see it."""
    return element(
        "svg",
        *body,
        viewBox=f"0 0 {short(float(width))} {short(float(height))}",
        width=float(width),
        height=float(height),
        role="img",
        aria_label=label,
    )


def text(x: Number, y: Number, content: str, *, size: Number = 11, anchor: str = "start", fill: str = SOFT) -> str:
    return element("text", escape(content), x=x, y=y, font_size=size, text_anchor=anchor, fill=fill)


def room_for(names: Iterable[str], size: Number) -> float:
    """Width of the longest of these, generously: no letter of a sans serif is wider on average.

    >>> room_for(["a", "mixed-0"], 10)
    44.1
    """
    return round(0.63 * size * max(map(len, names)), 2)


def line(
    x1: Number, y1: Number, x2: Number, y2: Number, *, stroke: str = RULE, width: Number = 1, dash: str | None = None
) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=width, stroke_dasharray=dash)


def told(content: str) -> str:
    """What a mark says when it is pointed at."""
    return element("title", escape(content))


def dot(x: Number, y: Number, r: Number, hover: str = "", **attributes: object) -> str:
    return element("circle", told(hover) if hover else "", cx=x, cy=y, r=r, **attributes)


def polyline(
    points: Sequence[tuple[float, float]], *, stroke: str, width: Number = 1.6, dash: str | None = None
) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=path, fill="none", stroke=stroke, stroke_width=width, stroke_dasharray=dash)


def key(marks: Mapping[str, str]) -> str:
    """What marks, drawn around the origin, stand for, side by side."""
    body: list[str] = []
    place = 10.0
    for said, mark in marks.items():
        body += [element("g", mark, transform=f"translate({place:.0f} 10)"), text(place + 14, 14, said, size=11)]
        place += 34 + 6.2 * len(said)
    return drawing(place, 20, *body, label="key: " + "; ".join(marks))


def stroke_mark(stroke: str, width: Number = 2, dash: str | None = None) -> str:
    """A short line for a key."""
    return line(-9, 0, 9, 0, stroke=stroke, width=width, dash=dash)


class Scale(NamedTuple):
    """A linear map from values to pixels."""

    low: Number
    high: Number
    start: Number
    stop: Number

    def __call__(self, value: Number) -> float:
        """Values beyond the ends are drawn at the ends."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.stop - self.start)


def ticks(low: Number, high: Number, n: int = 5) -> list[float]:
    """Round values between two ends, about `n` of them.

    >>> ticks(-0.1, 1.6), ticks(0, 1)
    ([0.0, 0.5, 1.0, 1.5], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    """
    raw = (high - low) / n
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) + 0.0 for place in range(first, math.floor(high / step + 1e-9) + 1)]


def colour(value: Number, low: Number, high: Number, stops: Sequence[str] = SEQUENTIAL) -> str:
    """Between the stops; grey where there is no value.

    >>> colour(0, 0, 1), colour(float("nan"), 0, 1)
    ('#def5e5', '#eef0f2')
    """
    if math.isnan(value):
        return "#eef0f2"
    place = min(1.0, max(0.0, (value - low) / (high - low))) * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    mixed = [
        round(a + (b - a) * (place - first))
        for a, b in zip(channels(stops[first]), channels(stops[first + 1]), strict=True)
    ]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def channels(hexadecimal: str) -> list[int]:
    return [int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]


def readable_on(background: str) -> str:
    """Ink or white, whichever has more contrast (WCAG relative luminance).

    >>> readable_on("#def5e5"), readable_on("#3e3469")
    ('#1d2530', '#ffffff')
    """
    return INK if luminance(background) > 0.22 else "#ffffff"


def luminance(hexadecimal: str) -> float:
    linear = [
        c / 12.92 if (c := one / 255) <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for one in channels(hexadecimal)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
