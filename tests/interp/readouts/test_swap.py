"""Swaps against HookedTransformer's hooks, their self-check, and the p-values of subspaces that mean nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from interp.model.hooked_transformer import hooked
from interp.patching.prompt_pairs import prompt_pairs
from interp.readouts.probes import Place, Protocol
from interp.readouts.stream import Stage, token_positions
from interp.readouts.subspace_exchange import check_swap, make_exchange
from interp.readouts.subspace_patching import (
    Arm,
    covariance_root,
    null_effects,
    plain_effects,
    random_subspaces,
    span_of,
    swap,
)
from interp.readouts.verdict import swap_verdict
from interp.statistics.effects import permutation_p
from training.checkpoints.checkpoint import load
from training.common.errors import CheckError, UserError
from training.common.table_rows import where
from training.evaluation.evaluate import predictions


def exchange_of(checkpoint, token, stage, n_prompts=24):
    pairs = prompt_pairs(checkpoint.config, "linear", "function", n_prompts=n_prompts, seed=0, examples=9)
    every = token_positions(checkpoint.config.layout, 10, token)
    return make_exchange(checkpoint.model, pairs, stage, every[9:] if token == "x" else every[:9])


def basis_of(rng, rank):
    return random_subspaces(rng, 1, rank, np.eye(64))[0]


@pytest.mark.parametrize("token", ["x", "y"])
@pytest.mark.parametrize("stage", [Stage(0, "mid"), Stage(0, "post"), Stage(1, "post"), Stage(2, "post")], ids=str)
def test_a_swap_is_the_same_edit_through_transformer_lens_hooks(token, stage, random_checkpoint, rng):
    exchange, basis = exchange_of(random_checkpoint, token, stage), basis_of(rng, 3)
    twin, projector = hooked(random_checkpoint), torch.from_numpy(basis @ basis.T).float()
    _, cache = twin.run_with_cache(exchange.pairs.corrupt.tokens)

    def replace(stream, hook):
        there = cache[hook.name][:, exchange.positions] - stream[:, exchange.positions]
        stream[:, exchange.positions] += there @ projector
        return stream

    wanted = twin.run_with_hooks(exchange.pairs.clean.tokens, fwd_hooks=[(stage.site, replace)])[:, 18, 0]
    given = exchange.predict(basis[None])[0]
    torch.testing.assert_close(torch.from_numpy(given).float(), wanted, rtol=1e-5, atol=1e-5)
    check_swap(exchange, basis)


def test_nothing_and_everything(random_checkpoint):
    """No dimension: the clean prediction. All of them at the query after the last layer: the other run's."""
    exchange = exchange_of(random_checkpoint, "x", Stage(2, "post"))
    clean, corrupt = (predictions(random_checkpoint.model, one)[:, -1].numpy() for one in exchange.pairs)
    np.testing.assert_allclose(exchange.predict(np.zeros((1, 64, 0)))[0], clean, atol=1e-5)
    np.testing.assert_allclose(exchange.predict(np.eye(64)[None])[0], corrupt, atol=1e-5)
    assert np.abs(clean - corrupt).max() > 0.1


def test_swaps_of_parts_of_the_stream_after_the_last_layer_that_leaves_layernorm_alone_add_up(random_checkpoint, rng):
    basis = basis_of(rng, 64)
    exchange = exchange_of(random_checkpoint, "x", Stage(2, "post"))
    streams = [exchange.swapped(torch.from_numpy(part @ part.T).float()) for part in (basis[:, :20], basis[:, 20:])]
    both = streams[0] + streams[1] - exchange.clean[:, exchange.positions]
    torch.testing.assert_close(both, exchange.clean[:, exchange.positions] + exchange.difference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda one: {"difference": torch.zeros_like(one.difference)}, "is not the same edit"),
        (lambda one: {"clean": one.clean.flip(0)}, "changes"),
        (lambda one: {"positions": one.positions - 1}, "is not the same edit|changes"),
    ],
    ids=["does nothing", "another run", "another token"],
)
def test_a_swap_that_does_not_do_its_work_stops(spoil, said, random_checkpoint, rng):
    exchange = exchange_of(random_checkpoint, "y", Stage(0, "post"))
    with pytest.raises(CheckError, match=said):
        check_swap(dataclasses.replace(exchange, **spoil(exchange)), basis_of(rng, 3))


