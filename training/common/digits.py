"""Whole numbers in what a user or a file says."""

from numbers import Integral

from training.common.errors import UserError

MOST_DIGITS = 18
"""As many as fit 64 bits whatever they are; nothing here counts further."""


def whole(text: str) -> int | None:
    """The number that these digits stand for; None where there are none, or something else, or too many.

    >>> whole("007"), whole("-1"), whole("2.0"), whole("9" * 19)
    (7, None, None, None)
    """
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


def require_whole(name: str, value: object, at_least: int) -> None:
    """Refuse an argument that is no whole number from `at_least` upwards; those of NumPy are whole numbers, too.

    Raises:
        UserError: it is a float, a tensor, a text, a truth value or None, or too small.

    >>> require_whole("n_prompts", 16, at_least=1)
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise UserError(f"{name}={value!r}: a whole number of at least {at_least} is needed")
