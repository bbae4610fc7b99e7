"""Fault x command: a damaged, swapped or foreign checkpoint is refused in one line, or it makes no difference."""

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch
from damage import (
    CALM,
    CONFIG,
    FEW,
    HISTORY,
    RESUME,
    SNAPSHOT,
    WEIGHTS,
    cut,
    edit_config,
    edit_tensors,
    flip,
    unsealed,
    write_mutated,
)

from training.checkpoints.checkpoint import Checkpoint, load, zoo_path
from training.common.errors import CheckError, UserError
from training.evaluation.convergence import convergence
from training.loop.trainer import train

COMMANDS = {
    "eval": ("eval", *FEW),
    "score": ("score", *FEW),
    "ablate": ("ablate", "--heads", "0.1", *CALM, *FEW),
    "patch": ("patch", *FEW),
    "path": ("path", "--from", "0.1", *FEW),
    "attribute": ("attribute", *FEW),
    "circuit": ("circuit", *FEW),
    "lens": ("lens", *FEW),
    "probe": ("probe", *FEW),
    "history": ("history",),
    "retrospective": ("study", "retrospective", "--prompts", "4"),
    "plateaus": ("study", "plateaus", "--prompts", "4"),
    "emergence": ("study", "emergence", "--prompts", "4"),
    "report": ("report", "--controls", "2", "--no-paths", *FEW),
}


def first(name):
    """An edit of one tensor."""
    return lambda change: lambda tensors: {**tensors, name: change(tensors[name]).contiguous()}


W_E = first("embed.W_E")

FAULTS = {
    "no config": (lambda run, _: (run / CONFIG).unlink(), "is not a checkpoint: it has no config.json"),
    "empty config": (lambda run, _: (run / CONFIG).write_bytes(b""), "config.json is damaged"),
    "cut config": (lambda run, _: cut(run / CONFIG, 300), "config.json is damaged"),
    "deep config": (lambda run, _: (run / CONFIG).write_text("[" * 10**5), "config.json is damaged: it is nested too"),
    "newer version": (lambda run, _: edit_config(run, "format_version", 3), "has format version 3; this program reads"),
    "older version": (lambda run, _: edit_config(run, "format_version", 1), "convert it with `interp upgrade --ckpt"),
    "no version": (lambda run, _: edit_config(run, "format_version", True), "has format version True; this program"),
    "config without size": (lambda run, _: edit_config(run, "run.model", {}), "model.n_ctx are missing"),
    "no weights": (lambda run, _: (run / WEIGHTS).unlink(), "no weights at"),
    "empty weights": (lambda run, _: (run / WEIGHTS).write_bytes(b""), "model.safetensors is damaged"),
    "cut weights": (lambda run, _: cut(run / WEIGHTS, 100), "model.safetensors is damaged"),
    "text weights": (lambda run, _: (run / WEIGHTS).write_text("hello" * 100), "model.safetensors is damaged"),
    "directory for weights": (lambda run, _: ((run / WEIGHTS).unlink(), (run / WEIGHTS).mkdir()), "not a plain file"),
    "no step": (lambda run, _: edit_tensors(run / WEIGHTS, dict, {"step": "-60"}), "does not say of which step it is"),
    "step beyond": (
        lambda run, _: edit_tensors(run / WEIGHTS, dict, {"step": "61"}),
        "it is of step 61, the run has 60",
    ),
    "flipped bit": (lambda run, _: flip(run / WEIGHTS, -1000), "model.safetensors is damaged: its content is not what"),
    "another run's weights": (lambda run, other: shutil.copy(other / WEIGHTS, run), "holds the weights of another run"),
    "edited config": (lambda run, _: edit_config(run, "run.data.rotation", 1), "holds the weights of another run"),
    "huge config": (lambda run, _: edit_config(run, "run.model.n_ctx", 10**6), "it is too small for 16006673 weights"),
}
"""What every command refuses: the damage to a run, given another run, and the message."""

