"""Reads the files of other programs: nothing in them is executed, and sizes are checked before memory is taken."""

import hashlib
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from torch import Tensor

from training.checkpoints.tensor_files import first_line
from training.common.atomic_files import open_plain, parse_json, read_parsed
from training.common.errors import UserError

LARGEST_TEXT = 2**20
"""Bytes of a configuration."""
LARGEST_FILE = 2**31
"""Bytes of weights where nothing else says how large they may be."""
DEEPEST = 8
"""Files that inherit from one another."""
WRAPPERS = ("_orig_mod.", "module.")
"""What torch.compile and DataParallel put in front of the names of parameters."""
STATE_KEYS = ("model_state_dict", "state_dict", "model")
"""Under which of its keys a file may keep the weights."""

Table = dict[str, Any]


class PlainLoader(yaml.SafeLoader):
    """YAML's plain values, and the mappings that in-context-learning-2024/in-context tags as curricula."""


def curriculum_table(loader: PlainLoader, node: yaml.MappingNode) -> Table:
    return {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}


PlainLoader.add_constructor("!curriculum", curriculum_table)


def parse_yaml(text: str) -> Any:
    """The values of a YAML text.

    Raises:
        ValueError: it is not YAML, asks for an object, or is nested too deeply.
    """
    try:
        return yaml.load(text, Loader=PlainLoader)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(f"it asks for more than plain values: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_settings(path: Path, depth: int = 0) -> Table:
    """A configuration in YAML or JSON, with what it inherits (`inherit: [FILE, ...]`, relative to the file).

    Raises:
        UserError: it is missing, not a mapping, or not readable; or inherits from itself.
    """
    parse, kind = (parse_json, "JSON") if path.suffix == ".json" else (parse_yaml, "YAML")
    try:
        values = read_parsed(path, LARGEST_TEXT, parse, kind)
    except FileNotFoundError:
        raise UserError(f"there is no configuration {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as {kind}: {first_line(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a mapping of settings but {type(values).__name__}")
    names = values.pop("inherit", None) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: inherit is not a list of files")
    if names and depth == DEEPEST:
        raise UserError(f"{path} inherits from more than {DEEPEST} files in a row, or from itself")
    inherited: Table = {}
    for name in names:
        inherited = merged(inherited, read_settings(path.parent / name, depth + 1))
    return merged(inherited, values)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Table:
    """Two configurations; where both have a value, that of the second.

    >>> merged({"model": {"n_layer": 2, "n_head": 1}}, {"model": {"n_head": 8}})
    {'model': {'n_layer': 2, 'n_head': 8}}
    """
    both = {
        key: merged(below[key], above[key])
        for key in below.keys() & above.keys()
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping)
    }
    return {**below, **above, **both}


def read_pickle(path: Path, at_most: int = LARGEST_FILE) -> Any:
    """What `torch.save` wrote, if that is tensors, numbers, words and containers of them.

    Tensors of the present format stay on disk until they are used.

    Args:
        path: of a file.
        at_most: bytes, of the file and of what it holds.

    Raises:
        UserError: it is missing, larger, damaged, not a file of torch, or needs code to be read.
    """
    try:
        with open_plain(path) as handle:
            size = os.fstat(handle).st_size
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(entry.file_size for entry in archive.infolist()))
        if size > at_most:
            raise UserError(f"{path} holds {size} bytes; at most {at_most} are needed for this model and its optimiser")
        with warnings.catch_warnings():  # torch warns of pickles of other programs before it refuses them
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except UnpicklingError as error:
        raise UserError(f"{path} is not read: {needed_code(str(error))}") from None
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged, or no file of torch.save: {first_line(error)}") from None


def needed_code(message: str) -> str:
    """Why torch refused a pickle, in a few words."""
    needed = re.search(r"GLOBAL (\S+)", message) or re.search(r"[Uu]nsupported (?:class|global): (\S+)", message)
    if needed:
        return f"it is a pickle that needs {needed[1]}, and only tensors, numbers and words are unpickled"
    return "it is no file that torch.save wrote of tensors, numbers and words alone"


def weights_in(content: Any, path: Path | str) -> tuple[dict[str, Tensor], Table]:
    """The tensors in what a file holds, by their names without wrappers, and what lies beside them.

    Raises:
        UserError: there are none.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no weights but {type(content).__name__}")
    keys = [key for key in STATE_KEYS if isinstance(content.get(key), Mapping)]
    state = content[keys[0]] if keys else content
    beside = {key: value for key, value in content.items() if key not in STATE_KEYS} if keys else {}
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(state):
        raise UserError(f"{path} holds no weights: a mapping from names to tensors is needed")
    return {without_wrappers(name): tensor for name, tensor in tensors.items()}, beside


def without_wrappers(name: str) -> str:
    """
    >>> without_wrappers("module._orig_mod._read_in.weight")
    '_read_in.weight'
    """
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
