"""Progress where nobody watches: nothing for short work, one line for long work."""

import io
import sys

import pytest
from tqdm import tqdm

from training.common import progress
from training.common.progress import OneLine, progress_bar


@pytest.fixture
def clock(monkeypatch):
    """Time by hand, in seconds."""
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_long_work_is_announced_once_and_short_work_not_at_all(clock, capsys):
    with progress_bar(total=200, desc="ablate", unit="set") as bar:
        for _ in range(20):
            clock(3.0)
            bar.update(1)
    assert capsys.readouterr() == ("", "ablate: 200 sets, about 10 min\n")
    with progress_bar(total=200, desc="patch", unit="patch") as bar:
        clock(60.0)
        bar.update(10)
    assert capsys.readouterr().err == "patch: 200 patches, about 20 min\n"
    for _ in progress_bar(range(200), desc="score", unit="class"):
        clock(0.1)
    with progress_bar(total=500, initial=499, desc="resumed", unit="step") as bar:
        clock(30.0)
        bar.update(1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("total", "minutes"), [(1000, 10), (200, 2)], ids=["slow", "5 % done at the estimate"])
def test_preparation_is_not_taken_for_the_pace_of_the_work(clock, capsys, total, minutes):
    with progress_bar(total=total, desc="ablate", unit="set") as bar:
        clock(30.0)
        for _ in range(30):
            bar.update(1)
            clock(0.6)
    assert capsys.readouterr().err == f"ablate: {total} sets, about {minutes} min\n"


def test_a_terminal_gets_a_bar_unless_it_is_silenced(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    bar = progress_bar(total=3, desc="ablate")
    assert isinstance(bar, tqdm)
    assert not isinstance(bar, OneLine)
    bar.close()
    assert "ablate" in screen.getvalue()
    screen.truncate(0)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert [*progress_bar(range(3), desc="ablate")] == [0, 1, 2]
    assert screen.getvalue().strip("\0") == ""


def test_nothing_is_printed_where_stderr_is_closed(monkeypatch, clock):
    monkeypatch.setattr(progress.sys, "stderr", None)
    for _ in progress_bar(range(100), desc="ablate"):
        clock(30.0)
