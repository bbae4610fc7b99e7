"""Configurations from TOML presets, `--set section.key=value`, and saved config.json.

Names, types and ranges are checked, and an unknown name is an error.
"""

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from types import UnionType
from typing import Any, Literal, TypeVar

from training.common.errors import UserError, one_of
from training.common.terminal import echo
from training.config.config import FORMER_NAME, RunConfig, Seeds

Config = TypeVar("Config")


def names_in(folder: str) -> list[str]:
    files = resources.files("training").joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def preset_names() -> list[str]:
    return names_in("presets")


def recipe_names() -> list[str]:
    return names_in("recipes")


def read_toml(folder: str, name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("training").joinpath(folder, f"{name}.toml").read_text())


def from_preset(
    preset: str, curriculum: str, seed: int, settings: Sequence[str] = (), recipe: str | None = None
) -> RunConfig:
    """The configuration of a run: a preset, a curriculum, a seed, and `section.key=value` replacements.

    A preset may name a recipe (`uses`), whose values hold where the preset has none. A recipe named here holds
    throughout, and leaves to the preset what it does not say (sizes, data, steps) and what the preset says about this
    recipe at its size (a table `at_this_size.RECIPE`).

    Raises:
        UserError: unknown preset, recipe or key, malformed or invalid value.

    >>> from_preset("tiny", "mixed", 0, ["recipe.lr=1e-4"]).recipe.lr
    0.0001
    """
    if preset not in preset_names():
        raise one_of("preset", preset, preset_names())
    if recipe is not None and recipe not in recipe_names():
        raise one_of("recipe", recipe, recipe_names())
    values = read_toml("presets", preset)
    used, at_this_size = values.pop("uses", None), values.pop("at_this_size", {})
    if used:
        values = merged(read_toml("recipes", used), values)
    if recipe:
        values = merged(merged(values, read_toml("recipes", recipe)), at_this_size.get(recipe, {}))
    values |= {"curriculum": curriculum, "seeds": dataclasses.asdict(Seeds.derive(seed, curriculum))}
    for setting in settings:
        replace_setting(values, setting)
    return from_dict(RunConfig, values)


def check_settings(settings: Sequence[str]) -> None:
    """Refuse a key that is set twice.

    Raises:
        UserError: a key is set twice.

    >>> check_settings(["recipe.lr=1e-3", "recipe.steps=100"])
    """
    for key, n_times in Counter(setting.partition("=")[0] for setting in settings).items():
        if n_times > 1:
            raise UserError(f"--set {key} is given {n_times} times: give it once")


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of both; where both have a key, that of `over`."""
    return {key: {**values.get(key, {}), **over.get(key, {})} for key in {**values, **over}}


def replace_setting(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    section, dot, name = key.partition(".")
    if not equals or not dot or not text:
        raise UserError(f"--set {setting}: not of the form section.key=value (for example recipe.lr=1e-3)")
    current = current_key(key)
    if current not in settable_keys():
        raise one_of("--set key", key, ["those that `interp train --keys` lists"], settable_keys())
    section, _, name = current.partition(".")
    is_plain = takes_words(current) and not text.startswith("[")
    values.setdefault(section, {})[name] = text if is_plain else parsed_value(text)


@cache
def current_key(key: str) -> str:
    """The present name of a `section.key`; a former one is reported on stderr, once.

    >>> current_key("recipe.lr")
    'recipe.lr'
    """
    section, _, name = key.partition(".")
    ((section, values),) = with_current_names(RunConfig, {section: {name: None}}).items()
    current = f"{section}.{next(iter(values))}"
    if current != key:
        echo(f"{key} is now called {current}", err=True)
    return current


def parsed_value(text: str) -> Any:
    """The text as a TOML value, or as the bare word that it is (`data.weights=unit`)."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML; or numbers too long and lists too deep for any setting
        return text
    return parsed["value"] if len(parsed) == 1 else text  # a line break may have begun a second key


def takes_words(key: str) -> bool:
    """Whether the value of a `section.key` is a word or a list of words, of which none is read as a number.

    >>> takes_words("init.keep_heads"), takes_words("recipe.lr")
    (True, False)
    """
    section, _, name = key.partition(".")
    (kind,) = (f.type for f in dataclasses.fields(RunConfig) if f.name == section)
    (value_kind,) = (f.type for f in dataclasses.fields(kind) if f.name == name)  # type: ignore[arg-type]
    return value_kind in (str, tuple[str, ...])


