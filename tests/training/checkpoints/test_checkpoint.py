import shutil
from dataclasses import dataclass, replace

import pytest
import torch

from training.checkpoints import checkpoint
from training.checkpoints.checkpoint import (
    WEIGHTS,
    fingerprint,
    halve,
    load,
    read_history,
    write_atomically,
    zoo_path,
)
from training.checkpoints.tensor_files import read_tensors, write_tensors
from training.common.errors import UserError
from training.config.config import DataConfig, RecipeConfig


def test_a_checkpoint_survives_writing_and_reading(random_checkpoint, tmp_path):
    checkpoint.write_config(tmp_path, random_checkpoint.config)
    checkpoint.write_weights(tmp_path / "model.safetensors", random_checkpoint.model, 17)
    again = load(tmp_path)
    assert (again.config, again.step) == (random_checkpoint.config, 17)
    for name, tensor in random_checkpoint.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)


def test_a_directory_may_have_an_at_sign_in_its_name(tmp_path):
    shutil.copytree(zoo_path("mixed-0"), tmp_path / "mixed@home")
    assert load(tmp_path / "mixed@home").step == 3000
    assert load(f"{tmp_path}/mixed@home@3000").step == 3000
    with pytest.raises(UserError, match=r"unknown step '7' \(valid: 70, .*, 3000\)"):
        load(f"{tmp_path}/mixed@home@7")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_history_line_that_a_kill_cut_short_is_dropped(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_history(tmp_path) == [{"step": 1}, {"step": 2}]
    checkpoint.forget_after(tmp_path, 1)
    assert read_history(tmp_path) == [{"step": 1}]


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path, quick_config):
    from training.loop.trainer import train

    train(quick_config, tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".jsonl", ".safetensors"}


def test_the_hash_of_a_run_outlives_new_keys_and_sees_every_change(quick_config):
    changed = [
        replace(quick_config, recipe=replace(quick_config.recipe, lr=0.5)),
        replace(quick_config, recipe=replace(quick_config.recipe, lr=RecipeConfig.lr)),
        replace(quick_config, data=replace(quick_config.data, rotation=1)),
        replace(quick_config, seeds=replace(quick_config.seeds, data=1)),
    ]
    assert len({fingerprint(config) for config in [quick_config, *changed]}) == 5

    @dataclass(frozen=True)
    class LaterData(DataConfig):
        noise: float = 0.0

    later = replace(quick_config, data=LaterData(**vars(quick_config.data)))
    assert fingerprint(later) == fingerprint(quick_config)
    assert fingerprint(replace(later, data=replace(later.data, noise=0.1))) != fingerprint(quick_config)
    of_the_zoo = fingerprint(load("zoo:mixed-0").config)
    assert (
        of_the_zoo == "3f17d10cea6767d1f8721b8dd7a7310728fa74ac991d4e56a6df72f0209b8ec1"
    )  # files of this version hold it, so it has to stay


def test_weights_in_half_precision_are_the_rounded_ones_and_nothing_else_changes(tmp_path):
    whole = load("zoo:mixed-0")
    halve(whole, tmp_path / "half")
    half = load(tmp_path / "half")
    assert (half.step, half.config, half.model.unembed.b_U.dtype) == (whole.step, whole.config, torch.float32)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(half.model.state_dict()[name], tensor.half().float())
    files = [checkpoint.directory / WEIGHTS for checkpoint in (half, whole)]
    assert files[0].stat().st_size < 0.55 * files[1].stat().st_size
    assert read_history(tmp_path / "half") == read_history(whole.directory)


def test_weights_of_which_some_are_in_half_precision_are_refused(tmp_path):
    whole = load("zoo:mixed-0")
    halve(whole, tmp_path / "half")
    tensors, metadata = read_tensors(tmp_path / "half" / WEIGHTS)
    write_tensors(tmp_path / "half" / WEIGHTS, {**tensors, "unembed.b_U": whole.model.unembed.b_U.detach()}, metadata)
    with pytest.raises(UserError, match="of another shape or type"):
        load(tmp_path / "half")
