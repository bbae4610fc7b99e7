"""Both ways find the same losses, and the bench says so when ours is not ahead."""

import json

import any_models
import pytest
import torch
from any_models import app
from typer.testing import CliRunner

SMALL = ["--layers", "4", "--heads", "3", "--examples", "8", "--repetitions", "2"]


@pytest.mark.parametrize(("ahead", "code"), [(0.01, 0), (1e9, 1)])
def test_the_document_reports_what_was_measured(monkeypatch, ahead, code):
    monkeypatch.setattr(any_models, "AHEAD", ahead)
    done = CliRunner().invoke(app, [*SMALL, "--json"])
    assert done.exit_code == code
    document = json.loads(done.stdout)
    assert (document["layers"], document["heads"], document["threads"]) == (4, 3, torch.get_num_threads())
    assert 0 < document["ratio_low"] <= document["ratio"] <= document["ratio_high"]
    assert document["difference"] < any_models.SAME
    assert (f"promised {ahead}" in done.stderr) == bool(code)
