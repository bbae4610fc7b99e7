"""A configuration by hand: defaults for what has defaults, and everything that is missing named at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.config.config import DataConfig, RecipeConfig

MODEL = {"n_layers": 3, "n_heads": 8, "d_model": 64, "n_dims": 4, "n_ctx": 32}
RUN = {"curriculum": "mixed", "model": MODEL, "recipe": {"steps": 3000}, "data": {"n_points": 16}}


def written(tmp_path: Path, document: dict[str, Any], metadata: dict[str, str] | None) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(document))
    weights = {name: tensor.contiguous() for name, tensor in load("zoo:mixed-0").model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata=metadata)
    return tmp_path


def test_what_has_a_default_may_be_missing(tmp_path: Path):
    checkpoint = load(written(tmp_path, {"format_version": 2, "run": RUN}, {"step": "3000"}))
    assert checkpoint.step == 3000
    assert checkpoint.config.recipe == RecipeConfig(steps=3000)
    assert checkpoint.config.data == DataConfig(n_points=16)
    assert not checkpoint.config.seeds.are_known


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"run": RUN}, r"config.json has no format_version; this program reads version 2"),
        ({"format_version": 2}, r"it has no table 'run'"),
        (
            {"format_version": 2, "run": {"data": {}, "model": {"n_layers": 3, "n_dims": 4}}},
            r"config.json: configuration keys curriculum, model.n_heads, model.d_model, model.n_ctx, recipe.steps are",
        ),
        (
            {"format_version": 2, "run": {**RUN, "recipe": {}}},
            r"config.json: configuration key recipe.steps is missing",
        ),
        ({"format_version": 2, "run": {**RUN, "seeds": {"init": "a"}}}, r"seeds.init='a': a whole number is needed"),
    ],
)
def test_what_is_missing_is_listed_at_once(tmp_path: Path, document: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        load(written(tmp_path, document, {"step": "3000"}))


def test_weights_need_their_step(tmp_path: Path):
    with pytest.raises(UserError, match=r"does not say of which step it is: its metadata need a 'step'"):
        load(written(tmp_path, {"format_version": 2, "run": RUN}, None))