IN_TENSORS = {
    "tensor missing": (
        lambda run, _: edit_tensors(run / WEIGHTS, lambda t: {k: t[k] for k in t if k != "embed.W_E"}),
        "embed.W_E is missing, unknown or of another shape or type",
    ),
    "tensor too many": (
        lambda run, _: edit_tensors(run / WEIGHTS, lambda t: {**t, "more": torch.zeros(2)}),
        "more is missing, unknown or of another shape or type",
    ),
    "other shape": (lambda run, _: edit_tensors(run / WEIGHTS, W_E(lambda t: t.T)), "embed.W_E is missing, unknown or"),
    "other type": (lambda run, _: edit_tensors(run / WEIGHTS, W_E(lambda t: t.double())), "embed.W_E is missing, unkn"),
    "whole numbers": (lambda run, _: edit_tensors(run / WEIGHTS, W_E(lambda t: t.int())), "embed.W_E is missing, unkn"),
    "NaN": (lambda run, _: edit_tensors(run / WEIGHTS, W_E(lambda t: t * torch.nan)), "holds values that are not fini"),
}
"""The same, where only who reads the weights has to notice."""


@pytest.mark.sample(6)
@pytest.mark.parametrize("fault", [*FAULTS, *IN_TENSORS])
def test_every_fault_is_refused(outcome, copied, whole_run, other_run, tmp_path, fault):
    run = copied(whole_run)
    damage, message = {**FAULTS, **IN_TENSORS}[fault]
    damage(run, other_run)
    commands = ["score", "history"] if fault in FAULTS else ["score"]
    for name in commands:
        found = outcome(*COMMANDS[name], "--ckpt", run, "--out", tmp_path / "out")
        assert found.refused, found
        assert message in found.err
    assert not (tmp_path / "out").exists()


@pytest.mark.sample(10)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", ["newer version", "cut weights"])
def test_every_command_refuses(outcome, copied, whole_run, other_run, tmp_path, command, fault):
    run = copied(whole_run)
    damage, message = FAULTS[fault]
    damage(run, other_run)
    found = outcome(*COMMANDS[command], "--ckpt", run, "--out", tmp_path / "out")
    assert found.refused, found
    assert message in found.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["newer version", "cut config", "deep config", "no config"])
