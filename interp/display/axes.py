"""Axes, figures and colours that every figure shares; nothing here knows a result."""

import warnings
from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import matplotlib.pyplot as plt
import seaborn as sns  # noqa: F401 - registers the colour maps mako and vlag
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from training.common.atomic_files import write_atomically
from training.common.terminal import printable_line

MODES = {
    "zero": "#c8553d",
    "mean": "#3f7d58",
    "mean:global": "#7fb28f",
    "mean:parity": "#a5c9a1",
    "resample": "#7a5195",
    "resample:function": "#a05195",
    "resample:class": "#bc6ba8",
    "resample:inputs": "#5a4fa0",
    "noise": "#e0a458",
    "optimal": "#00838f",
    "uniform": "#8d6e63",
}
DPI = 120
TITLE_SIZE = 10.0  # points
WRITTEN: Any = {
    "svg.hashsalt": "interp",  # equal figures become equal files
    "svg.fonttype": "none",  # text stays text
    "savefig.dpi": "figure",
    "savefig.bbox": "standard",
    "text.usetex": False,
}
"""The settings under which figures are written, whatever the user's are."""
POINTS = 72  # per inch
WIDE_LETTER = 0.58
"""Width of a letter over the size of its font: more than that of nearly all lines of titles."""
INTACT, NULL, GREY = "#1b6ca8", "#b9c0c7", "#666666"


def row_of_axes(n: int, *, width: float, height: float) -> list[Axes]:
    """Panels side by side on a figure of its own."""
    return grid_of_axes(1, n, width=width, height=height)[0]


def panels(n: int, n_columns: int, *, width: float, height: float) -> list[Axes]:
    """So many panels in rows of `n_columns`; what is left of the last row stays blank."""
    grid = grid_of_axes(-(-n // n_columns), min(n_columns, n), width=width, height=height)
    axes = [ax for row in grid for ax in row]
    for ax in axes[n:]:
        ax.set_axis_off()
    return axes[:n]


def grid_of_axes(n_rows: int, n_columns: int, *, width: float, height: float) -> list[list[Axes]]:
    """Rows of panels on a figure of its own."""
    size = (width * n_columns + 0.9, height * n_rows)
    _, grid = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", dpi=DPI, squeeze=False)
    for ax in grid.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(10)
    return [list(row) for row in grid]


def legend_beside(axes: list[Axes]) -> None:
    """One legend for all panels, to their right."""
    entries = [entry for ax in axes for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    by_label = {label: handle for handle, label in reversed(entries)}
    labels = list(dict.fromkeys(label for _, label in entries))
    handles = [by_label[label] for label in labels]
    figure_of(axes).legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)


def title_figure(axes: list[Axes], title: str, fontsize: float = TITLE_SIZE) -> None:
    """A title above all panels, in as many lines as the figure's width needs; the figure grows with them."""
    figure = figure_of(axes)
    n_lines_before = max(1, len(figure.get_suptitle().splitlines()))
    per_line = int(figure.get_figwidth() * POINTS / (WIDE_LETTER * fontsize))
    lines = wrap(printable_line(title), per_line, break_long_words=False, break_on_hyphens=False)
    figure.suptitle("\n".join(lines), fontsize=fontsize, parse_math=False)
    figure.set_figheight(figure.get_figheight() + 1.2 * fontsize / POINTS * (len(lines) - n_lines_before))


def name_model(axes: list[Axes], name: str, details: str = "") -> None:
    """Begin the title of the figure with the model's name, if it is not in it.

    Args:
        axes: of one figure.
        name: of the checkpoint.
        details: what follows the name, such as its step.
    """
    given = " ".join(figure_of(axes).get_suptitle().split())
    title_figure(axes, given if name in given else ": ".join(filter(None, (name + details, given))))


def figure_of(axes: list[Axes]) -> Figure:
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    return figure


def image(axes: list[Axes], description: str, file_format: Literal["png", "svg"] = "png") -> str:
    """The figure of these axes as an HTML image that holds its own data; closes it.

    Args:
        axes: of one figure.
        description: the alternative text.
        file_format: of the data.
    """
    width, height = 0.8 * DPI * figure_of(axes).get_size_inches()
    media_type = {"png": "image/png", "svg": "image/svg+xml"}[file_format]
    size = f'width="{width:.0f}" height="{height:.0f}"'
    data = b64encode(file_content(axes, file_format)).decode()
    return f'<img alt="{escape(description)}" {size} src="data:{media_type};base64,{data}">'


def save_figure(axes: list[Axes], path: Path) -> None:
    """Write the figure of these axes as PNG and close it."""
    write_atomically(path, file_content(axes))


def file_content(axes: list[Axes], file_format: Literal["png", "svg"] = "png") -> bytes:
    """The figure of these axes as the content of a file; closes it."""
    written, figure = BytesIO(), figure_of(axes)
    for text in figure.findobj(Text):
        text.set_usetex(False)  # a user's setting, which needs an installation of LaTeX
    with plt.rc_context(WRITTEN), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(written, format=file_format, metadata={"Date": None} if file_format == "svg" else None)
    plt.close(figure)
    return written.getvalue()
