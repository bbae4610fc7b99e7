"""A process that ends before any of its file operations leaves a directory that can be resumed or overwritten."""

from collections.abc import Callable
from pathlib import Path

import pytest
from damage import WEIGHTS
from killed import AT_MOST, KILLED, train_in_child

from training.common.atomic_files import TEMPORARY


def temporary_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if TEMPORARY.fullmatch(path.name)]


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


@pytest.mark.slow
@pytest.mark.parametrize("first", [pytest.param(5, id="just begun"), pytest.param(AT_MOST, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_between_two_files_goes_on_and_can_be_replaced(tmp_path, first):
    assert train_in_child(tmp_path / "whole") == 0
    whole = (tmp_path / "whole" / WEIGHTS).read_bytes()
    for number, directory in kills(lambda _: None, tmp_path, first=first):
        assert train_in_child(directory, "--resume") == 0, f"--resume after a kill before operation {number}"
        assert (directory / WEIGHTS).read_bytes() == whole
        assert temporary_files(directory) == []
    for number, directory in kills(lambda _: None, tmp_path / "again", first=first):
        options = ["--force"] if (directory / "config.json").exists() else []
        assert train_in_child(directory, *options) == 0, f"--force after a kill before operation {number}"
        assert (directory / WEIGHTS).read_bytes() == whole
        assert temporary_files(directory) == []


@pytest.mark.slow
@pytest.mark.parametrize("first", [pytest.param(3, id="just begun"), pytest.param(AT_MOST, marks=pytest.mark.slow)])
def test_an_overwritten_run_that_is_killed_can_be_overwritten_again(tmp_path, first):
    def finished(directory: Path) -> None:
        assert train_in_child(directory, "--seed", "1") == 0

    for number, directory in kills(finished, tmp_path, "--force", first=first):
        code = (
            train_in_child(directory, "--force") if (directory / "config.json").exists() else train_in_child(directory)
        )
        assert code == 0, f"--force after a kill before operation {number}"
        assert temporary_files(directory) == []
