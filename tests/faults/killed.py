"""Training in a process that ends, with no clean-up, before one of its file operations.

The processes are forked from one that has imported torch and never computed: a fork of a process that has, hangs.
"""

import multiprocessing
import os
import sys
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["interp.cli", "training.loop.trainer", "training.processes.processes"])
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
KILLED, AT_MOST = 9, 400
RUN = ["model.n_layers=1", "model.n_heads=2", "model.d_model=16", "recipe.steps=4", "recipe.batch_size=4"]
RUN += ["record.eval_every=2", "record.eval_prompts=8", "record.save_every=2", "record.snapshots=2"]


def end_before_operation(number: int, directory: Path) -> None:
    """End this process, with no clean-up, before it changes a file in the directory for this time (from 0)."""
    left = [number]

    def count(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(directory) in str(arguments[0]):
            left[0] -= 1
            if left[0] < 0:
                os._exit(KILLED)

    sys.addaudithook(count)


def train(directory: Path, options: tuple[str, ...], end_before: int) -> None:
    from interp.cli import main

    sys.argv = ["interp", "train", "--out", str(directory), *(f"--set={setting}" for setting in RUN), *options]
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    end_before_operation(end_before, directory)
    main()


def train_in_child(directory: Path, *options: str, end_before: int = AT_MOST) -> int:
    """The exit code of a training process that ends before one of its file operations."""
    child = CONTEXT.Process(target=train, args=(directory, options, end_before))
    child.start()
    child.join(120)
    if child.exitcode is None:
        child.kill()
    assert child.exitcode is not None, "the process hangs"
    return child.exitcode
