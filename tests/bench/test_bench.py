"""The bench compares like with like, counts what is computed and reports what it measured."""

import json
import math
import statistics

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from measure import rotated
from step import app, step_flops
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from trainers import TRAINERS, Ours, PromptGPT2, PromptHooked, Reference, gpt2_layout
from typer.testing import CliRunner

from training.config.curriculum import Arm
from training.config.parse import from_preset
from training.loop.state import new_state
from training.loop.trainer import training_step
from training.model.attention_kernels import LANES
from training.model.transformer import Transformer
from training.sampling import sample_prompts

MODULES = {
    "gpt2 twice": lambda model: PromptGPT2(model, with_maps=True),
    "gpt2": PromptGPT2,
    "hooked": PromptHooked,
}


@pytest.fixture
def model(quick_config, generator) -> Transformer:
    """Random weights, biases and gains too, so that none of them can be misplaced unseen."""
    model = Transformer(quick_config.model, generator)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def prompts(quick_config, generator):
    return sample_prompts(quick_config, "cubic", generator, 8)


def predictions_and_gradients(predict, module, prompts):
    predictions = predict(prompts.tokens)
    F.mse_loss(predictions, prompts.ys).backward()
    return predictions.detach(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_same(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()


@pytest.mark.parametrize("name", MODULES)
def test_a_reference_makes_the_same_predictions_and_gradients(model, prompts, name):
    module = MODULES[name](model)
    ours, our_gradients = predictions_and_gradients(model.predict, model, prompts)
    theirs, their_gradients = predictions_and_gradients(module, module, prompts)
    assert_same(ours, theirs)
    if name == "hooked":
        expected = {f"twin.{parameter}": gradient for parameter, gradient in our_gradients.items()}
        assert set(their_gradients) == set(expected)
    else:
        expected = gpt2_layout(our_gradients)
        assert set(their_gradients) == {*expected, "read_in.bias"}
    scale = max(gradient.abs().max() for gradient in expected.values())
    for parameter, gradient in expected.items():
        assert (gradient - their_gradients[parameter]).abs().max() <= 1e-4 * scale, parameter


def test_the_second_forward_returns_maps_and_leaves_the_first_one_fused(model, prompts):
    gpt2 = PromptGPT2(model, with_maps=True)
    maps = gpt2.attention_maps(gpt2.read_in(prompts.tokens))
    patterns = {}

    def read(layer):
        return lambda pattern: patterns.setdefault(layer, pattern)

    model(prompts.tokens, {f"blocks.{layer}.attn.hook_pattern": read(layer) for layer in range(len(maps))})
    assert len(maps) == model.config.n_layers
    for layer, pattern in patterns.items():
        assert_same(pattern, maps[layer])
    assert gpt2.backbone.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", MODULES)
def test_steps_of_a_reference_are_steps_of_ours(quick_config, name):
    """Same prompts, rate, decay, clipping and optimiser: after ten steps the same function comes out."""
    ours, theirs = (TRAINERS[trainer](quick_config, "cpu") for trainer in ("ours", name))
    assert isinstance(ours, Ours)
    assert isinstance(theirs, Reference)
    if isinstance(theirs.model, PromptGPT2):  # the one parameter that we do not have
        theirs.model.read_in.bias.requires_grad_(False)
    for _ in range(10):
        ours.step()
        theirs.step()
    held_out = sample_prompts(quick_config, "linear", torch.Generator().manual_seed(5), 8)
    with torch.no_grad():
        before = new_state(quick_config, "cpu").model.predict(held_out.tokens)
        after, other = ours.state.model.predict(held_out.tokens), theirs.model(held_out.tokens)
    assert (other - after).abs().max() < 1e-3 * (after - before).abs().max()


def test_flops_are_those_that_torch_counts():
    """Unfused attention multiplies hidden and padded pairs too: checked with all in place of the visible."""
    config = from_preset("tiny", "mixed", 0, ["recipe.batch_size=8"])
    state = new_state(config, "cpu")
    prompts = sample_prompts(config, "linear", state.data, 8)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        training_step(state, config, [(Arm("linear", "gaussian"), prompts)], state.model.predict)
    n, d, n_layers = config.data.n_points, config.model.d_model, config.model.n_layers
    visible = (n_layers - 1) * n * (2 * n - 1) + n**2
    n_keys = math.ceil((2 * n - 1) / LANES) * LANES
    every = ((n_layers - 1) * (2 * n - 1) + n) * n_keys
    assert counter.get_total_flops() == step_flops(config) + 8 * 12 * d * (every - visible)


SMALL = [
    "model.n_layers=2",
    "model.n_heads=2",
    "model.d_model=16",
    "recipe.batch_size=8",
    "recipe.threads=1",
]


def run(*arguments: str):
    settings = [argument for setting in SMALL for argument in ("--set", setting)]
    return CliRunner().invoke(app, ["--presets", "tiny", *settings, *arguments])


@pytest.mark.slow
def test_the_document_reports_what_was_measured(tmp_path):
    done = run("--repetitions", "2", "--json", "--out", str(tmp_path))
    report = json.loads(done.stdout)
    assert report["repetitions"] == 2
    assert [row["trainer"] for row in report["results"]] == list(TRAINERS)
    ms = {name: [row["ms"] for row in report["measurements"] if row["trainer"] == name] for name in TRAINERS}
    for row in report["results"]:
        times = ms[row["trainer"]]
        ratios = [theirs / ours for theirs, ours in zip(times, ms["ours"], strict=True)]
        for name, values in (("ms", times), ("ratio", ratios)):
            expected = statistics.median(values), min(values), max(values)
            assert (row[name], row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(expected)
    [preset] = report["presets"]
    rate = preset["gflop_per_step"] / statistics.median(ms["ours"]) * 1e3
    assert preset["gflop_per_second"] == pytest.approx(rate)
    assert preset["share_of_peak"] == pytest.approx(rate / preset["peak_gflop_per_second"])
    assert 0 < preset["share_of_peak"] < 1
    written = pd.read_csv(tmp_path / "bench.csv")
    assert written["ratio"].tolist() == pytest.approx([row["ratio"] for row in report["results"]])
    defeated = any(row["ratio"] <= 1 for row in report["results"] if row["trainer"] != "ours")
    assert done.exit_code == int(defeated)
    assert done.stderr.startswith("bench: not ahead of ") == defeated


@pytest.mark.slow
def test_being_overtaken_is_an_error(monkeypatch):
    class Slow:
        def __init__(self, config, device):
            self.trainer = TRAINERS["gpt2"](config, device)

        def step(self):
            for _ in range(10):
                self.trainer.step()

    monkeypatch.setitem(TRAINERS, "ours", Slow)
    done = run("--repetitions", "1")
    assert done.exit_code == 1
    assert done.stderr.startswith("bench: not ahead of ")
    assert done.stderr.count("\n") == 1
    assert "gpt2 twice" in done.stdout


def test_an_unknown_preset_is_refused():
    done = CliRunner().invoke(app, ["--presets", "huge"])
    assert done.exit_code == 2
    assert "unknown preset 'huge'" in done.stderr


def test_every_trainer_is_first_in_turn():
    names = list(TRAINERS)
    assert {rotated(names, repetition)[0] for repetition in range(len(names))} == set(names)
