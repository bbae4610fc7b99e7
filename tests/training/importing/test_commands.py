"""`interp import` and `interp export`, and what the other commands do with an imported run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from interp import export_checkpoint, import_checkpoint

GargRun = Callable[..., Path]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shipped model that was exported and imported, so that it is one of unknown seeds."""
    folder = tmp_path_factory.mktemp("opened")
    export_checkpoint("zoo:mixed-0", folder / "theirs")
    import_checkpoint(folder / "theirs", folder / "run")
    return folder / "run"


def test_what_was_imported_is_said(garg_run: GargRun, tmp_path: Path, outcome):
    done = outcome("import", garg_run(), "--out", tmp_path / "run", "--seed-label", "a")
    assert done.code == 0, done.err
    assert "2 layers of 4 heads, width 16; linear in 5 dimensions, 7 pairs; step 10000" in done.out
    assert "largest relative difference from its own forward pass" in done.out
    assert "seeds: unknown (label a)" in done.out


def test_json_is_one_document(garg_run: GargRun, tmp_path: Path, outcome):
    document = json.loads(outcome("import", garg_run(), "--out", tmp_path / "run", "--json").out)
    assert document["source"]["files"][0]["largest_relative_difference"] < 1e-5
    assert document["classes"] == ["linear"]


def test_an_import_that_is_refused_is_one_line(garg_run: GargRun, tmp_path: Path, refused):
    line = refused("import", garg_run(task="linear_classification"), "--out", tmp_path / "run")
    assert "training.task is linear_classification: its outputs are logits" in line
    assert "unknown --format 'x'" in refused("import", tmp_path / "theirs", "--out", tmp_path / "run", "--format", "x")


def test_export_names_its_files(tmp_path: Path, outcome, refused):
    command = ("export", "--ckpt", "zoo:linear-0", "--format", "hooked", "--out", tmp_path / "a.pt")
    done = outcome(*command)
    assert done.out.split() == [str(tmp_path / "a.json"), str(tmp_path / "a.pt")]
    assert "already exists" in refused(*command)


COMMANDS = [
    ("eval",),
    ("score",),
    ("ablate", "--heads", "top:1", "--controls", 3),
    ("patch", "--examples", 3),
    ("lens",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_imported_run_goes_through(command: tuple[object, ...], opened: Path, outcome):
    done = outcome(*command, "--ckpt", opened, "--classes", "linear", "--prompts", 16, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("path", "--from", "0.1"),
        ("attribute", "--method", "gradient"),
        ("circuit", "--method", "eap"),
        ("probe", "--target", "x"),
        *(("study", name) for name in ("curricula", "plateaus", "consistency", "cause", "trace", "success")),
        ("study", "retrospective"),
    ],
    ids=" ".join,
)
def test_an_imported_run_goes_through_everything(command: tuple[str, ...], opened: Path, outcome):
    classes = () if command[0] == "study" else ("--classes", "linear")
    done = outcome(*command, "--ckpt", opened, *classes, "--prompts", 64, "--json")
    assert done.code == 0, done.err


@pytest.mark.slow
def test_snapshots_of_another_program_are_studied_over_training(tmp_path: Path, outcome):
    export_checkpoint("zoo:mixed-0", tmp_path / "theirs")
    for step in (70, 117, 196, 275, 460, 545):
        export_checkpoint(f"zoo:mixed-0@{step}", tmp_path / "step", force=True)
        snapshot = torch.load(tmp_path / "step" / "state.pt", weights_only=True)["model_state_dict"]
        torch.save(snapshot, tmp_path / "theirs" / f"model_{step}.pt")
    assert outcome("import", tmp_path / "theirs", "--out", tmp_path / "run", "--step", "all").code == 0
    options = ("--prompts", 64, "--json")
    ours = outcome("study", "emergence", "--ckpt", "zoo:mixed-0", *options)
    theirs = outcome("study", "emergence", "--ckpt", tmp_path / "run", *options)
    assert (ours.code, theirs.code) == (0, 0), theirs.err
    course, imported = (json.loads(done.out)["course"] for done in (ours, theirs))
    assert {row["step"] for row in imported} == {70, 117, 196, 275, 460, 545, 3000}
    expected = {(row["step"], row["function_class"]): row["score"] for row in course}
    for row in imported:
        assert row["score"] == pytest.approx(expected[row["step"], row["function_class"]], abs=1e-5)


def test_what_needs_a_history_says_so(opened: Path, refused):
    assert "has no history of its training" in refused("history", "--ckpt", opened)


@pytest.mark.slow
def test_unknown_seeds_are_not_pooled_without_a_word(opened: Path, outcome, refused):
    several = ("--ckpt", opened, "--ckpt", "zoo:mixed-1", "--prompts", 64)
    ablation = ("ablate", *several, "--heads", "top:1", "--classes", "linear", "--controls", 3, "--mode", "mean")
    for command in (ablation, ("study", "cause", *several), ("report", *several, "--json")):
        assert "has unknown seeds: it counts as independent of other runs only if you say so" in refused(*command)
    done = outcome(*ablation, "--independent")
    assert done.code == 0, done.err
    assert "1 model with unknown seeds: their independence is the user's statement" in done.out
    document = json.loads(outcome(*ablation, "--independent", "--json").out)
    assert (document["n_seeds"], document["n_unknown_seeds"]) == (2, 1)
    assert {row["n_unknown_seeds"] for row in document["pooled"]} == {1}
