"""Other people's files: none is followed, waited for, or deleted, and each is called what it is."""

import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from damage import CONFIG, HISTORY, RESUME, SNAPSHOT, WEIGHTS

from analyses.sweep.cell import locked
from analyses.sweep.settings import read as read_sweep
from interp.ablation.store import Store
from training.checkpoints.checkpoint import delete_run, load
from training.checkpoints.history import LONGEST_ROW, append_rows, history_text, read_history
from training.checkpoints.run_directory import check_history_size
from training.checkpoints.tensor_files import LARGEST_HEADER, read_metadata
from training.common.atomic_files import TEMPORARY, created, open_own, temporary_file, write_atomically
from training.common.errors import UserError
from training.common.output import prepare_directory
from training.loop.trainer import train
from training.processes.processes import Task, last_words


def zipped() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("data.pkl", "")
    return content.getvalue()


KINDS = {
    "a PNG image": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a pickle": pickle.dumps({"a": 1}),
    "a zip archive (as `torch.save` writes)": zipped(),
    "a gzip archive": b"\x1f\x8b\x08" + bytes(100),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "an HTML page": b"\n<!DOCTYPE html><html></html>\n",
    "text in UTF-16": '{"run": 1}\n'.encode("utf-16"),
    "empty": b"",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, HISTORY])
def test_a_file_that_is_something_else_is_called_what_it_is(copied, whole_run, name, kind):
    run = copied(whole_run)
    (run / name).write_bytes(KINDS[kind])
    if (name, kind) == (HISTORY, "empty"):
        assert read_history(run) == []
        return
    with pytest.raises(UserError) as refusal:
        load(run), read_history(run)
    assert str(run / name) in str(refusal.value)
    assert f"it is {kind}" in str(refusal.value)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, HISTORY])
def test_a_directory_is_called_one(copied, whole_run, name):
    run = copied(whole_run)
    (run / name).unlink()
    (run / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is damaged: it is a directory, not a plain file"):
        load(run), read_history(run)


def test_weights_called_config_are_called_weights(copied, whole_run):
    run = copied(whole_run)
    (run / WEIGHTS).rename(run / CONFIG)
    with pytest.raises(UserError, match="it is a safetensors file, not JSON"):
        load(run)


SWEEPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a pipe, not a plain file"),
    "link to a pipe": (lambda path: (os.mkfifo(path.with_name("p")), path.symlink_to("p")), "it is a pipe"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "directory": (Path.mkdir, "it is a directory"),
    "huge": (lambda path: (path.touch(), os.truncate(path, 2**40)), "and none of ours has more than 262144"),
    "picture": (lambda path: path.write_bytes(KINDS["a PNG image"]), "it is a PNG image, not TOML"),
}


@pytest.mark.parametrize("kind", SWEEPS)
def test_a_sweep_file_that_is_none_is_refused_at_once(tmp_path, kind):
    make, message = SWEEPS[kind]
    make(tmp_path / "sweep.toml")
    with pytest.raises(UserError, match=message):
        read_sweep(tmp_path / "sweep.toml")


def test_a_sweep_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "sweep.toml").write_bytes('\ufeffout = "x"\r\nckpt = "zoo:mixed-0"\r\n'.encode())
    assert read_sweep(tmp_path / "sweep.toml").ckpt == ("zoo:mixed-0",)


def test_a_header_is_limited_before_it_is_read(tmp_path):
    path = tmp_path / WEIGHTS
    path.write_bytes((LARGEST_HEADER + 1).to_bytes(8, "little"))
    os.truncate(path, LARGEST_HEADER + 9)
    with pytest.raises(UserError, match="its header announces 4194305 bytes, and none of ours has more than 4194304"):
        read_metadata(path)


