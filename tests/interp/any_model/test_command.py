"""`interp init`, and `--ckpt FILE.py:NAME` of score, ablate, patch and report."""

import json

import pytest


@pytest.fixture
def template(outcome, tmp_path):
    file = tmp_path / "lm.py"
    assert outcome("init", file).code == 0
    return file


@pytest.fixture
def written(tmp_path):
    def write(body: str) -> str:
        (tmp_path / "mine.py").write_text(body)
        return f"{tmp_path / 'mine.py'}:model"

    return write


def test_the_template_runs_as_it_is(outcome, template, tmp_path):
    ckpt = f"{template}:induction"
    scored = json.loads(outcome("score", "--ckpt", ckpt, "--json").out)
    assert (scored["score"], scored["step"], scored["examples"]) == ("induction", None, 64)
    assert len(scored["scores"]["all examples"]) == 2
    out = tmp_path / "out"
    done = outcome("ablate", "--ckpt", ckpt, "--heads", "top:2", "--controls", "9", "--out", out, "--json")
    found = json.loads(done.out)
    assert {row["mode"] for row in found["results"]} == {"zero", "mean", "resample"}
    assert found["unit"] == "loss"
    assert found["verdict"][0].startswith("Removing")
    files = {"ablation.csv", "ablation_null.csv", "ablation.png", "run.json"}
    assert {path.name for path in out.iterdir()} == files
    (about,) = json.loads((out / "run.json").read_text())["checkpoints"]
    assert (about["name"], len(about["sha256"])) == (found["checkpoint"], 64)
    patched = outcome("patch", "--ckpt", ckpt, "--site", "resid_post", "--tokens", "all")
    assert patched.code == 0
    assert "resid_post of layer 1" in patched.out


@pytest.mark.slow
def test_a_report_is_one_page_with_its_numbers_beside_it(outcome, template, tmp_path):
    page = tmp_path / "page.html"
    done = outcome("report", "--ckpt", f"{template}:induction", "--controls", "5", "--out", page)
    assert done.code == 0, done.err
    text = page.read_text()
    for heading in ("Where heads attend", "The highest head removed", "Every head patched alone"):
        assert heading in text
    assert "<script" not in text
    assert len(list((tmp_path / "page").glob("*.csv"))) == 9


def test_an_existing_file_is_not_overwritten(refused, template):
    assert "exists already" in refused("init", template)
    assert "ends in .py" in refused("init", template.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def model():\n    return 3\n", "model() returns int; the result of interp.attach is needed"),
        ("x = 1\n", "has no function 'model'"),
        ("def model():\n    return unknown\n", "model() raises NameError: name 'unknown' is not defined (line 2)"),
        ("import nothing_of_this_name\n", "raises ModuleNotFoundError"),
        ("def model(:\n", "raises SyntaxError"),
        ("def model():\n    raise SystemExit(3)\n", "model() raises SystemExit: 3 (line 2)"),
        (
            "from interp import attach\nfrom torch import nn, zeros\n"
            "def model():\n    return attach(nn.Linear(2, 2), zeros(20, 2), lambda out, x: out.mean(1))\n",
            "no attention output projection is found",
        ),
    ],
)
def test_a_file_that_gives_no_model(refused, written, body, message):
    assert message in refused("score", "--ckpt", written(body))


LATE = """
import torch
from interp import attach
from interp.any_model.template import Model, sequences, token_losses

calls = []


def loss(logits, ids):
    calls.append(len(ids))
    return token_losses(logits, ids).mean(1) if len(calls) < 3 else {}["targets"]


def model():
    return attach(Model().eval(), sequences(32, seed=1), loss)
"""


def test_a_loss_that_fails_later_is_one_line_with_its_place(refused, written):
    line = refused("ablate", "--ckpt", written(LATE), "--heads", "0.1", "--mode", "zero")
    assert line.rstrip().endswith("what model() attached raises KeyError: 'targets' (line 11)")


def test_what_does_not_apply_is_refused(refused, template):
    ckpt = f"{template}:induction"
    line = refused("score", "--ckpt", ckpt, "--points", "0-3")
    assert "--points does not apply to" in line
    assert "(valid: --score, --seed, --top, --json, --out)" in line
    assert "--prompts does not apply" in refused("ablate", "--ckpt", ckpt, "--heads", "0.1", "--prompts", "64")
    assert "--corrupt does not apply" in refused("patch", "--ckpt", ckpt, "--corrupt", "prompt")
    assert "one model at a time" in refused("score", "--ckpt", ckpt, "--ckpt", "zoo:mixed-0")
    assert "there is no file" in refused("score", "--ckpt", "nothing.py:model")
    assert "unknown --mode 'optimal'" in refused("ablate", "--ckpt", ckpt, "--heads", "0.1", "--mode", "optimal")
