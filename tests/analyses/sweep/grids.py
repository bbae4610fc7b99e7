"""A sweep of a few runs, and what the tests of clusters ask of it afterwards."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from training.config.parse import from_preset
from training.loop.trainer import train


class Grid:
    """Mixed runs in `root/grid`.

    Args:
        root: a directory that all machines see.
        seeds: one run each.
        settings: of all runs, as `--set` takes them, which may stand between them; the last one of a key counts.
        rest: what else the file says.
    """

    def __init__(self, root: Path, seeds: Sequence[int], settings: Sequence[str], rest: str = "") -> None:
        self.root, self.seeds = root, seeds
        last = dict(setting.split("=") for setting in settings if setting != "--set")
        self.settings = [f"{key}={value}" for key, value in last.items()]
        self.file = root / "sweep.toml"
        lines = ['out = "grid"', "[train]", f"seeds = {[*seeds]}", "[train.set]", *self.settings, rest]
        self.file.write_text("\n".join(lines))

    @property
    def runs(self) -> list[Path]:
        return [self.root / "grid" / "runs" / f"mixed-{seed}" for seed in self.seeds]

    @property
    def locks(self) -> list[Path]:
        return [self.root / "grid" / ".locks" / "runs" / run.name for run in self.runs]

    def logs(self) -> list[str]:
        return [run.with_name(f"{run.name}.log").read_text() for run in self.runs]

    def starts(self) -> int:
        return sum(log.count("$ interp train") for log in self.logs())

    def places(self) -> Counter[str]:
        """How many runs each machine had last, by its name."""
        return Counter(lock.read_text().rpartition(" ")[2] for lock in self.locks)

    def is_as_by_hand(self) -> bool:
        """Whether every run has the bits of the same run without a sweep."""
        for seed, run in zip(self.seeds, self.runs, strict=True):
            by_hand = self.root / "hand" / str(seed)
            train(from_preset("tiny", "mixed", seed, self.settings), by_hand)
            if (by_hand / "model.safetensors").read_bytes() != (run / "model.safetensors").read_bytes():
                return False
        return True


def wait_until(
    happens: Callable[[], object], driver: "subprocess.Popen[str] | None" = None, seconds: float = 300
) -> None:
    """Wait for something that the sweep does, which a driver does not outlive where one is given."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        assert driver is None or driver.poll() is None, driver.communicate()
        time.sleep(0.01)
