"""Files that survive what happens to them: written whole or not at all, read only if they are what they should be."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from training.common.errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old one or the new one, whole.

    Raises:
        OSError: it cannot be written; names it.
    """
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.tmp")  # a name may be as long as names can be
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def check_plain(path: Path, at_most: int | None = None) -> None:
    """Refuse what would never end, or would take all memory, when it is read: a pipe, a device, a file too large.

    Args:
        path: of a file.
        at_most: bytes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is none of ours.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a plain file")
    if at_most is not None and found.st_size > at_most:
        raise ValueError(f"it has {found.st_size} bytes, and none of ours has more than {at_most}")


def check_name(path: Path) -> None:
    """Refuse a path that is no text: safetensors could not read what lies there.

    Raises:
        UserError: it holds bytes that are not UTF-8.
    """
    if any("\ud800" <= sign <= "\udfff" for sign in str(path)):
        raise UserError(f"'{path}': a name in UTF-8 is needed")


def parse_json(text: str) -> Any:
    """What a JSON text stands for.

    Raises:
        ValueError: it is not JSON, or is nested deeper than any of ours.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
