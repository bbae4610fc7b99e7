"""The on-disk format of a run: a directory that survives a kill at any moment, and the names by which it is found.

    config.json                          format version, configuration with all seeds, environment
    model.safetensors                    weights under HookedTransformer's names; its metadata holds the step
    history.jsonl                        one row per evaluation and function class
    snapshots/step-NNNNNN.safetensors    weights at log-spaced steps
    resume/state.safetensors             weights, optimiser, RNG states and counters of the last save

Every file is replaced atomically and nothing is ever unpickled. A checkpoint is named by its directory, by `DIR@STEP`
for a snapshot, or by `zoo:NAME` for one that ships with the package.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from training.config import RunConfig
from training.errors import UserError, one_of
from training.settings import differences, from_dict, to_dict
from training.transformer import Transformer

FORMAT_VERSION = 2
CONFIG, WEIGHTS, HISTORY, SNAPSHOTS, RESUME = (
    "config.json",
    "model.safetensors",
    "history.jsonl",
    "snapshots",
    "resume",
)


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and what it was trained on.

    Attributes:
        name: as the user wrote it (`zoo:mixed-0`, `runs/mixed-0@200`).
        directory: where it lies.
        config: the run's configuration.
        step: optimiser steps behind these weights.
        model: the transformer, in evaluation, without gradients.
    """

    name: str
    directory: Path
    config: RunConfig
    step: int
    model: Transformer

    def __repr__(self) -> str:
        model, config = self.model.config, self.config
        size = f"{model.n_layers} layers of {model.n_heads} heads, width {model.d_model}"
        classes = ", ".join(config.trained_classes)
        return f"<Checkpoint {self.name}: step {self.step}, {config.curriculum} over {classes}; {size}>"


def load(name: str | Path, device: str = "cpu") -> Checkpoint:
    """Load `DIR`, `DIR@STEP`, `zoo:NAME` or `zoo:NAME@STEP`.

    Raises:
        UserError: there is no such checkpoint, or its files are damaged or do not fit each other.
    """
    directory, step = locate(str(name))
    config = read_config(directory)
    path = weights_path(directory, step)
    model = Transformer(config.model, layout=config.layout)
    tensors, saved_step = read_weights(path)
    load_tensors(model, tensors, path)
    return Checkpoint(str(name), directory, config, saved_step, model.requires_grad_(False).eval().to(device))


def locate(name: str) -> tuple[Path, int | None]:
    """The directory and the snapshot step (None for the final weights) that a checkpoint's name stands for."""
    if Path(name).is_dir():
        return Path(name), None
    with_step = re.fullmatch(r"(.+)@([^/]*)", name)
    base, step = with_step.groups() if with_step else (name, None)
    if step is not None and not step.isdecimal():
        raise UserError(f"--ckpt {name}: '{step}' is not a step (for example {base}@200)")
    directory = zoo_path(base.removeprefix("zoo:")) if base.startswith("zoo:") else Path(base)
    if not directory.is_dir():
        raise UserError(f"no checkpoint directory '{base}' (shipped as zoo:NAME: {', '.join(zoo_summary())})")
    return directory, None if step is None else int(step)


def zoo_root() -> Path:
    return Path(str(resources.files("training") / "zoo"))


def zoo_names() -> list[str]:
    """The checkpoints that ship with the package."""
    return sorted(path.parent.name for path in zoo_root().glob(f"*/{WEIGHTS}"))


def zoo_path(name: str) -> Path:
    if name not in zoo_names():
        raise one_of("zoo checkpoint", name, zoo_summary())
    return zoo_root() / name


def zoo_summary() -> list[str]:
    """The shipped checkpoints, seeds of one kind together."""
    return runs_of_numbers(zoo_names())


def runs_of_numbers(names: Sequence[str]) -> list[str]:
    """Names that count on from one another, as one.

    >>> runs_of_numbers(["inherited", "mixed-0", "mixed-1", "mixed-3"])
    ['inherited', 'mixed-0 to mixed-1', 'mixed-3']
    """
    runs: list[list[str]] = []
    for name in names:
        stem, _, number = name.rpartition("-")
        before = f"{stem}-{int(number) - 1}" if number.isdigit() else ""
        if runs and runs[-1][-1] == before:
            runs[-1].append(name)
        else:
            runs.append([name])
    return [f"{run[0]} to {run[-1]}" if len(run) > 1 else run[0] for run in runs]


def snapshot_steps(directory: Path) -> list[int]:
    """The steps of the snapshots in a run directory, ascending."""
    return sorted(int(path.stem.removeprefix("step-")) for path in (directory / SNAPSHOTS).glob("step-*.safetensors"))


def snapshot_path(directory: Path, step: int) -> Path:
    return directory / SNAPSHOTS / f"step-{step:06d}.safetensors"


