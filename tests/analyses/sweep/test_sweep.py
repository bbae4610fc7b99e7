"""Sweeps as they run: processes, kills, second calls, and the same bits as by hand."""

import json
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import grids
import pandas as pd
import pytest

from analyses.sweep.cell import holder
from analyses.sweep.commands import sweep
from training.checkpoints.checkpoint import load, read_resume
from training.common.errors import CheckError
from training.config.parse import from_preset
from training.loop.trainer import train
from training.processes.run_sets import steps_done

ANALYSE = '[[analyse]]\ncommand = "score --prompts 16"\nname = "score"\n'
STUDY = '[[study]]\ncommand = "history"\n'


def write(file: Path, settings: list[str], *, seeds: str = "0", rest: str = "", train: str = "") -> Path:
    """A sweep of quick runs."""
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(['out = "grid"', "[train]", f'seeds = "{seeds}"', train, "[train.set]", *settings, rest]))
    return file


@pytest.fixture
def settings(quick_settings) -> list[str]:
    return [setting for setting in quick_settings if setting != "--set"]


@pytest.fixture
def ran(capfd):
    """Runs a sweep in this process (its cells have their own) and gives its cells by name."""

    def run(file: Path, **options) -> dict[str, dict[str, Any]]:
        capfd.readouterr()
        sweep(file, json=True, **options)
        return {row["cell"]: row for row in json.loads(capfd.readouterr().out)["cells"]}

    return run


@pytest.fixture
def start(interp):
    """Starts a sweep in a process of its own, which does not outlive the test; its cells end with it."""
    drivers: list[subprocess.Popen[str]] = []

    def driver(file: Path, **options: object) -> "subprocess.Popen[str]":
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        drivers.append(interp("sweep", file, *words))
        return drivers[-1]

    yield driver
    for one in drivers:
        one.kill()
        one.wait()
        assert one.stderr is not None
        one.stderr.close()


def tried(cells: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, cell in cells.items() if cell["tries"]]


def files(directory: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_sweep_gives_the_bits_of_runs_by_hand_and_a_second_call_does_what_is_missing(
    ran, interp, settings, tmp_path, monkeypatch
):
    """Two processes at a time, started elsewhere, with a file there that looks like our package."""
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "two" / "sweep.toml", settings, seeds="0-1", rest=ANALYSE + STUDY)
    mistaken = file.parent / "training.py"
    mistaken.write_text("raise SystemExit('run by mistake')")
    grid = file.parent / "grid"
    cells = ran(file, jobs=2)
    assert {cell["state"] for cell in cells.values()} == {"done"}
    assert {cell["tries"] for cell in cells.values()} == {1}
    assert len(cells) == 5
    mistaken.unlink()

    train(from_preset("tiny", "mixed", 0, settings), tmp_path / "hand")
    assert weights(tmp_path / "hand") == weights(grid / "runs" / "mixed-0")
    process = interp(
        "score", "--prompts", 16, "--ckpt", "grid/runs/mixed-0", "--out", tmp_path / "scores", cwd=file.parent
    )
    process.communicate(timeout=120)
    table = grid / "analyses" / "score" / "mixed-0" / "scores.csv"
    assert table.read_bytes() == (tmp_path / "scores" / "scores.csv").read_bytes()

    gathered = pd.read_csv(grid / "tables" / "score" / "scores.csv", dtype=str)
    parts = {run: pd.read_csv(grid / "analyses" / "score" / run / "scores.csv", dtype=str) for run in gathered["run"]}
    assert [*parts] == ["mixed-0", "mixed-1"]
    pd.testing.assert_frame_equal(gathered.drop(columns="run"), pd.concat(parts.values(), ignore_index=True))

    before = files(grid)
    assert tried(ran(file)) == []
    assert {path: now for path, now in files(grid).items() if "tables" not in path.parts} == {
        path: then for path, then in before.items() if "tables" not in path.parts
    }
    write(file, settings, seeds="0-2", rest=ANALYSE + STUDY)
    cells = ran(file)
    assert tried(cells) == ["runs/mixed-2", "analyses/score/mixed-2", "studies/history"]

    shutil.rmtree(grid / "runs" / "mixed-1")  # trained again it has the same weights, so nothing else is affected
    assert tried(ran(file)) == ["runs/mixed-1"]


@pytest.mark.slow
def test_the_shards_of_one_analysis_together_are_the_whole(ran, interp, tmp_path):
    command = 'command = "patch --site resid_pre --prompts 16"'
    text = (
        f'out = "grid"\nckpt = "zoo:mixed-0"\n[[analyse]]\nname = "map"\n{command}\nset.classes = ["linear", "cubic"]'
    )
    (tmp_path / "sweep.toml").write_text(text)
    assert len(tried(ran(tmp_path / "sweep.toml"))) == 2
    whole = ("patch", "--site", "resid_pre", "--prompts", 16, "--classes", "linear,cubic", "--ckpt", "zoo:mixed-0")
    interp(*whole, "--out", tmp_path / "whole", stdout=subprocess.DEVNULL).communicate(timeout=120)
    shards = pd.read_csv(tmp_path / "grid" / "tables" / "map" / "patching.csv", dtype=str)
    assert [*shards.columns[:2]] == ["run", "classes"]
    assert shards["classes"].tolist() == shards["function_class"].tolist()
    together = pd.read_csv(tmp_path / "whole" / "patching.csv", dtype=str)
    pd.testing.assert_frame_equal(shards.drop(columns=["run", "classes"]), together)


