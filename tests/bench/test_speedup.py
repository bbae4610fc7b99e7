"""The bench of a sweep's workers trains its grid anew, and reports one worker's time over two workers'."""

import json

import pytest
import speedup
from typer.testing import CliRunner


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_sweep_is_timed_from_nothing_to_its_end(workers):
    assert speedup.measure("local", workers, n_runs=2, steps=1) > 0


@pytest.mark.slow
def test_a_sweep_that_fails_is_no_measurement():
    with pytest.raises(SystemExit, match=r"recipe\.steps"):
        speedup.measure("local", 1, n_runs=2, steps=0)


def test_the_document_reports_what_was_measured(monkeypatch):
    monkeypatch.setattr(speedup, "measure", lambda engine, n, *_: {"local": 8.0, "ray": 9.0}[engine] / n**0.5)
    monkeypatch.setattr(speedup.importlib.util, "find_spec", lambda name: name)
    done = CliRunner().invoke(speedup.app, ["--json", "--repetitions", "2"])
    local, ray = json.loads(done.stdout)["results"]
    assert (local["seconds_1"], ray["seconds_1"]) == (8.0, 9.0)
    assert local["speedup"] == ray["speedup_low"] == pytest.approx(2**0.5)


def test_an_unknown_engine_is_refused():
    done = CliRunner().invoke(speedup.app, ["--engines", "slurm"])
    assert done.exit_code == 2
    assert "unknown --engines 'slurm' (valid: local, ray)" in done.output
