"""The on-disk format of a run: a directory that survives a kill at any moment, and the names by which it is found.

    config.json                          format version, configuration with all seeds, environment
    model.safetensors                    weights under HookedTransformer's names; its metadata holds the step
    history.jsonl                        one row per evaluation and function class
    snapshots/step-NNNNNN.safetensors    weights at log-spaced steps
    resume/state.safetensors             weights, optimiser, RNG states and counters of the last save

Every file is replaced atomically and nothing is ever unpickled. Weights carry a hash of themselves and one of the
configuration that made them, rows of the history a checksum each and the latter: what was damaged or swapped is
refused. Files of programs that kept no hashes yet have none to be held against. A checkpoint is named by its directory,
by `DIR@STEP` for a snapshot, or by `zoo:NAME` for one that ships with the package.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoints.history import HISTORY, RUN, Arm, Row, append_rows, arm_of, history_text, read_history
from training.checkpoints.tensor_files import LARGEST_HEADER, first_line, read_metadata, read_tensors, write_tensors
from training.common.atomic_files import open_plain, parse_json, read_parsed, remove_written, write_atomically
from training.common.devices import check_device
from training.common.digits import whole
from training.common.errors import CheckError, UserError, one_of
from training.common.library_defaults import library_defaults
from training.common.terminal import readable_name
from training.config.config import ModelConfig, RunConfig
from training.config.parse import from_dict, to_dict, with_current_names, without_defaults
from training.model.transformer import Transformer

FORMAT_VERSION = 2
CONFIG, WEIGHTS, SNAPSHOTS, RESUME = "config.json", "model.safetensors", "snapshots", "resume/state.safetensors"
TRUTH = "truth.txt"
LARGEST_CONFIG = 2**20  # bytes
SNAPSHOT = r"step-\d+\.safetensors"
STEP, COUNTERS = "step", "counters"
SOURCE = "source"
SHORT = 16  # signs of a run's hash that a row of its history keeps
START_AGAIN = "(start again with --force)"


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
        begun = (f"; begun from {config.init.source}" if config.init.source else "") + clamps(config)
        return f"<Checkpoint {self.name}: step {self.step}, {config.curriculum} over {classes}; {size}{begun}>"


def clamps(config: RunConfig) -> str:
    """What was fixed while the run was trained, in words; empty if nothing was."""
    clamping = config.clamping
    if clamping.action == "none":
        return ""
    heads, last = ",".join(clamping.heads) or "all heads", clamping.until or config.recipe.steps
    return f"; trained with {clamping.action} on {heads} in steps {clamping.first} to {last}, evaluated without"


@library_defaults()
def load(name: str | Path, device: str = "cpu") -> Checkpoint:
    """Load `DIR`, `DIR@STEP`, `zoo:NAME` or `zoo:NAME@STEP`.

    Raises:
        UserError: there is no such checkpoint or device, or its files are damaged or do not fit each other.
        CheckError: its weights are finite, but its predictions are not.
    """
    if not isinstance(name, str | Path):
        raise UserError(f"load takes the name of a checkpoint, not {type(name).__name__}")
    device = check_device(str(device))
    directory, step = locate(str(name))
    config = read_config(directory)
    path = weights_path(directory, step)
    tensors, step_of_weights = read_weights(path, config)
    if step is not None and step_of_weights != step:
        raise UserError(f"{path} holds the weights of step {step_of_weights}, not those of the step in its name")
    model = Transformer(config.model, layout=config.layout)
    load_tensors(model, tensors, path)
    check_predictions(model, path)
    model = model.requires_grad_(False).eval().to(device)
    return Checkpoint(readable_name(str(name)), directory, config, step_of_weights, model)


def locate(name: str) -> tuple[Path, int | None]:
    """The directory and the snapshot step (None for the final weights) that a checkpoint's name stands for."""
    if not name:
        raise UserError("the name of a checkpoint is empty: a run directory or zoo:NAME is needed")
    if is_directory(name):
        return Path(name), None
    base, digits = split_step(name)
    step = None if digits is None else whole(digits)
    if step is None and digits is not None:
        raise UserError(f"--ckpt {name}: '{digits}' is not a step (for example {base}@200)")
    if base.startswith("zoo:") and any(sign in base for sign in "*?["):
        raise UserError(f"{base} is a pattern, and one checkpoint is needed (load_all of name_patterns takes patterns)")
    directory = zoo_path(base.removeprefix("zoo:")) if base.startswith("zoo:") else Path(base)
    if ".py:" in base:
        raise UserError(f"{base}: models in a file are opened by score, ablate, patch and report only")
    if base.endswith(".py") and directory.is_file():
        raise UserError(f"{base} is a Python file: name one of its models, as in {base}:NAME")
    if directory.is_file():
        raise UserError(f"{base} is a file: a run directory is needed (interp import converts files of other programs)")
    if not is_directory(directory):
        raise UserError(f"no checkpoint directory '{base}' (shipped as zoo:NAME: {', '.join(zoo_summary())})")
    return directory, step