@pytest.mark.slow
def test_what_fails_is_tried_again_and_told_and_the_rest_is_done(settings, tmp_path, capfd):
    settings = [one for one in settings if "grad_clip" not in one]
    lr = ["recipe.lr = [1e30, 1e-3]", "recipe.grad_clip = 0"]
    file = write(tmp_path / "sweep.toml", [*settings, *lr], rest=ANALYSE + STUDY)
    with pytest.raises(CheckError, match=r"1 of 5 cells failed \(runs/mixed-recipe.lr=1e\+30-0\), 2 skipped \("):
        sweep(file, jobs=2)
    out, err = capfd.readouterr()
    log = tmp_path / "grid" / "runs" / "mixed-recipe.lr=1e+30-0.log"
    assert f"runs/mixed-recipe.lr=1e+30-0 failed twice, exit code 1; {log} ends with:\n    interp: training di" in err
    assert "analyses/score/mixed-recipe.lr=1e+30-0 was skipped: it needs runs/mixed-recipe.lr=1e+30-0" in err
    assert "studies/history was skipped" in err
    assert log.read_text().count("$ interp train --preset tiny --curriculum mixed --seed 0") == 2
    assert (tmp_path / "grid" / "analyses" / "score" / "mixed-recipe.lr=0.001-0" / "scores.csv").exists()
    rows = {line.split()[1]: line.split() for line in out.splitlines() if "│" in line}
    assert [rows[name][3:-1:2] for name in ("train", "score", "history")] == [
        ["1", "1", "0", "2"], ["1", "0", "1", "2"], ["0", "0", "1", "1"],
    ]  # fmt: skip


def pid_of(lock: Path) -> int | None:
    """The process that holds the lock; None until one does and has said so."""
    who = (holder(lock) or "").split()
    return int(who[1]) if who[:1] == ["process"] else None


def step_of(run: Path) -> int:
    """The step of the last save."""
    saved = read_resume(run)
    return saved[1]["step"] if saved else 0


wait_until = partial(grids.wait_until, seconds=120)
LONG = {"recipe.steps=60": "recipe.steps=800", "record.eval_every=25": "record.eval_every=400"}
ENDLESS = {"recipe.steps=60": "recipe.steps=20000", "record.save_every=10": "record.save_every=20000"}


def lengthened(settings: list[str], changes: dict[str, str] = LONG) -> list[str]:
    return [changes.get(one, one) for one in settings]


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_driver_lose_nothing_that_was_saved(ran, start, settings, tmp_path):
    file = write(tmp_path / "sweep.toml", lengthened(settings))
    run, lock = tmp_path / "grid" / "runs" / "mixed-0", tmp_path / "grid" / ".locks" / "runs" / "mixed-0"
    driver = start(file, jobs=1)
    wait_until(lambda: step_of(run), driver)
    first_worker = pid_of(lock)
    assert first_worker
    os.kill(first_worker, signal.SIGKILL)

    wait_until(lambda: pid_of(lock) not in (None, first_worker), driver)  # the driver tries again
    saved = step_of(run)
    assert saved >= 10
    wait_until(lambda: step_of(run) > saved, driver)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not holder(lock))  # the worker has noticed
    resumed_at = step_of(run)
    assert saved < resumed_at < 800

    assert tried(ran(file)) == ["runs/mixed-0"]
    log = run.with_name("mixed-0.log").read_text()
    assert log.count("$ interp train") == 3
    assert f"resumed at step {resumed_at}" in log
    train(from_preset("tiny", "mixed", 0, lengthened(settings)), tmp_path / "hand")
    assert weights(run) == weights(tmp_path / "hand")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_sweep_that_is_asked_to_stop_or_killed_has_its_runs_save_at_once(start, settings, tmp_path, number):
    file = write(tmp_path / "sweep.toml", lengthened(settings, ENDLESS), seeds="0-1")
    runs = [tmp_path / "grid" / "runs" / f"mixed-{seed}" for seed in (0, 1)]
    driver = start(file, jobs=2)
    wait_until(lambda: all(steps_done(run) >= 25 for run in runs), driver)
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == (-number if number == signal.SIGKILL else 130)
    assert "Traceback" not in errors
    wait_until(lambda: not any(holder(tmp_path / "grid" / ".locks" / "runs" / run.name) for run in runs))
    assert all(load(run).step == step_of(run) >= 25 for run in runs)


def test_a_dry_run_lists_what_is_done_and_starts_nothing(settings, tmp_path, capfd):
    file = write(tmp_path / "sweep.toml", settings, seeds="0-1", rest=ANALYSE)
    train(from_preset("tiny", "mixed", 1, settings), tmp_path / "grid" / "runs" / "mixed-1")
    before = files(tmp_path)
    sweep(file, dry_run=True)
    lines = capfd.readouterr().out.splitlines()
    assert [line[:5] for line in lines[:4]] == ["to do", "to do", "done ", "to do"]
    assert lines[2].startswith("done   runs/mixed-1: interp train --preset tiny --curriculum mixed --seed 1 ")
    assert lines[3].endswith("score --prompts 16 --ckpt grid/runs/mixed-1 --out grid/analyses/score/mixed-1")
    assert lines[4:] == ["1 of 4 cells are done"]
    assert files(tmp_path) == before
