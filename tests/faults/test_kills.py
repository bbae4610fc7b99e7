"""SIGKILL at random moments, two writers at once, a clock that jumps: the result is that of a run left alone."""

import multiprocessing
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

import pandas as pd
import pytest
from damage import CALM, FEW, WEIGHTS

from interp.ablation.store import Store
from interp.cli import main
from training.checkpoints.checkpoint import load
from training.evaluation.convergence import convergence
from training.loop.trainer import train

CONTEXT = multiprocessing.get_context("fork")  # children that need not import anything
CKPT = ("--ckpt", "zoo:mixed-0")
SWEEP = ("ablate", *CKPT, "--heads", "each", "--mode", "mean", "--controls", "0", "--prompts", "64")
SWEEP = (*SWEEP, "--classes", "linear")
REPORT = ("report", *CKPT, "--no-paths", "--controls", "2", *FEW)


def command(*arguments: object) -> None:
    """A command as a process runs it."""
    sys.argv = ["interp", *map(str, arguments)]
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    main()


def started(*arguments: object) -> ForkProcess:
    child = CONTEXT.Process(target=command, args=arguments)
    child.start()
    return child


def finished(*arguments: object) -> float:
    """Run a command to its end; how long that took."""
    began, child = time.monotonic(), started(*arguments)
    child.join(120)
    assert child.exitcode == 0
    return time.monotonic() - began


def killed_at_random(kills: int, longest: float, begin: Callable[[], ForkProcess], check):
    """Start and kill so often, and look at what is left each time; how many processes had ended before."""
    moments, n_ended = random.Random(kills), 0
    for _ in range(kills):
        child = begin()
        child.join(moments.uniform(0.1, 1) * longest)
        n_ended += not child.is_alive()
        child.kill()
        child.join()
        check()
    return n_ended


