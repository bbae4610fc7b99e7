"""Safe text output: control characters in names cannot steer the terminal, and long input is shortened.

All output passes through `printable`: messages and sentences (`echo`), errors (`one_line`), tables
(`training.common.output`), progress bars (`training.common.progress`), and text files (`training.common.atomic_files`).
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed (C0, DEL, C1: every escape sequence), and marks of text direction."""
LONGEST_WORD, LONGEST_LINE = 300, 3000  # characters of user input that a message repeats
notes_are_printed = True
"""Whether `echo` prints on stderr; `interp --quiet` sets it to False."""


def printable(text: str) -> str:
    r"""The text with its control characters as escapes that can be read.

    >>> print(printable("runs/\x1b[31mred\x9b1m\u202e"))
    runs/\x1b[31mred\x9b1m\u202e
    """
    return UNSAFE.sub(lambda match: ascii(match.group())[1:-1], text)


def printable_line(text: str) -> str:
    r"""The text with tabs and line feeds as escapes, too: a name that holds some stays on its line and in its cell.

    >>> print(printable_line("runs/a\nb\x07"))
    runs/a\nb\x07
    """
    return printable(text).replace("\t", r"\t").replace("\n", r"\n")


def readable_name(name: str) -> str:
    """A path as text that every library takes: bytes that the locale could not decode as UTF-8, or else as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def one_line(message: str) -> str:
    r"""A message as a printable line of limited length.

    >>> one_line("no directory 'a\nb\x07'")
    "no directory 'a b\\x07'"
    """
    words = (shortened(word, LONGEST_WORD) for word in message.split())
    return shortened(printable(" ".join(words)), LONGEST_LINE)


def shortened(text: str, longest: int) -> str:
    """Begin and end of a text that is longer than so many characters.

    >>> shortened("abcdefghij", 5)
    'ab…ij'
    """
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def echo(text: object, *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr; line feeds at its two ends give blank lines, others are escaped."""
    stream = sys.stderr if err else sys.stdout
    if err and not notes_are_printed:
        return
    if stream is not None:  # None where the process was started with a closed one
        line = str(text).strip("\n")
        with naming_stream("stderr" if err else "stdout"):
            print(str(text).replace(line, printable_line(line)), file=stream, flush=hasattr(stream, "flush"))


@contextmanager
def naming_stream(name: str) -> Iterator[None]:
    """Give errors of the operating system that name no file the name of this stream."""
    try:
        yield
    except OSError as error:
        error.filename = name if error.filename is None else error.filename
        raise
