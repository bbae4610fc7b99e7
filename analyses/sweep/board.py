"""The state of every cell, and the cell that comes next."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import mean

from analyses.sweep import record
from analyses.sweep.cell import BUSY, holder
from analyses.sweep.plan import Cell
from training.processes.processes import LOST, Queue, Task

MOST_LOST = 10  # times that a cell may lose its machine; after more it is likely that the cell brings machines down


class State(StrEnum):
    """Of a cell."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class Status:
    """The state of a cell and its tries.

    Attributes:
        state: now.
        tries: how often it has been run in this call, not counting those that were lost with their machine.
        lost: how often it was lost with its machine.
        since: the clock's reading when it began.
        seconds: that the last try took.
        code: its exit code.
    """

    state: State = State.WAITING
    tries: int = 0
    lost: int = 0
    since: float = 0.0
    seconds: float = 0.0
    code: int | None = None


class Board(Queue):
    """All cells of a sweep: the queue from which workers take.

    Args:
        cells: in the order in which they are to begin.
        retries: how often a failed one is tried again.

    Attributes:
        status: of every cell, by name.
        news: the cells that were done, failed or skipped since the call began, in this order.
        elsewhere: the process that runs it, by name of the cells that another process runs.
    """

    def __init__(self, cells: Sequence[Cell], retries: int) -> None:
        self.cells = {cell.name: cell for cell in cells}
        self.retries = retries
        self.status = {name: Status() for name in self.cells}
        self.news: list[Cell] = []
        self.elsewhere: dict[str, str] = {}
        for cell in cells:
            if self.is_ready(cell) and record.is_done(cell):
                self.status[cell.name].state = State.DONE

    def of(self, *states: State) -> list[Cell]:
        """The cells in these states, in order."""
        return [cell for name, cell in self.cells.items() if self.status[name].state in states]

    @property
    def is_over(self) -> bool:
        return not self.of(State.WAITING, State.RUNNING)

    def is_ready(self, cell: Cell) -> bool:
        return all(self.status[need].state is State.DONE for need in cell.needs)

    def next(self) -> Task | None:
        """The first cell that can begin. Cells of other processes are checked again at every call."""
        self.elsewhere = {}
        for cell in filter(self.is_ready, self.of(State.WAITING)):
            if other := holder(cell.lock):
                self.elsewhere[cell.name] = other
                continue
            if record.is_done(cell):
                self.set(cell, State.DONE)
                continue
            status = self.status[cell.name]
            status.state, status.since = State.RUNNING, time.monotonic()
            return cell.task
        return None

    def ended(self, task: Task, code: int) -> None:
        cell, status = self.cells[task.name], self.status[task.name]
        status.seconds, status.code = time.monotonic() - status.since, code
        if code == BUSY:
            status.state = State.WAITING
            return
        status.lost += code == LOST
        status.tries += code != LOST
        if code == 0:
            self.set(cell, State.DONE)
        elif status.tries > self.retries or status.lost > MOST_LOST:
            self.set(cell, State.FAILED)
            self.skip(cell.name)
        else:
            status.state = State.WAITING

    def skip(self, failed: str) -> None:
        """Skip the cells that need a failed cell."""
        for cell in self.of(State.WAITING):
            if failed in cell.needs:
                self.set(cell, State.SKIPPED)

    def set(self, cell: Cell, state: State) -> None:
        self.status[cell.name].state = state
        self.news.append(cell)

    def seconds_left(self, n_at_once: int) -> float | None:
        """As long as what is left will take, if it takes what its group has taken so far; None before the first end."""
        spent: dict[str, list[float]] = {}
        for name, status in self.status.items():
            if status.state is State.DONE and status.tries:
                spent.setdefault(self.cells[name].group, []).append(status.seconds)
        if not spent:
            return None
        means = {group: mean(seconds) for group, seconds in spent.items()}
        overall, now = mean(means.values()), time.monotonic()
        left = sum(means.get(cell.group, overall) for cell in self.of(State.WAITING))
        running = ((means.get(cell.group, overall), self.status[cell.name].since) for cell in self.of(State.RUNNING))
        return (left + sum(max(0.0, usual - (now - since)) for usual, since in running)) / max(1, n_at_once)
