"""Axes of a grid: a list of values is an axis, and names of cells hold its value; a single value is not in names.

So a grid can grow along every axis, and existing cells keep their names.
"""

import math
import re
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from training.common.errors import UserError


class Axis(NamedTuple):
    """One setting and the values that it takes.

    Attributes:
        key: what the file calls it.
        values: as they are written on a command line.
        is_listed: whether the file has a list, and names tell the value.
    """

    key: str
    values: tuple[str, ...]
    is_listed: bool


Point = dict[str, str]
"""A value for every key."""

MOST_POINTS = 10_000  # of one grid; more are a slip of the finger


def parse_axis(key: str, given: Any) -> Axis:
    """The axis that a value in the file stands for.

    Raises:
        UserError: an empty list, a value named twice, or one that is neither text nor a number nor true or false.

    >>> parse_axis("recipe.lr", [1e-3, 1e-4])
    Axis(key='recipe.lr', values=('0.001', '0.0001'), is_listed=True)
    """
    values = tuple(as_text(key, value) for value in (given if isinstance(given, list) else [given]))
    if not values:
        raise UserError(f"{key} is an empty list: name at least one value")
    if len(set(values)) < len(values):
        raise UserError(f"{key}: {max(values, key=values.count)} is named twice")
    return Axis(key, values, isinstance(given, list))


def as_text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise UserError(
        f"{key}: {value!r} is no single value (a list is an axis; a setting that is itself a list is text with commas)"
    )


def flat(table: dict[str, Any], where: str = "") -> dict[str, Any]:
    """A table of tables with dotted keys, which TOML allows to be written either way.

    Raises:
        UserError: a key is written in both ways.

    >>> flat({"model": {"n_heads": [4, 8]}, "recipe.lr": 0.1})
    {'model.n_heads': [4, 8], 'recipe.lr': 0.1}
    """
    flat_table: dict[str, Any] = {}
    for key, value in table.items():
        below = flat(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
        if twice := flat_table.keys() & below.keys():
            raise UserError(f"{min(twice)} is set twice")
        flat_table |= below
    return flat_table


def points(axes: Sequence[Axis]) -> list[Point]:
    """Every combination of values; the last axis changes fastest.

    Raises:
        UserError: there are more than `MOST_POINTS`.
    """
    keys = [axis.key for axis in axes]
    if (n_points := math.prod(len(axis.values) for axis in axes)) > MOST_POINTS:
        raise UserError(f"{' x '.join(keys)}: {n_points} combinations; at most {MOST_POINTS} are possible")
    return [dict(zip(keys, values, strict=True)) for values in product(*(axis.values for axis in axes))]


def file_name(text: str) -> str:
    """The text as a name of a file.

    >>> file_name("ablate --heads layer:0 --mode mean,zero")
    'ablate-heads-layer-0-mode-mean,zero'
    """
    name = re.sub(r"[^\w.,=+]+", "-", text).strip("-")
    return name if name.strip(".") else name.replace(".", "-")  # `..` would be another directory
