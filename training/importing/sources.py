"""What a source is: which program wrote it, and which of its files hold the weights of which step."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.digits import whole
from training.common.errors import UserError, one_of
from training.importing import bhasin, garg, in_context, looped
from training.importing.settings import Settings
from training.importing.source_files import Table, read_settings

FORMATS = ("garg", "looped", "hooked")
CONFIGS = ("config.yaml", "config.yml")
STATE = "state.pt"
NUMBERED = re.compile(r"(?:model|checkpoint)_(\d+)(?:\.pt)?")
"""Names of snapshots: model_STEP.pt, or checkpoint_STEP."""
PROGRAMS = {"garg": garg, "bhasin": bhasin, "in_context": in_context, "looped": looped}
"""Translators of configurations in YAML; all but the last are `--format garg`."""


@dataclass(frozen=True)
class Files:
    """The weights of a source.

    Attributes:
        final: the file of its last state; None if it has none.
        numbered: by step, its snapshots.
    """

    final: Path | None
    numbered: Mapping[int, Path]


def find_files(source: Path) -> Files:
    """The files with weights in a run directory, or a file that is one.

    Raises:
        UserError: there are none.
    """
    if source.is_file():
        step = step_of(source)
        return Files(source, {}) if step is None else Files(None, {step: source})
    numbered = {step: path for path in sorted(source.iterdir()) if (step := step_of(path)) is not None}
    final = source / STATE
    if not numbered and not final.is_file():
        raise UserError(f"{source} holds no weights: neither {STATE} nor model_STEP.pt nor checkpoint_STEP")
    return Files(final if final.is_file() else None, numbered)


def step_of(path: Path) -> int | None:
    """The step that a snapshot's name says."""
    match = NUMBERED.fullmatch(path.name)
    return whole(match[1]) if match else None


def find_config(source: Path, config: Path | None) -> Path | None:
    """The configuration of a source: the one that is named, or the one beside its weights."""
    if config is not None:
        return config
    folder = source if source.is_dir() else source.parent
    stem = [] if source.is_dir() else [source.with_suffix(".json"), folder / "cfg.json"]
    return next((path for path in (*stem, *(folder / name for name in CONFIGS)) if path.is_file()), None)


def format_of(settings: Table, wanted: str | None) -> str:
    """The format of a source with this configuration.

    Raises:
        UserError: there is no such format, or the configuration is of none of them.
    """
    if wanted is not None and wanted not in FORMATS:
        raise one_of("--format", wanted, FORMATS)
    training = settings.get("training")
    if "function_class" in settings or isinstance(training, Mapping):
        kind = "looped" if isinstance(training, Mapping) and "task_name" in training else "garg"
    elif "n_layers" in settings or "act_fn" in settings:
        kind = "hooked"
    else:
        raise UserError(
            "its configuration is of no known format: it has neither `training` nor `function_class` (garg, looped), "
            "nor the keys of a HookedTransformerConfig (hooked)"
        )
    if wanted is not None and wanted != kind:
        raise UserError(f"--format {wanted}: the configuration is of the format {kind}")
    return kind


def program_of(settings: Settings) -> Any:
    """The translator of a configuration in YAML."""
    training = settings.table("training")
    if settings.get("function_class") is not None:
        return PROGRAMS["in_context"]
    if "task_name" in training:
        return PROGRAMS["looped"]
    if "task_schedule" in training or "prompt_type" in training:
        return PROGRAMS["bhasin"]
    return PROGRAMS["garg"]


def read_config_of(source: Path, config: Path | None) -> Table | None:
    """The configuration beside a source, or the one that is named; None if there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = find_config(source, config)
    return None if path is None else read_settings(path)
