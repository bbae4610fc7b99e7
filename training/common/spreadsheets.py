"""Cells that a spreadsheet would execute, as text."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile("(^|[;\t])([=+@\t\r\uff1d\uff0b\uff20\uff0d]|-(?!$))")
"""What begins a formula, at the start of a cell or behind what some spreadsheets take for the end of one."""


def inert(cell: Any) -> Any:
    """The cell with an apostrophe before what would begin a formula; numbers stay as they are.

    >>> inert("=1+1"), inert("-0.5"), inert("linear"), inert("-"), inert(-1)
    ("'=1+1", '-0.5', 'linear', '-', -1)
    """
    if not isinstance(cell, str) or is_number(cell):
        return cell
    return FORMULA.sub(r"\1'\2", cell)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def without_formulae(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with its cells and the names of its columns made inert."""
    texts = table.select_dtypes(exclude="number")
    inert_columns = {column: texts[column].map(inert) for column in texts}
    return table.assign(**inert_columns).rename(columns=inert)
