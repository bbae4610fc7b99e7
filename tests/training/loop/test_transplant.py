"""Runs that begin with weights of another run: every tensor is the source's or the fresh one, and nothing else."""

import shutil

import pytest
import torch

from training.checkpoints.checkpoint import load, read_config
from training.checkpoints.source_weights import with_recorded_source
from training.checkpoints.tensor_files import digest
from training.common.errors import UserError
from training.config.parse import from_preset, settable_keys
from training.loop.state import first_state, new_state
from training.loop.trainer import train

OF_A_HEAD = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")


@pytest.fixture(scope="module")
def source():
    return {name: tensor.clone() for name, tensor in load("zoo:mixed-0").model.state_dict().items()}


def first_weights(*settings):
    """The first weights of a run begun from zoo:mixed-0, and those of the same run without a source."""
    plain = from_preset("tiny", "single:cubic", 3, [])
    grafted = from_preset("tiny", "single:cubic", 3, ["init.source=zoo:mixed-0", *settings])
    return (first_state(config, "cpu").model.state_dict() for config in (grafted, plain))


def rows_from_source(weights, source, fresh):
    """By parameter, for every row of its first axis whether it is the source's; each is one of the two."""
    rows = {}
    for name, tensor in weights.items():
        equal = [torch.equal(a, b) for a, b in zip(tensor, source[name], strict=True)]
        new = [torch.equal(a, b) for a, b in zip(tensor, fresh[name], strict=True)]
        assert all(a or b for a, b in zip(equal, new, strict=True)), name
        rows[name] = equal
    return rows


@pytest.mark.parametrize(
    ("settings", "whole", "heads"),
    [
        ((), ("",), {}),
        (("init.reset_heads=0.1,2.7",), ("",), {(0, 1): False, (2, 7): False}),
        (("init.keep_heads=0.1",), (), {(0, 1): True}),
        (
            ("init.keep_heads=0.1,0.0", "init.only=embed,pos_embed"),
            ("embed.W_E", "pos_embed.W_pos"),
            {(0, 1): True, (0, 0): True},
        ),
        (("init.only=blocks.0",), ("blocks.0.",), {}),
        (
            ("init.only=blocks.1.attn", "init.reset_heads=1.2"),
            ("blocks.1.attn.",),
            {(1, 2): False},
        ),
    ],
)
def test_every_weight_is_the_sources_or_the_fresh_one(source, settings, whole, heads):
    weights, fresh = first_weights(*settings)
    differ = {name for name in source if not torch.equal(source[name], fresh[name])}
    for name, rows in rows_from_source(weights, source, fresh).items():
        expected = [name.startswith(whole)] * len(rows)
        for (layer, head), taken in heads.items():
            if name.startswith(f"blocks.{layer}.attn.") and name.rpartition(".")[2] in OF_A_HEAD:
                expected[head] = taken
        if name in differ:
            assert rows == expected, name


def test_a_run_without_a_source_is_what_it_was():
    config = from_preset("tiny", "mixed", 0)
    pairs = zip(first_state(config, "cpu").model.parameters(), new_state(config, "cpu").model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_run_resumes_bit_for_bit_without_its_source(quick_config, quick_settings, tmp_path, train_until):
    train(quick_config, tmp_path / "source")
    settings = [*quick_settings[1::2], f"init.source={tmp_path / 'source'}@14", "init.reset_heads=0.1"]
    config = from_preset("tiny", "single:cubic", 1, settings)
    train(config, tmp_path / "whole")
    train_until(config, tmp_path / "cut", 20)
    recorded = read_config(tmp_path / "cut").init
    assert recorded.sha256 == digest(load(f"{tmp_path / 'source'}@14").model.state_dict(), {})
    assert (recorded.source, recorded.reset_heads) == (config.init.source, ("0.1",))
    shutil.rmtree(tmp_path / "source")
    assert train(config, tmp_path / "cut", resume=True) == 20
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]
    with pytest.raises(UserError, match="no checkpoint directory"):
        train(config, tmp_path / "new")


def test_other_weights_under_the_same_name_are_refused(quick_config, quick_settings, tmp_path):
    train(quick_config, tmp_path / "source")
    settings = [*quick_settings[1::2], f"init.source={tmp_path / 'source'}"]
    config = with_recorded_source(from_preset("tiny", "mixed", 1, settings), tmp_path / "run", resume=False)
    shutil.rmtree(tmp_path / "source")
    train(from_preset("tiny", "mixed", 5, quick_settings[1::2]), tmp_path / "source")
    with pytest.raises(UserError, match="other weights than those whose hash"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--keep-heads", "0.1"], "init.keep_heads is given without init.source (--init-from)"),
        (["--init-from", "zoo:mixed-0", "--keep-heads", "0.8"], "'0.8' is no head LAYER.HEAD of this model"),
        (["--init-from", "zoo:mixed-0", "--keep-heads", "0.1,0.1"], "a head is named twice"),
        (["--init-from", "zoo:mixed-0", "--only", "blocks.3"], "blocks.3"),
        (["--init-from", "zoo:mixed-0", "--only", "embed", "--reset-heads", "0.1"], "drawn anew already"),
        (["--init-from", "zoo:mixed-0", "--set", "model.n_heads=4"], "has another model.n_heads than this run"),
        (["--init-from", "zoo:mixed-9"], "zoo checkpoint"),
        (["--init-from", "zoo:mixed-0", "--set", "init.sha256=00"], "other weights than those whose hash"),
    ],
)
def test_what_cannot_be_copied_is_one_line(refused, tmp_path, options, reason):
    assert reason in refused("train", "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_head_ten_is_not_head_one():
    config = from_preset("tiny", "mixed", 0, ["model.n_heads=16", "init.source=x", "init.keep_heads=0.10"])
    assert config.init.keep_heads == ("0.10",)
    assert "init.source" in settable_keys()
