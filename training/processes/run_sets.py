"""Several runs at once: one process each, as many at a time as there are cores, each one resumable on its own."""

import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.checkpoints.checkpoint import read_history
from training.common.digits import whole
from training.common.errors import UserError
from training.common.progress import progress_bar
from training.common.terminal import echo
from training.config.config import RunConfig
from training.processes.processes import VISIBLE, Processes, Queue, Task, carry_out, last_words

MOST_RUNS = 1000  # in a range; more are a slip of the finger


@dataclass(frozen=True)
class Job:
    """One run of a set.

    Attributes:
        config: the run.
        directory: of the run.
        arguments: of `interp train`.
        on_gpu: whether it takes any GPU.
    """

    config: RunConfig
    directory: Path
    arguments: tuple[str, ...]
    on_gpu: bool = False

    @property
    def task(self) -> Task:
        words = ("interp", "train", *self.arguments, "--out", str(self.directory))
        log, threads = log_of(self.directory), self.config.recipe.threads
        arguments, name = ("-P", "-m", *words), self.directory.name
        return Task(name, arguments, shlex.join(words), log, threads=threads, on_gpu=self.on_gpu)


def log_of(directory: Path) -> Path:
    """The log of the process that fills a directory."""
    return directory.with_name(f"{directory.name}.log")


def steps_done(directory: Path) -> int:
    """The step of a run's last evaluation; 0 for one whose history is damaged, so that the others go on."""
    try:
        rows = read_history(directory)
    except UserError:
        rows = []
    return rows[-1]["step"] if rows else 0


@dataclass
class Runs(Queue):
    """A queue of runs: each is tried once.

    Attributes:
        waiting: runs that have not begun.
        n_running: number of runs in progress.
        failed: the last words of those that failed, by name.
    """

    waiting: list[Task]
    n_running: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return not self.waiting and not self.n_running

    def next(self) -> Task | None:
        if not self.waiting:
            return None
        self.n_running += 1
        return self.waiting.pop(0)

    def ended(self, task: Task, code: int) -> None:
        self.n_running -= 1
        if code:
            self.failed[task.name] = (last_words(task.log, 1) or ["no message"])[0].strip()


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


def workers_here(devices: Collection[str], threads: int, jobs: int | None = None) -> Processes:
    """Processes of this machine.

    Args:
        devices: on which their work is; tasks on `cuda` are spread over the GPUs.
        threads: that each of them uses.
        jobs: how many run at once; by default as many as there are GPUs, or where no work is on a GPU as many as the
            cores have threads for. More than that are started all the same, with a line on stderr.
    """
    gpus = visible_gpus() if "cuda" in devices else []
    cores = os.cpu_count() or 1
    on_cpu = not {*devices} - {"cpu"}
    by_default = max(1, cores // threads if on_cpu else len(gpus))
    if on_cpu and threads > 1 and (jobs or 0) > by_default:
        echo(
            f"--jobs {jobs} with recipe.threads={threads} asks for {(jobs or 0) * threads} threads on {cores} cores, "
            "which takes several times as long: set recipe.threads=1, or leave --jobs out",
            err=True,
        )
    return Processes(jobs or by_default, gpus)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get(VISIBLE)
    return given.split(",")[:count] if given else [str(index) for index in range(count)]


def train_many(jobs: Sequence[Job], workers: Processes) -> dict[str, str]:
    """Train all of them; returns the last words of those that failed, by run.

    Raises:
        KeyboardInterrupt: asked to stop; the runs have saved and stopped too.
    """
    runs = Runs([job.task for job in jobs])
    total = sum(job.config.recipe.steps for job in jobs)
    with progress_bar(total=total, desc=f"{len(jobs)} runs", unit="step") as bar:

        def refresh() -> None:
            bar.update(sum(steps_done(job.directory) for job in jobs) - bar.n)

        carry_out(runs, workers, refresh)
    return runs.failed
