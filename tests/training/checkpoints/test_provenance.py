"""`run.json`: what it says is true, it is the same in `--json`, and only its date differs between equal commands."""

import hashlib
import json
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

import pytest

from interp.doctor import package_origin
from training.checkpoints import checkpoint as checkpoints
from training.checkpoints.checkpoint import git_commit, load, weights_hash, zoo_path
from training.checkpoints.provenance import DISTRIBUTION, command_line

FEW = ("--ckpt", "zoo:mixed-0", "--classes", "linear", "--prompts", 16)
STUDY = ("study", "curricula", "--ckpt", "zoo:linear-0", "--prompts", 16)
COMMANDS = {
    "eval": ("eval", *FEW, "--no-class-baseline"),
    "score": ("score", *FEW),
    "ablate": ("ablate", *FEW, "--heads", "0.1", "--controls", 2),
    "patch": ("patch", *FEW),
    "path": ("path", *FEW, "--from", "0.1", "--to", "out", "--examples", 3),
    "attribute": ("attribute", *FEW, "--method", "gradient", "--validate", 0),
    "circuit": ("circuit", *FEW, "--method", "eap", "--sizes", "20,400", "--random", 1),
    "lens": ("lens", *FEW),
    "history": ("history", "--ckpt", "zoo:mixed-0"),
    "study": STUDY,
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_where_its_result_comes_from(name, tmp_path, outcome):
    given = COMMANDS[name]
    done = outcome(*given, "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.err.endswith(f"wrote {tmp_path}/\n")
    run = json.loads((tmp_path / "run.json").read_text())
    assert json.loads(done.out)["run"] == run
    assert run["command"] == " ".join(["interp", *map(str, given)])
    assert run["versions"]["torch"] == version("torch")
    assert run["versions"][DISTRIBUTION] == version(DISTRIBUTION)
    assert run["commit"] == git_commit()
    (about,) = run["checkpoints"]
    weights = zoo_path(about["name"].removeprefix("zoo:")) / "model.safetensors"
    assert about["seeds"] == vars(load(about["name"]).config.seeds)
    assert about["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (run["seed"], run["prompts"]) == ((None, None) if name == "history" else (0, 16))
    if name in ("ablate", "patch", "circuit", "lens", "study"):
        assert run["verdict"]
        assert run["verdict"] == json.loads(done.out).get("verdict", run["verdict"])


def test_equal_commands_differ_in_their_date_only(tmp_path, outcome, monkeypatch):
    for name, seconds in (("a", 1), ("b", 2)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(seconds))
        assert outcome(*COMMANDS["score"], "--out", tmp_path / name).code == 0
    first, second = (json.loads((tmp_path / name / "run.json").read_text()) for name in "ab")
    assert first.pop("date") == "1970-01-01T00:00:01+00:00"
    assert second.pop("date") == "1970-01-01T00:00:02+00:00"
    assert first == second
    for path in (tmp_path / "a").iterdir():
        if path.name != "run.json":
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_date_is_that_of_the_clock(tmp_path, outcome, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    before = datetime.now(UTC).replace(microsecond=0)
    assert outcome("history", "--ckpt", "zoo:mixed-0", "--out", tmp_path).code == 0
    date = datetime.fromisoformat(json.loads((tmp_path / "run.json").read_text())["date"])
    assert before <= date <= datetime.now(UTC)


def test_a_date_that_is_none_is_refused(refused, monkeypatch, tmp_path):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    assert "SOURCE_DATE_EPOCH=today: a whole number of seconds" in refused("history", *FEW[:2], "--out", tmp_path)


def test_a_snapshot_has_the_hash_of_its_own_file():
    snapshot = load("zoo:mixed-0@70")
    path = snapshot.directory / "snapshots" / "step-000070.safetensors"
    assert weights_hash(snapshot.directory, 70) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights_hash(snapshot.directory, 71) is None


def test_words_with_spaces_are_quoted_and_the_place_of_results_is_left_out():
    words = ["score", "--out=a", "--ckpt", "my run", "--json", "--out", "b", "--top", "3"]
    assert command_line(words) == "interp score --ckpt 'my run' --top 3"


def test_a_package_inside_the_checkout_of_something_else_has_no_commit(tmp_path, monkeypatch):
    """As in a virtual environment that lies in a project under git."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    inside = tmp_path / "site-packages" / "training" / "checkpoints"
    inside.mkdir(parents=True)
    monkeypatch.setattr(checkpoints, "__file__", str(inside / "checkpoint.py"))
    assert git_commit() is None
    shutil.rmtree(tmp_path / ".git")
    assert git_commit() is None


def test_the_package_has_one_name():
    assert package_origin.DISTRIBUTION == DISTRIBUTION
