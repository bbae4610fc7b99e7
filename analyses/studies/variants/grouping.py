"""Variants: runs that share a configuration, called by what it changes in that of a reference.

>>> natural("model.n_heads=16") > natural("model.n_heads=4")
True
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from analyses.comparison.groups import Groups, Kind, group
from training.checkpoints.checkpoint import Checkpoint
from training.config.config import RunConfig
from training.config.parse import differences, to_dict

REFERENCE = "reference"
BESIDE = ("seeds", "record", "recipe.threads", "model.n_ctx")
"""What makes no variant; n_ctx follows from the length of the prompts."""


def variants(checkpoints: Sequence[Checkpoint]) -> Groups:
    """The checkpoints by variant, that of the first checkpoint being the reference."""
    reference = checkpoints[0].config
    kind = Kind(
        curriculum_of=lambda one: variant_name(changes(reference, one.config)),
        trains_on=lambda config: config.trained_classes,
        evaluated_on=lambda config: config.trained_classes,
        free=("curriculum", *to_dict(reference)),
        order=lambda name: (name != REFERENCE, natural(name)),
        free_within=BESIDE,
    )
    return group(checkpoints, kind)


def changes(reference: RunConfig, config: RunConfig) -> dict[str, Any]:
    """What a configuration changes in that of the reference, by key as `--set` names it."""
    old, new = to_dict(reference), to_dict(config)
    keys = [key for key in differences(old, new) if not {key, key.partition(".")[0]} & {*BESIDE}]
    return {key: at(new, key) for key in keys}


def at(values: Mapping[str, Any], key: str) -> Any:
    section, dot, name = key.partition(".")
    return values[section][name] if dot else values[section]


def variant_name(changed: Mapping[str, Any]) -> str:
    """
    >>> variant_name({"model.n_layers": 6}), variant_name({"data.classes": ["linear", "cubic"]}), variant_name({})
    ('model.n_layers=6', 'data.classes=linear,cubic', 'reference')
    """
    return " ".join(f"{key}={said(value)}" for key, value in changed.items()) or REFERENCE


def said(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def natural(name: str) -> list[tuple[int, float, str]]:
    """Sorts numbers in names by their size."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", name)
    return [(0, float(part), "") if part[0].isdigit() else (1, 0.0, part) for part in parts]
