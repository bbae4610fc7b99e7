"""Pools of functions: what is drawn from them, and the posterior over them against brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.checkpoints.checkpoint import read_history
from training.common.errors import UserError
from training.config.config import RunConfig
from training.config.parse import from_preset
from training.evaluation.evaluate import no_context_error
from training.loop.trainer import train
from training.pools import dmmse, draws_from, no_context, pool_baselines, pool_of
from training.sampling import sample_functions, sample_prompts
from training.tasks.baselines.plain import least_squares
from training.tasks.function_classes import FAMILIES, function_class

NOISY = "noisy_linear:0.5"


def config_with(n_functions: int, *settings: str, classes: str = NOISY, pool_seed: int = 7) -> RunConfig:
    own = [f'data.classes=["{classes}"]', "data.weights=standard"]
    pool = [f"data.n_functions={n_functions}", f"data.pool_seed={pool_seed}"]
    return from_preset("tiny", "mixed", 0, [*own, *pool, *settings])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_prompts_draw_every_function_of_the_pool_equally_often():
    config = config_with(5)
    pool = pool_of(config, NOISY)
    weights = sample_functions(config, NOISY, seeded(), 20_000, n_points=1).weights
    is_member = (weights[:, None] == pool).all(-1)
    assert is_member.sum(1).eq(1).all()
    np.testing.assert_allclose(is_member.double().mean(0), 0.2, atol=4 * (0.2 * 0.8 / 20_000) ** 0.5)


def test_a_pool_is_its_seed_and_that_of_hermite_polynomials_is_shared():
    config = config_with(6)
    assert pool_of(config, NOISY).equal(pool_of(replace(config, seeds=config_with(6).seeds), NOISY))
    assert not pool_of(config, NOISY).equal(pool_of(config_with(6, pool_seed=8), NOISY))
    assert pool_of(config, "linear").equal(pool_of(config, "cubic"))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_class_can_have_a_pool(name: str):
    config = config_with(3)
    prompts = sample_prompts(config, name, seeded(), 8)
    assert prompts.ys.shape == (8, 16)
    assert prompts.ys.isfinite().all()


def test_fresh_functions_are_those_of_a_run_without_pool():
    config = draws_from(config_with(3), "fresh")
    ours, theirs = (sample_prompts(run, NOISY, seeded(), 4) for run in (config, config_with(0)))
    assert ours.xs.equal(theirs.xs)
    assert ours.ys.equal(theirs.ys)


def brute_force(prompts, pool: np.ndarray, noise: float) -> np.ndarray:
    """The posterior mean by Bayes' rule, one prompt and one point at a time."""
    xs, ys = prompts.xs.double().numpy(), prompts.ys.double().numpy()
    means = np.empty(ys.shape)
    for i in range(len(ys)):
        for k in range(ys.shape[1]):
            likelihood = [np.exp(-((ys[i, :k] - xs[i, :k] @ w) ** 2).sum() / (2 * noise**2)) for w in pool]
            means[i, k] = np.average(pool @ xs[i, k], weights=likelihood)
    return means


