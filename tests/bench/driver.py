"""How busy the loop of `interp sweep` keeps many workers: the real board and loop, and workers that only wait.

    python tests/bench/driver.py                               # minutes, nearly all of them spent waiting
    python tests/bench/driver.py --workers 10 --cells 100 --seconds 1 --json

The cells are runs of a real sweep file that nobody trains, each of half to one and a half times the seconds. Busy is
the share of the workers' time that cells would take, of what it took from the first to the last; the end, where
workers have nothing left, counts against it.
"""

import random
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from measure import Out, command, deliver

from analyses.sweep.board import Board
from analyses.sweep.commands import planned
from training import options
from training.common import output
from training.processes.processes import Task, Workers, carry_out
from training.processes.run_sets import MOST_RUNS


class Waiters(Workers):
    """Workers that do nothing, for as long as a cell would take.

    Args:
        n_at_once: how many there are.
        seconds: that a cell takes on average.
    """

    def __init__(self, n_at_once: int, seconds: float) -> None:
        self.size, self.seconds, self.chance = n_at_once, seconds, random.Random(0)
        self.ends: dict[Task, float] = {}
        self.spent = 0.0

    @property
    def n_at_once(self) -> int:
        return self.size

    def start(self, task: Task) -> None:
        takes = self.seconds * self.chance.uniform(0.5, 1.5)
        self.ends[task] = time.monotonic() + takes
        self.spent += takes

    def ended(self) -> list[tuple[Task, int]]:
        over = [task for task, end in self.ends.items() if end <= time.monotonic()]
        for task in over:
            del self.ends[task]
        return [(task, 0) for task in over]

    def stop(self) -> None:
        self.ends.clear()


def measure(n_workers: int, n_cells: int, seconds: float) -> dict[str, float]:
    """Seconds of planning, and of the loop: by the clock and of CPU; and how busy it kept the workers."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.toml"
        ranges = [f'[[train]]\nseeds = "{first}-{min(n_cells, first + MOST_RUNS) - 1}"\n' for first in firsts(n_cells)]
        file.write_text('out = "grid"\n' + "".join(ranges))
        began = time.monotonic()
        board = Board(planned(file)[1], retries=0)
        planning, workers = time.monotonic() - began, Waiters(n_workers, seconds)
        began, cpu = time.monotonic(), time.process_time()
        carry_out(board, workers, lambda: None)
        loop = time.monotonic() - began
    found = {"workers": n_workers, "cells": len(board.cells), "seconds": seconds, "planning": planning, "loop": loop}
    return found | {"cpu": time.process_time() - cpu, "busy": workers.spent / n_workers / loop}


def firsts(n_cells: int) -> range:
    """The first seeds of ranges that are not too long for a sweep file."""
    return range(0, n_cells, MOST_RUNS)


def print_table(report: Mapping[str, Any]) -> None:
    (row,) = report["results"]
    cells = [f"{row['cells']} of {row['seconds']:g} s", str(row["workers"]), f"{row['busy']:.2f}"]
    cells += [f"{row['loop']:.1f} s", f"{row['cpu']:.1f} s", f"{row['planning']:.1f} s"]
    output.print_table("the loop of a sweep", ["cells", "workers", "busy", "loop", "its CPU", "planning"], [cells])


def bench(
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1)] = 100,
    cells: Annotated[int, typer.Option("--cells", metavar="N", min=1)] = 2000,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=0, help="That a cell takes on average.")] = 2,
    json: options.Json = False,
    out: Out = None,
) -> None:
    """How busy the loop of a sweep keeps many workers.

    \b
    Example:
      python tests/bench/driver.py --cells 4000 --seconds 10
    """
    report = {"results": [measure(workers, cells, seconds)]}
    deliver(report, print_table, "", json=json, directory=out)


app = command(bench)

if __name__ == "__main__":
    app()
