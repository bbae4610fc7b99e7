"""history.jsonl: one row per evaluation, class and input distribution, appended while a run trains.

A row says of which run it is and ends with a checksum of itself; rows of programs that kept neither are read as they
are. A kill can cut the last line short, which is then dropped; whatever else is not a row, or not in order, is damage.
"""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.common.atomic_files import check_plain, parse_json
from training.common.errors import UserError

HISTORY = "history.jsonl"
CHECKSUM = "crc32"
LARGEST = 2**30  # bytes; a run of the paper has a few hundred thousand
RUN = "run"
WORDS = ("function_class", "inputs", RUN)

Row = dict[str, Any]
Arm = tuple[str | None, str | None]


def append_rows(directory: Path, rows: Iterable[Row]) -> None:
    """Add rows; they are on disk when this returns, as the save that follows them will be."""
    with (directory / HISTORY).open("a") as file:
        file.write(history_text(rows))
        file.flush()
        os.fsync(file.fileno())


def history_text(rows: Iterable[Row]) -> str:
    """
    >>> history_text([{"step": 1}])
    '{"step": 1, "crc32": 981963069}\\n'
    """
    return "".join(json.dumps({**row, CHECKSUM: checksum(row)}) + "\n" for row in rows)


def checksum(row: Row) -> int:
    return zlib.crc32(json.dumps(row).encode())


def read_history(directory: Path) -> list[Row]:
    """The rows, without a last line that a kill cut short; none where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / HISTORY
    try:
        check_plain(path, LARGEST)
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    rows: list[Row] = []
    reached: dict[Arm, int] = {}
    for number, line in enumerate(lines, 1):
        row = parsed(line)
        if row is None or row["step"] <= reached.get(arm_of(row), -1):
            raise UserError(f"{path} is damaged: line {number} is not what was written")
        reached[arm_of(row)] = row["step"]
        rows.append(row)
    return rows


def arm_of(row: Row) -> Arm:
    """The function class and the inputs that a row is about, as far as it says."""
    return row.get("function_class"), row.get("inputs")


def parsed(line: str) -> Row | None:
    """The row on a line, if it is one."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    if not is_row(row):
        return None
    written = row.pop(CHECKSUM, None)
    return row if written in (None, checksum(row)) else None


def is_row(row: object) -> bool:
    """A step, words where words belong, and numbers, which may be missing or not finite."""
    return (
        isinstance(row, dict)
        and is_number(row.get("step"), whole=True)
        and row["step"] >= 0
        and all(isinstance(value, str) if key in WORDS else is_number(value) for key, value in row.items())
    )


def is_number(value: object, *, whole: bool = False) -> bool:
    if type(value) is int:
        return abs(value) < 10**30  # operations are counted in whole numbers, and a run may need very many
    return not whole and (value is None or type(value) is float)
