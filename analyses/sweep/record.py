"""What a finished cell leaves beside its results: which command made which files, by which code, from which weights.

A cell is done when that is exactly what it would do now. A run needs no record: its own directory says what it is and
whether it is finished, and a newer version of this package does not train it anew.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from analyses.sweep.plan import Cell, Place, pairs
from interp.ablation.store import source_hash
from training.checkpoints.checkpoint import locate, read_document, weights_path, write_atomically
from training.checkpoints.run_directory import is_finished
from training.common.atomic_files import WRITTEN, open_plain, parse_json, read_parsed
from training.common.errors import UserError

FILE, FILES = ".cell.json", "files"
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
    before = read(directory)
    return before.get("done") is True and is_of(before, now)


def is_of(before: Record, now: Record) -> bool:
    """Whether a record is of what a cell would do now."""
    return {key: before.get(key) for key in now} == now


def read(directory: Path) -> Record:
    """The record in a directory; empty where there is none that can be read."""
    try:
        before = read_parsed(directory / FILE, LARGEST, parse_json, "JSON")
    except (OSError, ValueError):
        return {}
    return before if isinstance(before, dict) else {}


def results(directory: Path) -> list[Path]:
    """The files that the cell in a directory has written, as its record lists them; no other file is taken for one."""
    listed = read(directory).get(FILES)
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    paths, root = [directory / name for name in names if "\0" not in name], directory.resolve()
    return [path for path in paths if path.is_file() and path.parent.resolve().is_relative_to(root)]


def begin(directory: Path, now: Record) -> None:
    """Make the directory ready for a cell. Results of another one are removed, an interrupted one goes on."""
    if not is_of(read(directory), now):
        remove_results(directory)
    write(directory, now | {"done": False, FILES: names_of(results(directory), directory)})


def remove_results(directory: Path) -> None:
    """Remove the files that a cell has written, and nothing that anyone else put there."""
    for path in results(directory):
        path.unlink()
    (directory / FILE).unlink(missing_ok=True)


def finish(directory: Path, now: Record) -> None:
    """Say that it is done and which files it has written, after all of them are on disk."""
    below = [path for path in WRITTEN if path.is_relative_to(directory.absolute()) and path.name != FILE]
    files = names_of([*results(directory), *below], directory)
    write(directory, now | {"done": True, FILES: files})


def names_of(paths: Iterable[Path], directory: Path) -> list[str]:
    return sorted({str(path.absolute().relative_to(directory.absolute())) for path in paths})


def write(directory: Path, left: Record) -> None:
    write_atomically(directory / FILE, (json.dumps(left, indent=1) + "\n").encode())
