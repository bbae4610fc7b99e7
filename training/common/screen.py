"""The width of the screen, and which columns of a table fit into it, so that no number or word is ever broken."""

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from training.common.terminal import naming_stream, printable_line

UNKNOWN_WIDTH = 80
"""Of a terminal that does not say how wide it is."""


def screen_width() -> int | None:
    """Columns of the screen: COLUMNS if it is set, else those of the terminal; None for files and pipes."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return os.get_terminal_size(sys.stdout.fileno()).columns or UNKNOWN_WIDTH


def print_text(text: str, bullet: str = "") -> None:
    """Print a sentence or a caption, whose lines end between words where it is wider than the screen."""
    width = screen_width()
    line = bullet + printable_line(text)
    indent = " " * len(bullet)
    with naming_stream("stdout"):
        print(line if width is None else wrap_words(line, width, indent), flush=True)


def wrap_words(text: str, width: int, indent: str = "") -> str:
    """The text in lines of at most so many characters; a longer word has a line of its own.

    >>> wrap_words("no words-that are broken", 10)
    'no\\nwords-that\\nare broken'
    """
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


class Layout(NamedTuple):
    """How a table fits into a screen.

    Attributes:
        columns: the positions of those that fit, in their order.
        widths: of these, in characters, without lines and margins.
        full_width: of the narrowest screen that has room for all columns.
    """

    columns: Sequence[int]
    widths: Sequence[int]
    full_width: int


class ColumnWidth(NamedTuple):
    """Widths of a column in characters: at best, and without breaking a number or a word."""

    best: int
    least: int


def fit_columns(columns: Sequence[ColumnWidth], order: Sequence[int], width: int | None) -> Layout:
    """Leave columns out, in this order, until the others fit; narrow headers and texts before numbers are left out.

    Where even the columns that are never left out do not fit, the table is wider than the screen.

    Args:
        columns: of the whole table.
        order: positions of columns that may be left out, the least important first.
        width: of the screen; None has room for all.

    >>> fit_columns([ColumnWidth(9, 9), ColumnWidth(20, 7), ColumnWidth(8, 8)], [2], 24)
    Layout(columns=[0, 1], widths=[9, 8], full_width=34)
    """
    full_width = needed_width([column.least for column in columns])
    chosen, left_out = list(range(len(columns))), iter(order)
    while width is not None and needed_width([columns[i].least for i in chosen]) > width:
        least_important = next(left_out, None)
        if least_important is None:
            break
        chosen.remove(least_important)
    widths = [columns[i].best for i in chosen]
    while width is not None and needed_width(widths) > width:
        room = [wide - columns[i].least for wide, i in zip(widths, chosen, strict=True)]
        if max(room) == 0:
            break
        widths[room.index(max(room))] -= 1
    return Layout(chosen, widths, full_width)


def needed_width(widths: Sequence[int]) -> int:
    """Of a table: its columns, a margin at both sides of each, and the lines between them."""
    return sum(widths) + 3 * len(widths) + 1


def longest_word(texts: Sequence[str]) -> int:
    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def longest(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)
