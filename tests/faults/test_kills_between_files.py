"""A process that ends before any of its file operations leaves a directory that can be resumed or overwritten."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import WEIGHTS

from interp.cli import main

CONTEXT = multiprocessing.get_context("fork")
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


def train_in_child(directory: Path, *options: str, end_before: int = AT_MOST) -> int:
    """The exit code of a training process that ends before one of its file operations."""

    def run() -> None:
        sys.argv = ["interp", "train", "--out", str(directory), *(f"--set={setting}" for setting in RUN), *options]
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        end_before_operation(end_before, directory)
        main()

    child = CONTEXT.Process(target=run)
    child.start()
    child.join(120)
    assert child.exitcode is not None
    return child.exitcode


def kills(prepare: Callable[[Path], object], root: Path, *options: str, first: int, step: int = 1):
    """Directories in which a process was killed before its first, second, … file operation."""
    for number in range(0, first, step):
        directory = root / f"killed-{number}"
        prepare(directory)
        code = train_in_child(directory, *options, end_before=number)
        assert code in (0, KILLED)
        if code == 0:
            return
        yield number, directory


@pytest.mark.parametrize("first", [pytest.param(5, id="just begun"), pytest.param(AT_MOST, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_between_two_files_goes_on_and_can_be_replaced(tmp_path, first):
    assert train_in_child(tmp_path / "whole") == 0
    whole = (tmp_path / "whole" / WEIGHTS).read_bytes()
    for number, directory in kills(lambda _: None, tmp_path, first=first):
        assert train_in_child(directory, "--resume") == 0, f"--resume after a kill before operation {number}"
        assert (directory / WEIGHTS).read_bytes() == whole
    for number, directory in kills(lambda _: None, tmp_path / "again", first=first):
        options = ["--force"] if (directory / "config.json").exists() else []
        assert train_in_child(directory, *options) == 0, f"--force after a kill before operation {number}"
        assert (directory / WEIGHTS).read_bytes() == whole


@pytest.mark.parametrize("first", [pytest.param(3, id="just begun"), pytest.param(AT_MOST, marks=pytest.mark.slow)])
def test_an_overwritten_run_that_is_killed_can_be_overwritten_again(tmp_path, first):
    def finished(directory: Path) -> None:
        assert train_in_child(directory, "--seed", "1") == 0

    for number, directory in kills(finished, tmp_path, "--force", first=first):
        code = (
            train_in_child(directory, "--force") if (directory / "config.json").exists() else train_in_child(directory)
        )
        assert code == 0, f"--force after a kill before operation {number}"
