"""Finished pieces of a sweep in one SQLite file, keyed by content, so that an interrupted sweep goes on.

The key of a piece is a hash of everything that its numbers depend on: weights, prompts, protocol, mode, set, and the
source code of this package and of `training`. A stale or damaged piece is never read; an unreadable file is one line.
What a notebook defines (a mode, a function class) can change under its name, so nothing that it takes part in is kept.
"""

import hashlib
import io
import os
import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.ablation.errors import SetErrors
from interp.model.heads import HeadSet, show
from training.common.atomic_files import open_own
from training.common.errors import UserError
from training.config.parse import to_dict

if TYPE_CHECKING:
    from training.checkpoints.checkpoint import Checkpoint

FILE = "sweep.sqlite"
PACKAGES = ("training", "interp")
FIELDS = ("total", "direct", "frozen", "curve")
UNUSABLE = (sqlite3.Error, UnicodeError, OSError)  # a damaged file may hold text that is none


class Store:
    """The pieces in a directory.

    Raises:
        UserError: its file cannot be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self.lock = Lock()  # chunks run in threads
        try:
            os.close(open_own(self.path))  # SQLite would follow a symbolic link
            self.connection = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
            with self.connection:
                self.connection.execute("CREATE TABLE IF NOT EXISTS pieces (key TEXT PRIMARY KEY, errors BLOB)")
        except UNUSABLE as error:
            raise UserError(f"cannot use '{self.path}': {error} (delete it to start the sweep anew)") from None

    def read(self, about: str, sets: Sequence[HeadSet]) -> dict[HeadSet, SetErrors]:
        """The pieces that are there."""
        keys = {digest(about, one): one for one in sets}
        question = ",".join("?" * len(keys))
        rows = self.run(f"SELECT key, errors FROM pieces WHERE key IN ({question})", list(keys))
        whole = {key: content for key, sealed in rows if (content := opened(key, sealed)) is not None}
        return {one: unpacked(whole[key]) for key, one in keys.items() if key in whole}

    def write(self, about: str, found: Mapping[HeadSet, SetErrors]) -> None:
        """Keep pieces; they are on disk when this returns."""
        rows = [(key, sealed(key, packed(errors))) for one, errors in found.items() for key in [digest(about, one)]]
        try:
            with self.lock, self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO pieces VALUES (?, ?)", rows)
        except UNUSABLE as error:
            raise UserError(f"cannot write to '{self.path}': {error}") from None

    def run(self, statement: str, values: list[str]) -> list[tuple[str, object]]:
        try:
            with self.lock:
                return self.connection.execute(statement, values).fetchall()
        except UNUSABLE as error:
            raise UserError(f"cannot read '{self.path}': {error} (delete it to start the sweep anew)") from None


def digest(about: str, heads: HeadSet) -> str:
    return hashlib.sha256(f"{about}|{show(heads)}".encode()).hexdigest()


def context(checkpoint: "Checkpoint", *about: object) -> str:
    """A hash of what all pieces of one class share: weights, run, code and protocol."""
    found = hashlib.sha256(repr((to_dict(checkpoint.config), source_hash(), about)).encode())
    for name, parameter in checkpoint.model.state_dict().items():
        found.update(name.encode() + parameter.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@cache
def source_hash(packages: tuple[str, ...] = PACKAGES) -> str:
    """Of the code that computes."""
    found = hashlib.sha256()
    for package in packages:
        for path in sorted(Path(str(resources.files(package))).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def is_covered(thing: Any) -> bool:
    """Whether `source_hash` knows the code of a class or function.

    >>> is_covered(Store), is_covered(np.mean)
    (True, False)
    """
    return getattr(thing, "__module__", "").partition(".")[0] in PACKAGES


def packed(errors: SetErrors) -> bytes:
    buffer = io.BytesIO()
    arrays = {name: getattr(errors, name) for name in FIELDS}
    np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


def unpacked(errors: bytes) -> SetErrors:
    with np.load(io.BytesIO(errors), allow_pickle=False) as arrays:
        return SetErrors(**{name: arrays[name] for name in arrays})


def sealed(key: str, content: bytes) -> bytes:
    """The content behind a hash of itself and its key, so that neither can change alone."""
    return hashlib.sha256(key.encode() + content).digest() + content


def opened(key: str, written: object) -> bytes | None:
    """What was sealed under this key, or None if that is not what is there now: it will be measured again."""
    if not isinstance(written, bytes):
        return None
    content = written[hashlib.sha256().digest_size :]
    return content if written == sealed(key, content) else None