def visible(directory: Path) -> dict[str, bytes]:
    """What a reader finds: all files but hidden ones and the store, whose journal is SQLite's business."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in files
        if not path.name.startswith(".") and "sqlite" not in path.name
    }


def n_pieces(directory: Path) -> int:
    if not (directory / "sweep.sqlite").exists():
        return 0
    connection = sqlite3.connect(directory / "sweep.sqlite")
    try:
        return connection.execute("SELECT count(*) FROM pieces").fetchone()[0]
    except sqlite3.OperationalError:  # killed before it made its table
        return 0
    finally:
        connection.close()


@pytest.fixture
def kept_pieces(monkeypatch):
    """Pieces that a command leaves, as if it had been killed after its last file."""
    monkeypatch.setattr(Store, "delete", lambda store: store.connection.close())


@pytest.mark.slow  # kills have to fall between two pieces, which a busy machine does not promise
def test_a_killed_sweep_goes_on_and_ends_with_the_same_bytes(tmp_path):
    whole = finished(*SWEEP, "--out", tmp_path / "whole")
    expected, pieces = visible(tmp_path / "whole"), [0]

    def check():
        for name, content in visible(tmp_path / "killed").items():
            assert content == expected[name], f"{name} is neither absent nor whole"
        if (tmp_path / "killed" / "run.json").exists():
            return  # it had ended, and deleted its pieces
        pieces.append(n_pieces(tmp_path / "killed"))
        assert pieces[-1] >= pieces[-2], "a piece was lost"

    killed_at_random(8, 0.7 * whole, lambda: started(*SWEEP, "--out", tmp_path / "killed"), check)
    assert pieces[-1] > 0
    assert len(set(pieces)) > 2, "the kills came too close to one another to test anything"
    finished(*SWEEP, "--out", tmp_path / "killed")
    assert visible(tmp_path / "killed") == expected


@pytest.mark.slow
@pytest.mark.usefixtures("kept_pieces")
def test_a_kill_while_results_are_written_leaves_every_file_whole(tmp_path):
    """The sweep is known already, so that a good part of a run writes; the results that were there are the same."""
    finished(*SWEEP, "--out", tmp_path)
    expected = visible(tmp_path)
    again = finished(*SWEEP, "--out", tmp_path)

    def check():
        assert visible(tmp_path) == expected

    killed_at_random(8, again, lambda: started(*SWEEP, "--out", tmp_path), check)


@pytest.mark.slow
def test_a_killed_report_leaves_the_one_before_or_a_whole_new_one(tmp_path):
    page = tmp_path / "r.html"
    took = finished(*REPORT, "--out", page)
    finished(*REPORT, "--seed", "1", "--out", tmp_path / "other.html")
    old, new = visible(tmp_path / "r"), visible(tmp_path / "other")

    def check():
        assert page.read_text().rstrip().endswith("</html>")
        for name, content in visible(tmp_path / "r").items():
            if name != "report.json":  # which says when it was made
                assert content in (old[name], new[name])

    killed_at_random(6, took, lambda: started(*REPORT, "--seed", "1", "--out", page), check)
    finished(*REPORT, "--seed", "1", "--out", page)
    assert {name: visible(tmp_path / "r")[name] for name in new if name != "report.json"} == {
        name: new[name] for name in new if name != "report.json"
    }


@pytest.mark.slow
def test_a_killed_set_of_runs_goes_on(tmp_path, interp, settings):
    """The parent is killed; its children, which nobody waits for now, keep their directories until they are done."""
    given = ["--seeds", "0-1", *(f"--set={setting}" for setting in settings)]
    process = interp("train", "--out", tmp_path / "whole", *given)
    assert process.wait(120) == 0
    process = interp("train", "--out", tmp_path / "killed", *given)
    while not (tmp_path / "killed" / "mixed-0" / "config.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        process = interp("train", "--out", tmp_path / "killed", "--resume", *given)
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert "is in use" in said
    for name in ("mixed-0", "mixed-1"):
        assert (tmp_path / "killed" / name / WEIGHTS).read_bytes() == (tmp_path / "whole" / name / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_two_sweeps_into_one_directory_are_one_sweep(tmp_path):
    finished(*SWEEP, "--out", tmp_path / "whole")
    children = [started(*SWEEP, "--out", tmp_path / "both") for _ in range(2)]
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0]
    assert visible(tmp_path / "both") == visible(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.usefixtures("kept_pieces")
def test_a_damaged_piece_is_measured_again(outcome, tmp_path):
    given = ("ablate", *CKPT, "--heads", "0.1", *CALM, *FEW, "--out", tmp_path)
    assert outcome(*given).code == 0
    expected = visible(tmp_path)
    for statement in (
        "UPDATE pieces SET errors = substr(errors, 1, 100)",
        "UPDATE pieces SET errors = (SELECT errors FROM pieces LIMIT 1)",
        "UPDATE pieces SET errors = 'text'",
        "UPDATE pieces SET errors = NULL",
        "UPDATE pieces SET key = upper(key)",
    ):
        connection = sqlite3.connect(tmp_path / "sweep.sqlite")
        with connection:
            connection.execute(statement)
        connection.close()
        assert outcome(*given).code == 0
        assert visible(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("kept_pieces")
def test_no_accident_to_a_store_changes_a_number(outcome, tmp_path):
    given = ("ablate", *CKPT, "--heads", "0.1", *CALM, *FEW, "--out", tmp_path)
    assert outcome(*given).code == 0
    tables = {name: content for name, content in visible(tmp_path).items() if name.endswith(".csv")}
    store, rng = (tmp_path / "sweep.sqlite").read_bytes(), random.Random(0)
    for _ in range(15):
        content = bytearray(store)
        for _ in range(rng.choice([1, 30])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / "sweep.sqlite").write_bytes(content)
        for name in tables:
            (tmp_path / name).unlink(missing_ok=True)
        found = outcome(*given)
        if found.code == 0:
            assert {name: (tmp_path / name).read_bytes() for name in tables} == tables
        else:
            assert found.refused
            assert "sweep.sqlite" in found.err


@pytest.mark.slow
@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_changes_nothing(monkeypatch, run_config, whole_run, tmp_path, jump):
    real, calls = time.time, []

    def jumping() -> float:
        calls.append(None)
        return real() + jump * (len(calls) % 3)

    monkeypatch.setattr(time, "time", jumping)
    train(run_config, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (whole_run / WEIGHTS).read_bytes()
    seconds = convergence(tmp_path / "run")["seconds"].dropna().tolist()
    assert all(0 <= one < 120 for one in seconds)
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (real() + jump, real() + jump))
    assert load(tmp_path / "run").step == 60
    mine, theirs = (convergence(one).drop(columns="seconds") for one in (tmp_path / "run", whole_run))
    pd.testing.assert_frame_equal(mine, theirs)
