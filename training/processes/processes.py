"""Commands in processes of their own: so many at a time, each with a log, all of them stopped together.

`carry_out` is the one loop of everything that runs several commands. A queue says what comes next and hears what became
of it; workers run it: `Processes` on this machine, `analyses.sweep.cluster` on others.
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
    """What a process is to run.

    Attributes:
        name: no other task has it.
        arguments: of the Python interpreter.
        shown: the command as a user would write it, for the log.
        log: the file to which the process adds what it says.
        root: the directory in which it runs; None for the current one.
        threads: how many it may use.
        on_gpu: whether it needs a GPU and leaves it to others which one.
    """

    name: str
    arguments: tuple[str, ...]
    shown: str
    log: Path
    root: Path | None = None
    threads: int = 1
    on_gpu: bool = False

    def start(self, gpu: str | None = None) -> "Popen[bytes]":
        """Start the process, which sees only this GPU. Its stdin ends when this process does, however that ends.

        It has a process group of its own: an interruption at the keyboard reaches this process, which passes it on
        once, and not the other one as well, whose second signal would be the order to stop at once.
        """
        with os.fdopen(open_own(self.log, os.O_WRONLY | os.O_APPEND), "ab") as log:
            log.write(f"$ {self.shown}\n".encode())
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
    """That of a child: it imports what this process would import, and its thread pools have this size."""
    return {**os.environ, "PYTHONPATH": import_path(), **dict.fromkeys(THREAD_POOLS, str(threads))}


def import_path() -> str:
    """Where this process looks for modules, for processes that may run in another directory."""
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)


def last_words(log: Path, count: int) -> list[str]:
    """The last lines that a process has left in its log, without empty ones."""
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
    """What is to be done."""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether nothing waits any more and nothing runs."""

    @abstractmethod
    def next(self) -> Task | None:
        """The task to start now, which counts as running from here on, or None while there is none."""

    @abstractmethod
    def ended(self, task: Task, code: int) -> None:
        """Hear that a running task has ended with this exit code."""


class Workers(ABC):
    """Where tasks run, and how many at once."""

    @property
    @abstractmethod
    def n_at_once(self) -> int:
        """How many tasks they run at once."""

    @abstractmethod
    def start(self, task: Task) -> None:
        """Have it run."""

    @abstractmethod
    def ended(self) -> list[tuple[Task, int]]:
        """The tasks that have ended since the last call, with their exit codes or `LOST`."""

    @abstractmethod
    def stop(self) -> None:
        """Ask what still runs to save and stop, and wait until it has."""

    def close(self) -> None:
        """Let go of what they hold, when nothing runs any more."""
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
        found = [(task, code) for task, process in self.running.items() if (code := process.poll()) is not None]
        for task, _ in found:
            close(self.running.pop(task))
            del self.gpu_of[task]
        return found

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


def carry_out(queue: Queue, workers: Workers, look: Callable[[], None]) -> None:
    """Run what is in the queue until it is over.

    Args:
        queue: what is to be done.
        workers: who does it.
        look: called a few times a second, to show how it goes.

    Raises:
        KeyboardInterrupt: asked to stop (SIGINT, SIGTERM); what ran has saved and stopped.
    """
    n_running = 0
    with Interruption() as stop:
        try:
            while not queue.is_over:
                if stop.asked:  # an exception from the handler can get lost, where it falls into a destructor
                    raise KeyboardInterrupt
                while n_running < workers.n_at_once and (task := queue.next()) is not None:
                    workers.start(task)
                    n_running += 1
                look()
                time.sleep(POLL)
                for task, code in workers.ended():
                    n_running -= 1
                    queue.ended(task, code)
            look()
        except BaseException:
            workers.stop()
            raise
