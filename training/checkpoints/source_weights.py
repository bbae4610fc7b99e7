"""The weights from which a run starts, where it does not draw all of them itself (`RunConfig.init`)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from training.checkpoints.checkpoint import CONFIG, load, read_config
from training.checkpoints.tensor_files import digest
from training.common.errors import UserError
from training.config.config import RunConfig
from training.config.parse import differences, to_dict

FREE = ("model.init_std", "model.read_init")
"""What a source may have of its own: both are about first weights only."""


def with_recorded_source(config: RunConfig, directory: Path, *, resume: bool) -> RunConfig:
    """The configuration with the hash of the weights that the run starts from.

    A run that has begun goes on with the hash that it has recorded: it needs its source no more.

    Args:
        config: of the run.
        directory: of the run.
        resume: whether to go on with what is in the directory.

    Raises:
        UserError: there is no such source, its model is another one, or its weights have another hash.
    """
    if not config.init.source:
        return config
    if resume and (directory / CONFIG).exists():
        recorded = read_config(directory).init
        if replace(config.init, sha256=config.init.sha256 or recorded.sha256) == recorded:
            return replace(config, init=recorded)
    tensors = source_tensors(config)
    return replace(config, init=replace(config.init, sha256=digest(tensors, {})))


def source_tensors(config: RunConfig) -> Mapping[str, Tensor]:
    """The weights of the source, by name of the parameter.

    Raises:
        UserError: there is no such source, its model is another one, or its weights have another hash.
    """
    init = config.init
    try:
        source = load(init.source)
    except UserError as error:
        raise UserError(f"init.source={init.source}: {error}") from None
    changed = differences(to_dict(source.config)["model"], to_dict(config)["model"], "model.")
    if source.config.layout.n_vectors != config.layout.n_vectors:
        changed.append("instruction")
    if keys := [key for key in changed if key not in FREE]:
        raise UserError(f"init.source={init.source} has another {', '.join(keys)} than this run: none can differ")
    tensors = source.model.state_dict()
    if init.sha256 not in ("", digest(tensors, {})):
        raise UserError(f"init.source={init.source} has other weights than those whose hash is init.sha256")
    return tensors
