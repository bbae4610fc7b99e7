"""Both ways give the same map, and the bench says so when they do not or ours is not ahead."""

import json

import pandas as pd
import pytest
from ablations import random_checkpoint
from patching import Ours, Theirs, app, failures
from typer.testing import CliRunner

from interp.patching.runner import Question

SMALL = ["model.n_layers=2", "model.n_heads=2", "model.d_model=16"]


@pytest.fixture(scope="module")
def question() -> Question:
    return Question("prompt", n_prompts=24)


@pytest.mark.sample(1)
@pytest.mark.parametrize("batch", [7, 24])
def test_transformer_lens_finds_the_same_map(question, batch):
    checkpoint = random_checkpoint("tiny", SMALL, "cpu")
    theirs = Theirs(checkpoint, question)
    theirs.batch = batch
    ours = Ours(checkpoint, question).effects()
    assert ours.shape == (62,)
    assert abs(ours).max() > 0.1
    assert abs(ours - theirs.effects()).max() < 1e-5


@pytest.mark.slow
def test_the_document_reports_what_was_measured(tmp_path):
    settings = [argument for setting in SMALL for argument in ("--set", setting)]
    options = ["--presets", "tiny", "--prompts", "16", "--repetitions", "2", "--json", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*options, *settings])
    [row] = json.loads(done.stdout)["results"]
    assert (row["cells"], row["prompts"]) == (62, 16)
    for name in ("ours", "theirs", "ratio"):
        assert 0 < row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert row["difference"] < 1e-5
    assert pd.read_csv(tmp_path / "bench.csv")["ratio"].tolist() == pytest.approx([row["ratio"]])


def test_a_bench_that_falls_short_says_where():
    row = {"preset": "tiny", "ratio": 3.0, "difference": 1e-7}
    assert failures({"results": [row]}) == []
    assert failures({"results": [row | {"ratio": 1.5}]}) == ["tiny: 1.50 times our time"]
    assert failures({"results": [row | {"difference": 0.01}]}) == ["tiny: maps differ by 1.0e-02"]