def test_a_history_that_would_be_too_large_to_read_is_never_begun(run_config, tmp_path):
    recipe = replace(run_config.recipe, steps=10**7)

    def config(eval_every: int):
        return replace(run_config, recipe=recipe, record=replace(run_config.record, eval_every=eval_every))

    with pytest.raises(UserError, match=r"record\.eval_every=1: 10000000 steps .* above 64 MiB") as refusal:
        train(config(1), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    least = int(re.findall(r"\d+", str(refusal.value))[-1])
    check_history_size(config(least))
    with pytest.raises(UserError, match=f"valid: at least {least}"):
        check_history_size(config(least - 1))


def test_no_row_of_a_history_is_longer_than_its_size_is_reckoned(whole_run):
    longest = {int: 10**18, float: -sys.float_info.min, type(None): -sys.float_info.min, str: ""}
    row = {key: longest[type(value)] for key, value in read_history(whole_run)[-1].items()}
    text = history_text([row | {"run": "0" * 16, "flops": 10**30 - 1}])
    assert 400 < len(text) <= LONGEST_ROW


@pytest.fixture
def target(tmp_path) -> Path:
    """A file of the user's, outside the directory that is written to."""
    path = tmp_path / "thesis.tex"
    path.write_text("years of work")
    return path


@pytest.fixture
def out(tmp_path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "store": ("sweep.sqlite", lambda path: Store(path.parent)),
    "history": (HISTORY, lambda path: append_rows(path.parent, [{"step": 1}])),
    "lock": ("lock", lambda path: locked(path).__enter__()),
    "log": ("log", lambda path: Task("t", ("-V",), "python -V", path).start()),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("make", [lambda path, target: path.symlink_to(target), lambda path, _: os.mkfifo(path)])
def test_what_is_written_to_is_neither_a_link_nor_a_pipe(out, target, writer, make):
    name, write = WRITERS[writer]
    make(out / name, target)
    with pytest.raises((OSError, UserError)):
        write(out / name)
    assert target.read_text() == "years of work"


def test_a_file_that_is_replaced_is_a_link_no_more(out, target):
    (out / "scores.csv").symlink_to(target)
    write_atomically(out / "scores.csv", b"new")
    assert target.read_text() == "years of work"
    assert (out / "scores.csv").read_bytes() == b"new"
    assert not (out / "scores.csv").is_symlink()


def test_only_what_a_killed_process_left_is_removed(out, target):
    left, handle = created(out / "scores.csv")
    os.close(handle)
    held, handle = created(out / "scores.csv")
    link = out / f".x.{'0' * 16}.interp.tmp"
    link.symlink_to(target)
    theirs = [out / name for name in (".writable", ".scores.csv.123.tmp", "notes.interp.tmp")]
    for path in theirs:
        path.write_text("mine")
    assert TEMPORARY.fullmatch(left.name)
    prepare_directory(out)
    write_atomically(out / "scores.csv", b"new")
    os.close(handle)
    assert not left.exists()
    assert {path.name for path in out.iterdir()} == {path.name for path in (held, link, *theirs, out / "scores.csv")}
    assert target.read_text() == "years of work"


def test_a_temporary_file_has_the_rights_of_any_other(out):
    before = os.umask(0o027)
    try:
        write_atomically(out / "a", b"")
    finally:
        os.umask(before)
    assert (out / "a").stat().st_mode & 0o777 == 0o640


def test_no_two_temporary_files_share_a_name(out):
    with temporary_file(out / "a") as (first, _), temporary_file(out / "a") as (second, _):
        assert first != second
    assert list(out.iterdir()) == []


def test_a_run_that_is_overwritten_leaves_what_others_put_there(copied, cut_run):
    run = copied(cut_run)
    theirs = [run / "notes.md", run / "snapshots" / "notes.md", run / "resume" / "copy.safetensors"]
    for path in theirs:
        path.write_text("mine")
    delete_run(run)
    assert all(path.read_text() == "mine" for path in theirs)
    assert not any((run / name).exists() for name in (CONFIG, WEIGHTS, HISTORY, SNAPSHOT, RESUME))


def test_the_end_of_a_log_is_read_alone(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(2**36)
        file.seek(0, os.SEEK_END)
        file.write(b"\n$ interp train\nfirst\nlast\n")
    assert last_words(log, 5) == ["first", "last"]
    log.unlink()
    os.mkfifo(log)
    assert last_words(log, 5) == []


def test_a_file_of_ours_that_is_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"plain file|No such device"):
        open_own(tmp_path / "pipe")