def test_a_basis_that_is_not_orthonormal_stops(random_checkpoint, rng):
    with pytest.raises(CheckError, match="not the other run's"):
        check_swap(exchange_of(random_checkpoint, "x", Stage(1, "post")), 0.5 * basis_of(rng, 3))


@pytest.mark.parametrize("matched", [False, True])
def test_p_values_of_unrelated_subspaces_are_uniform(matched, random_checkpoint, rng):
    exchange = exchange_of(random_checkpoint, "x", Stage(1, "post"), n_prompts=64)
    root = covariance_root(exchange.clean.numpy())
    arm = Arm(random_checkpoint, "linear", ["linear"], Place("x", 9), Protocol(n_prompts=64), 79, 64)
    base, source = (predictions(random_checkpoint.model, one)[:, -1].double().numpy() for one in exchange.pairs)
    null = null_effects(arm, exchange, base, source, rng, 2, root)["matched" if matched else "even"]
    unrelated = random_subspaces(rng, 80, 2, root if matched else np.eye(64))
    found = plain_effects(exchange.predict(unrelated), base, source)
    p_values = np.array([permutation_p(one, null) for one in found])
    assert np.mean(p_values <= 0.1) <= 0.25
    assert np.mean(p_values <= 0.5) == pytest.approx(0.5, abs=0.2)


def test_random_subspaces_are_orthonormal_and_follow_the_spread(rng):
    spread = np.diag([10.0, 10.0, 0.1, 0.1])
    bases = random_subspaces(rng, 200, 2, spread)
    np.testing.assert_allclose(np.swapaxes(bases, 1, 2) @ bases, np.broadcast_to(np.eye(2), (200, 2, 2)), atol=1e-12)
    assert np.square(bases[:, :2]).sum((1, 2)).mean() > 1.9
    even = random_subspaces(rng, 200, 2, np.eye(4))
    assert np.square(even[:, :2]).sum((1, 2)).mean() == pytest.approx(1, abs=0.1)


def test_the_span_leaves_out_what_is_rounding(rng):
    columns = rng.normal(size=(64, 2)) @ rng.normal(size=(2, 4))
    assert span_of(columns).shape == (64, 2)
    assert span_of(np.zeros((64, 3))).shape == (64, 0)


@pytest.fixture(scope="module")
def of_linear():
    protocol = Protocol(examples=(15,), n_prompts=64, n_fit=1024)
    return swap(load("zoo:linear-0"), ["linear"], targets=["t", "w"], protocol=protocol, n_controls=19)


def test_a_trained_model_s_answer_follows_the_swap_of_t(of_linear):
    """At the query t is the prediction; its pattern carries nearly all of it, a random direction nearly nothing."""
    (row,) = where(of_linear.table, token="x", stage="2.post", target="t", subspace="pattern").to_dict("records")
    assert row["rank"] == 1
    assert row["full"] == pytest.approx(1, abs=1e-4)
    assert row["ci_low"] > 0.9
    assert row["random"] < 0.1
    assert row["p_value"] == row["p_matched"] == 1 / 20
    assert row["p_holm"] == pytest.approx(5 / 20)
    assert "t moves it more than every random subspace, of which there are too few" in swap_verdict(of_linear)[0]


def test_every_arm_has_a_row_and_a_null(of_linear):
    table = of_linear.table
    assert len(table) == 2 * 2 * (3 + 2)
    assert set(where(table, token="y")["stage"]) == {"0.post", "1.post"}
    assert len(of_linear.null) == 2 * 19 * len(table)
    assert (table["full_low"] <= table["full"]).all()


def test_a_target_that_needs_another_run_is_refused():
    with pytest.raises(UserError, match="nothing to swap"):
        swap(load("zoo:linear-0"), ["quartic"], targets=["class"], protocol=Protocol(n_prompts=16, n_fit=16))
