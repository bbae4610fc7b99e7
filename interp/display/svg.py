"""Elements and colours of heat maps as SVG text."""

import math
from collections.abc import Iterable, Sequence
from html import escape

INK, SOFT = "#1d2530", "#5b6673"
Number = float | int

SEQUENTIAL = ("#def5e5", "#96ddb5", "#49c1ad", "#359eaa", "#357aa2", "#3c5598", "#3e3469", "#2a1b33", "#0b0405")
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


def hover_title(content: str) -> str:
    """The text shown while the pointer rests on an element."""
    return element("title", escape(content))


def colour(value: Number, low: Number, high: Number, stops: Sequence[str] = SEQUENTIAL) -> str:
    """Between the stops; grey where there is no value.

    >>> colour(0, 0, 1), colour(float("nan"), 0, 1)
    ('#def5e5', '#eef0f2')
    """
    if math.isnan(value):
        return "#eef0f2"
    position = min(1.0, max(0.0, (value - low) / (high - low))) * (len(stops) - 1)
    first = min(int(position), len(stops) - 2)
    mixed = [
        round(a + (b - a) * (position - first))
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
        c / 12.92 if (c := channel / 255) <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for channel in channels(hexadecimal)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
