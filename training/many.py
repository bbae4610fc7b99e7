"""Several runs at once: one process each, as many at a time as there are cores, each one resumable on its own."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from training.checkpoint import read_history
from training.config import RunConfig
from training.digits import whole
from training.errors import UserError
from training.progress import progress_bar
from training.signals import Interruption

POLL = 0.5  # seconds
MOST_RUNS = 1000  # in a range; more are a slip of the finger


@dataclass(frozen=True)
class Job:
    """One run of a set.

    Attributes:
        config: the run.
        directory: where it goes.
        arguments: of `interp train`.
    """

    config: RunConfig
    directory: Path
    arguments: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What it says while it runs."""
        return self.directory.with_name(f"{self.directory.name}.log")

    def start(self) -> "Popen[bytes]":
        command = [sys.executable, "-m", "interp", "train", *self.arguments, "--out", str(self.directory)]
        with self.log.open("wb") as log:
            return Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def steps_done(self) -> int:
        try:
            rows = read_history(self.directory)
        except UserError:  # of this run; the others go on
            rows = []
        return rows[-1]["step"] if rows else 0

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


def run_name(curriculum: str, seed: int) -> str:
    """
    >>> run_name("single:linear", 3)
    'single-linear-3'
    """
    return f"{curriculum.replace(':', '-')}-{seed}"


def parse_seeds(text: str) -> list[int]:
    """`0-4`, `0,3,7`, or both mixed.

    Raises:
        UserError: it is neither.

    >>> parse_seeds("0-2,7")
    [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        start, stop = whole(first), whole(last if dash else first)
        if start is None or stop is None or not start <= stop < start + MOST_RUNS:
            raise UserError(
                f"--seeds {text}: '{part}' is not a seed or a range of at most {MOST_RUNS} seeds "
                "(for example 0-4 or 0,3,7)"
            )
        seeds += range(start, stop + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: a seed is named twice")
    return seeds


def default_jobs(threads: int) -> int:
    return max(1, (os.cpu_count() or 1) // threads)


def train_many(jobs: Sequence[Job], n_at_once: int) -> dict[str, str]:
    """Train all of them; returns the last words of those that failed, by run.

    Raises:
        KeyboardInterrupt: asked to stop; the runs have saved and stopped too.
    """
    waiting, running = list(jobs), dict[Job, "Popen[bytes]"]()
    failed: dict[str, str] = {}
    total = sum(job.config.recipe.steps for job in jobs)
    with progress_bar(total=total, desc=f"{len(jobs)} runs", unit="step") as bar, Interruption() as stop:
        try:
            while waiting or running:
                if stop.asked:  # an exception from the handler can get lost, where it falls into a destructor
                    raise KeyboardInterrupt
                while waiting and len(running) < n_at_once:
                    job = waiting.pop(0)
                    running[job] = job.start()
                time.sleep(POLL)
                for job in [job for job, process in running.items() if process.poll() is not None]:
                    if running.pop(job).returncode:
                        failed[job.directory.name] = job.last_words()
                bar.update(sum(job.steps_done() for job in jobs) - bar.n)
        except BaseException:
            for process in running.values():
                process.terminate()  # they save first
            for process in running.values():
                process.wait()
            raise
    return failed
