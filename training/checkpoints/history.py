"""history.jsonl: one row per evaluation, class and input distribution, appended while a run trains.

A row holds the hash of its run and ends with a checksum; rows of earlier versions, which have neither, are read
unchecked. A last line that a kill cut short is dropped; any other line that is no row, or out of order, is damage.
"""

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from sys import intern
from typing import Any

from training.common.atomic_files import kind_of_file, open_own, open_plain, parse_json
from training.common.errors import UserError
from training.common.file_kinds import UTF8_MARK, kind_of_content

HISTORY = "history.jsonl"
CHECKSUM = "crc32"
CHECKSUM_KEY = f', "{CHECKSUM}": '.encode()
LARGEST = 2**26  # bytes; a run of the paper has a few hundred thousand
LONGEST_ROW = 512  # bytes beside the names of its class and inputs; numbers of all digits need 450
RUN = "run"
WORDS = ("function_class", "inputs", RUN)

Row = dict[str, Any]
Arm = tuple[str | None, str | None]


def append_rows(directory: Path, rows: Iterable[Row]) -> None:
    """Add rows; they are on disk when this returns, as the save that follows them will be."""
    handle = open_own(directory / HISTORY, os.O_WRONLY | os.O_APPEND)
    with os.fdopen(handle, "ab") as file:
        file.write(history_text(rows).encode())
        file.flush()
        os.fsync(handle)


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
    rows: list[Row] = []
    reached: dict[Arm, int] = {}
    try:
        for number, line in enumerate(whole_lines(path), 1):
            row = parsed(line)
            if row is None or row["step"] <= reached.get(arm_of(row), -1):
                raise ValueError(f"line {number} is no valid row (checksum, format or order)")
            reached[arm_of(row)] = row["step"]
            rows.append(row)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        kind = kind_of_file(path) if not rows else None
        raise UserError(f"{path} is damaged: {f'it is {kind}, not rows of JSON' if kind else error}") from None
    return rows


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines that end with a line feed, one after the other, without a byte-order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no plain file, larger than any history, or of a known other format.
    """
    with open_plain(path, LARGEST) as handle, os.fdopen(handle, "rb", closefd=False) as file:
        for number, line in enumerate(file):
            if line.endswith(b"\n"):
                yield line.removeprefix(UTF8_MARK) if number == 0 else line
            elif number == 0 and kind_of_content(line):
                raise ValueError("it has no rows")


def arm_of(row: Row) -> Arm:
    """The function class and the input distribution of a row; None where it has none."""
    return row.get("function_class"), row.get("inputs")


def parsed(line: bytes) -> Row | None:
    """The row on a line; None if it is no valid one. Equal words of all rows share their memory."""
    try:
        row = parse_json(line.decode())
    except ValueError:
        return None
    if not is_row(row):
        return None
    written = row.pop(CHECKSUM, None)
    if written not in (None, line_checksum(line, written)) and written != checksum(row):
        return None
    return row | {key: intern(row[key]) for key in WORDS if key in row}


def line_checksum(line: bytes, written: object) -> int | None:
    """The checksum of a row from the bytes of its line, which is faster than serialising the row again."""
    row, _, end = line.rpartition(CHECKSUM_KEY)
    return zlib.crc32(row + b"}") if end == f"{written}}}\n".encode() else None


def is_row(row: object) -> bool:
    """Whether it has a step, words under the keys of words, and else numbers, which may be missing or not finite."""
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
