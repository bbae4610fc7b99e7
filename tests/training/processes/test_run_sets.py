import signal
import time

import pytest

from training.checkpoints.checkpoint import load, read_history
from training.common.errors import UserError
from training.config.parse import from_preset
from training.loop.trainer import train
from training.processes.run_sets import parse_seeds


@pytest.mark.slow
def test_a_set_of_runs_is_the_runs_one_by_one(interp, quick_settings, tmp_path):
    process = interp(
        "train", "--curriculum", "mixed,single:linear", "--seeds", "0-1", "--out", tmp_path / "set", *quick_settings
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    names = sorted(path.name for path in (tmp_path / "set").iterdir() if path.is_dir())
    assert names == ["mixed-0", "mixed-1", "single-linear-0", "single-linear-1"]
    settings = [argument for argument in quick_settings if argument != "--set"]
    train(from_preset("tiny", "single:linear", 1, settings), tmp_path / "alone")
    alone, of_set = (tmp_path / "alone", tmp_path / "set" / "single-linear-1")
    assert (alone / "model.safetensors").read_bytes() == (of_set / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_set_reports_which_runs_failed_and_why(interp, quick_settings, tmp_path):
    given = ["--set", "recipe.lr=1e30", "--set", "recipe.grad_clip=0"]
    process = interp("train", "--seeds", "3,5", "--out", tmp_path, *quick_settings, *given)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("interp: 2 of 2 runs failed: mixed-")
    assert "diverged" in last
    assert (tmp_path / "mixed-3.log").read_text().strip().endswith(last.split("mixed-3: interp: ")[1].split(";")[0])


@pytest.mark.slow
def test_files_of_the_users_are_not_imported_by_the_runs_of_a_set(outcome, quick_settings, tmp_path, monkeypatch):
    """`random.py` and `training/` in the current directory, where the command line itself does not look."""
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    short = [setting.replace("recipe.steps=60", "recipe.steps=2") for setting in quick_settings]
    ended = outcome("train", "--seeds", "0", "--out", "runs", *short)
    assert ended.code == 0, ended.err
    assert load(tmp_path / "runs" / "mixed-0").step == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_set_saves_all_its_runs(interp, quick_settings, tmp_path, number):
    changed = {"recipe.steps=60": "recipe.steps=500000", "record.save_every=10": "record.save_every=100000"}
    settings = [changed.get(setting, setting) for setting in quick_settings]
    process = interp("train", "--seeds", "0-1", "--jobs", 2, "--out", tmp_path, *settings)
    deadline = time.monotonic() + 90
    while not all(any(r["step"] >= 25 for r in read_history(tmp_path / f"mixed-{seed}")) for seed in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert all(load(tmp_path / f"mixed-{seed}").step >= 25 for seed in (0, 1))


@pytest.mark.parametrize("text", ["", "x", "3-1", "1,1", "0-", "-1", "0-2,1"])
def test_what_are_no_seeds_is_refused(text):
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)
