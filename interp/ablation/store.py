"""Finished pieces of an ablation in one SQLite file, keyed by content, so that an interrupted ablation resumes.

The key of a piece is a hash of everything that its numbers depend on: weights, prompts, protocol, mode, head set, and
the source code of this package and of `training`. A stale or damaged piece is never read; an unreadable file is an
error. A mode or function class defined in a notebook can change under its name, so no piece that uses one is kept.
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
UNUSABLE = (sqlite3.Error, UnicodeError, OSError)  # a damaged file may hold text that cannot be decoded


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

    def read(self, shared: str, sets: Sequence[HeadSet]) -> dict[HeadSet, SetErrors]:
        """The stored pieces among those of these sets, which share the first part of their key."""
        keys = {piece_key(shared, heads): heads for heads in sets}
        query = f"SELECT key, errors FROM pieces WHERE key IN ({','.join('?' * len(keys))})"
        try:
            with self.lock:
                rows = self.connection.execute(query, list(keys)).fetchall()
        except UNUSABLE as error:
            raise UserError(f"cannot read '{self.path}': {error} (delete it to start the sweep anew)") from None
        intact = {key: content for key, sealed in rows if (content := unseal(key, sealed)) is not None}
        return {heads: unpack(intact[key]) for key, heads in keys.items() if key in intact}

    def write(self, shared: str, pieces: Mapping[HeadSet, SetErrors]) -> None:
        """Keep pieces; they are on disk when this returns."""
        by_key = {piece_key(shared, heads): pack(errors) for heads, errors in pieces.items()}
        rows = [(key, seal(key, content)) for key, content in by_key.items()]
        try:
            with self.lock, self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO pieces VALUES (?, ?)", rows)
        except UNUSABLE as error:
            raise UserError(f"cannot write to '{self.path}': {error}") from None

    def delete(self) -> None:
        """Delete the file: the results are written, and no piece is needed any more."""
        with self.lock:
            self.connection.close()
            self.path.unlink(missing_ok=True)


def piece_key(shared: str, heads: HeadSet) -> str:
    return hashlib.sha256(f"{shared}|{show(heads)}".encode()).hexdigest()


def shared_key(checkpoint: "Checkpoint", *settings: object) -> str:
    """A hash of what all pieces of one class share: weights, run, code and protocol."""
    digest = hashlib.sha256(repr((to_dict(checkpoint.config), source_hash(), settings)).encode())
    for name, parameter in checkpoint.model.state_dict().items():
        digest.update(name.encode() + parameter.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@cache
def source_hash(packages: tuple[str, ...] = PACKAGES) -> str:
    """A hash of the source code of these packages."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(Path(str(resources.files(package))).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def is_covered(thing: Any) -> bool:
    """Whether `source_hash` covers the code of a class or function.

    >>> is_covered(Store), is_covered(np.mean)
    (True, False)
    """
    return getattr(thing, "__module__", "").partition(".")[0] in PACKAGES


def pack(errors: SetErrors) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in vars(errors).items() if array is not None})
    return buffer.getvalue()


def unpack(content: bytes) -> SetErrors:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return SetErrors(**{name: arrays[name] for name in arrays})


def seal(key: str, content: bytes) -> bytes:
    """The content behind a hash of its key and itself, so that neither can change alone."""
    return hashlib.sha256(key.encode() + content).digest() + content


def unseal(key: str, sealed: object) -> bytes | None:
    """The content sealed under this key; None if it has been damaged, so that it is measured again."""
    if not isinstance(sealed, bytes):
        return None
    content = sealed[hashlib.sha256().digest_size :]
    return content if sealed == seal(key, content) else None
