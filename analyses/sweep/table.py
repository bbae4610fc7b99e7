"""Progress and result of a sweep: a live table on a terminal, a line for every cell elsewhere."""

import time
from collections.abc import Sequence
from itertools import islice
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live

from analyses.sweep.board import Board, State
from analyses.sweep.plan import Cell
from training.common.output import Table, drawn
from training.common.terminal import printable_line
from training.processes.processes import LOST, Workers, last_words
from training.processes.run_sets import steps_done

MOST_LINES = 12  # running cells in the live table
LOG_LINES = 5  # of a failed cell's log


class Watch:
    """Shows the progress of a board on stderr.

    Args:
        board: to watch.
        workers: that take cells from it.
    """

    def __init__(self, board: Board, workers: Workers) -> None:
        self.board, self.workers = board, workers
        self.n_done_before, self.n_printed = len(board.of(State.DONE)), 0
        self.console = Console(stderr=True, highlight=False, markup=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Watch":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def refresh(self) -> None:
        """Show what has changed since the last call."""
        if self.console.is_terminal:
            self.live.update(live_table(self.board, self.workers.n_at_once), refresh=True)
            return
        for cell in self.board.news[self.n_printed :]:
            self.n_printed += 1
            line = f"{self.n_done_before + self.n_printed} of {describe_end(self.board, cell)}"
            self.console.print(printable_line(line), soft_wrap=True)


def live_table(board: Board, n_at_once: int) -> RenderableType:
    """Counts by group, running cells, and the time left."""
    running = board.of(State.RUNNING)
    lines = [running_line(board, cell) for cell in running[:MOST_LINES]]
    lines += [f"and {len(running) - MOST_LINES} more"] if len(running) > MOST_LINES else []
    lines += [f"{name}: run by {other}" for name, other in islice(board.elsewhere.items(), MOST_LINES)]
    table = summary(board, [*State])
    return Group(drawn(table.header, table.rows), *map(printable_line, lines), caption(board, n_at_once))


def summary(board: Board, states: Sequence[State] = ()) -> Table:
    """How many cells of each group are in each state; by default in those in which any are."""
    kinds = states or [state for state in State if state is State.DONE or board.of(state)]
    rows = []
    for group in dict.fromkeys(cell.group for cell in board.cells.values()):
        group_states = [board.status[cell.name].state for cell in board.cells.values() if cell.group == group]
        rows.append([group, *(str(group_states.count(kind)) for kind in kinds), str(len(group_states))])
    return Table("", ["cells", *kinds, "all"], rows)


def running_line(board: Board, cell: Cell) -> str:
    steps = f", step {steps_done(cell.directory)} of {cell.config.recipe.steps}" if cell.config else ""
    return f"{cell.name}{steps}, {clock(time.monotonic() - board.status[cell.name].since)}"


def caption(board: Board, n_at_once: int) -> str:
    """
    >>> caption(Board([], retries=0), 2)
    '0 of 0 cells done, 2 at a time'
    """
    left = board.seconds_left(n_at_once)
    about = "" if left is None or board.is_over else f", about {clock(left)} left"
    return f"{len(board.of(State.DONE))} of {len(board.cells)} cells done, {n_at_once} at a time{about}"


def clock(seconds: float) -> str:
    """
    >>> clock(75.0), clock(7322.0)
    ('1:15', '2:02:02')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe_end(board: Board, cell: Cell) -> str:
    """How a cell ended."""
    status = board.status[cell.name]
    how = f" in {clock(status.seconds)}" if status.tries else ""
    return f"{len(board.cells)}: {cell.name} {status.state}{how}"


def failures(board: Board) -> list[str]:
    """The end of the log of every failed cell, and the needs of those that were skipped."""
    lines: list[str] = []
    for cell in board.of(State.FAILED):
        status, log = board.status[cell.name], cell.task.log
        lines.append(f"{cell.name} failed {times(status.tries)}, {reason(status.code)}; {log} ends with:")
        lines += [f"    {line}" for line in last_words(log, LOG_LINES)]
    for cell in board.of(State.SKIPPED):
        missing = [need for need in cell.needs if board.status[need].state is State.FAILED]
        lines.append(f"{cell.name} was skipped: it needs {', '.join(missing)}")
    return lines


def times(count: int) -> str:
    return {0: "", 1: "once", 2: "twice"}.get(count, f"{count} times")


def reason(code: int | None) -> str:
    if code == LOST:
        return "its machine was lost"
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def document(board: Board, out: str) -> dict[str, Any]:
    """Everything about a sweep as JSON."""
    rows = [
        {
            "cell": cell.name,
            "group": cell.group,
            "state": str(board.status[cell.name].state),
            "tries": board.status[cell.name].tries,
            "seconds": board.status[cell.name].seconds,
            "command": cell.command_line,
            "log": str(cell.task.log),
        }
        for cell in board.cells.values()
    ]
    return {"out": out, "counts": {state: len(board.of(state)) for state in State}, "cells": rows}


def listing(board: Board) -> list[str]:
    """Every cell, whether it is done, and its command."""
    return [
        f"{'done ' if board.status[name].state is State.DONE else 'to do'}  {name}: {cell.command_line}"
        for name, cell in board.cells.items()
    ]


def names(cells: Sequence[Cell], most: int = 3) -> str:
    """
    >>> names([])
    ''
    """
    return ", ".join([cell.name for cell in cells[:most]] + ["…"] * (len(cells) > most))