@pytest.mark.parametrize("source", ["pool", "fresh"])
def test_dmmse_is_the_posterior_mean_by_brute_force(source: str):
    config = config_with(6, "data.n_points=5")
    prompts = sample_prompts(draws_from(config, source), NOISY, seeded(), 12)
    wanted = brute_force(prompts, pool_of(config, NOISY).double().numpy(), 0.5)
    np.testing.assert_allclose(dmmse(config, NOISY)(prompts), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(no_context(config, NOISY, prompts)[:, 0], wanted[:, 0], rtol=1e-5, atol=1e-5)


def test_chunks_do_not_change_the_posterior(monkeypatch):
    config = config_with(6)
    prompts = sample_prompts(config, NOISY, seeded(), 7)
    whole = dmmse(config, NOISY)(prompts)
    monkeypatch.setattr("training.tasks.baselines.posterior.VALUES_AT_ONCE", 200)
    np.testing.assert_allclose(dmmse(config, NOISY)(prompts), whole, rtol=1e-5)


@pytest.mark.parametrize("name", ["linear", "cubic", "relu_network:5", "decision_tree:2", "sparse_parity"])
def test_a_pool_of_one_function_is_predicted_exactly_and_needs_no_context(name: str):
    config = config_with(1)
    prompts = sample_prompts(config, name, seeded(), 8)
    np.testing.assert_allclose(dmmse(config, name)(prompts), prompts.ys, rtol=1e-4, atol=1e-4)
    assert no_context_error(config, name, prompts).max() < 1e-6


def test_without_noise_few_examples_tell_the_functions_of_a_pool_apart():
    config = config_with(64)
    prompts = sample_prompts(config, "cubic", seeded(), 32)
    errors = (dmmse(config, "cubic")(prompts) - prompts.ys).square().mean(0) / config.second_moment("cubic")
    assert errors[0] > 0.5
    assert errors[8:].max() < 1e-3


def test_a_large_pool_tends_to_ridge_with_the_penalty_of_noise_and_prior():
    """In two dimensions, where 2^15 functions lie densely; the distance shrinks as the pool grows."""
    distances = []
    for n_functions in (2**5, 2**10, 2**15):
        config = config_with(n_functions, "model.n_dims=2")
        prompts = sample_prompts(draws_from(config, "fresh"), NOISY, seeded(), 16)
        memory, general = (learner.predict(prompts) for learner in pool_baselines(config, NOISY))
        distances.append((memory - general).square().mean().item())
    assert distances[0] > 10 * distances[1] > 100 * distances[2]
    assert distances[2] < 1e-3


def test_the_matched_ridge_is_the_gaussian_posterior_mean():
    config = config_with(2)
    prompts = sample_prompts(config, NOISY, seeded(), 3)
    xs, ys = prompts.xs.double().numpy(), prompts.ys.double().numpy()
    learner = function_class(NOISY).informed_baseline("standard", 4)
    assert learner.name == "matched_ridge"
    x, y = xs[1, :6], ys[1, :6]
    covariance = x @ x.T + 0.25 * np.eye(6)  # of y as a Gaussian process
    wanted = xs[1, 6] @ x.T @ np.linalg.solve(covariance, y)
    assert learner.predict(prompts)[1, 6].item() == pytest.approx(wanted, rel=1e-5)
    unit = function_class(NOISY).informed_baseline("unit", 4).predict(prompts)
    covariance = x @ x.T / 4 + 0.25 * np.eye(6)
    assert unit[1, 6].item() == pytest.approx(xs[1, 6] @ x.T / 4 @ np.linalg.solve(covariance, y), rel=1e-5)
    assert function_class("noisy_linear:0").informed_baseline("standard", 4).predict is least_squares


def test_the_history_of_a_run_with_a_pool_has_both_errors(tmp_path):
    train(config_with(2, "recipe.steps=2", "recipe.batch_size=4", "record.eval_prompts=64"), tmp_path / "pool")
    train(config_with(0, "recipe.steps=2", "recipe.batch_size=4", "record.eval_prompts=64"), tmp_path / "fresh")
    (first, *_), (other, *_) = (read_history(tmp_path / name) for name in ("pool", "fresh"))
    assert first["nmse_tail_fresh"] == other["nmse_tail"]
    assert first["nmse_tail"] != first["nmse_tail_fresh"]
    assert "nmse_tail_fresh" not in other


def test_pools_of_invalid_size_or_without_functions_are_refused():
    with pytest.raises(UserError, match=r"data.n_functions=-1: must not be negative"):
        config_with(-1)
    with pytest.raises(UserError, match=r"data.n_functions=1048577: must be at most 1048576"):
        config_with(2**20 + 1)
    with pytest.raises(UserError, match=r"functions 'pool': the run draws fresh functions"):
        draws_from(config_with(0), "pool")
    with pytest.raises(UserError, match="unknown functions 'stale'"):
        draws_from(config_with(0), "stale")
    with pytest.raises(UserError, match=r"dmmse needs .* \(given: markov_chain\)"):
        dmmse(config_with(2), "markov_chain")