def settable_keys() -> list[str]:
    """Every `section.key` that a preset or `--set` can name."""
    sections = {f.name: f.type for f in dataclasses.fields(RunConfig) if dataclasses.is_dataclass(f.type)}
    return [f"{name}.{f.name}" for name, section in sections.items() for f in dataclasses.fields(section)]


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration in JSON's own types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def without_defaults(config: Any) -> dict[str, Any]:
    """The values that differ from the defaults, by the first names of their keys: equal in later versions.

    >>> from training.config.config import RecipeConfig
    >>> without_defaults(RecipeConfig(steps=10, lr=1e-4, batch_size=32))
    {'steps': 10, 'batch_size': 32}
    """
    values = {}
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), f.metadata.get(FORMER_NAME, f.name)
        if dataclasses.is_dataclass(value):
            values[name] = without_defaults(value)
        elif value != f.default:
            values[name] = value
    return {name: value for name, value in values.items() if value != {}}


def with_current_names(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the present names of their keys, where a file or setting may have a former one.

    >>> with_current_names(RunConfig, {"recipe": {"lr_beside": 0.1, "lr": 0.2}})
    {'recipe': {'lr_adamw': 0.1, 'lr': 0.2}}
    """
    fields = dataclasses.fields(cls)
    by_name = {f.metadata.get(FORMER_NAME): f for f in fields} | {f.name: f for f in fields}
    renamed = {}
    for name, value in values.items():
        current, kind = (by_name[name].name, by_name[name].type) if name in by_name else (name, None)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            renamed[current] = with_current_names(kind, value)
        else:
            renamed[current] = value
    return renamed


def from_dict(cls: type[Config], values: Mapping[str, Any], where: str = "") -> Config:
    """The dataclass with these values, strictly: every key known, every required key there, every type right.

    Raises:
        UserError: names the key (`recipe.lr`), the value and what is valid; or all required keys that are missing.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_keys(cls, values, where)
    if missing := missing_keys(cls, values, where):
        keys, are = ("key", "is") if len(missing) == 1 else ("keys", "are")
        raise UserError(f"configuration {keys} {', '.join(missing)} {are} missing")
    checked = {key: checked_value(fields[key].type, value, where + key) for key, value in values.items()}
    return cls(**checked)


def check_keys(cls: type[Any], values: Mapping[str, Any], where: str) -> None:
    """
    Raises:
        UserError: a configuration, or one of its tables, has a key that does not exist.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key, value in values.items():
        if key not in fields:
            raise one_of("configuration key", where + key, [where + name for name in fields])
        if dataclasses.is_dataclass(kind := fields[key].type) and isinstance(value, Mapping):
            check_keys(kind, value, f"{where}{key}.")  # type: ignore[arg-type]


def missing_keys(cls: type[Any], values: Mapping[str, Any], where: str = "") -> list[str]:
    """The required keys of a configuration, and of its tables, that have no value."""
    missing = []
    for f in dataclasses.fields(cls):
        is_table = dataclasses.is_dataclass(f.type) and isinstance(f.type, type)
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        table = values.get(f.name, {} if required else None)
        if is_table and isinstance(table, Mapping):
            missing += missing_keys(f.type, table, f"{where}{f.name}.")  # type: ignore[arg-type]
        elif required and f.name not in values:
            missing.append(where + f.name)
    return missing


def checked_value(kind: Any, value: Any, key: str) -> Any:
    """The value as `kind`: a dataclass, a Literal, a tuple, int, float, bool or str, or one of these or None."""
    if isinstance(kind, types.UnionType):
        return None if value is None else checked_value(typing.get_args(kind)[0], value, key)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise UserError(f"{key}={value!r}: a table of settings is needed")
        return from_dict(kind, value, key + ".")
    origin = typing.get_origin(kind)
    if origin is UnionType:  # of a type and None, the default
        return value if value is None else checked_value(typing.get_args(kind)[0], value, key)
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise one_of(key, str(value), typing.get_args(kind))
        return value
    if origin is tuple:
        of_item = typing.get_args(kind)[0]
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise UserError(f"{key}={value!r}: a list is needed")
        if isinstance(value, str) and of_item is not str:
            items = [parsed_value(item) for item in items]
        return tuple(checked_value(of_item, item, key) for item in items)
    return checked_number(kind, value, key)


def checked_number(kind: Any, value: Any, key: str) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, accepted) or out_of_range(value):
        wanted = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}[kind]
        raise UserError(f"{key}={value!r}: {wanted} is needed")
    return kind(value)


def out_of_range(value: int | float | str) -> bool:
    """Whether it is a number that cannot be computed with: not finite, or a whole one of more than 64 bits."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def differences(old: dict[str, Any], new: dict[str, Any], where: str = "") -> list[str]:
    """The keys at which two configurations differ.

    >>> differences({"recipe": {"lr": 1}, "seed": 0}, {"recipe": {"lr": 2}, "seed": 0})
    ['recipe.lr']
    """
    keys = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            keys += differences(before, after, f"{where}{key}.")
        elif before != after:
            keys.append(where + key)
    return keys
