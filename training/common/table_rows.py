"""Rows and values of tidy tables."""

from typing import Any

import pandas as pd


def where(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows in which every named column holds its value.

    >>> where(pd.DataFrame({"mode": ["zero", "mean"], "effect": [1, 2]}), mode="mean")["effect"].tolist()
    [2]
    """
    for column, value in values.items():
        table = table.loc[table[column] == value]
    return table


def distinct(table: pd.DataFrame, column: str) -> list[Any]:
    """The values of a column in the order of their first appearance; none in an empty table.

    >>> distinct(pd.DataFrame({"mode": ["zero", "mean", "zero"]}), "mode")
    ['zero', 'mean']
    """
    return list(dict.fromkeys(table[column].tolist())) if len(table) else []


def label_rows(table: pd.DataFrame, **labels: object) -> pd.DataFrame:
    """The table with further columns in front, each of one value.

    >>> label_rows(pd.DataFrame({"effect": [1, 2]}), mode="mean", step=3).columns.tolist()
    ['mode', 'step', 'effect']
    """
    return table.assign(**labels).loc[:, [*labels, *table.columns]]
