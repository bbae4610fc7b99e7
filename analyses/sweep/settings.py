"""The sweep file, read strictly: unknown keys are refused.

out = "grid"                      # directory of all results; paths are relative to the file
ckpt = ["zoo:mixed-*"]            # checkpoints that are there already, beside or instead of [train]

[train]                           # a grid of runs: a list is an axis; [[train]] gives several grids
curriculum = ["mixed", "single:linear"]
seeds = "0-4"
set = { model.n_heads = [4, 8], recipe.steps = 3000 }

[[analyse]]                       # one command for every run of the grid
command = "ablate --heads top:1"
set = { mode = "mean", classes = ["linear", "cubic"] }

[[study]]                         # one command for all runs together
command = "study cause"
"""

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.sweep.axes import Axis, file_name, flat, parse_axis
from training.common.atomic_files import read_parsed
from training.common.errors import UserError, one_of
from training.config.parse import current_key, settable_keys
from training.processes.run_sets import parse_seeds

LARGEST = 2**18  # bytes; a file written by hand has a few thousand


@dataclass(frozen=True)
class Grid:
    """Runs to train.

    Attributes:
        axes: preset, recipe, curriculum, the settings, seed.
        device: of all of them.
    """

    axes: tuple[Axis, ...]
    device: str


@dataclass(frozen=True)
class Analysis:
    """An analysis of every run, or a study of all of them.

    Attributes:
        name: of its directory.
        words: of the command, without `interp`, checkpoint and `--out`.
        on: patterns of the names of the runs that it analyses.
        steps: of the snapshots that it analyses; `all` of them, or (none) the final weights.
        axes: options that take several values.
    """

    name: str
    words: tuple[str, ...]
    on: tuple[str, ...] = ("*",)
    steps: tuple[int, ...] | str = ()
    axes: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class SweepFile:
    """The content of a sweep file."""

    out: str
    ckpt: tuple[str, ...]
    grids: tuple[Grid, ...]
    analyses: tuple[Analysis, ...]
    studies: tuple[Analysis, ...]


def read(path: Path) -> SweepFile:
    """The sweep that a file describes.

    Raises:
        UserError: it cannot be read, or something in it is unknown, missing or malformed; names the file.
    """
    try:
        return parsed(read_parsed(path, LARGEST, tomllib.loads, "TOML"))
    except RecursionError:
        raise UserError(f"{path}: it is nested too deeply") from None
    except FileNotFoundError:
        raise UserError(f"there is no file '{path}'") from None
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}") from None
    except UserError as error:
        raise UserError(f"{path}: {error.message}") from None
    except ValueError as error:  # neither TOML nor text
        raise UserError(f"{path}: it is no TOML file: {error}") from None


def parsed(document: Mapping[str, Any]) -> SweepFile:
    check_keys(document, "", "out", "ckpt", "train", "analyse", "study")
    if not isinstance(document.get("out"), str) or not document["out"]:
        raise UserError('out is missing: name the directory of the sweep, for example out = "grid"')
    grids = tuple(parse_grid(table) for table in tables(document, "train"))
    ckpt = texts("ckpt", document.get("ckpt", []))
    if not grids and not ckpt:
        raise UserError("there is nothing to sweep: [train] makes runs, ckpt names checkpoints that are there already")
    analyses = tuple(parse_analysis(table) for table in tables(document, "analyse"))
    studies = tuple(parse_study(table) for table in tables(document, "study"))
    return SweepFile(document["out"], ckpt, grids, analyses, studies)


def tables(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The tables under a key, of which there may be one or several."""
    given = document.get(key, [])
    entries = given if isinstance(given, list) else [given]
    if not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{key}: a table is needed, [{key}] or [[{key}]]")
    return entries


def parse_grid(table: Mapping[str, Any]) -> Grid:
    check_keys(table, "train.", "preset", "recipe", "curriculum", "seeds", "set", "device")
    axes = [parse_axis("preset", table.get("preset", "tiny"))]
    axes += [parse_axis("recipe", table["recipe"])] if "recipe" in table else []
    axes += [parse_axis("curriculum", table.get("curriculum", "mixed"))]
    axes += [setting_axis(key, value) for key, value in flat(dictionary(table, "train.set")).items()]
    axes += [parse_axis("seed", seed_list(table.get("seeds", 0)))]
    return Grid(tuple(axes), str(table.get("device", "cpu")))


def setting_axis(key: str, value: Any) -> Axis:
    if current_key(key) not in settable_keys():
        raise one_of("key", f"train.set.{key}", settable_keys())
    return parse_axis(key, value)


def seed_list(given: Any) -> list[int]:
    """`0`, `[0, 3]` or what `interp train --seeds` takes."""
    return parse_seeds(",".join(map(str, given)) if isinstance(given, list) else str(given))


def parse_analysis(table: Mapping[str, Any]) -> Analysis:
    check_keys(table, "analyse.", "command", "name", "on", "steps", "set")
    steps = table.get("steps", [])
    if steps != "all" and not (isinstance(steps, list) and all(type(step) is int for step in steps)):
        raise UserError(f"analyse.steps={steps!r}: a list of steps is needed, or all")
    axes = tuple(parse_axis(key, value) for key, value in dictionary(table, "analyse.set").items())
    return Analysis(*name_and_words(table, "analyse"), "all" if steps == "all" else tuple(steps), axes)


def parse_study(table: Mapping[str, Any]) -> Analysis:
    check_keys(table, "study.", "command", "name", "on")
    return Analysis(*name_and_words(table, "study"))


def name_and_words(table: Mapping[str, Any], where: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The name, the words of the command, and the patterns of runs."""
    command = table.get("command")
    if not isinstance(command, str):
        raise UserError(f'{where}.command is missing: name one of `interp`, for example command = "score"')
    try:
        words = tuple(part for word in shlex.split(command) for part in split_option(word))
    except ValueError as error:
        raise UserError(f"{where}.command '{command}': {error}") from None
    name = table.get("name", file_name(command.removeprefix("study ")))
    if not isinstance(name, str) or name != file_name(name) or not name:
        raise UserError(f"{where}.name={name!r}: letters, digits and .,=+- are valid")
    return name, words, texts(f"{where}.on", table.get("on", ["*"]))


def split_option(word: str) -> list[str]:
    """`--mode=mean` as two words."""
    return word.split("=", 1) if word.startswith("--") else [word]


def dictionary(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    settings = table.get("set", {})
    if not isinstance(settings, dict):
        raise UserError(f"{where}={settings!r}: a table of settings is needed")
    return settings


def texts(key: str, given: Any) -> tuple[str, ...]:
    """One text or a list of them."""
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{key}={given!r}: a list of names is needed")
    return tuple(names)


def check_keys(table: Mapping[str, Any], where: str, *valid: str) -> None:
    for key in table:
        if key not in valid:
            raise one_of("key", where + key, [where + name for name in valid])
