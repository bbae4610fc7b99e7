"""Checks whether a run may write into a directory. A run is overwritten only with `--force`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.checkpoints.checkpoint import CONFIG, WEIGHTS, read_config, read_resume, read_weights
from training.checkpoints.history import LARGEST, LONGEST_ROW
from training.common.errors import UserError
from training.common.locks import lock_exclusively
from training.config.config import RunConfig
from training.config.parse import differences, to_dict


def check(config: RunConfig, directory: Path, *, resume: bool, force: bool) -> None:
    """Refuse a directory that holds anything but an earlier part of this run.

    Raises:
        UserError: it holds another run, or a run without `resume` or `force`, or other files; or the history of the run
            would be too large.
    """
    check_history_size(config)
    if resume and force:
        raise UserError("--resume and --force exclude each other: one keeps the run, the other overwrites it")
    if directory.is_file():
        raise UserError(f"--out {directory} is a file; a directory is needed")
    if not directory.exists() or all(path.name.startswith(".") for path in directory.iterdir()):
        return  # at most the temporary file of a run that was killed before it began
    if not (directory / CONFIG).exists():
        raise UserError(f"--out {directory} holds files that are not a run; choose an empty or new directory")
    if force:
        return
    if not resume:
        raise UserError(f"--out {directory} already holds a run: go on with --resume or overwrite it with --force")
    differing = differences(to_dict(read_config(directory)), to_dict(config))
    if differing:
        raise UserError(
            f"--out {directory} holds a run with another {', '.join(differing)}: it cannot be resumed as this"
        )


def check_history_size(config: RunConfig) -> None:
    """Refuse a run that evaluates so often that its history could grow larger than what is read.

    Raises:
        UserError: its history could; names the least interval that fits.
    """
    steps, every = config.recipe.steps, config.record.eval_every
    arms = [(name, inputs) for name in config.evaluated_classes for inputs in config.data.inputs]
    evaluation = sum(LONGEST_ROW + len(json.dumps(arm)) for arm in arms)  # bytes
    most = max(1, LARGEST // evaluation - 2)  # the first and the last step are evaluated, too
    if steps // every > most:
        raise UserError(
            f"record.eval_every={every}: {steps} steps would be evaluated {steps // every} times on {len(arms)} "
            f"combinations of class and inputs, which needs a history above {LARGEST >> 20} MiB (valid: at least "
            f"{-(-steps // most)})"
        )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock the directory, which is created if missing, against other processes that would train in it.

    The lock is the kernel's (flock on the directory): it leaves no file and ends with the process, however that ends.

    Raises:
        UserError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        if not lock_exclusively(handle):
            raise UserError(f"--out {directory} is in use: another process trains in it")
        yield
    finally:
        os.close(handle)


def is_finished(config: RunConfig, directory: Path) -> bool:
    """Whether the directory holds the last step's weights of this run.

    Raises:
        UserError: its files are damaged.
    """
    weights = directory / WEIGHTS
    unfinished = not weights.exists() or read_resume(directory) is not None
    return not unfinished and read_weights(weights, config)[1] == config.recipe.steps
