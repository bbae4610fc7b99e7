"""Full and read-only disks, names that no disk takes, an output that nobody reads: one line, and nothing is lost."""

import errno
import os
import subprocess
import sys

import pandas as pd
import pytest
from damage import CALM, FEW, WEIGHTS

from interp.cli import describe_system_error
from training.checkpoints.checkpoint import load, read_resume
from training.common import atomic_files as files
from training.common.atomic_files import write_atomically
from training.loop.trainer import train

CKPT = ("--ckpt", "zoo:mixed-0")
WRITERS = {
    "history": ("history", *CKPT),
    "eval": ("eval", *CKPT, *FEW),
    "score": ("score", *CKPT, *FEW),
    "ablate": ("ablate", *CKPT, "--heads", "0.1", *CALM, *FEW),
    "patch": ("patch", *CKPT, *FEW),
    "path": ("path", *CKPT, "--from", "0.1", *FEW),
    "attribute": ("attribute", *CKPT, *FEW),
    "lens": ("lens", *CKPT, "--prompts", "16"),
    "retrospective": ("study", "retrospective", *CKPT, "--controls", "2", "--prompts", "4"),
    "plateaus": ("study", "plateaus", *CKPT, "--prompts", "4"),
    "report": ("report", *CKPT, "--controls", "2", "--no-paths", *FEW),
}
NO_SPACE, READ_ONLY = os.strerror(errno.ENOSPC), os.strerror(errno.EROFS)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=[] if name in ("score", "ablate", "plateaus") else pytest.mark.slow)
        for name in WRITERS
        if name != "history"
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(outcome, disk, command):
    place = disk("size=8k")
    found = outcome(*WRITERS[command], "--out", place)
    assert found.refused, found
    assert NO_SPACE in found.err or "disk is full" in found.err
    assert not [path for path in place.rglob("*") if path.name.endswith((".tmp", ".writable"))]
    for path in place.rglob("*.csv"):
        assert len(pd.read_csv(path))
        assert path.read_text().endswith("\n")


@pytest.mark.parametrize("command", WRITERS)
def test_a_read_only_disk_is_refused(outcome, disk, command):
    found = outcome(*WRITERS[command], "--out", disk("ro"))
    assert found.refused, found
    assert READ_ONLY in found.err


def test_training_onto_a_full_or_read_only_disk_is_one_line(outcome, disk, settings):
    place, given = disk("size=24k"), [f"--set={setting}" for setting in settings]
    found = outcome("train", "--out", place / "run", *given)
    assert found.refused
    assert NO_SPACE in found.err
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    for out in (place / "run", place / "new"):
        found = outcome("train", "--resume", "--out", out, *given)
        assert found.refused
        assert READ_ONLY in found.err


@pytest.mark.slow
def test_a_run_whose_disk_fills_up_goes_on_when_there_is_room(disk, run_config, whole_run, outcome, settings):
    """Room for the first save, and not for the next one beside it."""
    place = disk("size=240k")
    given = ["--out", place / "run", *(f"--set={setting}" for setting in settings)]
    found = outcome("train", *given)
    assert found.refused
    assert "the last save is kept: go on with --resume" in found.err
    saved = read_resume(place / "run")
    assert saved is not None
    assert load(place / "run").step in (saved[1]["step"], saved[1]["step"] - 10)
    subprocess.run(["mount", "-o", "remount,size=1m", str(place)], check=True)
    assert train(run_config, place / "run", resume=True, progress=False) == saved[1]["step"] > 0
    assert (place / "run" / WEIGHTS).read_bytes() == (whole_run / WEIGHTS).read_bytes()


def test_an_older_result_survives_a_full_disk(outcome, disk):
    place = disk("size=400k")
    assert outcome(*WRITERS["score"], "--out", place).code == 0
    before = {path: path.read_bytes() for path in place.iterdir()}
    free = os.statvfs(place)
    (place / "ballast").write_bytes(bytes(free.f_bfree * free.f_bsize))
    found = outcome(*WRITERS["score"], "--seed", "1", "--out", place)
    assert found.refused
    assert NO_SPACE in found.err
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_sweep_on_a_full_disk_keeps_its_pieces(outcome, disk, tmp_path):
    place = disk("size=40k")
    given = ("ablate", *CKPT, "--heads", "each", "--mode", "mean", "--controls", "0", *FEW)
    found = outcome(*given, "--out", place)
    assert found.refused, found
    subprocess.run(["mount", "-o", "remount,size=4m", str(place)], check=True)
    assert outcome(*given, "--out", place).code == 0
    assert outcome(*given, "--out", tmp_path / "fresh").code == 0
    for path in (tmp_path / "fresh").glob("*.csv"):
        assert (place / path.name).read_bytes() == path.read_bytes()


def test_a_write_that_is_refused_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, NO_SPACE)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*scores\.csv"):
        write_atomically(tmp_path / "scores.csv", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [250, 255])
def test_a_file_may_be_called_as_long_as_the_disk_allows(tmp_path, length):
    path = tmp_path / ("x" * length)
    write_atomically(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def interp(*arguments: str, stdout: int, stderr: int = subprocess.PIPE, **more) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    command = [sys.executable, "-m", "interp", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=stderr, text=True, env=environment, check=False)


def test_an_output_that_is_full_is_exit_2():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = interp("zoo", "list", stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr == f"interp: cannot use 'stdout': {NO_SPACE}\n"


def test_an_error_without_a_file_is_not_blamed_on_stdout():
    assert describe_system_error(OSError(errno.EMFILE, "Too many open files")) == (
        "the operating system reports: Too many open files"
    )
    assert describe_system_error(OSError("no such host")) == "the operating system reports: no such host"
    assert describe_system_error(OSError()) == "the operating system reports: OSError"


@pytest.mark.slow
def test_an_output_that_nobody_reads_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = interp("zoo", "list", stdout=writer)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.slow
def test_an_error_keeps_its_exit_code_where_nobody_reads_it():
    reader, writer = os.pipe()
    os.close(reader)
    done = interp("zoo", "path", "nothing", stdout=writer, stderr=writer)
    os.close(writer)
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_gives_nothing_to_the_other_one(closed):
    """`2>&-`: the message does not go to stdout, nor does a table go to stderr."""
    words = {1: "zoo list --json", 2: "zoo path nothing"}[closed]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["sh", "-c", f'exec "$0" -m interp {words} {closed}>&-', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode == {1: 0, 2: 2}[closed]


def test_a_directory_that_has_been_deleted_is_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["sh", "-c", 'cd "$1" && rmdir "$1" && exec "$0" -m interp score --ckpt x', sys.executable]
    command = [*command, str(tmp_path / "gone")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == "interp: the current directory has been deleted: change to one that exists\n"
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.slow
def test_an_output_that_knows_only_ascii_is_no_traceback():
    done = interp("eval", *CKPT, *FEW, stdout=subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "MSE / E[y\\xb2]" in done.stdout


@pytest.mark.slow
def test_a_backend_of_matplotlib_that_does_not_exist_is_not_asked_for(interp, tmp_path, monkeypatch):
    """Nor one that needs a display: the command line draws into files."""
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    process = interp(
        "score", "--ckpt", "zoo:linear-0", "--classes", "linear", "--prompts", 16, "--json", "--out", tmp_path,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert list(tmp_path.glob("*.png"))
