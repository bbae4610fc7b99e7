"""What the tests of several studies share: made-up runs, planted errors, and a report on shipped models."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyses.comparison.paired_errors import ClassErrors
from analyses.report import files, page
from analyses.report.evidence import Evidence, Settings, gather
from analyses.report.protocol import protocol_of
from analyses.report.report import Report
from training.checkpoints.checkpoint import Checkpoint, load
from training.checkpoints.history import append_rows
from training.config.parse import from_preset
from training.evaluation.evaluate import evaluation_prompts, no_context_error
from training.model.transformer import Transformer

BATCH = 64
FLOPS = 1000


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., Checkpoint]:
    """A run whose ratio to the no-context optimum is `course[class]` at evaluations 100 steps apart, and of whose
    prompts the share `shares[class]` is of that class."""

    def run(
        curriculum: str,
        seed: int,
        course: Mapping[str, Sequence[float]],
        shares: Mapping[str, float] | None = None,
        *,
        old: bool = False,
    ) -> Checkpoint:
        config = from_preset("tiny", curriculum, seed, [])
        directory = tmp_path / f"{curriculum}-{seed}".replace(":", "-")
        directory.mkdir()
        n_evaluations = len(next(iter(course.values())))
        for place in range(n_evaluations):
            step = 100 * place
            for name, ratios in course.items():
                seen = step * BATCH * (shares or {}).get(name, 1.0)
                row = {"step": step, "function_class": name, "nmse": 0.8 * ratios[place], "prompts_seen": seen}
                new = {"inputs": "gaussian", "nmse_tail": 0.8 * ratios[place], "no_context_tail": 0.8}
                new |= {"prompts_total": step * BATCH, "flops": step * FLOPS}
                append_rows(directory, [row if old else row | new])
        model = Transformer(config.model, torch.Generator().manual_seed(0))
        return Checkpoint(directory.name, directory, config, 100 * (n_evaluations - 1), model)

    return run


@pytest.fixture
def errors_of(rng: np.random.Generator) -> Callable[..., dict[str, ClassErrors]]:
    """In place of `same_prompts.measure`: models whose errors are the no-context optimum's times a known ratio, with
    multiplicative noise of mean 1 in every prompt."""

    def errors(
        ratios: Mapping[tuple[str, str], float],
        checkpoints: Sequence[Checkpoint],
        classes: Sequence[str],
        *,
        n_prompts: int,
        seed: int,
        noise: float = 0.0,
        only_trained: bool = False,  # noqa: ARG001 - all are given
    ) -> dict[str, ClassErrors]:
        config, found = checkpoints[0].config, {}
        for name in classes:
            prompts = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed)
            without = no_context_error(config, name, prompts).double().numpy() / config.second_moment(name)
            models = {
                one.name: without * ratios[one.name, name] * (1 + noise * rng.uniform(-1, 1, size=(n_prompts, 1)))
                for one in checkpoints
            }
            found[name] = ClassErrors(name, without, models, seed)
        return found

    return errors


Written = Callable[[Evidence, Path], tuple[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def quick() -> Settings:
    return Settings(n_prompts=48, n_controls=12, classes=("linear",))


@pytest.fixture(scope="session")
def shipped(quick) -> Evidence:
    """A model that learned and one that did not, on two classes, one of which the second never saw."""
    return gather([load("zoo:mixed-0"), load("zoo:cubic-0")], replace(quick, classes=("linear", "cubic")))


@pytest.fixture(scope="session")
def written() -> Written:
    """Writes everything that the command writes; gives the page, and report.json read back."""

    def write(evidence: Evidence, page_file: Path) -> tuple[str, dict[str, Any]]:
        protocol = protocol_of(evidence, ["report", "--ckpt", "a b"])
        target = Report(evidence, page.account(evidence), protocol).write(page_file)
        return target.read_text(), json.loads((files.data_directory(target) / "report.json").read_text())

    return write


@pytest.fixture(scope="session")
def report(shipped, written, tmp_path_factory) -> tuple[str, dict[str, Any], Path]:
    """HTML, JSON and place of the report on both shipped models."""
    target = tmp_path_factory.mktemp("report") / "heads.html"
    return (*written(shipped, target), target)
