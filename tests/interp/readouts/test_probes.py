"""Probes: their targets by definition, their controls by their false-positive rate, removal by what it takes away."""

from typing import Any

import numpy as np
import pytest
import torch
from patching_oracle import assert_same

from interp.ablation.reference_activations import reference_prompts
from interp.model.heads import Head, all_heads
from interp.model.hooked_transformer import hooked
from interp.readouts.head_decoding import head_outputs
from interp.readouts.probes import Protocol, mean_ablation, probe, untrained_twin
from interp.readouts.stream import model_stages, read_stream
from interp.readouts.targets import check_targets, target_values
from interp.readouts.verdict import probe_verdict
from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.common.table_rows import where
from training.evaluation.evaluate import evaluation_functions, evaluation_prompts
from training.tasks.function_classes import function_class

LAYER = tuple(head for head in all_heads(3, 8) if head.layer == 0)


@pytest.mark.parametrize("name", ["linear", "cubic", "sparse_linear:2", "coordinatewise_quadratic"])
def test_the_functions_are_those_of_the_prompts(name, random_checkpoint):
    config = random_checkpoint.config
    drawn = evaluation_functions(config, name, n_prompts=8, seed=5, stream="reference")
    prompts = evaluation_prompts(config, name, n_prompts=8, seed=5, stream="reference")
    assert torch.equal(drawn.prompts.xs, prompts.xs)
    assert torch.equal(drawn.prompts.ys, prompts.ys)
    torch.testing.assert_close(function_class(name).evaluate(prompts.xs, drawn.weights), prompts.ys)  # type: ignore[attr-defined]


