"""Lookup by NAME or NAME:PARAMETER: function classes, input distributions, shifts."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from training.common.docstrings import docstring
from training.common.errors import UserError, one_of

Entry = TypeVar("Entry")
Families = Mapping[str, type[Entry] | Entry]
"""A dataclass whose first field is the parameter, or a ready instance, which takes none."""
LARGEST: Mapping[type[int | float], int] = {int: 10_000, float: 1_000_000}
"""Larger parameters would exceed memory, or the range of float32."""


def from_registry(what: str, spec: str, families: Families[Entry]) -> Entry:
    """The entry of a registry that `spec` names.

    Raises:
        UserError: no such name, or an invalid parameter.
    """
    name, colon, text = spec.partition(":")
    if name not in families:
        raise one_of(what, name, families)
    family = families[name]
    field = parameter_of(family)
    if colon and field is None:
        raise UserError(f"{what} '{spec}': {name} takes no parameter")
    if not isinstance(family, type):
        return family
    if field is None or not colon:
        if field is not None and field.default is dataclasses.MISSING:
            raise UserError(f"{what} '{spec}' needs its {field.name} (for example {name}:4)")
        return cast(Entry, family())
    return cast(Callable[[float], Entry], family)(parameter(what, spec, text, field))


def parameter_of(family: object) -> "dataclasses.Field[Any] | None":
    """The field that holds the parameter; None if there is none."""
    fields = dataclasses.fields(family) if isinstance(family, type) and dataclasses.is_dataclass(family) else ()
    return fields[0] if fields else None


def parameter(what: str, spec: str, text: str, field: "dataclasses.Field[Any]") -> int | float:
    kind: type[int | float] = int if field.type is int else float
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST[kind]:
        wanted = "a whole number" if kind is int else "a number"
        raise UserError(f"{what} '{spec}': its {field.name} has to be {wanted} of at most {LARGEST[kind]}")
    return value


def describe(families: Families[Entry]) -> list[tuple[str, str, str]]:
    """Every name with its parameter (`:3 nonzero`, the default first) and its definition."""
    rows = []
    for name, family in families.items():
        field, parameter = parameter_of(family), ""
        if field is not None:
            default = "" if field.default is dataclasses.MISSING else f"{field.default:g} "
            parameter = f":{default}{field.name}"
        if dataclasses.is_dataclass(family) and not isinstance(family, type):
            parameter = "".join(f" ({f.name} {getattr(family, f.name)})" for f in dataclasses.fields(family))
        rows.append((name, parameter, " ".join(docstring(family).split("\n\n")[0].split())))
    return rows
