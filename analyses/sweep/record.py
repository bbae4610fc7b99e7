"""The record that a finished cell leaves beside its results: command, files written, code, and input weights.

A cell is done when its record is the one that it would leave now. A run needs no record: its directory holds its
configuration and whether it is finished, and a newer version of this package does not train it again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from analyses.sweep.plan import Cell, Location, pairs
from interp.ablation.store import source_hash
from training.checkpoints.checkpoint import locate, read_config, weights_path, write_atomically
from training.checkpoints.run_directory import is_finished
from training.checkpoints.source_weights import with_recorded_source
from training.common.atomic_files import WRITTEN, open_plain, parse_json, read_parsed
from training.common.errors import UserError
from training.config.parse import without_defaults

FILE, FILES = ".cell.json", "files"
LARGEST = 2**24  # bytes; a study of thousands of checkpoints names them all
PACKAGES = ("training", "interp", "analyses")

Record = dict[str, Any]


def record(arguments: Sequence[str], location: Location) -> Record:
    """The record that a cell would leave if it were run now.

    Raises:
        UserError: a checkpoint that it reads is not there.
    """
    return {
        "command": [*arguments],
        "version": source_hash(PACKAGES),
        "inputs": {name: content_hash(location.find(name)) for option, name in pairs(arguments) if option == "--ckpt"},
    }


def content_hash(ckpt: str) -> str:
    """A hash of a checkpoint's configuration and weights."""
    directory, step = locate(ckpt)
    path = weights_path(directory, step)
    run = json.dumps(without_defaults(read_config(directory)), sort_keys=True)  # the same if keys are added later
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
    """A hash of the bytes of a file; time and size are arguments so that a file that has changed is read again."""
    with open_plain(path) as handle, os.fdopen(handle, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_done(cell: Cell) -> bool:
    """Whether there is nothing left to do. What the cell needs has to be done."""
    if cell.config:
        if not (cell.directory / "config.json").exists():
            return False
        return is_finished(with_recorded_source(cell.config, cell.directory, resume=True), cell.directory)
    return (cell.directory / FILE).exists() and holds_results(cell.directory, record(cell.arguments, cell.location))


def holds_results(directory: Path, now: Record) -> bool:
    """Whether a directory holds the results of exactly this command, code and input."""
    before = read(directory)
    return before.get("done") is True and agrees(before, now)


def agrees(before: Record, now: Record) -> bool:
    """Whether a record is the one that a cell would leave now."""
    return {key: before.get(key) for key in now} == now


def read(directory: Path) -> Record:
    """The record in a directory; empty where there is none that can be read."""
    try:
        before = read_parsed(directory / FILE, LARGEST, parse_json, "JSON")
    except (OSError, ValueError):
        return {}
    return before if isinstance(before, dict) else {}


def results(directory: Path) -> list[Path]:
    """The files that the cell in a directory has written, as its record lists them."""
    entries = read(directory).get(FILES)
    names = [name for name in entries if isinstance(name, str)] if isinstance(entries, list) else []
    paths, root = [directory / name for name in names if "\0" not in name], directory.resolve()
    return [path for path in paths if path.is_file() and path.parent.resolve().is_relative_to(root)]


def begin(directory: Path, now: Record) -> None:
    """Prepare the directory for a cell: remove results of another command, keep those of an interrupted run of it."""
    if not agrees(read(directory), now):
        remove_results(directory)
    write(directory, now | {"done": False, FILES: names_of(results(directory), directory)})


def remove_results(directory: Path) -> None:
    """Remove the files that a cell has written, and no others."""
    for path in results(directory):
        path.unlink()
    (directory / FILE).unlink(missing_ok=True)


def finish(directory: Path, now: Record) -> None:
    """Write into the record that the cell is done and which files it wrote, after all of them are on disk."""
    written = [path for path in WRITTEN if path.exists()]  # what an ablation kept to resume has been deleted
    below = [path for path in written if path.is_relative_to(directory.absolute()) and path.name != FILE]
    files = names_of([*results(directory), *below], directory)
    write(directory, now | {"done": True, FILES: files})


def names_of(paths: Iterable[Path], directory: Path) -> list[str]:
    return sorted({str(path.absolute().relative_to(directory.absolute())) for path in paths})


def write(directory: Path, contents: Record) -> None:
    write_atomically(directory / FILE, (json.dumps(contents, indent=1) + "\n").encode())
