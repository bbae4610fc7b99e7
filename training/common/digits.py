"""Whole numbers in what a user or a file says."""

MOST_DIGITS = 18
"""As many as fit 64 bits whatever they are; nothing here counts further."""


def whole(text: str) -> int | None:
    """The number that these digits stand for; None where there are none, or something else, or too many.

    >>> whole("007"), whole("-1"), whole("2.0"), whole("9" * 19)
    (7, None, None, None)
    """
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None
