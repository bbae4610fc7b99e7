"""The lens against the model itself, HookedTransformer and the error curves."""

import numpy as np
import pytest
import torch

from interp.model.hooked_transformer import hooked
from interp.readouts.lens import ALIKE, implied_predictions, lens, nearest_predictors, tuned_readouts
from interp.readouts.stream import TOKENS, Stage, finish_from, finish_query, model_stages, read_stream
from interp.readouts.verdict import lens_verdict
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.bootstrap import bootstrap_weights
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import where
from training.config.parse import from_preset
from training.evaluation.evaluate import error_curves, evaluation_prompts
from training.model.transformer import Past, Transformer
from training.tasks.prompts import Layout

INSTRUCTIONS = [[], ["instruction.kind=vector", "instruction.at=3", "model.n_ctx=33"]]


@pytest.fixture(params=INSTRUCTIONS, ids=["plain", "instruction"])
def any_checkpoint(request, tmp_path) -> Checkpoint:
    config = from_preset("tiny", "mixed", 0, ["model.init_std=0.3", *request.param])
    model = Transformer(config.model, torch.Generator().manual_seed(3), config.layout).requires_grad_(False)
    return Checkpoint("random", tmp_path, config, 0, model)


def test_at_the_end_both_lenses_are_the_model(any_checkpoint):
    model, at = any_checkpoint.model, model_stages(3)
    fit, prompts = (
        evaluation_prompts(any_checkpoint.config, "linear", n_prompts=n, seed=0, stream=stream)
        for n, stream in ((256, "reference"), (40, "test"))
    )
    implied = implied_predictions(model, prompts, at, tuned_readouts(model, fit, at))
    wanted = model.predict(prompts.tokens).double().numpy()
    np.testing.assert_allclose(implied[-1, 0], wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_allclose(implied[-1, 1], wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(implied[2, 0] - wanted).max() > 0.1  # which is not so everywhere


@pytest.mark.parametrize("token", TOKENS)
def test_the_plain_lens_is_ln_final_and_unembed_on_transformer_lens_own_cache(random_checkpoint, token):
    at = model_stages(3)
    prompts = evaluation_prompts(random_checkpoint.config, "cubic", n_prompts=20, seed=0)
    readouts = tuned_readouts(random_checkpoint.model, prompts, at, token)
    implied = implied_predictions(random_checkpoint.model, prompts, at, readouts, token)
    twin = hooked(random_checkpoint)
    _, cache = twin.run_with_cache(prompts.tokens)
    for stage, (plain, _) in zip(at, implied, strict=True):
        wanted = twin.unembed(twin.ln_final(cache[stage.site]))[:, TOKENS.index(token) :: 2, 0]
        assert (torch.from_numpy(plain).float() - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_the_rest_of_the_pass_from_any_stage_is_the_pass(any_checkpoint):
    model = any_checkpoint.model
    prompts = evaluation_prompts(any_checkpoint.config, "linear", n_prompts=10, seed=0)
    n_tokens = model.layout.n_needed(prompts.tokens.shape[1])
    wanted = model.predict(prompts.tokens)[:, -1]
    for stage in model_stages(3):
        stream = torch.from_numpy(read_stream(model, prompts, [stage], torch.arange(n_tokens))[0])
        torch.testing.assert_close(finish_from(model, stage, stream), wanted, rtol=1e-5, atol=1e-5)
        if stage.part != "pre":
            past = {}
            for layer in range(stage.layer + 1, 3):
                pre = read_stream(model, prompts, [Stage(layer - 1, "post")], torch.arange(n_tokens - 1))[0]
                block = model.layers[layer]
                normalized = block.ln1(torch.from_numpy(pre))
                k, v = (
                    torch.einsum("bpd,hdk->bphk", normalized, weight) + bias
                    for weight, bias in ((block.attn.W_K, block.attn.b_K), (block.attn.W_V, block.attn.b_V))
                )
                past[layer] = Past(k, v)
            given = finish_query(model, stage, stream[:, -1:], past)
            torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-5)


def test_positions_follow_the_layout():
    assert Layout(1, at=3).x_tokens(9).tolist() == [0, 2, 5, 7]  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def of_linear():
    return lens(load("zoo:linear-0"), ["linear"], n_prompts=256)


def test_the_error_at_the_end_is_that_of_interp_eval(of_linear):
    curves = error_curves(load("zoo:linear-0"), ["linear"], n_prompts=256, seed=0)
    for reference, predictor in (("target", "model"), ("model", None)):
        rows = where(of_linear.table, stage="2.post", kind="plain", reference=reference)
        wanted = 0 if predictor is None else where(curves, predictor=predictor)["error"].to_numpy()
        np.testing.assert_allclose(rows["distance"].to_numpy(), wanted, rtol=1e-5, atol=1e-9)


def test_the_depth_table_is_the_mean_over_the_last_quarter(of_linear):
    late = of_linear.table[of_linear.table["examples"] >= 12]
    keys = ["stage", "kind", "reference"]
    means = late.groupby(keys)["distance"].mean()
    ours = of_linear.depth.set_index(keys)["distance"]
    np.testing.assert_allclose(ours, means[ours.index], rtol=1e-9)
    assert (ours >= of_linear.depth.set_index(keys)["ci_low"]).all()


def test_the_tuned_lens_is_nearer_to_the_model_than_the_plain_one(of_linear):
    """What it was fitted for, judged on other prompts."""
    rows = where(of_linear.depth, reference="model")
    plain, tuned = (where(rows, kind=kind)["distance"].to_numpy() for kind in ("plain", "tuned"))
    assert (tuned[:-1] < plain[:-1]).all()
    assert tuned[-1] < 1e-4


def test_the_verdict_follows_the_rule(of_linear):
    (sentence,) = lens_verdict(of_linear)
    tuned = where(of_linear.depth, kind="tuned", reference="target")
    first = tuned[tuned["gain"] >= 0.5].iloc[0]
    assert f"no-context optimum at {first['stage']} " in sentence
    assert "after layer 0 to the no-context optimum" in sentence


def test_at_y_tokens_the_tuned_lens_finds_the_y_that_stands_there():
    """y_i is one coordinate of the token; what was predicted of it is y_i but for the model's error (0.01 here)."""
    found = lens(load("zoo:linear-0"), ["linear"], token="y", n_prompts=256)
    tuned = where(found.depth, kind="tuned", stage="0.mid")
    to = {row["reference"]: row["distance"] for row in records(tuned)}
    assert to["target"] < 0.1
    assert to["no_context"] > 0.5
    assert np.isnan(found.depth["gain"].to_numpy()).all()
    assert set(found.table["examples"]) == set(range(16))  # the last y token too, which no prediction reads
    (sentence,) = lens_verdict(found)
    assert sentence.startswith("At the y tokens of linear, which hold y itself, the tuned lens is closest")


def test_a_model_that_learned_nothing_in_context_has_no_answer():
    (sentence,) = lens_verdict(lens(load("zoo:cubic-0"), ["linear"], n_prompts=128))
    assert sentence.endswith("no answer appears.")


def test_too_few_prompts_are_refused():
    with pytest.raises(UserError, match="at least 16"):
        lens(load("zoo:linear-0"), ["linear"], n_prompts=8)


def test_predictors_that_are_printed_alike_are_both_the_nearest(rng):
    """Known distances: the second predictor differs on every prompt, but not in the printed digits."""
    late = np.tile([0.5, 0.1, 0.1 + 0.4 * ALIKE, 0.1 + 2 * ALIKE], (64, 1, 1, 1)) + 0.01 * rng.random((64, 1, 1, 1))
    weights = bootstrap_weights(64, rng)
    near = nearest_predictors(late, weights, ["target", "ridge", "least_squares", "no_context"])
    assert near.tolist() == [[[False, True, True, False]]]
