"""What can go wrong with files, disks and processes, made to happen; and what a command made of it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from training.checkpoints.checkpoint import load
from training.config.config import RunConfig
from training.config.parse import from_preset
from training.loop import recorder
from training.loop.trainer import train


@pytest.fixture(scope="session")
def settings(quick_settings: list[str]) -> list[str]:
    return quick_settings[1::2]


@pytest.fixture(scope="session")
def run_config(settings: list[str]) -> RunConfig:
    return from_preset("tiny", "mixed", 0, settings)


@pytest.fixture(scope="session")
def whole_run(run_config: RunConfig, tmp_path_factory) -> Path:
    """A finished run of 60 steps with snapshots; not to be written to."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    train(run_config, directory, progress=False)
    return directory


@pytest.fixture(scope="session")
def other_run(settings: list[str], tmp_path_factory) -> Path:
    """Another run of the same shape and seeds; not to be written to."""
    directory = tmp_path_factory.mktemp("runs") / "other"
    train(from_preset("tiny", "mixed", 0, [*settings, "recipe.lr=1e-3"]), directory, progress=False)
    return directory


@pytest.fixture(scope="session")
def cut_run(run_config: RunConfig, tmp_path_factory) -> Path:
    """The run of `whole_run`, interrupted right after its save at step 30; not to be written to."""
    directory, save = tmp_path_factory.mktemp("runs") / "cut", recorder.save

    def save_and_stop(state, *rest):
        save(state, *rest)
        if state.step == 30:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recorder, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(run_config, directory, progress=False)
    assert load(directory).step == 30
    return directory


@pytest.fixture
def copied(tmp_path) -> Callable[[Path], Path]:
    """A copy of a run, to be damaged."""

    def copy(directory: Path) -> Path:
        return Path(shutil.copytree(directory, tmp_path / "run", dirs_exist_ok=False))

    return copy


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own in memory, mounted with these options (`size=16k`, `ro`)."""
    place = tmp_path / "disk"

    def mount(options: str) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.geteuid() or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a disk, and not in every container")
        return place

    yield mount
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)  # a store may still be open
