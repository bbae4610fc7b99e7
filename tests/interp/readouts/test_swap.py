"""Swaps against HookedTransformer's hooks, their self-check, and the p-values of subspaces that mean nothing."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

from interp.model import self_checks
from interp.model.hooked_transformer import hooked
from interp.patching.prompt_pairs import prompt_pairs
from interp.readouts import subspace_patching
from interp.readouts.probes import ProbePosition, Protocol
from interp.readouts.stream import Stage, token_positions
from interp.readouts.subspace_exchange import check_swap, make_exchange
from interp.readouts.subspace_patching import (
    Controls,
    SwapSetup,
    arrange,
    covariance_root,
    evidence,
    mark_chosen,
    outside,
    random_subspaces,
    span_of,
    swap,
    swap_at,
)
from interp.readouts.verdict import swap_verdict
from interp.statistics.effects import holm, permutation_p
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


@pytest.mark.sample(3)
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
    streams = [exchange.swap(torch.from_numpy(part @ part.T).float()) for part in (basis[:, :20], basis[:, 20:])]
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


def test_rounding_is_not_taken_for_a_defect(monkeypatch, random_checkpoint, rng):
    """Where float32 differs by more than the tolerance, the runs are repeated in float64 and agree."""
    monkeypatch.setattr(self_checks, "TOLERANCE", -1.0)
    for token in ("x", "y"):
        check_swap(exchange_of(random_checkpoint, token, Stage(0, "post")), basis_of(rng, 3))


def test_a_basis_that_is_not_orthonormal_stops(random_checkpoint, rng):
    with pytest.raises(CheckError, match="not the other run's"):
        check_swap(exchange_of(random_checkpoint, "x", Stage(1, "post")), 0.5 * basis_of(rng, 3))


def setup_of(checkpoint, n_prompts):
    position, protocol = ProbePosition("x", 9), Protocol(n_prompts=n_prompts)
    return SwapSetup(checkpoint, "linear", ["linear"], position, [], protocol, 39, n_prompts)


def test_p_values_of_unrelated_subspaces_are_uniform(random_checkpoint, rng):
    runs = arrange(random_checkpoint.model, exchange_of(random_checkpoint, "x", Stage(1, "post"), n_prompts=64))
    null = Controls(79, runs, rng, np.eye(64)).even(2)
    p_values = np.array(
        [permutation_p(effect, null) for effect in runs.effects(random_subspaces(rng, 80, 2, np.eye(64)))]
    )
    assert np.mean(p_values <= 0.1) <= 0.25
    assert np.mean(p_values <= 0.5) == pytest.approx(0.5, abs=0.2)


@pytest.mark.slow
def test_unrelated_subspaces_are_seldom_called_used(rng):
    """Chosen among three stages on other prompts and tested once: 80 random directions of a trained model."""
    checkpoint = load("zoo:linear-0")
    setup, rows = setup_of(checkpoint, 64), []
    for stage in setup.stages:
        pairs = [setup.draw_pairs("function", 64, seed) for seed in (0, 1)]
        test, selection = (make_exchange(checkpoint.model, prompts, stage, setup.positions) for prompts in pairs)
        bases = {(str(i), "pattern"): random_subspaces(rng, 1, 2, np.eye(64))[0] for i in range(80)}
        rows += [row for row, _ in swap_at(setup, test, selection, bases, covariance_root(test.clean.numpy()))]
    p_values = mark_chosen(pd.DataFrame(rows))["p_chosen"].dropna()
    assert len(p_values) == 80
    assert np.sum(p_values <= 0.05) <= binom.ppf(0.9999, 80, 0.05)


def test_matched_subspaces_lie_outside_the_probed_one(rng):
    root = np.diag([10.0, 5.0, 1.0, 1.0, 0.0])
    probed = np.eye(5)[:, :1]
    bases = random_subspaces(rng, 50, 2, outside(probed, root))
    assert bases.shape == (50, 5, 2)
    np.testing.assert_allclose(np.swapaxes(bases, 1, 2) @ probed, 0, atol=1e-9)
    assert random_subspaces(rng, 3, 4, outside(probed, root)).shape == (3, 5, 3)
    assert random_subspaces(rng, 3, 1, outside(np.eye(5)[:, :4], root)).shape == (3, 5, 0)


def test_the_place_is_the_one_with_most_evidence_and_no_overshoot():
    controls = [np.array([0.0, 0.1, 0.2])] * 2
    assert evidence(1.12, controls) < evidence(1.0, controls)
    assert evidence(0.1, controls) == pytest.approx(0)
    about = {"function_class": "linear", "target": "t", "subspace": "pattern"}
    places = [
        {"evidence": 3.0, "p_value": 0.01, "p_matched": 0.02},
        {"evidence": 2.0, "p_value": 0.9, "p_matched": 0.9},
    ]
    table = mark_chosen(pd.DataFrame([about | place for place in places]))
    assert table["p_chosen"].iloc[0] == 0.02
    assert np.isnan(table["p_chosen"].iloc[1])


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
    few: dict[str, Any] = {"examples": 15, "n_prompts": 64, "n_fit": 1024, "n_controls": 39}
    return swap(load("zoo:linear-0"), ["linear"], targets=["t", "w"], **few)


@pytest.mark.slow
def test_a_trained_model_s_answer_follows_the_swap_of_t(of_linear):
    """At the query t is the prediction; its pattern carries nearly all of it, a random direction nearly nothing."""
    (row,) = where(of_linear.table, token="x", stage="2.post", target="t", subspace="pattern").to_dict("records")
    assert row["rank"] == 1
    assert row["full"] == pytest.approx(1, abs=1e-4)
    assert row["ci_low"] > 0.9
    assert row["random"] < 0.1
    assert row["p_value"] == row["p_matched"] == 1 / 40
    chosen = where(of_linear.table, target="t", subspace="pattern").dropna(subset=["p_chosen"])
    assert chosen["p_chosen"].tolist() == [1 / 40]
    assert "t is used" in swap_verdict(of_linear)[0]


@pytest.mark.slow
def test_every_arm_has_a_row_and_a_null(of_linear):
    table = of_linear.table
    assert len(table) == 2 * 2 * (3 + 2)
    assert set(where(table, token="y")["stage"]) == {"0.post", "1.post"}
    assert len(of_linear.controls) == 2 * 39 * len(table)
    assert (table["full_low"] <= table["full"]).all()


@pytest.mark.slow
def test_by_default_there_are_enough_controls_for_all_tests(monkeypatch):
    """Two targets: 39 of each kind allow p = 0.05 after Holm."""
    monkeypatch.setattr(subspace_patching, "LEAST_CONTROLS", 1)
    few: dict[str, Any] = {"tokens": ["x"], "examples": 3, "n_prompts": 16, "n_fit": 64}
    table = swap(load("zoo:linear-0"), ["linear"], targets=["t", "w"], **few).table
    assert set(table["n_controls"]) == {39}
    assert holm([1 / 40, 1 / 40]) == [0.05, 0.05]


def test_a_target_that_needs_another_run_is_refused():
    with pytest.raises(UserError, match="nothing to swap"):
        swap(load("zoo:linear-0"), ["quartic"], targets=["class"], n_prompts=16, n_fit=16)
