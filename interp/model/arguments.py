"""The arguments of the public functions, checked by their annotations before anything is computed.

An editor or a type checker sees a wrong argument as it is written; who has neither gets one line that names it, instead
of an error from somewhere inside. What a name stands for is checked by the function that reads it.
"""

from collections.abc import Callable
from functools import cache
from inspect import Parameter, signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from training.common.errors import UserError

LEAST = {
    "n_prompts": 1,
    "n_fit": 1,
    "n_null_prompts": 1,
    "n_controls": 0,
    "n_orders": 0,
    "n_rotations": 1,
    "n_dims": 1,
    "n_random": 0,
    "n_validate": 0,
    "n_compared": 1,
    "n_steps": 1,
    "memory": 1,
    "seed": 0,
}
"""The smallest value of every numerical argument, by its name."""
WORDS = {str: "text", int: "a whole number", float: "a number", NoneType: "None"}
ACCEPTED: dict[type, type] = {int: Integral, float: Real}


def check_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments of another type than the annotations of plain types say, and numbers that are too small.

    Args:
        function: whose arguments they are.
        args: after the first, which is the model.
        kwargs: by name.

    Raises:
        UserError: an argument is of another type, or too small.
    """
    types, names = plain_types(function), positional_names(function)
    for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
        if name in types and not isinstance(value, tuple(ACCEPTED.get(kind, kind) for kind in types[name])):
            needed = " or ".join(WORDS.get(kind, f"a {kind.__name__}") for kind in types[name])
            raise UserError(f"{name}={value!r}: {needed} is needed")
        if name in LEAST and value is not None and value < LEAST[name]:
            raise UserError(f"{name}={value!r}: a number of at least {LEAST[name]} is needed")


@cache
def positional_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the positional parameters after the first."""
    _, *rest = signature(function).parameters.values()
    return tuple(parameter.name for parameter in rest if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD)


@cache
def plain_types(function: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """By name, the types of the parameters that are annotated with plain types or literals only."""
    hints = {name: members(hint) for name, hint in get_type_hints(function).items() if name != "return"}
    return {name: kinds for name, kinds in hints.items() if kinds}


def members(hint: Any) -> tuple[type, ...]:
    """The classes of a type or union of types, and of the values of a literal; none if one is generic.

    >>> members(Literal["a"] | None), members(int), members(str | list[str])
    ((<class 'str'>, <class 'NoneType'>), (<class 'int'>,), ())
    """
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds: dict[type, None] = {}
    for part in parts:
        if get_origin(part) is Literal:
            kinds |= {type(value): None for value in get_args(part)}
        elif isinstance(part, type) and get_origin(part) is None:
            kinds[part] = None
        else:
            return ()
    return tuple(kinds)
