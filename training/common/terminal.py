"""Text for people: names that a stranger chose cannot steer the terminal, and long input is not repeated whole.

All that is printed passes through `printable`: messages and sentences (`echo`), errors (`one_line`), tables
(`training.common.output`), progress bars (`training.common.progress`), and text files (`training.common.atomic_files`).
"""

import re
import sys

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed (C0, DEL, C1, thus every escape sequence), and marks of text direction."""
LONGEST_WORD, LONGEST_LINE = 300, 3000  # characters that a message repeats of what was given


def printable(text: str) -> str:
    r"""The text with its control characters as escapes that can be read.

    >>> print(printable("runs/\x1b[31mred\x9b1m\u202e"))
    runs/\x1b[31mred\x9b1m\u202e
    """
    return UNSAFE.sub(lambda match: ascii(match.group())[1:-1], text)


def one_line(message: str) -> str:
    r"""A message as one line that can be printed and is no longer than anyone would read.

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
    """Print a line on stdout, or on stderr."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:  # None where the process was started with a closed one
        print(printable(str(text)), file=stream, flush=True)
