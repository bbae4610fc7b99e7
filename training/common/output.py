"""Output of commands: tables for people, a JSON document for programs, CSV files."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import rich.table
from rich.console import Console

from training.common.atomic_files import check_writable, write_text
from training.common.errors import UserError
from training.common.screen import (
    ColumnWidth,
    fit_columns,
    longest,
    longest_word,
    needed_width,
    print_text,
    screen_width,
)
from training.common.spreadsheets import without_formulae
from training.common.terminal import naming_stream, printable_line

if TYPE_CHECKING:  # `interp doctor` prints with what is here, and must be able to say that pandas is missing
    import pandas as pd


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout; NaN, which JSON has no word for, becomes null."""
    with naming_stream("stdout"):
        print(json.dumps(plain(document)), flush=True)


def plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(key): item for key, item in row.items()} for row in table.to_dict("records")]


class Table(NamedTuple):
    """A table for people, cells as text: what `print_table` prints and a notebook shows.

    Attributes:
        title: above it.
        header: names of the columns; the first one names the rows.
        rows: as wide as the header.
        caption: below it, about the whole table.
        meanings: what a column holds, by its name; printed below the table for the columns that are on the screen.
        least: columns that a narrow screen leaves out before all others, the least important first; the others follow
            from the right, but for the first two.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    meanings: Mapping[str, str] = {}
    least: Sequence[str] = ()

    def explain(self, columns: Sequence[str] | None = None) -> str:
        """The text below the table: what the columns (None: all of them) hold, then the caption."""
        names = self.header if columns is None else columns
        parts = [f"{name}: {self.meanings[name]}" for name in names if name in self.meanings]
        return "; ".join([*parts, *([self.caption] if self.caption else [])])

    @property
    def order_of_leaving(self) -> list[int]:
        """Positions of the columns that a narrow screen may leave out, the least important first."""
        named = [self.header.index(name) for name in self.least if name in self.header]
        return named + [i for i in range(len(self.header) - 1, 1, -1) if i not in named]


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    meanings: Mapping[str, str] = {},
    least: Sequence[str] = (),
    align: Literal["left", "right"] = "right",
) -> None:
    """A table on stdout between its title and its caption; the first column is text, the others align to the right.

    A column that does not fit into the screen is left out and named: no number or word is cut or broken.
    """
    table = Table(title, list(map(printable_line, header)), rows, caption, meanings, least)
    width = screen_width()
    cells = [[printable_line(cell) for cell in column] for column in zip(*rows, strict=True)] or [[] for _ in header]
    layout = fit_columns(column_widths(table, cells, align, width), table.order_of_leaving, width)
    drawn_width = needed_width(layout.widths)
    # E[y²] is not a style, and neither is the `:-1:` in scale_x:-1: a thumb
    console = Console(width=max(drawn_width, width or 0), markup=False, emoji=False, highlight=False)
    if title:
        print_text(title)
    chosen_rows = [[row[i] for i in layout.columns] for row in rows]
    with naming_stream("stdout"):
        console.print(drawn([table.header[i] for i in layout.columns], chosen_rows, align, layout.widths))
    if explanation := table.explain([table.header[i] for i in layout.columns]):
        print_text(explanation)
    if left_out := [name for i, name in enumerate(table.header) if i not in layout.columns]:
        them = "it" if len(left_out) == 1 else "them"
        print_text(
            f"not shown at {width} columns: {', '.join(left_out)}; COLUMNS={layout.full_width} shows {them}, "
            f"--json and --out write {them}"
        )


def column_widths(
    table: Table, cells: Sequence[Sequence[str]], align: Literal["left", "right"], width: int | None
) -> list[ColumnWidth]:
    """How wide the columns are: headers and texts may take several lines, numbers may not.

    The names of the rows take several lines only where a line cannot hold them beside one number.
    """
    widths = [
        ColumnWidth(
            longest([name, *column]), max(longest_word([name]), (longest_word if align == "left" else longest)(column))
        )
        for name, column in zip(table.header, cells, strict=True)
    ]
    if width is not None and widths and needed_width([column.least for column in widths[:2]]) > width:
        widths[0] = widths[0]._replace(least=longest_word([table.header[0], *cells[0]]))
    return widths


def drawn(
    header: Iterable[str],
    rows: Iterable[Iterable[str]],
    align: Literal["left", "right"] = "right",
    widths: Iterable[int] | None = None,
) -> rich.table.Table:
    """The lines and cells of a table.

    Args:
        header: of its columns.
        rows: its cells.
        align: of all columns but the first.
        widths: of the columns; None leaves them to the screen.
    """
    table = rich.table.Table()
    names = list(header)
    for index, (column, width) in enumerate(zip(names, [None] * len(names) if widths is None else widths, strict=True)):
        table.add_column(printable_line(column), justify=align if index else "left", width=width)
    for row in rows:
        table.add_row(*map(printable_line, row))
    return table


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: three digits after the point, from 10 on fewer; a dash when there is none.

    Four significant digits are what rounding leaves of an ill-conditioned fit in float32.

    >>> number(0.12345), number(457.841), number(-9876.5), number(123456.0), number(None)
    ('0.123', '457.8', '-9876', '1.23e+05', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= 1e4:
        return f"{value:.3g}"
    n_before_point = len(str(int(abs(value))))
    return f"{value:.{max(0, digits + 1 - n_before_point)}f}"


def count(value: float | int | None) -> str:
    """A number of things, whole while that is readable; a dash when there is none.

    >>> count(3000), count(2.5e15), count(None)
    ('3000', '2.5e+15', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if value < 1e9 else f"{value:.3g}"


def interval(value: float, low: float, high: float) -> str:
    """A number with its interval, alone where that has no end; a dash when there is no number.

    >>> interval(0.5, 0.4, 0.6), interval(0.5, math.nan, math.nan), interval(math.nan, math.nan, math.nan)
    ('0.500 [0.400, 0.600]', '0.500', '-')
    """
    has_interval = math.isfinite(value) and (math.isfinite(low) or math.isfinite(high))
    return f"{number(value)} [{number(low)}, {number(high)}]" if has_interval else number(value)


def prepare_directory(directory: Path) -> Path:
    """Create the directory and make sure that it can be written to.

    Raises:
        UserError: it cannot.
    """
    if directory.is_file():
        raise UserError(f"{directory} is a file; a directory is needed")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        check_writable(directory)
    except OSError as error:
        raise UserError(f"cannot write to '{directory}': {error.strerror}") from None
    return directory


def file_names(names: Iterable[str]) -> list[str]:
    """File names for these names: without / and :, not too long, and all different.

    >>> file_names(["zoo:mixed-0", "runs/a", "runs-a", ".."])
    ['zoo-mixed-0', 'runs-a', 'runs-a_', '-']
    """
    unique: list[str] = []
    for name in names:
        short = name if len(name.encode(errors="replace")) <= 200 else name[-50:]
        plain = re.sub(r"^[.]+|[/:]", "-", short)
        while plain in unique:
            plain += "_"
        unique.append(plain)
    return unique


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV, in which no cell is a formula of a spreadsheet."""
    write_text(without_formulae(table).to_csv(index=False, float_format="%.8g"), path)
