"""Commands as parallel processes: a limited number at a time, each with a log, all stopped together.

`carry_out` is the loop behind every command that runs several others. A queue gives the next task and records how it
ended; workers run it: `Processes` on this machine, `analyses.sweep.cluster` on others.
"""

import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from subprocess import Popen

from training.common.atomic_files import open_own, open_plain
from training.common.interruption import Interruption

POLL = 0.2  # seconds
LONGEST = 2**16  # bytes at the end of a log in which its last words are
LOST = -1000  # the exit code of a task whose machine is gone
VISIBLE = "CUDA_VISIBLE_DEVICES"
THREAD_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """A command to run as a process.

    Attributes:
        name: no other task has it.
        arguments: of the Python interpreter.
        command_line: as a user would write it, for the log.
        log: the file to which the output of the process is appended.
        root: the directory in which it runs; None for the current one.
        threads: how many it may use.
        on_gpu: whether it needs a GPU, any one.
    """

    name: str
    arguments: tuple[str, ...]
    command_line: str
    log: Path
    root: Path | None = None
    threads: int = 1
    on_gpu: bool = False

    def start(self, gpu: str | None = None) -> "Popen[bytes]":
        """Start the process, which sees only this GPU. Its stdin ends when this process does, however that ends.

        It has its own process group: an interrupt at the keyboard reaches this process alone, which passes it on once.
        A second signal would stop the child at once, before it has saved.
        """
        with os.fdopen(open_own(self.log, os.O_WRONLY | os.O_APPEND), "ab") as log:
            log.write(f"$ {self.command_line}\n".encode())
            log.flush()
            return Popen(
                [sys.executable, *self.arguments],
                env=environment(self.threads) | ({} if gpu is None else {VISIBLE: gpu}),
                cwd=self.root,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )


def environment(threads: int) -> dict[str, str]:
    """The environment of a child process, with the import path of this one and thread pools of this size."""
    return {**os.environ, "PYTHONPATH": import_path(), **dict.fromkeys(THREAD_POOLS, str(threads))}


def import_path() -> str:
    """The import path of this process with absolute entries, for processes in other directories."""
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)


def last_words(log: Path, count: int) -> list[str]:
    """The last lines that a process wrote to its log, without empty ones."""
    lines = takewhile(lambda line: not line.startswith("$ "), reversed(end_of(log).splitlines()))
    return [line for line in lines if line.strip()][:count][::-1]


def end_of(log: Path) -> str:
    """The last `LONGEST` bytes of a log, as text; none where there is no plain file."""
    try:
        with open_plain(log) as handle:
            size = os.fstat(handle).st_size
            return os.pread(handle, LONGEST, max(0, size - LONGEST)).decode(errors="replace")
    except (FileNotFoundError, ValueError):
        return ""


class Queue(ABC):
    """Tasks to run, and their results."""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether no task is waiting or running."""

    @abstractmethod
    def next(self) -> Task | None:
        """The task to start now, which counts as running from here on, or None while there is none."""

    @abstractmethod
    def ended(self, task: Task, code: int) -> None:
        """Record that a running task has ended with this exit code."""


class Workers(ABC):
    """Run tasks, several at once."""

    @property
    @abstractmethod
    def n_at_once(self) -> int:
        """The number of tasks that run at once."""

    @abstractmethod
    def start(self, task: Task) -> None:
        """Start a task."""

    @abstractmethod
    def ended(self) -> list[tuple[Task, int]]:
        """The tasks that have ended since the last call, with their exit codes or `LOST`."""

    @abstractmethod
    def stop(self) -> None:
        """Ask running tasks to save and stop, and wait until they have."""

    def close(self) -> None:
        """Release resources, when no task is running."""
        return


class Processes(Workers):
    """Processes of this machine.

    Args:
        n_at_once: how many tasks to run at once.
        gpus: those among which tasks that need one are spread evenly, each one the name of a GPU in
            `CUDA_VISIBLE_DEVICES`.
    """

    def __init__(self, n_at_once: int, gpus: Sequence[str] = ()) -> None:
        self.size = n_at_once
        self.gpus = gpus
        self.running: dict[Task, Popen[bytes]] = {}
        self.gpu_of: dict[Task, str | None] = {}

    @property
    def n_at_once(self) -> int:
        return self.size

    def start(self, task: Task) -> None:
        self.gpu_of[task] = self.least_busy() if task.on_gpu and self.gpus else None
        self.running[task] = task.start(self.gpu_of[task])

    def least_busy(self) -> str:
        taken = [self.gpu_of[task] for task in self.running]
        return min(self.gpus, key=taken.count)

    def ended(self) -> list[tuple[Task, int]]:
        ended = [(task, code) for task, process in self.running.items() if (code := process.poll()) is not None]
        for task, _ in ended:
            close(self.running.pop(task))
            del self.gpu_of[task]
        return ended

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait()
            close(process)
        self.running.clear()
        self.gpu_of.clear()


def close(process: "Popen[bytes]") -> None:
    if process.stdin:
        process.stdin.close()


KEPT = "what is finished is kept and what was running has saved; the same command (interp train: with --resume) goes on"


def carry_out(queue: Queue, workers: Workers, refresh: Callable[[], None]) -> None:
    """Run the tasks of a queue until it is over.

    Args:
        queue: of tasks.
        workers: that run them.
        refresh: called a few times a second, to show progress.

    Raises:
        KeyboardInterrupt: asked to stop (SIGINT, SIGTERM); running tasks have saved and stopped.
    """
    n_running = 0
    with Interruption() as stop:
        try:
            while not queue.is_over:
                if stop.requested:  # an exception from the handler can get lost, where it falls into a destructor
                    raise KeyboardInterrupt(KEPT)
                while n_running < workers.n_at_once and (task := queue.next()) is not None:
                    workers.start(task)
                    n_running += 1
                refresh()
                time.sleep(POLL)
                for task, code in workers.ended():
                    n_running -= 1
                    queue.ended(task, code)
            refresh()
        except BaseException:
            workers.stop()
            raise
