import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: threads of what they start would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # set by readline in the process that starts the workers

import torch

from interp.ablation import reference_activations
from interp.cli import main
from training.checkpoints.checkpoint import Checkpoint
from training.config.config import RunConfig
from training.config.parse import from_preset
from training.loop import recorder
from training.loop.trainer import train
from training.model.transformer import Transformer


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`sample(n)` leaves n cases of a test, spread over all of them, to the fast suite; the others become slow."""
    cases: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        sample = item.get_closest_marker("sample")
        if sample and not item.get_closest_marker("slow"):
            cases.setdefault((item.nodeid.partition("[")[0], *sample.args), []).append(item)
    for (_, n_kept), test in cases.items():
        kept = {round(index * len(test) / n_kept) for index in range(n_kept)}
        for index, item in enumerate(test):
            if index not in kept:
                item.add_marker("slow")


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session", autouse=True)
def _few_reference_prompts():
    """Constants (means, variances, norms) from 256 prompts instead of 4,096: most of the time of most ablations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_activations, "REFERENCE_PROMPTS", 256)
        yield


@pytest.fixture(scope="session", autouse=True)
def _frozen_date():
    """The date is all in which the results of equal commands differ: frozen, they are compared byte by byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1767225600")
        yield


@pytest.fixture
def all_reference_prompts(monkeypatch):
    """As many as users have, for tests of published numbers."""
    monkeypatch.setattr(reference_activations, "REFERENCE_PROMPTS", 4096)


@pytest.fixture(autouse=True)
def _figures_closed():
    """Pyplot keeps every figure of a process and warns beyond 20."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def quick_config() -> RunConfig:
    """A run of a second: the tiny preset, smaller still."""
    return from_preset("tiny", "mixed", 0, QUICK)


QUICK = [
    "model.n_layers=2",
    "model.n_heads=2",
    "model.d_model=16",
    "recipe.steps=60",
    "recipe.batch_size=8",
    "recipe.warmup_steps=5",
    "record.eval_every=25",
    "record.eval_prompts=16",
    "record.save_every=10",
    "record.snapshots=4",
]


@pytest.fixture(scope="session")
def quick_settings() -> list[str]:
    return [argument for setting in QUICK for argument in ("--set", setting)]


@pytest.fixture
def random_checkpoint(tmp_path) -> Checkpoint:
    """An untrained model with the tiny preset's prompts and init std 0.3, so that every head does something."""
    config = from_preset("tiny", "mixed", 0, ["model.init_std=0.3"])
    model = Transformer(config.model, torch.Generator().manual_seed(3))
    for name, parameter in model.named_parameters():
        if ".b_" in name:
            parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return Checkpoint("random", tmp_path, config, 0, model.requires_grad_(False))


@pytest.fixture
def train_until(monkeypatch) -> Callable[[RunConfig, Path, int], None]:
    """Train and interrupt the run right after its save at a step."""

    def cut(config: RunConfig, directory: Path, step: int) -> None:
        save = recorder.save

        def save_and_stop(state, *rest):
            save(state, *rest)
            if state.step == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(recorder, "save", save_and_stop)
            with pytest.raises(KeyboardInterrupt):
                train(config, directory)

    return cut


@pytest.fixture(scope="session")
def interp() -> "Callable[..., subprocess.Popen[str]]":
    """The command line in a process of its own."""

    def start(*arguments: object, **options) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "interp", *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)

    return start


class Outcome(NamedTuple):
    """The exit code of a command and its two streams."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """With the one line that a wrong input gets."""
        return self.code == 2 and self.out == "" and self.err.startswith("interp: ") and self.err.count("\n") == 1


@pytest.fixture
def outcome(monkeypatch, capfd) -> Callable[..., Outcome]:
    """A command in this process: what a process would give, without the seconds that its imports take.

    Whatever escapes it but an exit is a traceback, and fails the test.
    """

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["interp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return Outcome(stop.value.code, *capfd.readouterr())  # type: ignore[arg-type]

    return run


@pytest.fixture
def refused(outcome) -> Callable[..., str]:
    """Runs a command that cannot be done, and gives the line that says why."""

    def run(*arguments: object) -> str:
        found = outcome(*arguments)
        assert found.refused, found
        return found.err

    return run