def split_step(name: str) -> tuple[str, str | None]:
    """The name of a run, and what follows the `@` of its snapshot; an `@` in the name of a directory is none.

    >>> split_step("runs@home/a@200"), split_step("runs@home/a")
    (('runs@home/a', '200'), ('runs@home/a', None))
    """
    base, at, step = name.rpartition("@")
    return (base, step) if at and base and "/" not in step else (name, None)


def is_directory(path: str | Path) -> bool:
    """Whether there is such a directory; there is none of a name that is too long for any."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def zoo_root() -> Path:
    return Path(str(resources.files("training") / "zoo"))


def zoo_names() -> list[str]:
    """The checkpoints that ship with the package."""
    return sorted(path.parent.name for path in zoo_root().glob(f"*/{WEIGHTS}"))


def zoo_path(name: str) -> Path:
    if name not in zoo_names():
        raise one_of("zoo checkpoint", name, zoo_summary(), zoo_names())
    return zoo_root() / name


def zoo_truth(name: str) -> str | None:
    """What a planted model computes, in words; None for a trained one."""
    path = zoo_path(name) / TRUTH
    return path.read_text().strip() if path.exists() else None


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
    steps = (whole(path.stem.removeprefix("step-")) for path in (directory / SNAPSHOTS).glob("step-*.safetensors"))
    return sorted(step for step in steps if step is not None and snapshot_path(directory, step).exists())


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
        UserError: it is missing, damaged, or of another format version; or it lacks what has no default, or a value
            is not valid.
    """
    document = read_document(directory)
    version, path = document.get("format_version"), directory / CONFIG
    if type(version) is not int or version != FORMAT_VERSION:
        older = type(version) is int and version < FORMAT_VERSION
        way = f": convert it with `interp upgrade --ckpt {directory}`" if older else ""
        given = "no format_version" if version is None else f"format version {version}"
        raise UserError(f"{path} has {given}; this program reads version {FORMAT_VERSION}{way}")
    try:
        return from_dict(RunConfig, with_current_names(RunConfig, document["run"]))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_document(directory: Path) -> dict[str, Any]:
    """config.json, whatever its format version.

    Raises:
        UserError: it is missing or damaged.
    """
    path = directory / CONFIG
    try:
        document = read_parsed(path, LARGEST_CONFIG, parse_json, "JSON")
    except FileNotFoundError:
        raise UserError(f"{directory} is not a checkpoint: it has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None
    if not isinstance(document, dict) or not isinstance(document.get("run"), dict):
        raise UserError(f"{path} is damaged: it has no table 'run'")
    return document


def read_weights(path: Path, config: RunConfig) -> tuple[dict[str, Tensor], int]:
    """The tensors in a weights file of this run, in float32, and their training step.

    A file in half precision (all of it float16, as `halve` writes it) takes half the room.

    Raises:
        UserError: it is missing, damaged, or of another run.
    """
    try:
        read_metadata(path)  # a file that was cut short is too small, too, but that is not what is wrong with it
        check_size(config.model, path)
        tensors, metadata = read_tensors(path)
    except FileNotFoundError:
        raise no_weights(path) from None
    except OSError as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None
    step = step_in(metadata, path)
    if metadata.get(RUN) not in (None, fingerprint(config)):
        raise UserError(f"{path} holds the weights of another run than the one that {CONFIG} describes")
    if step > config.recipe.steps:
        raise UserError(f"{path} does not fit {CONFIG}: it is of step {step}, the run has {config.recipe.steps}")
    if all(tensor.dtype == torch.float16 for tensor in tensors.values()):
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    return tensors, step


def halve(checkpoint: Checkpoint, directory: Path) -> None:
    """Write a run's configuration, history and final weights into a new directory, the weights in float16.

    Rounding changes what the model computes, so a run that is shipped like this is measured like this.

    Args:
        checkpoint: the run.
        directory: to write; it must not exist.
    """
    directory.mkdir(parents=True)
    for name in (CONFIG, HISTORY):
        write_atomically(directory / name, (checkpoint.directory / name).read_bytes())
    tensors = {name: tensor.half() for name, tensor in checkpoint.model.state_dict().items()}
    metadata = {STEP: str(checkpoint.step), RUN: fingerprint(checkpoint.config)}
    write_tensors(directory / WEIGHTS, tensors, metadata)


def check_size(config: ModelConfig, path: Path) -> None:
    """Refuse a file that cannot hold the weights that the configuration announces, before either takes memory."""
    n_bytes = path.stat().st_size
    if not any(0 <= n_bytes - size * config.n_parameters <= LARGEST_HEADER for size in (2, 4)):
        small = "small" if n_bytes < 4 * config.n_parameters else "large"
        raise UserError(f"{path} does not fit {CONFIG}: it is too {small} for {config.n_parameters} weights")


def weights_hash(directory: Path, step: int | None) -> str | None:
    """The SHA-256 of the file with the weights at a step, as `sha256sum` gives it; None if there is no such file."""
    try:
        with open_plain(weights_path(directory, step)) as handle, os.fdopen(handle, "rb", closefd=False) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def fingerprint(config: RunConfig) -> str:
    """A hash of the configuration of a run. Keys that a later version adds or renames do not change it."""
    return hashlib.sha256(json.dumps(without_defaults(config), sort_keys=True).encode()).hexdigest()


def saved_step(path: Path) -> int:
    """The training step of a weights file."""
    try:
        return step_in(read_metadata(path), path)
    except FileNotFoundError:
        raise no_weights(path) from None


def step_in(metadata: Mapping[str, str], path: Path) -> int:
    step = whole(metadata.get(STEP, ""))
    if step is None:
        raise UserError(f"{path} does not say of which step it is: its metadata need a '{STEP}' (a whole number)")
    return step


def no_weights(path: Path) -> UserError:
    return UserError(f"no weights at {path}: training has not saved any yet")


def load_tensors(model: Transformer, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into the model, refusing anything that does not fit it exactly."""
    wanted = model.state_dict()
    odd = sorted(set(wanted).symmetric_difference(tensors))
    odd += [key for key in wanted if key in tensors and kind_of(tensors[key]) != kind_of(wanted[key])]
    if odd:
        raise UserError(f"{path} does not fit {CONFIG}: {odd[0]} is missing, unknown or of another shape or type")
    infinite = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if infinite:
        raise UserError(f"{path} is damaged: {infinite[0]} holds values that are not finite")
    model.load_state_dict(dict(tensors))


@torch.no_grad()
def check_predictions(model: Transformer, path: Path) -> None:
    """Refuse weights that are finite and nevertheless so large that no error could be measured.

    Raises:
        CheckError: on a prompt of standard normal numbers a prediction, or its square, is not finite.
    """
    shape = model.config.n_ctx, len(model.embed.W_E)
    squares = model(torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))).square()
    if not squares.isfinite().all():
        raise CheckError(f"{path}: the weights are finite, but the predictions or their squares are not (NaN or inf)")


def kind_of(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, *tensor.shape


def write_config(directory: Path, config: RunConfig, source: Mapping[str, Any] | None = None) -> None:
    """Write the configuration with the versions behind the run; an imported run has its source instead of versions."""
    origin = {"environment": environment()} if source is None else {SOURCE: dict(source)}
    document = {"format_version": FORMAT_VERSION, "run": to_dict(config), **origin}
    write_atomically(directory / CONFIG, (json.dumps(document, indent=2) + "\n").encode())


def read_source(directory: Path) -> dict[str, Any] | None:
    """Where an imported run came from; None for a run of this program.

    Raises:
        UserError: the configuration is missing or damaged.
    """
    source = read_document(directory).get(SOURCE)
    return source if isinstance(source, dict) else None


def write_weights(path: Path, model: Transformer, step: int, config: RunConfig | None = None) -> None:
    """Write weights; those of a run say of which."""
    of_run = {} if config is None else {RUN: fingerprint(config)}
    write_tensors(path, model.state_dict(), {STEP: str(step), **of_run})


def write_resume(
    directory: Path, tensors: Mapping[str, Tensor], counters: Mapping[str, Any], config: RunConfig
) -> None:
    """One file, so that weights, optimiser and generators can never be of different steps."""
    metadata = {COUNTERS: json.dumps(dict(counters)), RUN: fingerprint(config)}
    write_tensors(directory / RESUME, tensors, metadata)


def read_resume(directory: Path, config: RunConfig | None = None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and counters of the last save, or None when there is none.

    Args:
        directory: the run's.
        config: what it has to be a save of; None asks for any.

    Raises:
        UserError: it is damaged, or of another run.
    """
    path = directory / RESUME
    try:
        tensors, metadata = read_tensors(path)
        counters = parse_json(metadata[COUNTERS])
        if config is not None and metadata.get(RUN) not in (None, fingerprint(config)):
            raise ValueError("it is of another run")
        if not isinstance(counters, dict):
            raise ValueError("it has no counters")
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(f"{error} {START_AGAIN}") from None
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error} {START_AGAIN}") from None
    return tensors, counters


def append_history(directory: Path, rows: Iterable[Row], config: RunConfig) -> None:
    """Add rows to the history, which say of which run they are."""
    append_rows(directory, [{**row, RUN: fingerprint(config)[:SHORT]} for row in rows])


def forget_after(directory: Path, step: int) -> None:
    """Drop history rows and snapshots that a resumed run will make again; -1 drops all of them."""
    rows = [row for row in read_history(directory) if row["step"] <= step]
    write_atomically(directory / HISTORY, history_text(rows).encode())
    for later in (s for s in snapshot_steps(directory) if s > step):
        snapshot_path(directory, later).unlink()


def history_until(directory: Path, config: RunConfig, step: int) -> list[Row]:
    """The rows of the history up to a step; none where nothing was kept.

    Raises:
        UserError: it is of another run, or damaged: an evaluation that was due by then is not in it.
    """
    rows = [row for row in read_history(directory) if row["step"] <= step]
    if {row.pop(RUN, None) for row in rows} - {None, fingerprint(config)[:SHORT]}:
        raise UserError(f"{directory / HISTORY} is of another run than the one that {CONFIG} describes")
    due = {*range(0, step + 1, config.record.eval_every), *({step} & {config.recipe.steps})}
    steps_of: dict[Arm, set[int]] = {}
    for row in rows:
        steps_of.setdefault(arm_of(row), set()).add(row["step"])
    missing = set().union(*(due - steps for steps in steps_of.values()))
    if missing:
        raise UserError(f"{directory / HISTORY} is damaged: it lacks an evaluation of step {min(missing)}")
    return rows


def delete_resume(directory: Path) -> None:
    remove_written((directory / RESUME).parent, lambda name: name == Path(RESUME).name)


def delete_run(directory: Path) -> None:
    """Remove a run's files, and nothing else that lies beside them; what makes it a run goes last."""
    delete_resume(directory)
    remove_written(directory / SNAPSHOTS, lambda name: re.fullmatch(SNAPSHOT, name) is not None)
    for name in (WEIGHTS, HISTORY, CONFIG):
        (directory / name).unlink(missing_ok=True)


def environment() -> dict[str, str | None]:
    """The versions behind a result."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "safetensors")}
    return {"python": platform.python_version(), **packages, "commit": git_commit()}


def git_commit() -> str | None:
    """The commit of this code, with `-dirty` when the tree differs from it; None if it is no git checkout.

    Code that is installed inside the checkout of something else, such as a virtual environment in a project, is none.
    """
    home = Path(__file__).parents[2]
    if not (home / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(home),
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
