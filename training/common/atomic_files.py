"""Files that survive what happens to them: written whole or not at all, read only if they are what they should be.

A temporary file is made exclusively under a name that nobody can foresee, and is locked while its process lives. One
whose lock is free was left by a process that was killed: the next write into its directory removes it. No other file is
removed here, and no symbolic link is followed where something is written.
"""

import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sys import intern
from typing import Any

from training.common.file_kinds import LONGEST, kind_of_content
from training.common.terminal import printable

TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.interp\.tmp", re.DOTALL)
"""Names of temporary files: nobody else calls a file so."""
WRITTEN: set[Path] = set()
"""The absolute paths of the files that this process has written or opened for writing here."""
MODES = {
    stat.S_ISDIR: "a directory",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISLNK: "a symbolic link",
}


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old one or the new one, whole.

    Raises:
        OSError: it cannot be written; names it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as (temporary, handle):
            with os.fdopen(handle, "wb", closefd=False) as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            temporary.replace(path)
        WRITTEN.add(path.absolute())
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def write_text(text: str, path: Path) -> None:
    """Write a text, whole or not at all; bytes of a name that are no UTF-8, and control characters, as escapes."""
    write_atomically(path, printable(text).encode(errors="backslashreplace"))


def check_writable(directory: Path) -> None:
    """Make a file in a directory and remove it again.

    Raises:
        OSError: that is not possible.
    """
    with temporary_file(directory / "writable"):
        pass


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[Path, int]]:
    """A new file beside a path, with an open handle; it is removed at the end unless it has been renamed."""
    remove_stale(path.parent)
    temporary, handle = created(path)
    try:
        yield temporary, handle
    finally:
        with suppress(OSError):
            if is_same_file(temporary, handle):
                temporary.unlink()
        os.close(handle)


def created(path: Path) -> tuple[Path, int]:
    """A new file that is locked, and where it is. Another process may remove it before it is locked: then the next."""
    while True:
        temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.interp.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks: what is left there stays
            fcntl.flock(handle, fcntl.LOCK_EX)
        if is_same_file(temporary, handle):
            return temporary, handle
        os.close(handle)


def is_same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def remove_stale(directory: Path) -> None:
    """Remove the temporary files of processes that were killed, as far as this process may."""
    with suppress(OSError):
        for path in directory.iterdir():
            if TEMPORARY.fullmatch(path.name):
                with suppress(OSError):
                    remove_unlocked(path)


def remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(handle)


def remove_written(directory: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove files with names that this program gives, and the directory if nothing else is in it."""
    if directory.is_symlink() or not directory.is_dir():
        return
    remove_stale(directory)
    for path in directory.iterdir():
        if is_ours(path.name):
            path.unlink()
    with suppress(OSError):  # not empty
        directory.rmdir()


def open_own(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a plain file for writing, which is made if need be; never what a symbolic link leads to.

    Raises:
        OSError: it is something else, or cannot be opened; names it.
    """
    handle = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(None, "it is not a plain file", str(path))
    WRITTEN.add(path.absolute())
    return handle


@contextmanager
def open_plain(path: Path, at_most: int | None = None) -> Iterator[int]:
    """Open for reading what ends and does not wait: no pipe, no device, no file that is too large.

    Args:
        path: of a file.
        at_most: bytes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is none of ours; says what it is instead.
        OSError: it cannot be opened.
    """
    check_mode(path.stat())  # to open a device may do something already
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        about = os.fstat(handle)
        check_mode(about)
        if at_most is not None and about.st_size > at_most:
            raise ValueError(f"it has {about.st_size} bytes, and none of ours has more than {at_most}")
        yield handle
    finally:
        os.close(handle)


def check_mode(about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        kind = next((words for test, words in MODES.items() if test(about.st_mode)), "something else")
        raise ValueError(f"it is {kind}, not a plain file")


def read_plain(path: Path, at_most: int) -> bytes:
    """The content of a plain file, as long as it is when it is opened. Raises as `open_plain` does."""
    with open_plain(path, at_most) as handle, os.fdopen(handle, "rb", closefd=False) as file:
        return file.read(os.fstat(handle).st_size)


def read_parsed(path: Path, at_most: int, parse: Callable[[str], Any], wanted: str) -> Any:
    """What a parser makes of the text in a plain file, which may begin with a byte-order mark.

    Args:
        path: of a file.
        at_most: bytes.
        parse: raises ValueError where the text is not valid.
        wanted: what the file should be (`JSON`), for the message.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not plain, too large, or not valid; says what it is instead, if that is known.
        OSError: it cannot be read.
    """
    content = read_plain(path, at_most)
    try:
        return parse(content.decode("utf-8-sig"))
    except ValueError as error:
        kind = kind_of_content(content)
        raise ValueError(f"it is {kind}, not {wanted}" if kind else str(error)) from None


def kind_of_file(path: Path) -> str | None:
    """What a plain file is, if that can be seen from how it begins; None if not, or if there is none."""
    try:
        with open_plain(path) as handle:
            return kind_of_content(os.read(handle, LONGEST))
    except (OSError, ValueError):
        return None


def parse_json(text: str) -> Any:
    """What a JSON text stands for; equal keys of its objects share their memory.

    Raises:
        ValueError: it is not JSON, is nested deeper than any of ours, or has a key twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these keys and values.

    Raises:
        ValueError: a key is there twice.
    """
    values = {intern(key): value for key, value in pairs}
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key '{max(keys, key=keys.count)}' is there twice")
    return values
