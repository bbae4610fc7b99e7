"""Older format versions of a run directory, and the way to the present one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.checkpoints.checkpoint import CONFIG, FORMAT_VERSION, read_document, read_resume
from training.common.atomic_files import write_atomically
from training.common.errors import UserError
from training.config.config import RunConfig
from training.config.parse import from_dict, to_dict, with_current_names


def from_version_1(run: Mapping[str, Any]) -> dict[str, Any]:
    """Version 1 knew neither input distributions, schedules, growth nor instructions: they had today's defaults."""
    return to_dict(from_dict(RunConfig, with_current_names(RunConfig, run)))


UPGRADES: Mapping[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: from_version_1}


def upgrade_run(directory: Path) -> tuple[int, int]:
    """Rewrite the configuration of a finished run; returns its format version before and after.

    Raises:
        UserError: it is not a run, is of a version that nothing converts, or is not finished.
    """
    if str(directory).startswith("zoo:"):
        raise UserError(f"{directory} needs no upgrade: the shipped checkpoints have format version {FORMAT_VERSION}")
    document = read_document(directory)
    before = document.get("format_version")
    if type(before) is not int:
        raise UserError(f"{directory} has no format version")
    if before == FORMAT_VERSION:
        raise UserError(f"{directory} has format version {FORMAT_VERSION} already")
    if before not in UPGRADES:
        raise UserError(f"{directory} has format version {before}; versions that can be converted: {[*UPGRADES]}")
    if read_resume(directory) is not None:
        raise UserError(f"{directory} is not finished: finish it with the version that began it, or start it again")
    document |= {"format_version": FORMAT_VERSION, "run": UPGRADES[before](document["run"])}
    write_atomically(directory / CONFIG, (json.dumps(document, indent=2) + "\n").encode())
    return before, FORMAT_VERSION
