"""All ways to remove every head give the same errors, and the bench says so when one does not or ours is not ahead."""

import json
import statistics

import pandas as pd
import pytest
import torch
from ablations import app, failures, random_checkpoint
from sweepers import SWEEPERS, Loop, Task, sweep_flops
from typer.testing import CliRunner

SMALL = ["model.n_layers=3", "model.n_heads=2", "model.d_model=16"]


@pytest.fixture(scope="module")
def task() -> Task:
    return Task(random_checkpoint("tiny", SMALL, "cpu"), n_prompts=40)


def run(*arguments: str):
    settings = [argument for setting in SMALL for argument in ("--set", setting)]
    return CliRunner().invoke(app, ["--presets", "tiny", "--prompts", "40", *settings, *arguments])


@pytest.mark.parametrize("name", [name for name in SWEEPERS if name != "ours"])
@pytest.mark.parametrize("batch", [16, 40])
def test_a_loop_finds_the_same_errors(task, name, batch):
    loop = SWEEPERS[name](task)
    assert isinstance(loop, Loop)
    loop.batch = batch
    ours, theirs = SWEEPERS["ours"](task).errors(), loop.errors()
    intact = task.chunk(range(task.sweep.chunk_size))[1]
    effects = abs(ours[:, : len(intact)] - intact).max(axis=(1, 2))
    assert ours.shape == (6, 40, 16)
    assert abs(ours - theirs).max() < 1e-4 * effects.min()


def test_flops_are_far_fewer_than_those_of_full_forward_passes(task):
    """Layers before a head are shared, and the last layer is computed at x tokens only."""
    model, tokens = task.sweep.model.config, task.sweep.test.tokens
    linear = 2 * 12 * model.d_model**2 * model.n_layers
    every = len(task.heads) * len(tokens) * tokens.shape[1] * linear
    assert 0.5 * every < sweep_flops(task) < 0.75 * every


@pytest.mark.slow
def test_the_document_reports_what_was_measured(tmp_path):
    done = run("--repetitions", "2", "--json", "--out", str(tmp_path))
    report = json.loads(done.stdout)
    assert [row["way"] for row in report["results"]] == list(SWEEPERS)
    assert report["threads"] == torch.get_num_threads()
    [preset] = report["presets"]
    assert (preset["heads"], preset["prompts"]) == (6, 40)
    assert preset["gflop_per_second"] * report["results"][0]["seconds"] == pytest.approx(preset["gflop"])
    assert 0 < preset["share_of_peak"] < 1
    for row in report["results"]:
        assert row["seconds_low"] <= row["seconds"] <= row["seconds_high"]
        assert row["seconds"] == pytest.approx(statistics.mean([row["seconds_low"], row["seconds_high"]]))
    written = pd.read_csv(tmp_path / "bench.csv")
    assert written["seconds"].tolist() == pytest.approx([row["seconds"] for row in report["results"]])
    assert done.exit_code == bool(failures(report))


def test_a_different_result_is_an_error(monkeypatch):
    class Wrong(Loop):
        def hook(self, head):
            return super().hook(head._replace(number=0))

    monkeypatch.setitem(SWEEPERS, "loop", Wrong)
    done = run("--repetitions", "1")
    assert done.exit_code == 1
    assert "loop on tiny: results differ by" in done.stderr
    assert done.stderr.count("\n") == 1


def test_being_overtaken_is_an_error():
    rows = [
        {"preset": "tiny", "way": way, "ratio": ratio, "difference": 0.0}
        for way, ratio in (("ours", 1.0), ("loop", 2.9), ("suffix", 1.1))
    ]
    assert failures({"results": rows}) == ["loop on tiny: 2.90 times our time"]


def test_an_unknown_preset_is_refused():
    done = CliRunner().invoke(app, ["--presets", "huge"])
    assert done.exit_code == 2
    assert "unknown preset 'huge'" in done.stderr
