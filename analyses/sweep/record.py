"""What a finished cell leaves beside its results: which command made them, by which code, from which weights.

A cell is done when that is exactly what it would do now. A run needs no record: its own directory says what it is and
whether it is finished, and a newer version of this package does not train it anew.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from analyses.sweep.plan import Cell, Place, pairs
from interp.ablation.store import source_hash
from training.checkpoints.checkpoint import locate, read_document, weights_path, write_atomically
from training.checkpoints.run_directory import is_finished
from training.common.atomic_files import open_plain, parse_json, read_parsed
from training.common.errors import UserError

FILE = ".cell.json"
LARGEST = 2**24  # bytes; a study of thousands of checkpoints names them all
PACKAGES = ("training", "interp", "analyses")

Record = dict[str, Any]


def record(arguments: Sequence[str], place: Place) -> Record:
    """What a cell would leave behind if it were done now.

    Raises:
        UserError: a checkpoint that it reads is not there.
    """
    return {
        "command": [*arguments],
        "version": source_hash(PACKAGES),
        "inputs": {name: content(place.find(name)) for option, name in pairs(arguments) if option == "--ckpt"},
    }


def content(ckpt: str) -> str:
    """A hash of a checkpoint's configuration and weights."""
    directory, step = locate(ckpt)
    path = weights_path(directory, step)
    run = json.dumps(read_document(directory)["run"], sort_keys=True)
    try:
        about = path.stat()
        weights = file_hash(path, about.st_mtime_ns, about.st_size)
    except OSError:
        raise UserError(f"no weights at {path}: training has not saved any yet") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return hashlib.sha256(f"{run}|{weights}".encode()).hexdigest()


@cache
def file_hash(path: Path, *_: int) -> str:
    """Of a file's bytes; time and size are there to see that it has changed since it was last read."""
    with open_plain(path) as handle, os.fdopen(handle, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_done(cell: Cell) -> bool:
    """Whether there is nothing left to do. What the cell needs has to be done."""
    if cell.config:
        return (cell.directory / "config.json").exists() and is_finished(cell.config, cell.directory)
    return (cell.directory / FILE).exists() and is_left(cell.directory, record(cell.arguments, cell.place))


def is_left(directory: Path, now: Record) -> bool:
    """Whether a directory holds the results of exactly this."""
    return read(directory) == now | {"done": True}


def read(directory: Path) -> Record | None:
    """The record in a directory; None where there is none that can be read."""
    try:
        return read_parsed(directory / FILE, LARGEST, parse_json, "JSON")
    except (OSError, ValueError):
        return None


def begin(directory: Path, now: Record) -> None:
    """Make the directory ready for a cell. Results of another one are removed, an interrupted one goes on."""
    before = read(directory)
    if before is not None and before | {"done": False} != now | {"done": False}:
        shutil.rmtree(directory)
    write(directory, now | {"done": False})


def finish(directory: Path, now: Record) -> None:
    """Say that it is done, after everything else is on disk."""
    write(directory, now | {"done": True})


def write(directory: Path, left: Record) -> None:
    write_atomically(directory / FILE, (json.dumps(left, indent=1) + "\n").encode())
