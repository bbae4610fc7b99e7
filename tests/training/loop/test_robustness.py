"""Whatever happens to a run, the last good state stays and resuming gives the bits of a run that was left alone."""

import errno
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import time

import pytest

from training.checkpoints import checkpoint
from training.checkpoints import run_directory as rundir
from training.checkpoints.checkpoint import load, read_config, read_history, read_resume
from training.checkpoints.run_directory import locked
from training.checkpoints.upgrade import upgrade_run
from training.common.errors import UserError
from training.config.parse import from_preset, to_dict
from training.loop.trainer import train


def weights(directory):
    return (directory / "model.safetensors").read_bytes()


def without_clock(directory):
    return [{key: row[key] for key in row if key != "seconds"} for row in read_history(directory)]


@pytest.fixture
def settings(quick_settings):
    return [argument for argument in quick_settings if argument != "--set"]


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit code and what it said on stderr."""
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("n_kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_leave_no_trace(n_kills, settings, tmp_path):
    """The children are forks of this process, so that most of their life is training rather than importing torch."""
    config = from_preset(
        "tiny", "mixed", 0, [*settings, f"recipe.steps={40 * n_kills}", "record.save_every=3", "record.eval_every=100"]
    )
    started = time.monotonic()
    train(config, tmp_path / "whole")
    whole = time.monotonic() - started
    moments, context = random.Random(0), multiprocessing.get_context("fork")
    killed, steps = 0, set()
    while killed < n_kills:
        child = context.Process(target=train, args=(config, tmp_path / "killed"), kwargs={"resume": True})
        child.start()
        time.sleep(moments.uniform(0.02, 0.12) * whole)
        if not child.is_alive():  # it was finished before it had been killed often enough: begin another one
            checkpoint.delete_run(tmp_path / "killed")
            continue
        child.kill()
        child.join()
        killed += 1
        saved = read_resume(tmp_path / "killed")
        steps.add(saved[1]["step"] if saved else 0)
    assert len(steps) > n_kills // 3, "the kills came too soon after one another to test anything"
    train(config, tmp_path / "killed", resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert without_clock(tmp_path / "killed") == without_clock(tmp_path / "whole")
    assert checkpoint.snapshot_steps(tmp_path / "killed") == checkpoint.snapshot_steps(tmp_path / "whole")
    for step in checkpoint.snapshot_steps(tmp_path / "whole"):
        names = [checkpoint.snapshot_path(tmp_path / name, step) for name in ("killed", "whole")]
        assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_saves_its_last_step_and_exits_130(interp, settings, tmp_path, number):
    config = from_preset("tiny", "mixed", 0, [*settings, "recipe.steps=400", "record.save_every=100000"])
    given = [f"--set={setting}" for setting in [*settings, "recipe.steps=400", "record.save_every=100000"]]
    process = interp("train", "--out", tmp_path / "cut", *given)
    wait_for(lambda: any(row["step"] >= 25 for row in read_history(tmp_path / "cut")))
    process.send_signal(number)
    assert ended(process)[0] == 130
    saved = read_resume(tmp_path / "cut")
    assert saved is not None
    assert saved[1]["step"] >= 25
    assert load(tmp_path / "cut").step == saved[1]["step"]
    assert train(config, tmp_path / "cut", resume=True) == saved[1]["step"]
    train(config, tmp_path / "whole")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert without_clock(tmp_path / "cut") == without_clock(tmp_path / "whole")


@pytest.mark.slow
def test_a_file_that_cannot_grow_is_one_line_and_costs_nothing(interp, settings, tmp_path):
    """The kernel refuses files above a size, as a full disk would: config.json fits, the state of a save does not."""
    given = ["--out", str(tmp_path / "full"), *(f"--set={setting}" for setting in settings)]
    limit = 30_000

    def no_large_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code, errors = ended(interp("train", *given, preexec_fn=no_large_files))
    assert code == 2
    assert errors.strip().splitlines()[-1].startswith(f"interp: cannot write to '{tmp_path / 'full'}'")
    assert "Traceback" not in errors
    assert not [path for path in (tmp_path / "full").rglob("*") if path.name.endswith(".tmp")]
    config = from_preset("tiny", "mixed", 0, settings)
    assert train(config, tmp_path / "full", resume=True) == 0
    train(config, tmp_path / "whole")
    assert weights(tmp_path / "full") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_the_save_before(settings, tmp_path, monkeypatch):
    config = from_preset("tiny", "mixed", 0, settings)
    calls, fsync = [], os.fsync

    def full_after_a_while(handle):
        calls.append(handle)
        if len(calls) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full_after_a_while)
    with pytest.raises(UserError, match="No space left on device; the last save is kept: go on with --resume"):
        train(config, tmp_path / "full")
    monkeypatch.undo()
    step = train(config, tmp_path / "full", resume=True)
    assert 0 < step < 60
    train(config, tmp_path / "whole")
    assert weights(tmp_path / "full") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_second_process_on_a_run_is_refused(interp, settings, tmp_path):
    config = from_preset("tiny", "mixed", 0, settings)
    with locked(tmp_path / "run"), pytest.raises(UserError, match="is in use: another process trains in it"):
        train(config, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    train(config, tmp_path / "run")
    before = weights(tmp_path / "run")
    given = [f"--set={setting}" for setting in settings]
    with locked(tmp_path / "run"):
        code, errors = ended(interp("train", "--out", tmp_path / "run", "--force", *given))
    assert code == 2
    assert "is in use" in errors
    assert weights(tmp_path / "run") == before


@pytest.fixture
def run_of_version_1(settings, tmp_path):
    config = from_preset("tiny", "mixed", 0, settings)
    train(config, tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    document = json.loads(path.read_text())
    for added in ("schedule", "growth", "instruction"):
        del document["run"][added]
    del document["run"]["data"]["inputs"]
    path.write_text(json.dumps(document | {"format_version": 1}))
    return tmp_path / "old", config


def test_an_older_run_is_refused_with_the_way_to_convert_it(run_of_version_1):
    directory, config = run_of_version_1
    with pytest.raises(UserError, match=f"has format version 1; .* `interp upgrade --ckpt {directory}`"):
        load(directory)
    assert upgrade_run(directory) == (1, checkpoint.FORMAT_VERSION)
    assert to_dict(read_config(directory)) == to_dict(config)
    load(directory)
    with pytest.raises(UserError, match="already"):
        upgrade_run(directory)


def test_what_cannot_be_converted_stays_as_it_is(run_of_version_1):
    directory, _ = run_of_version_1
    path = directory / "config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"format_version": 99}))
    before = path.read_bytes()
    with pytest.raises(UserError, match="format version 99; versions that can be converted"):
        upgrade_run(directory)
    with pytest.raises(UserError, match="has format version 99"):
        load(directory)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", ["1", True, None])
def test_a_run_that_says_no_version_is_not_converted(tmp_path, version):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"format_version": version, "run": {}}))
    before = path.read_bytes()
    with pytest.raises(UserError, match="has no format version"):
        upgrade_run(tmp_path)
    assert path.read_bytes() == before


def test_a_run_that_is_not_finished_is_not_converted(settings, tmp_path, train_until):
    train_until(from_preset("tiny", "mixed", 0, settings), tmp_path, 10)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 1}))
    before = path.read_bytes()
    with pytest.raises(UserError, match="is not finished"):
        upgrade_run(tmp_path)
    assert path.read_bytes() == before


def test_a_run_goes_on_where_its_prompts_are_the_same(settings, tmp_path, train_until, monkeypatch):
    config = from_preset("tiny", "mixed", 0, settings)
    train_until(config, tmp_path, 10)
    tensors, counters = checkpoint.read_resume(tmp_path, config) or ({}, {})
    monkeypatch.setattr(checkpoint, "read_resume", lambda *_: (tensors, counters | {"device": "cuda"}))
    with pytest.raises(UserError, match=r"begun on cuda, which draws other prompts than cpu: .* --device cuda$"):
        train(config, tmp_path, resume=True)


def test_a_run_is_not_written_to_a_file(settings, tmp_path):
    config, file = from_preset("tiny", "mixed", 0, settings), tmp_path / "file"
    file.write_text("something else")
    with pytest.raises(UserError, match="file is a file; a directory is needed"):
        rundir.check(config, file, resume=False, force=True)