def test_a_run_that_cannot_be_read_is_neither_upgraded_nor_resumed(outcome, copied, cut_run, fault, settings):
    run = copied(cut_run)
    FAULTS[fault][0](run, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    given = [f"--set={setting}" for setting in settings]
    assert outcome("upgrade", "--ckpt", run).refused
    assert outcome("train", "--resume", "--out", run, *given).refused
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_snapshot_under_another_name_is_refused(outcome, copied, whole_run):
    run = copied(whole_run)
    shutil.copy(run / "snapshots/step-000003.safetensors", run / SNAPSHOT)
    found = outcome("score", *FEW, "--ckpt", f"{run}@14")
    assert found.refused
    assert "holds the weights of step 3, not those of the step in its name" in found.err
    assert outcome("score", *FEW, "--ckpt", run).code == 0, "the final weights are not affected"


def test_what_is_no_snapshot_is_not_taken_for_one(copied, whole_run):
    run = copied(whole_run)
    for name in ("step-abc", "step-7", "step-", "step-²"):
        (run / "snapshots" / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"unknown step '7' \(valid: 0, 3, 14, 60\)"):
        load(f"{run}@7")


HISTORIES = {
    "lost": (lambda _: [], "has no history of its training"),
    "cut after a row": (lambda lines: lines[:-1], "it lacks an evaluation of step 60"),
    "cut in its last row": (lambda lines: [*lines[:-1], lines[-1][:40]], "it lacks an evaluation of step 60"),
    "cut in the middle": (lambda lines: [*lines[:4], lines[4][:40] + "\n", *lines[5:]], "line 5 is no valid row"),
    "a row lost": (lambda lines: lines[:4] + lines[5:], "it lacks an evaluation of step 25"),
    "a digit": (lambda lines: [lines[0].replace('"flops": 0', '"flops": 8'), *lines[1:]], "line 1 is no valid row"),
    "out of order": (lambda lines: lines[::-1], "is no valid row"),
    "twice": (lambda lines: lines + lines, "is no valid row"),
    "lists": (lambda _: ["[1]\n"], "line 1 is no valid row"),
    "words": (lambda _: ['{"step": 1, "function_class": "a", "nmse": "b"}\n'], "line 1 is no valid row"),
    "nesting": (lambda _: ["[" * 10**5 + "\n"], "line 1 is no valid row"),
    "no errors": (
        lambda _: ['{"step": 0}\n', '{"step": 25}\n', '{"step": 50}\n', '{"step": 60}\n'],
        "no history of",
    ),
    "no text": (lambda _: ["\udcff\n"], "is damaged"),
}


@pytest.mark.parametrize("fault", HISTORIES)
def test_a_damaged_history_is_refused(outcome, copied, whole_run, fault):
    run = copied(whole_run)
    change, message = HISTORIES[fault]
    lines = (run / HISTORY).read_text().splitlines(keepends=True)
    (run / HISTORY).write_bytes("".join(change(lines)).encode(errors="surrogateescape"))
    found = outcome("history", "--ckpt", run)
    assert found.refused, found
    assert message in found.err


def test_a_cut_last_row_of_a_run_in_progress_is_recovered(copied, cut_run, whole_run, run_config):
    run = copied(cut_run)
    with (run / HISTORY).open("a") as file:
        file.write('{"step": 35, "function_cl')
    assert train(run_config, run, resume=True, progress=False) == 30
    assert (run / WEIGHTS).read_bytes() == (whole_run / WEIGHTS).read_bytes()
    mine, theirs = (convergence(one).drop(columns="seconds") for one in (run, whole_run))
    pd.testing.assert_frame_equal(mine, theirs)


def test_errors_that_are_not_finite_never_count_as_converged(outcome, copied, whole_run):
    """As a run of a program without checksums may have them."""
    run = copied(whole_run)
    rows = [json.loads(line) for line in (run / HISTORY).read_text().splitlines()]
    for row in rows:
        del row["crc32"]
        row["nmse_tail"] = {"linear": float("nan"), "quadratic": float("inf")}.get(row["function_class"])
    (run / HISTORY).write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = outcome("history", "--ckpt", run, "--json")
    assert found.code == 0
    assert [(row["step"], row["nmse_tail"]) for row in json.loads(found.out)["runs"]] == [(None, None)] * 3


def test_a_history_stops_where_the_named_step_does(outcome, whole_run):
    runs = json.loads(outcome("history", "--ckpt", f"{whole_run}@14", "--json").out)["runs"]
    final = json.loads(outcome("history", "--ckpt", whole_run, "--json").out)["runs"]
    first_row = json.loads((whole_run / HISTORY).read_text().splitlines()[0])
    assert runs[0]["nmse_tail"] == first_row["nmse_tail"] != final[0]["nmse_tail"]
    assert "unknown step '15'" in outcome("history", "--ckpt", f"{whole_run}@15").err


RESUMES = {
    "cut": (lambda run, _: cut(run / RESUME, 9), "state.safetensors is damaged"),
    "empty": (lambda run, _: (run / RESUME).write_bytes(b""), "state.safetensors is damaged"),
    "flipped bit": (lambda run, _: flip(run / RESUME, -1000), "its content is not what was written"),
    "of another run": (lambda run, other: shutil.copy(other / RESUME, run / RESUME), "it is of another run"),
    "no generator": (
        lambda run, _: edit_tensors(run / RESUME, lambda t: {k: t[k] for k in t if k != "rng.data"}),
        "does not fit this run",
    ),
    "other shape": (
        lambda run, _: edit_tensors(run / RESUME, first("model.embed.W_E")(lambda t: t[:1])),
        "embed.W_E is missing, unknown or of another shape",
    ),
    "odd optimiser": (
        lambda run, _: edit_tensors(run / RESUME, lambda t: {**t, "optimizer.x": torch.zeros(1)}),
        "does not fit this run",
    ),
    "odd counters": (lambda run, _: edit_tensors(run / RESUME, dict, {"counters": '{"step": "x"}'}), "does not fit"),
    "no counters": (lambda run, _: edit_tensors(run / RESUME, dict, {"counters": "[]"}), "it has no counters"),
    "history lost": (lambda run, _: (run / HISTORY).unlink(), "has lost its history.jsonl"),
    "history short": (
        lambda run, _: (run / HISTORY).write_text("".join((run / HISTORY).read_text().splitlines(True)[:4])),
        "it lacks an evaluation of step 25",
    ),
}


@pytest.mark.parametrize("fault", RESUMES)
def test_a_save_that_is_damaged_is_refused_with_the_way_out(copied, cut_run, run_config, tmp_path, fault):
    run, other = copied(cut_run), tmp_path / "other"
    shutil.copytree(cut_run, other)
    edit_tensors(other / RESUME, dict, {"run": "f" * 64})
    damage, message = RESUMES[fault]
    damage(run, other)
    before = (run / WEIGHTS).read_bytes()
    with pytest.raises(UserError, match=r"\(start again with --force\)$") as refusal:
        train(run_config, run, resume=True, progress=False)
    assert message in str(refusal.value)
    assert (run / WEIGHTS).read_bytes() == before


def test_a_finished_run_is_verified_before_it_is_called_finished(outcome, copied, whole_run, settings):
    run = copied(whole_run)
    given = ["--out", run, "--resume", *(f"--set={setting}" for setting in settings)]
    assert "is finished: 60 steps" in outcome("train", *given).err
    flip(run / WEIGHTS, -9)
    assert "its content is not what was written" in outcome("train", *given).err


def test_files_of_programs_that_kept_no_hashes_are_read(copied, whole_run):
    run = copied(whole_run)
    unsealed(run / WEIGHTS)
    same_weights(load(run), load(whole_run))
    assert load("zoo:mixed-0").step == 3000


def same_weights(one: Checkpoint, other: Checkpoint) -> None:
    assert (one.config, one.step) == (other.config, other.step)
    for name, tensor in other.model.state_dict().items():
        assert torch.equal(one.model.state_dict()[name], tensor)


def same_or_refused(damaged: Path, whole: Path) -> bool:
    """Whether a run could still be read, as what it was; a refusal is one line, and nothing else may happen."""
    try:
        found, snapshot, history = load(damaged), load(f"{damaged}@14"), convergence(damaged)
    except UserError:  # whose message is one line by construction
        return False
    same_weights(found, load(whole))
    same_weights(snapshot, load(f"{whole}@14"))
    pd.testing.assert_frame_equal(history, convergence(whole))
    return True


def count_refused(run: Path, whole: Path, n: int) -> int:
    """Of so many accidents to one of a run's files."""
    rng, n_refused = random.Random(n), 0
    for _ in range(n):
        name = rng.choice([CONFIG, WEIGHTS, HISTORY, SNAPSHOT])
        write_mutated(run / name, rng)
        n_refused += not same_or_refused(run, whole)
        shutil.copy(whole / name, run / name)
    return n_refused


@pytest.mark.slow
def test_no_accident_changes_what_is_read(copied, whole_run):
    assert count_refused(copied(whole_run), whole_run, 300) > 250


@pytest.mark.slow
def test_no_accident_among_thousands_changes_what_is_read(copied, whole_run):
    assert count_refused(copied(whole_run), whole_run, 6000) > 5000


def survive(run: Path, name: str, n: int) -> None:
    """Files without hashes: what is read may be wrong, but is read or refused."""
    rng, content = random.Random(n), (run / name).read_bytes()
    for _ in range(n):
        write_mutated(run / name, rng)
        with suppress(UserError, CheckError):  # finite weights may give predictions that are not
            load(run)
        with suppress(UserError):
            convergence(run)
        (run / name).write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [(CONFIG, 60), (WEIGHTS, 20), (HISTORY, 60)])
def test_accidents_to_files_without_hashes_give_no_traceback(copied, name, n):
    survive(copied(zoo_path("cubic-0")), name, n)


@pytest.mark.slow
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, HISTORY])
def test_thousands_of_accidents_to_files_without_hashes_give_no_traceback(copied, name):
    survive(copied(zoo_path("cubic-0")), name, 1500)


def resume_accidents(run: Path, cut_run: Path, whole: Path, config, n: int) -> None:
    """Every resumed run ends with the bits of the one that was left alone, or is refused."""
    rng = random.Random(n)
    for _ in range(n):
        shutil.rmtree(run)
        shutil.copytree(cut_run, run)
        write_mutated(run / rng.choice([RESUME, HISTORY, WEIGHTS, CONFIG]), rng)
        with suppress(UserError):
            train(config, run, resume=True, progress=False)
            assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_no_accident_to_a_save_changes_the_run(copied, cut_run, whole_run, run_config):
    resume_accidents(copied(cut_run), cut_run, whole_run, run_config, 20)


@pytest.mark.slow
def test_no_accident_to_a_save_among_hundreds_changes_the_run(copied, cut_run, whole_run, run_config):
    resume_accidents(copied(cut_run), cut_run, whole_run, run_config, 500)
