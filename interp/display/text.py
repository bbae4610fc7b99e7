"""Numbers and names for sentences."""

from collections.abc import Sequence


def counted(n: int, what: str, several: str = "") -> str:
    """A number with its noun, whose plural ends in s unless it is given.

    >>> counted(1, "seed"), counted(2, "seed"), counted(2, "class", "classes")
    ('1 seed', '2 seeds', '2 classes')
    """
    return f"{n} {what if n == 1 else several or f'{what}s'}"


def listed(names: Sequence[str]) -> str:
    """Names joined by commas and `and`.

    >>> listed(["a", "b", "c"]), listed([])
    ('a, b and c', 'none')
    """
    *most, last = names or ["none"]
    return f"{', '.join(most)} and {last}" if most else last


def decimals(value: float) -> str:
    """Two decimals, without a sign before zero.

    >>> decimals(0.125), decimals(-0.001)
    ('0.12', '0.00')
    """
    return f"{round(value, 2) + 0.0:.2f}"
