"""Tables as people meet them: on screens of 80, 120 and 200 columns, and in a pipe.

`screens.txt` has the words of every screen; `WRITE_SCREENS=1 pytest` on this file writes it anew.
"""

import os
import pty
import re
import struct
import sys
from collections.abc import Callable, Iterator
from fcntl import ioctl
from functools import cache
from pathlib import Path
from termios import TIOCSWINSZ

import pytest

from interp import ablate, load, score
from interp.commands import curve_table
from interp.model.heads import Head
from interp.readouts.lens import lens
from training.common.output import Table, print_table
from training.common.screen import print_text, screen_width
from training.evaluation.evaluate import error_curves

WIDTHS = [80, 120, 200, None]
SCREENS = Path(__file__).with_name("screens.txt")
MODEL = "zoo:mixed-0"
SETS = [(Head(0, 1),), (Head(0, 2),)]


@cache
def shown_by(name: str) -> Callable[[], object]:
    """What prints the tables of a command, which is computed once."""
    model = load(MODEL)
    if name == "eval":
        curves = error_curves(model, ["linear", "quadratic"], n_prompts=64, seed=0, class_baseline=False)
        return lambda: print_table(*curve_table(curves, model.name, "64 prompts, seed 0"))
    results = {
        "ablate": lambda: ablate(model, SETS, ["linear"], modes=["mean"], n_prompts=64, n_controls=4),
        "score": lambda: score(model, ["linear", "quadratic", "cubic"], n_prompts=64),
        "lens": lambda: lens(model, ["linear"], n_prompts=64),
    }
    tables = results[name]().tables()
    return lambda: [print_table(*table) for table in tables]


@pytest.fixture
def screen(monkeypatch, capfd, outcome) -> Callable[[str, int | None], str]:
    """What a command prints on a screen of this width; None: into a pipe."""

    def show(name: str, width: int | None) -> str:
        monkeypatch.setenv("COLUMNS", "" if width is None else str(width))
        if name == "zoo list":
            return outcome("zoo", "list").out
        print_result = shown_by(name)
        capfd.readouterr()
        print_result()
        return capfd.readouterr().out

    return show


NAMES = ["ablate", "score", "lens", "eval", "zoo list"]


def tables_of(text: str) -> Iterator[tuple[list[str], list[list[str]], str]]:
    """Header, rows and what follows each table on a screen."""
    for part in text.split("┏")[1:]:
        head, _, rest = part.partition("┡")
        lines = [line.removeprefix("┃").removesuffix("┃").split("┃") for line in head.splitlines() if "┃" in line]
        header = [" ".join(" ".join(words).split()) for words in zip(*lines, strict=True)]
        body, _, below = rest.partition("┘")
        rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in body.splitlines() if "│" in line]
        yield header, rows, " ".join(below.split())


def structure(text: str) -> str:
    """The words of a screen without its numbers, which differ between machines."""
    lines = []
    for header, rows, below in tables_of(text):
        lines += [f"columns: {' | '.join(header)}", f"rows: {' | '.join(row[0] for row in rows)}", below]
    return re.sub(r"-?\d+([.,:-]\d+)*(e-?\d+)?", "#", "\n".join(lines)) + "\n"


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", NAMES)
def test_screens_have_the_words_that_are_written_down(name, screen):
    now = "".join(f"== {name} at {width or 'a pipe'}\n{structure(screen(name, width))}" for width in WIDTHS)
    if os.environ.get("WRITE_SCREENS"):
        kept = SCREENS.read_text() if SCREENS.exists() else ""
        others = re.sub(rf"== {name} at .*\n((?!==).*\n)*", "", kept)
        SCREENS.write_text(others + now)
    assert now in SCREENS.read_text()


@pytest.mark.sample(5)
@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("name", NAMES)
def test_no_number_and_no_word_is_cut(name, width, screen):
    narrow, wide = screen(name, width), screen(name, None)
    assert max(map(len, narrow.splitlines())) <= width
    assert "…" not in narrow
    for (header, rows, below), (all_names, all_rows, _) in zip(tables_of(narrow), tables_of(wide), strict=True):
        positions = [all_names.index(column) for column in header]
        assert rows == [[row[i] for i in positions] for row in all_rows]
        left_out = [column for column in all_names if column not in header]
        assert below.count("not shown at") == bool(left_out)
        named = below.partition("not shown at")[2]
        assert all(column in named for column in left_out)
        assert not any(f"; {column}:" in f"; {below}" for column in left_out)
    note = re.compile(r"not shown at [^;]*; COLUMNS=\d+\s+shows\s+\w+,\s+--json\s+and\s+--out\s+write\s+(?:it|them)")
    words = re.sub("[┏┳┓┡╇┩└┴┘━─┃│]", " ", note.sub("", narrow)).split()
    assert {*words} <= {*re.sub("[┃│]", " ", wide).split()}


@pytest.mark.parametrize("name", ["ablate", "lens"])
def test_every_column_is_explained_below_its_table(name, screen):
    for header, _, below in tables_of(screen(name, None)):
        explained = below.replace("GD n", " ".join(column for column in header if column.startswith("GD")))
        assert all(column in explained for column in header[1:])


def test_a_pipe_gets_whole_lines(screen):
    piped = screen("ablate", None)
    assert sum(line.startswith("effect: ") for line in piped.splitlines()) == 1
    assert "not shown" not in piped


def test_a_terminal_is_as_wide_as_it_says(monkeypatch):
    """A pseudo terminal of 44 columns; its first line is the title."""
    monkeypatch.delenv("COLUMNS", raising=False)
    leader, follower = pty.openpty()
    ioctl(follower, TIOCSWINSZ, struct.pack("HHHH", 24, 44, 0, 0))
    table = Table("numbers", ["row", "first", "second", "third"], [["a", "0.123 [0.100, 0.200]", "1.5", "12345.678"]])
    with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        assert screen_width() == 44
        print_table(*table)
        printed = ""
        while "--out write it" not in " ".join(printed.split()):
            printed += os.read(leader, 10_000).decode()
        lines = re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()
    os.close(leader)
    assert max(map(len, lines)) <= 44
    assert "0.123 [0.100, 0.200] │    1.5 │" in "\n".join(lines)
    assert " ".join(lines).count("not shown at 44 columns: third; COLUMNS=") == 1


def test_columns_leave_in_their_order(capsys, monkeypatch):
    """The two first columns stay, even where they are wider than the screen."""
    table = Table("", ["row", "a", "b", "c"], [["x", "1.000", "2.000", "3.000"]], "", {"a": "A", "b": "B"}, ["b"])
    seen = []
    for width in (40, 24, 16, 5):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(*table)
        ((header, rows, below),) = tables_of(capsys.readouterr().out)
        seen.append(header)
        assert rows[0][1] == "1.000"
        assert ("b: B" in below) == ("b" in header)
    assert seen == [["row", "a", "b", "c"], ["row", "a", "c"], ["row", "a"], ["row", "a"]]


def test_sentences_end_lines_between_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    print_text("the in-context gain on quadratic", bullet="- ")
    assert capsys.readouterr().out == "- the in-context\n  gain on quadratic\n"