def weights_path(directory: Path, step: int | None) -> Path:
    """The file with the weights at a step; None asks for the latest."""
    final = directory / WEIGHTS
    if step is None or (final.exists() and saved_step(final) == step):
        return final
    if step not in snapshot_steps(directory):
        have = sorted({*snapshot_steps(directory), *([saved_step(final)] if final.exists() else [])})
        raise one_of("step", str(step), have or ["none saved yet"])
    return snapshot_path(directory, step)


def read_config(directory: Path) -> RunConfig:
    """The configuration of the run in a directory.

    Raises:
        UserError: it is missing, damaged, or of another format version.
    """
    document = read_document(directory)
    version, path = document.get("format_version"), directory / CONFIG
    if version != FORMAT_VERSION:
        older = isinstance(version, int) and version < FORMAT_VERSION
        way = f": convert it with `interp upgrade --ckpt {directory}`" if older else ""
        raise UserError(f"{path} has format version {version}; this program reads version {FORMAT_VERSION}{way}")
    config = from_dict(RunConfig, document["run"])
    missing = differences(to_dict(config), document["run"])
    if missing:
        raise UserError(f"{path} is damaged: it has no {missing[0]}")
    return config


def read_document(directory: Path) -> dict[str, Any]:
    """config.json, whatever its format version.

    Raises:
        UserError: it is missing or damaged.
    """
    path = directory / CONFIG
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{directory} is not a checkpoint: it has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None
    if not isinstance(document, dict) or not isinstance(document.get("run"), dict):
        raise UserError(f"{path} is damaged: it has no table 'run'")
    return document


def read_weights(path: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors in a weights file and their training step."""
    try:
        return load_file(path), saved_step(path)
    except FileNotFoundError:
        raise UserError(f"no weights at {path}: training has not saved any yet") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None


def saved_step(path: Path) -> int:
    try:
        with safe_open(path, "pt") as file:
            return int((file.metadata() or {})["step"])
    except FileNotFoundError:
        raise UserError(f"no weights at {path}: training has not saved any yet") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None


def load_tensors(model: Transformer, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into the model, refusing anything that does not fit it exactly."""
    wanted = model.state_dict()
    odd = sorted(set(wanted).symmetric_difference(tensors))
    odd += [key for key in wanted if key in tensors and tensors[key].shape != wanted[key].shape]
    if odd:
        raise UserError(f"{path} does not fit {CONFIG}: {odd[0]} is missing, unknown or of another shape")
    infinite = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if infinite:
        raise UserError(f"{path} is damaged: {infinite[0]} holds values that are not finite")
    model.load_state_dict(dict(tensors))


def write_config(directory: Path, config: RunConfig) -> None:
    document = {"format_version": FORMAT_VERSION, "run": to_dict(config), "environment": environment()}
    write_atomically(directory / CONFIG, (json.dumps(document, indent=2) + "\n").encode())


def write_weights(path: Path, model: Transformer, step: int) -> None:
    write_atomically(path, save(packed(model.state_dict()), {"step": str(step)}))


def write_resume(directory: Path, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
    """One file, so that weights, optimiser and generators can never be of different steps."""
    data = save(packed(tensors), {"counters": json.dumps(dict(counters))})
    write_atomically(directory / RESUME / "state.safetensors", data)


def read_resume(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and counters of the last save, or None when there is none."""
    path = directory / RESUME / "state.safetensors"
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            counters = json.loads((file.metadata() or {})["counters"])
        return load_file(path), counters
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)} (start again with --force)") from None


def append_history(directory: Path, rows: list[dict[str, Any]]) -> None:
    with (directory / HISTORY).open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_history(directory: Path) -> list[dict[str, Any]]:
    """The rows of history.jsonl, without a last line that a kill cut short."""
    path = directory / HISTORY
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def forget_after(directory: Path, step: int) -> None:
    """Drop history rows and snapshots that a resumed run will make again; -1 drops all of them."""
    rows = [row for row in read_history(directory) if row["step"] <= step]
    write_atomically(directory / HISTORY, "".join(json.dumps(row) + "\n" for row in rows).encode())
    for later in (s for s in snapshot_steps(directory) if s > step):
        snapshot_path(directory, later).unlink()


def delete_resume(directory: Path) -> None:
    shutil.rmtree(directory / RESUME, ignore_errors=True)


def delete_run(directory: Path) -> None:
    """Remove a run's files, and nothing else that lies beside them."""
    for name in (CONFIG, WEIGHTS, HISTORY):
        (directory / name).unlink(missing_ok=True)
    delete_resume(directory)
    shutil.rmtree(directory / SNAPSHOTS, ignore_errors=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def environment() -> dict[str, str | None]:
    """The versions behind a result."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "safetensors")}
    return {"python": platform.python_version(), **packages, "commit": git_commit()}


def git_commit() -> str | None:
    """The commit of this code, with `-dirty` when the tree differs from it; None outside a git checkout."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
