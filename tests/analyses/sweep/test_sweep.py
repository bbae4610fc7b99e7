"""Sweeps as they run: processes, kills, second calls, and the same bits as by hand."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analyses.sweep.cell import holder
from analyses.sweep.commands import sweep
from training.checkpoint import load, read_resume
from training.errors import CheckError
from training.settings import from_preset
from training.trainer import train

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


def tried(cells: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, cell in cells.items() if cell["tries"]]


def files(directory: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_a_sweep_gives_the_bits_of_runs_by_hand_and_a_second_call_does_what_is_missing(
    ran, interp, settings, tmp_path, monkeypatch
):
    """With one process at a time and with two; started elsewhere, with a file there that looks like our package."""
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "two" / "sweep.toml", settings, seeds="0-1", rest=ANALYSE + STUDY)
    (file.parent / "training.py").write_text("raise SystemExit('run by mistake')")
    grid = file.parent / "grid"
    cells = ran(file, jobs=2)
    assert {cell["state"] for cell in cells.values()} == {"done"}
    assert {cell["tries"] for cell in cells.values()} == {1}
    assert len(cells) == 5

    ran(write(tmp_path / "one" / "sweep.toml", settings, rest=ANALYSE), jobs=1)
    train(from_preset("tiny", "mixed", 0, settings), tmp_path / "hand")
    hand, one, two = (tmp_path / "hand"), (tmp_path / "one" / "grid" / "runs" / "mixed-0"), grid / "runs" / "mixed-0"
    assert weights(hand) == weights(one) == weights(two)
    process = interp(
        "score", "--prompts", 16, "--ckpt", "grid/runs/mixed-0", "--out", tmp_path / "scores", cwd=tmp_path / "one"
    )
    process.communicate(timeout=120)
    tables = [where / "analyses" / "score" / "mixed-0" for where in (grid, tmp_path / "one" / "grid")]
    for table in (*tables, tmp_path / "scores"):
        assert (table / "scores.csv").read_bytes() == (tables[0] / "scores.csv").read_bytes()

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


def saved_after(run: Path, log_lines: int = 0) -> int:
    """Wait until the run has saved, by a process that has begun the log's last try; returns the saved step."""
    deadline = time.monotonic() + 120
    log = run.with_name(f"{run.name}.log")
    while True:
        assert time.monotonic() < deadline
        if (run / "resume" / "state.safetensors").exists() and log.read_text().count("$ interp") > log_lines:
            saved = read_resume(run)
            if saved:
                return saved[1]["step"]
        time.sleep(0.01)


def pid_of(lock: Path) -> int:
    text = lock.read_text()
    assert holder(lock) == text
    return int(text.split()[1])


def wait_until(happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


LONG = ["recipe.steps = 3000", "record.eval_every = 1000"]


def lengthened(settings: list[str]) -> list[str]:
    changed = {setting.partition("=")[0].strip() for setting in LONG}
    return [one for one in settings if one.partition("=")[0] not in changed] + LONG


def test_a_killed_worker_and_a_killed_driver_lose_nothing_that_was_saved(ran, interp, settings, tmp_path):
    file = write(tmp_path / "sweep.toml", lengthened(settings))
    run, lock = tmp_path / "grid" / "runs" / "mixed-0", tmp_path / "grid" / ".locks" / "runs" / "mixed-0"
    driver = interp("sweep", file, "--jobs", 1)
    first = saved_after(run)
    os.kill(pid_of(lock), signal.SIGKILL)

    second = saved_after(run, log_lines=1)  # by the second try, which the driver has begun
    wait_until(lambda: holder(lock) and (read_resume(run) or ({}, {"step": 0}))[1]["step"] > second)
    worker = pid_of(lock)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not holder(lock))  # the worker has noticed, saved and stopped
    saved = read_resume(run)
    assert saved is not None
    assert 3000 > saved[1]["step"] > second >= first
    assert not Path(f"/proc/{worker}/exe").exists()

    cells = ran(file)
    assert tried(cells) == ["runs/mixed-0"]
    log = run.with_name("mixed-0.log").read_text()
    assert log.count("$ interp train") == 3
    assert f"resumed at step {saved[1]['step']}" in log
    hand = [one.replace(" ", "") for one in lengthened(settings)]
    train(from_preset("tiny", "mixed", 0, hand), tmp_path / "hand")
    assert weights(run) == weights(tmp_path / "hand")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_saves_and_a_second_call_goes_on(interp, settings, tmp_path, number):
    file = write(tmp_path / "sweep.toml", [*lengthened(settings), "record.save_every = 100000"][1:], seeds="0-1")
    file.write_text(file.read_text().replace("record.save_every=10\n", ""))
    runs = [tmp_path / "grid" / "runs" / f"mixed-{seed}" for seed in (0, 1)]
    driver = interp("sweep", file, "--jobs", 2)
    wait_until(lambda: all((run / "snapshots" / "step-000013.safetensors").exists() for run in runs))
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "Traceback" not in errors
    for run in runs:
        saved = read_resume(run)
        assert saved is not None
        assert load(run).step == saved[1]["step"] >= 13


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
