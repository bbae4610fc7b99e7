"""p-values in sentences and tables. If no random draw reached the observed value, p is an upper bound: `p <= ...`.

p = (k + 1) / (n + 1) of n random draws cannot be smaller than 1 / (n + 1). At k = 0 it reflects the number of draws
rather than the evidence. Where all possible sets were enumerated, nothing was drawn and p is exact.
"""

import math
from collections.abc import Mapping
from typing import Any


def is_bound(p_value: float, n_draws: int, sides: int = 1) -> bool:
    """Whether no draw reached the observed value.

    Args:
        p_value: unadjusted, (k + 1) / (n_draws + 1).
        n_draws: random draws behind it; 0 where it is exact.
        sides: 2 for twice the smaller of two one-sided p-values.

    >>> is_bound(1 / 200, 199), is_bound(2 / 200, 199), is_bound(1 / 8, 0)
    (True, False, False)
    """
    return n_draws > 0 and p_value / sides * (n_draws + 1) < 1.5


def draws_behind(row: Mapping[str, Any], prefix: str = "") -> int:
    """The random draws behind a p-value in a table of ablations, of one model or of several; 0 where it is exact.

    Args:
        row: of the table.
        prefix: of the columns of the matching.

    >>> draws_behind({"n_controls": 7, "exact": True})
    0
    >>> draws_behind({"size_n_controls": 99, "size_exact": False}, "size_")
    99
    """
    if "n_draws" in row:
        return row["n_draws"]
    return 0 if row[f"{prefix}exact"] else row[f"{prefix}n_controls"]


def p_number(p_value: float, n_draws: int = 0, *, unadjusted: float | None = None, sides: int = 1) -> str:
    """A p-value to three significant digits, as in a table; `-` where there is none.

    Args:
        p_value: the number to write.
        n_draws: random draws behind it; 0 where it is exact.
        unadjusted: the p-value before adjustment, from which follows whether a draw reached the observed value.
        sides: as in `is_bound`.

    >>> p_number(0.125), p_number(1 / 10_001, 10_000), p_number(0.015, 199, unadjusted=0.005), p_number(math.nan)
    ('0.125', '<= 0.0001', '<= 0.015', '-')
    """
    if math.isnan(p_value):
        return "-"
    bound = is_bound(p_value if unadjusted is None else unadjusted, n_draws, sides)
    return f"{'<= ' if bound else ''}{p_value:.3g}"


def p_text(p_value: float, n_draws: int = 0, *, holm: float | None = None, sides: int = 1) -> str:
    """A p-value in a sentence: with the number of draws if that limits it, and after Holm's correction if given.

    >>> p_text(0.125), p_text(1 / 10_001, 10_000)
    ('p = 0.125', 'p <= 0.0001 (10,000 draws)')
    >>> p_text(0.02, holm=0.06), p_text(1 / 2001, 2000, holm=3 / 2001)
    ('p = 0.02, after Holm 0.06', 'p <= 0.0005, after Holm <= 0.0015 (2,000 draws)')
    """
    number = p_number(p_value, n_draws, sides=sides)
    text = f"p {number}" if number.startswith("<") else f"p = {number}"
    if holm is not None:
        text += f", after Holm {p_number(holm, n_draws, unadjusted=p_value, sides=sides)}"
    return text + (f" ({n_draws:,} draws)" if is_bound(p_value, n_draws, sides) else "")
