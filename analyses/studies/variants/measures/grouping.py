"""Variants: runs that share a configuration, named after their differences from that of a reference.

>>> natural_key("model.n_heads=16") > natural_key("model.n_heads=4")
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
IGNORED = ("seeds", "record", "recipe.threads", "model.n_ctx")
"""Settings that do not make a variant; n_ctx follows from the length of the prompts."""


def group_variants(checkpoints: Sequence[Checkpoint]) -> Groups:
    """The checkpoints by variant; that of the first checkpoint is the reference."""
    return group(checkpoints, variants_of(checkpoints[0].config))


def variants_of(reference: RunConfig) -> Kind:
    """Variants of a configuration, which may differ from it in everything."""
    return Kind(
        curriculum_of=lambda checkpoint: name_variant(changed_settings(reference, checkpoint.config)),
        trains_on=lambda config: config.trained_classes,
        evaluated_on=lambda config: config.trained_classes,
        free=("curriculum", *to_dict(reference)),
        order=lambda name: (name != REFERENCE, natural_key(name)),
        free_within=IGNORED,
    )


def changed_settings(reference: RunConfig, config: RunConfig) -> dict[str, Any]:
    """The settings that differ from those of a reference, by key as `--set` names it."""
    old, new = to_dict(reference), to_dict(config)
    keys = [key for key in differences(old, new) if not {key, key.partition(".")[0]} & {*IGNORED}]
    return {key: get_setting(new, key) for key in keys}


def get_setting(values: Mapping[str, Any], key: str) -> Any:
    section, dot, name = key.partition(".")
    return values[section][name] if dot else values[section]


def name_variant(changed: Mapping[str, Any]) -> str:
    """
    >>> name_variant({"model.n_layers": 6}), name_variant({"data.classes": ["linear", "cubic"]}), name_variant({})
    ('model.n_layers=6', 'data.classes=linear,cubic', 'reference')
    """
    values = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in changed.items()}
    return " ".join(f"{key}={value}" for key, value in values.items()) or REFERENCE


def natural_key(name: str) -> list[tuple[int, float, str]]:
    """Sorts numbers in names by their size."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", name)
    return [(0, float(part), "") if part[0].isdigit() else (1, 0.0, part) for part in parts]
