"""Rows of tidy tables by what their columns hold."""

import pandas as pd


def where(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows in which every named column holds its value.

    >>> where(pd.DataFrame({"mode": ["zero", "mean"], "effect": [1, 2]}), mode="mean")["effect"].tolist()
    [2]
    """
    for column, value in values.items():
        table = table.loc[table[column] == value]
    return table
