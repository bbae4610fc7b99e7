"""The table of all settings of a run, as `interp train --keys` prints it."""

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, NamedTuple

from training.common.docstrings import docstring
from training.config.config import RunConfig
from training.config.parse import from_preset, preset_names, to_dict


class Setting(NamedTuple):
    """One `section.key` of `--set`.

    Attributes:
        key: section and name.
        values: its value in the presets, once if they agree.
        meaning: from the documentation of its section, with the words that are possible unless it names all of them.
    """

    key: str
    values: str
    meaning: str


def list_settings() -> list[Setting]:
    """Every setting, section by section, with its value in every preset."""
    presets = [to_dict(from_preset(name, "mixed", 0)) for name in preset_names()]
    return [
        Setting(f"{section}.{name}", values_of([preset[section][name] for preset in presets]), meaning)
        for section, kind in sections()
        for name, meaning in describe_fields(kind)
    ]


def sections() -> Iterator[tuple[str, type]]:
    """Name and class of the sections that a preset or `--set` can change."""
    for field in dataclasses.fields(RunConfig):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield field.name, field.type


def describe_fields(kind: type) -> Iterator[tuple[str, str]]:
    """Name and meaning of the fields of a section."""
    meanings = read_meanings(docstring(kind))
    for field in dataclasses.fields(kind):
        words = valid_words(field.type)
        choice = f" ({', '.join(words)})" if any(f"`{word}`" not in meanings[field.name] for word in words) else ""
        yield field.name, meanings[field.name].replace("`", "").rstrip(".") + choice


def read_meanings(text: str) -> Mapping[str, str]:
    """The entries of the part "Attributes:" of a docstring, by name.

    >>> read_meanings("Title." + chr(10) + "Attributes:" + chr(10) + "    a: first" + chr(10) + "        line.")
    {'a': 'first line.'}
    """
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", text.partition("Attributes:")[2], re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}


def valid_words(kind: Any) -> list[str]:
    """The words that a field takes; none if it takes numbers or any word."""
    if isinstance(kind, UnionType):
        kind = typing.get_args(kind)[0]
    return [*typing.get_args(kind)] if typing.get_origin(kind) is Literal and len(typing.get_args(kind)) > 1 else []


def values_of(values: list[Any]) -> str:
    """The values in the presets as text, once if they are equal.

    >>> values_of([3, 3]), values_of([3, 12]), values_of([["linear"]]), values_of([None])
    ('3', '3 / 12', 'linear', '')
    """
    texts = [",".join(map(str, value)) if isinstance(value, list) else show_value(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def show_value(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
