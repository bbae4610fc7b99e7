"""The bench of data-parallel steps shares gradients where it says so, and nowhere else."""

import json
import subprocess

import pytest
import torchrun
from typer.testing import CliRunner


@pytest.mark.slow
@pytest.mark.parametrize(("way", "is_same"), [("shared", True), ("apart", False)])
def test_processes_of_one_run_end_with_the_same_weights_and_runs_of_their_own_do_not(way, is_same):
    found = torchrun.measure_apart("tiny", way, 2, 0.2, ["recipe.batch_size=8"])
    assert found["rate"] > 0
    first, second = found["weights"]
    assert (first == second) is is_same


def test_only_a_whole_document_is_a_result_however_the_processes_ended(monkeypatch):
    def end_with(stdout):
        ended = subprocess.CompletedProcess([], 1, stdout, "terminate called without an active exception")
        monkeypatch.setattr(torchrun.subprocess, "run", lambda *_, **__: ended)
        return torchrun.measure_apart("tiny", "shared", 2, 0.2, [])

    assert end_with('{"rate": 1.5, "weights": [1, 1]}\n') == {"rate": 1.5, "weights": [1, 1]}
    for cut in ("", '{"rate": 1.5, "wei'):
        with pytest.raises(SystemExit, match="terminate called"):
            end_with(cut)


def test_cores_that_cannot_share_a_batch_are_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(torchrun.os, "cpu_count", lambda: 65)
    done = CliRunner().invoke(torchrun.app, ["--presets", "tiny"])
    assert done.exit_code == 2
    assert "tiny: 65 cores cannot share a batch of 64" in done.output


def rates(preset, name, n_cores, seconds, settings):
    del preset, n_cores, seconds, settings
    return {"rate": {"alone": 10.0, "shared": 5.0, "apart": 20.0}[name]}


def test_the_document_reports_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(torchrun, "measure_apart", rates)
    options = ["--presets", "tiny", "--json", "--out", str(tmp_path / "new")]
    done = CliRunner().invoke(torchrun.app, options)
    rows = {row["way"]: row["ratio"] for row in json.loads(done.stdout)["results"]}
    assert rows == {"alone": 1.0, "shared": 0.5, "apart": 2.0}
    assert (tmp_path / "new" / "bench.csv").exists()
