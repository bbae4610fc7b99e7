"""Makes a run directory of a model that another program has trained.

1. Read the configuration, then the weights; collect every reason against an import, and refuse with all of them.
2. Put the weights under HookedTransformer's names, in float32.
3. Prove it (`training.importing.proof`).
4. Write the run into a directory beside the target and rename it: there is the whole run, or none.
"""

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from training.checkpoints.checkpoint import (
    CONFIG,
    RESUME,
    SNAPSHOTS,
    WEIGHTS,
    Checkpoint,
    delete_run,
    load,
    snapshot_path,
    write_config,
    write_weights,
)
from training.checkpoints.history import HISTORY
from training.checkpoints.run_directory import locked
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.common.output import prepare_directory
from training.config.config import RunConfig
from training.importing.gpt2_source import from_yaml
from training.importing.hooked_source import Hooked, from_hooked_file, from_object
from training.importing.proof import Snapshot
from training.importing.settings import Settings
from training.importing.source_files import Table, read_pickle, weights_in
from training.importing.sources import find_config, format_of, read_config_of


@library_defaults()
def import_checkpoint(
    source: str | Path | Hooked,
    out: str | Path,
    *,
    format: str | None = None,
    config: str | Path | None = None,
    step: int | str | None = None,
    settings: Sequence[str] = (),
    instructions: str | Path | None = None,
    seed_label: str = "",
    force: bool = False,
) -> Checkpoint:
    """Open a model that another program has trained, as a run directory of this one.

    Args:
        source: a run directory of Garg et al. 2022 or of a program that kept its layout, one file with weights, or a
            HookedTransformer (a file with its state dict and configuration, or the object itself).
        out: the run directory to make.
        format: `garg`, `looped` or `hooked`; None sees it from the configuration.
        config: the configuration, if it does not lie beside the weights.
        step: of the snapshot to take; `all` takes every one; None the last. For a HookedTransformer: the step to note.
        settings: `data.classes=...`, `data.inputs=...`, `data.n_points=...` or `data.weights=...`: what the source does
            not say, or what has no equal here.
        instructions: the directory of instruction vectors; None looks in `instruction` beside the configuration.
        seed_label: a name for the run's unknown seeds: runs of different labels count as independent.
        force: replace a run that is already at `out`.

    Raises:
        UserError: the source does not fit, with all reasons; it is damaged, or its pickle needs code; or `out` exists.
    """
    target = Path(out)
    check_target(target, force=force)
    if isinstance(source, str | Path):
        run, snapshots, about = from_files(
            Path(source), format, None if config is None else Path(config), step, settings, instructions, seed_label
        )
    else:
        run, snapshots, about = from_object(source, step, settings, seed_label)
    write_run(target, run, snapshots, about, force=force)
    return load(target)


def check_target(target: Path, *, force: bool) -> None:
    """Refuse to write where something is.

    Raises:
        UserError: a file, files that are no run, or a run without `force`.
    """
    if target.is_file():
        raise UserError(f"--out {target} is a file; a directory is needed")
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / CONFIG).exists():
        raise UserError(f"--out {target} holds files that are not a run; choose an empty or new directory")
    if not force:
        raise UserError(f"--out {target} already holds a run: overwrite it with --force")
    ours = (CONFIG, WEIGHTS, HISTORY, SNAPSHOTS, Path(RESUME).parent.name)
    if others := sorted(path.name for path in target.iterdir() if path.name not in ours):
        raise UserError(f"--out {target} holds other files beside the run ({others[0]}): choose a new directory")


def from_files(
    source: Path,
    format: str | None,
    config: Path | None,
    step: int | str | None,
    set_by_user: Sequence[str],
    instructions: str | Path | None,
    label: str,
) -> tuple[RunConfig, Iterator[Snapshot], Table]:
    """The run's configuration, its snapshots (the last one last) and where it came from."""
    if not source.exists():
        raise UserError(f"there is no file or directory {source}")
    values = read_config_of(source, config)
    if values is None and source.is_file():
        values = config_inside(source)
    if values is None:
        raise UserError(
            f"{source} has no configuration beside it (config.yaml, config.yml or cfg.json): name it (--config)"
        )
    kind = format_of(values, format)
    settings = Settings(values, set_by_user)
    if kind == "hooked":
        return from_hooked_file(source, settings, step, label)
    config_path = find_config(source, config)
    folder = Path(instructions) if instructions is not None else (config_path or source).parent / "instruction"
    return from_yaml(source, kind, settings, step, folder, label)


def config_inside(source: Path) -> Table | None:
    """The configuration that a file with weights holds beside them."""
    _, beside = weights_in(read_pickle(source), source)
    return next((dict(beside[key]) for key in ("cfg", "config") if isinstance(beside.get(key), Mapping)), None)


def write_run(target: Path, config: RunConfig, snapshots: Iterator[Snapshot], about: Table, *, force: bool) -> None:
    """The run directory, whole or not at all.

    Raises:
        UserError: it cannot be written, or a snapshot cannot be imported.
    """
    target = target.absolute()
    prepare_directory(target.parent)
    with temporary_directory(target) as made:
        files, last = [], None
        for snapshot in snapshots:
            if last is not None:
                write_weights(snapshot_path(made, last.step), last.model, last.step, config)
            last = snapshot
            files.append(snapshot.about)
            about["notes"] += [note for note in snapshot.notes if note not in about["notes"]]
        if last is None:
            raise UserError("there are no weights to import")
        write_weights(made / WEIGHTS, last.model, last.step, config)
        write_config(made, config, {**about, "files": files})
        if force and target.exists():
            with locked(target):
                delete_run(target)
        with suppress(FileNotFoundError):
            target.rmdir()
        made.rename(target)


@contextmanager
def temporary_directory(target: Path) -> Iterator[Path]:
    """A new hidden directory beside a target; it is removed at the end unless it has been renamed."""
    made = target.parent / f".{target.name[:40]}.{secrets.token_hex(8)}.import.tmp"
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
