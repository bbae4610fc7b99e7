"""The way back: other programs read what is exported, and its import has the same weights, bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from foreign_sources import Garg, relative_difference

from interp import export_checkpoint, import_checkpoint, load
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import RunConfig
from training.config.parse import from_preset
from training.model.transformer import Transformer
from training.tasks.function_classes import function_class
from training.tasks.prompts import Prompts, one_hot_instruction, to_prompt


def untrained(curriculum: str, settings: list[str]) -> Checkpoint:
    """A checkpoint that lies nowhere."""
    config: RunConfig = from_preset("tiny", curriculum, 0, settings)
    model = Transformer(config.model, torch.Generator().manual_seed(0), config.layout)
    return Checkpoint("untrained", Path(), config, config.recipe.steps, model.requires_grad_(False).eval())


GROWTH = ("growth.points=4", "growth.points_every=100", "growth.dims=2")
RUNS = {
    "several classes": ("mixed", []),
    "a single class": ("single:linear", ["data.classes=linear"]),
    "noise": ("single:noisy_linear", ["data.classes=noisy_linear", "data.weights=standard"]),
    "garg's own words": ("single:sparse_linear:2", ["data.classes=sparse_linear:2", "data.weights=standard"]),
    "grown": (
        "single:linear",
        ["data.classes=linear", "data.weights=standard", *GROWTH],
    ),
    "a tree": ("single:decision_tree:3", ["data.classes=decision_tree:3", "data.weights=standard"]),
    "inputs": ("random", ["data.inputs=gaussian,laplace:2,student_t:3"]),
    "one-hot": ("mixed", ["instruction.kind=one_hot", "instruction.at=2", "model.n_ctx=34"]),
    "vectors": ("mixed", ["instruction.kind=vector", "model.n_ctx=34"]),
    "without positions": (
        "single:linear",
        ["data.classes=linear", "data.weights=standard", "model.positions=none"],
    ),
}


@pytest.mark.parametrize("kind", RUNS)
def test_the_import_of_an_export_is_bit_identical(kind: str, tmp_path: Path):
    source = untrained(*RUNS[kind])
    export_checkpoint(source, tmp_path / "theirs")
    checkpoint = import_checkpoint(tmp_path / "theirs", tmp_path / "run")
    ours = checkpoint.model.state_dict()
    assert all(torch.equal(ours[key], tensor) for key, tensor in source.model.state_dict().items())
    was, now = source.config, checkpoint.config
    assert [function_class(name) for name in now.data.classes] == [function_class(name) for name in was.data.classes]
    assert replace(now.data, classes=was.data.classes) == was.data
    assert (now.instruction, now.growth, now.model.positions) == (was.instruction, was.growth, was.model.positions)
    assert (checkpoint.step, now.model.n_ctx, now.recipe.lr) == (3000, was.model.n_ctx, was.recipe.lr)


def test_the_code_of_garg_reads_an_export(tmp_path: Path):
    checkpoint = load("zoo:mixed-0")
    export_checkpoint(checkpoint, tmp_path / "theirs")
    sizes = yaml.safe_load((tmp_path / "theirs" / "config.yaml").read_text())["model"]
    names = ("n_dims", "n_positions", "n_embd", "n_layer", "n_head")
    model = Garg(**{name: sizes[name] for name in names}, n_tokens=50_257)
    state = torch.load(tmp_path / "theirs" / "state.pt", weights_only=True)
    model.load_state_dict(state["model_state_dict"])  # strictly
    xs = torch.randn(4, 16, 4, generator=torch.Generator().manual_seed(2))
    ys = xs.sum(2)
    assert relative_difference(checkpoint.model.predict(to_prompt(xs, ys)), model.eval()(xs, ys)) < 1e-5
    assert (tmp_path / "theirs" / "state.pt").stat().st_size < 2**20  # the unused embeddings are one number


def test_vectors_are_those_of_the_run(tmp_path: Path):
    source = untrained(*RUNS["vectors"])
    export_checkpoint(source, tmp_path / "theirs")
    checkpoint = import_checkpoint(tmp_path / "theirs", tmp_path / "run")
    xs = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(2))
    for coordinate in (4, 5, 6):
        tokens = Prompts(xs, xs.sum(2), source.config.layout, one_hot_instruction(coordinate, 7, 2, 1)).tokens
        assert torch.equal(checkpoint.model.predict(tokens), source.model.predict(tokens))


def test_what_the_format_has_no_words_for_is_refused(tmp_path: Path):
    source = untrained("mixed", ["data.classes=linear,sinusoid", "data.inputs=uniform", "model.n_ctx=33"])
    with pytest.raises(UserError, match=r"n_ctx is 33.*has sinusoid.*has uniform"):
        export_checkpoint(source, tmp_path / "theirs")
    with pytest.raises(UserError, match=r"unknown --format 'tf' \(valid: garg, hooked\)"):
        export_checkpoint(source, tmp_path / "theirs", "tf")
    assert not list(tmp_path.iterdir())


def test_architectures_that_the_format_does_not_have_are_refused(tmp_path: Path):
    settings = ["model.norm=rms", "model.positions=rotary", "model.d_mlp=0", "model.act=relu", "model.eps=1e-6"]
    with pytest.raises(UserError) as refusal:
        export_checkpoint(untrained("mixed", settings), tmp_path / "theirs")
    for choice in ("model.norm=rms", "model.positions=rotary", "model.d_mlp=0", "model.act=relu", "model.eps=1e-06"):
        assert f"{choice}: the format has GPT-2 only" in str(refusal.value)
    with pytest.raises(UserError, match=r"model\.positions=none: the format has it for a single class only"):
        export_checkpoint(untrained("mixed", ["model.positions=none"]), tmp_path / "theirs")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_without_being_asked_to(tmp_path: Path):
    for format, out in (("garg", tmp_path / "run"), ("hooked", tmp_path / "model.pt")):
        export_checkpoint("zoo:linear-0", out, format)
        with pytest.raises(UserError, match="already exists: overwrite it with --force"):
            export_checkpoint("zoo:mixed-0", out, format)
        export_checkpoint("zoo:mixed-0", out, format, force=True)
