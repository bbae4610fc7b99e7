"""A network of Garg et al. 2022 and its run directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_sources import SIZES, Garg, garg_config, randomised, save_garg


@pytest.fixture
def garg() -> Garg:
    return randomised(Garg(**SIZES))


@pytest.fixture
def garg_run(tmp_path: Path, garg: Garg) -> Callable[..., Path]:
    """A run directory with this configuration; keys of `training` as arguments, a dict `model` changes that table."""

    def make(model: dict[str, Any] | None = None, **training: Any) -> Path:
        config = garg_config(**training)
        config["model"] |= model or {}
        return save_garg(tmp_path / "theirs", garg, config)

    return make
