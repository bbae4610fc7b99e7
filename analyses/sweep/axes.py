"""Axes of a grid: a list of values is an axis, and its value is in the name of what is made; a single value is neither.

So a grid can grow along every axis, and what is there already keeps its name.
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


def axis(key: str, given: Any) -> Axis:
    """The axis that a value in the file stands for.

    Raises:
        UserError: an empty list, a value named twice, or one that is neither text nor a number nor true or false.

    >>> axis("recipe.lr", [1e-3, 1e-4])
    Axis(key='recipe.lr', values=('0.001', '0.0001'), is_listed=True)
    """
    values = tuple(as_text(key, one) for one in (given if isinstance(given, list) else [given]))
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
    found: dict[str, Any] = {}
    for key, value in table.items():
        below = flat(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
        if twice := found.keys() & below.keys():
            raise UserError(f"{min(twice)} is set twice")
        found |= below
    return found


def points(axes: Sequence[Axis]) -> list[Point]:
    """Every combination of values; the last axis changes fastest.

    Raises:
        UserError: there are more than anyone wants.
    """
    keys = [one.key for one in axes]
    if (n_points := math.prod(len(one.values) for one in axes)) > MOST_POINTS:
        raise UserError(f"{' x '.join(keys)}: {n_points} combinations; at most {MOST_POINTS} are possible")
    return [dict(zip(keys, values, strict=True)) for values in product(*(one.values for one in axes))]


def file_name(text: str) -> str:
    """The text as a name of a file.

    >>> file_name("ablate --heads layer:0 --mode mean,zero")
    'ablate-heads-layer-0-mode-mean,zero'
    """
    name = re.sub(r"[^\w.,=+]+", "-", text).strip("-")
    return name if name.strip(".") else name.replace(".", "-")  # `..` would be another directory