def test_targets_are_what_their_definitions_say(random_checkpoint):
    drawn = evaluation_functions(random_checkpoint.config, "linear", n_prompts=6, seed=0)
    xs, ys = (one.double().numpy() for one in (drawn.prompts.xs, drawn.prompts.ys))
    for token in ("x", "y"):
        for k in (1, 3, 15):
            solution = np.stack([np.linalg.lstsq(x[:k], y[:k], rcond=None)[0] for x, y in zip(xs, ys, strict=True)])
            np.testing.assert_allclose(target_values("w_ls", drawn, token, k), solution, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(
                target_values("xty", drawn, token, k), np.einsum("bkd,bk->bd", xs[:, :k], ys[:, :k])
            )
    for k in (1, 15):  # y is w·x: at an x token that of the query, at a y token its own
        np.testing.assert_allclose(target_values("t", drawn, "x", k)[:, 0], ys[:, k], atol=1e-6)
        np.testing.assert_allclose(target_values("t", drawn, "y", k)[:, 0], ys[:, k - 1], atol=1e-6)
        np.testing.assert_allclose(target_values("x", drawn, "y", k), xs[:, k - 1])


@pytest.mark.parametrize(
    ("target", "classes", "run", "tokens", "said"),
    [
        ("v", ["linear"], ["linear"], ["x"], "unknown targets 'v' (valid: w, w_ls"),
        (
            "w",
            ["general_quadratic"],
            ["linear"],
            ["x"],
            "general_quadratic has none (valid for it: w_ls, xty, x, class)",
        ),
        ("t", ["coordinatewise_quadratic"], ["linear"], ["x"], "valid for it: w, w_ls, xty"),
        ("class", ["linear"], ["linear"], ["x"], "needs a run of two or more"),
        ("x", ["linear"], ["linear"], ["x"], "at y tokens"),
    ],
)
def test_a_target_that_does_not_exist_is_refused_by_name(target, classes, run, tokens, said):
    with pytest.raises(UserError) as refusal:
        check_targets([target], classes, run, tokens)
    assert said in str(refusal.value)


@pytest.mark.parametrize("k", [0, 16])
def test_examples_that_prompts_do_not_have_are_refused(k):
    with pytest.raises(UserError, match="1 to 15 examples"):
        Protocol(examples=(k,)).positions(16)


@pytest.fixture(scope="module")
def of_mixed():
    few: dict[str, Any] = {"examples": (3, 15), "without": LAYER, "n_prompts": 256, "n_fit": 512}
    return probe(load("zoo:mixed-0"), ["linear", "cubic"], targets=["w", "xty", "x", "class"], **few)


@pytest.mark.slow
def test_shuffled_targets_are_not_decodable(of_mixed):
    """The false-positive rate of the control over every probe; the stages of one target are nearly one test."""
    rows = of_mixed.table[of_mixed.table["metric"] == "r2"]
    assert len(rows) > 90
    assert (rows["shuffled_low"] > 0).mean() < 0.1
    assert rows["shuffled"].max() < 0.05
    assert rows["shuffled"].min() > -0.15
    accuracy = where(of_mixed.table, metric="accuracy")
    assert np.abs(accuracy["shuffled"].to_numpy() - 1 / 3).max() < 0.07
    assert accuracy["chance"].tolist() == pytest.approx([1 / 3] * len(accuracy))


@pytest.mark.slow
def test_before_anything_was_read_nothing_about_the_context_is_decodable(of_mixed):
    rows = of_mixed.table[(of_mixed.table["stage"] == "embed") & (of_mixed.table["metric"] == "r2")]
    assert (rows["value"].abs() < 0.02).all()


@pytest.mark.slow
def test_what_is_decodable_exceeds_both_controls_by_what_is_said(of_mixed):
    table = of_mixed.table
    control = table[["shuffled", "untrained"]].max(axis=1)
    np.testing.assert_allclose(table["above"], table["value"] - control)
    assert ((table["ci_low"] <= table["value"]) & (table["value"] <= table["ci_high"])).all()
    best = where(table, function_class="linear", target="w", token="y", stage="1.mid", condition="intact", examples=15)
    assert best["above_low"].iloc[0] > 0.4
    assert any("w exceeds its controls most at" in sentence for sentence in probe_verdict(of_mixed))


@pytest.mark.slow
def test_without_the_first_layer_s_heads_no_y_token_knows_its_x(of_mixed):
    rows = where(of_mixed.table, function_class="linear", target="x", stage="0.post", examples=3)
    intact, without = (where(rows, condition=name)["value"].iloc[0] for name in rows["condition"].unique())
    assert intact > 0.9
    assert -0.1 < without < 0.02


def test_removing_heads_is_what_transformer_lens_makes_of_it(random_checkpoint):
    """Their mean over reference prompts, by position, in place of z."""
    model, heads = random_checkpoint.model, (Head(0, 1), Head(1, 2))
    prompts = evaluation_prompts(random_checkpoint.config, "linear", n_prompts=12, seed=0)
    edits = mean_ablation(random_checkpoint, "linear", Protocol(without=heads))
    ours = read_stream(model, prompts, model_stages(3), torch.arange(31), edits)
    twin = hooked(random_checkpoint)
    _, intact = twin.run_with_cache(reference_prompts(random_checkpoint.config, "linear", seed=0).tokens)

    def replace(z, hook):
        for head in heads:
            if hook.name == f"blocks.{head.layer}.attn.hook_z":
                z[:, :, head.number] = intact[hook.name][:, :, head.number].mean(0)
        return z

    with twin.hooks([(f"blocks.{layer}.attn.hook_z", replace) for layer in (0, 1)]):
        _, cache = twin.run_with_cache(prompts.tokens)
    for stage, stream in zip(model_stages(3), ours, strict=True):
        assert_same(torch.from_numpy(stream), cache[stage.site][:, :31])


def test_the_untrained_control_is_another_initialisation():
    checkpoint = load("zoo:linear-0")
    twins = [untrained_twin(checkpoint.config, seed).embed.W_E for seed in (0, 0, 1)]
    assert torch.equal(twins[0], twins[1])
    assert not torch.equal(twins[0], twins[2])
    assert twins[0].std() == pytest.approx(checkpoint.config.model.init_std, rel=0.2)


def test_what_a_head_writes_has_the_geometry_of_z_w_o(random_checkpoint):
    model = random_checkpoint.model
    prompts = evaluation_prompts(random_checkpoint.config, "linear", n_prompts=5, seed=0)
    coordinates = head_outputs(model, prompts, 1, model.layers[1].attn)
    twin = hooked(random_checkpoint)
    twin.set_use_attn_result(True)
    _, cache = twin.run_with_cache(prompts.tokens)
    result = cache["blocks.1.attn.hook_result"][:, 1:30:2].double().numpy()
    ours, theirs = (np.einsum("aphd,bphd->phab", x, x) for x in (coordinates, result))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)
