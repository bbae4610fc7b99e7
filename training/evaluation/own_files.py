"""Prompts of a user's own from a file: npz or safetensors with arrays xs and ys, or csv. Nothing is unpickled."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.checkpoints.tensor_files import read as read_safetensors
from training.common.atomic_files import read_plain
from training.common.errors import UserError
from training.common.file_kinds import kind_of_content
from training.evaluation.own_prompts import OwnPrompts

LARGEST = 2**31  # bytes
NAMES = {"xs", "ys"}
OPTIONAL = {"no_context"}


def read_prompts(path: Path) -> OwnPrompts:
    """The prompts in a file.

    Args:
        path: `.npz` or `.safetensors` with xs [batch point dim] and ys [batch point] and perhaps the number no_context
            (see `OwnPrompts`), or `.csv` with the columns prompt, point, x0, x1, … and y, a row per point.

    Raises:
        UserError: there is no such file, it is something else, or its values are not valid (`OwnPrompts`).
    """
    readers = {".npz": read_npz, ".safetensors": read_tensors, ".csv": read_csv}
    if path.suffix not in readers:
        raise UserError(f"--data {path}: a file that ends in {', '.join(readers)} is needed")
    try:
        arrays = readers[path.suffix](path)
    except FileNotFoundError:
        raise UserError(f"--data {path}: there is no such file") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"--data {path}: {reason}") from None
    return OwnPrompts(**arrays, source=f"--data {path}")


def read_npz(path: Path) -> dict[str, Any]:
    content = read_plain(path, LARGEST)
    if not content.startswith(b"PK"):
        raise ValueError(f"it is {kind_of_content(content) or 'something else'}, not an npz file")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        check_names(arrays.files)
        try:
            return {name: arrays[name] for name in arrays.files}
        except ValueError:  # of objects
            raise ValueError("an array holds something else than numbers, and nothing is unpickled") from None


def read_tensors(path: Path) -> dict[str, Any]:
    tensors, _ = read_safetensors(path)
    check_names(tensors)
    return dict(tensors)


def check_names(names: Any) -> None:
    if not NAMES <= set(names) <= NAMES | OPTIONAL:
        raise ValueError(
            f"it holds {', '.join(sorted(names)) or 'nothing'}; xs and ys are needed, and no_context is possible"
        )


def read_csv(path: Path) -> dict[str, Any]:
    """The arrays of a table with a row per prompt and point, in any order."""
    table = pd.read_csv(io.BytesIO(read_plain(path, LARGEST)))
    dims = [f"x{i}" for i in range(len(table.columns) - 3)]
    columns = ["prompt", "point", *dims, "y"]
    if not dims or set(table.columns) != set(columns):
        raise ValueError(
            f"its columns are {', '.join(map(str, table.columns))}; prompt, point, x0, x1, …, y are needed"
        )
    table = table.sort_values(["prompt", "point"], kind="stable")
    n_prompts = len({*table["prompt"]})
    n_points = len(table) // max(1, n_prompts)
    points = table["point"].to_numpy()
    if not n_prompts or len(table) != n_prompts * n_points or list(points) != [*range(n_points)] * n_prompts:
        raise ValueError("every prompt needs the same points, counted from 0, once each")
    shape = n_prompts, n_points
    return {"xs": table[dims].to_numpy().reshape(*shape, -1), "ys": table["y"].to_numpy().reshape(shape)}
