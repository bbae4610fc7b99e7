import warnings
from functools import partial

import numpy as np
import pytest
import torch
from numpy.polynomial import Polynomial
from sklearn.linear_model import Lasso
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from training.common.errors import UserError
from training.sampling import sample_prompts
from training.tasks.baselines import (
    BASELINES,
    averaging,
    baseline,
    best_ridge,
    gradient_descent,
    greedy_tree,
    least_squares,
    lookup,
    nearest_neighbours,
)
from training.tasks.baselines import lasso as lasso_module
from training.tasks.baselines.lasso import LASSO_PENALTIES, best_lasso, lasso
from training.tasks.baselines.plain import RIDGE_PENALTIES, ridge
from training.tasks.baselines.prefixes import moments
from training.tasks.baselines.single_index import Problem, fit, posterior_weights, single_index
from training.tasks.baselines.structured import prototype_bayes, transition_average
from training.tasks.function_classes import Hermite
from training.tasks.prompts import Prompts

CUBIC = Hermite(3).polynomial


@pytest.fixture
def prompts(quick_config, generator) -> Prompts:
    return sample_prompts(quick_config, "linear", generator, n_prompts=50)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prefix(prompts: Prompts, prompt: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs before point k and x there."""
    xs, ys = prompts.xs[prompt].double().numpy(), prompts.ys[prompt].double().numpy()
    return xs[:k], ys[:k], xs[k]


def recurring(n_prompts: int = 40, n_symbols: int = 5) -> Prompts:
    """x one of a few vectors, y its own each time."""
    symbols = torch.randn(n_symbols, 4, generator=seeded())
    which = torch.randint(n_symbols, (n_prompts, 16), generator=seeded(1))
    return Prompts(symbols[which], torch.randn(n_prompts, 16, generator=seeded(2)))


def prototypes(sigma: float, spread: float, n_prompts: int = 20_000, n_dims: int = 4) -> Prompts:
    centres = spread * torch.randn(n_prompts, 2, n_dims, generator=seeded())
    labels = torch.randint(2, (n_prompts, 8), generator=seeded(1))
    xs = centres.gather(1, labels[:, :, None].expand(-1, -1, n_dims))
    return Prompts(xs + sigma * torch.randn(xs.shape, generator=seeded(2)), 2.0 * labels - 1)


def hermite(degree: int, kind: str, n_prompts: int = 200) -> tuple[Hermite, Prompts]:
    drawn = Hermite(degree)
    w = drawn.sample_weights(seeded(), n_prompts, 4, kind)  # pyright: ignore[reportArgumentType]
    xs = torch.randn(n_prompts, 16, 4, generator=seeded(1)).double()
    return drawn, Prompts(xs, drawn.evaluate(xs, w.double()))


def test_least_squares_solves_linear_once_it_has_as_many_examples_as_dims(prompts):
    error = (least_squares(prompts) - prompts.ys).square()
    assert error[:, 4:].max() < 1e-6
    assert error[:, 3].mean() > 0.05


def test_least_squares_is_the_minimum_norm_fit_of_the_pairs_before(prompts):
    for k in (0, 2, 7):
        xs, ys, x = prefix(prompts, 3, k)
        wanted = (np.linalg.pinv(xs) @ ys if k else np.zeros(4)) @ x
        assert least_squares(prompts)[3, k].item() == pytest.approx(wanted, abs=1e-5)


def test_ridge_is_its_normal_equations(prompts):
    xs, ys, x = prefix(prompts, 3, 6)
    features = np.column_stack([np.ones(6), xs])
    w = np.linalg.solve(features.T @ features + 0.7 * np.eye(5), features.T @ ys)
    assert ridge(prompts, 0.7)[3, 6].item() == pytest.approx(w @ np.r_[1, x], abs=1e-5)


@pytest.mark.parametrize(
    ("best", "single", "penalties"), [(best_ridge, ridge, RIDGE_PENALTIES), (best_lasso, lasso, LASSO_PENALTIES)]
)
def test_the_best_in_hindsight_is_the_best_of_the_penalties_tried(quick_config, generator, best, single, penalties):
    prompts = sample_prompts(quick_config, "cubic", generator, n_prompts=100)
    errors = [(single(prompts, penalty) - prompts.ys).square().mean().item() for penalty in penalties]
    assert (best(prompts) - prompts.ys).square().mean().item() == pytest.approx(min(errors), rel=1e-4)
    assert max(errors) > 1.05 * min(errors)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 0.5])
def test_lasso_is_sklearns(quick_config, generator, penalty):
    prompts = sample_prompts(quick_config, "quadratic", generator, n_prompts=6)
    model = Lasso(alpha=penalty, fit_intercept=False, tol=1e-12, max_iter=200_000)
    given = lasso(Prompts(prompts.xs.double(), prompts.ys.double()), penalty)
    for prompt in range(6):
        for k in range(1, 16):
            xs, ys, x = prefix(prompts, prompt, k)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that its duality gap stays above so small a tolerance
                wanted = model.fit(xs, ys).coef_ @ x
            assert given[prompt, k].item() == pytest.approx(wanted, abs=1e-4)


def test_lasso_is_optimal_where_many_coordinates_tie(monkeypatch):
    """x of ±1: the gradient is -penalty · sign(w) where w is not 0 and no larger than the penalty elsewhere."""
    xs = torch.randn(100, 20, 6, generator=seeded()).sign().double()
    ys = xs[:, :, 0] * xs[:, :, 1]
    k = torch.arange(20).clamp(min=1)[:, None]
    found = coefficients_of(monkeypatch, Prompts(xs, ys), 0.01)
    gram, moment = moments(xs, ys)
    descent = (moment - (gram @ found[..., None]).squeeze(-1)) / k
    assert descent.abs().max() < 0.01 + 1e-7
    moved = found.abs() > 1e-6
    assert moved[:, 10:].double().mean() > 0.3
    torch.testing.assert_close(descent[moved], 0.01 * found[moved].sign(), atol=1e-7, rtol=0)


def coefficients_of(monkeypatch, prompts: Prompts, penalty: float) -> torch.Tensor:
    """The lasso's w, seen on its way."""
    paths, follow = [], lasso_module.follow
    monkeypatch.setattr(lasso_module, "follow", lambda *arguments: paths.append(follow(*arguments)) or paths[-1])
    lasso(prompts, penalty)
    return paths[-1].w


def test_averaging_is_the_mean_of_y_x(prompts):
    xs, ys, x = prefix(prompts, 5, 6)
    assert averaging(prompts)[5, 6].item() == pytest.approx((ys[:, None] * xs).mean(0) @ x, abs=1e-5)
    assert not averaging(prompts)[:, 0].any()


@pytest.mark.parametrize("k", [1, 3, 9])
def test_gradient_descent_takes_steps_of_one_over_the_largest_eigenvalue(prompts, k):
    xs, ys, x = prefix(prompts, 2, k)
    w = np.zeros(4)
    for _ in range(3):
        w -= xs.T @ (xs @ w - ys) / np.linalg.norm(xs, 2) ** 2
    assert gradient_descent(prompts, 3)[2, k].item() == pytest.approx(w @ x, abs=1e-5)


def test_gradient_descent_ends_at_least_squares(prompts):
    late = gradient_descent(prompts, 3000)[:, 8:]
    torch.testing.assert_close(late, least_squares(prompts)[:, 8:], atol=1e-3, rtol=0)
    errors = [(gradient_descent(prompts, steps) - prompts.ys)[:, 8:].square().mean() for steps in (0, 1, 10, 100)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("k", [1, 2, 3, 12])
def test_nearest_neighbours_are_sklearns(prompts, k):
    for prompt in range(5):
        xs, ys, x = prefix(prompts, prompt, k)
        wanted = KNeighborsRegressor(min(3, k)).fit(xs, ys).predict(x[None])[0]
        assert nearest_neighbours(prompts)[prompt, k].item() == pytest.approx(wanted, abs=1e-5)
    assert not nearest_neighbours(prompts)[:, 0].any()


def test_a_tree_recovers_a_tree_and_is_sklearns():
    xs = torch.randn(8, 60, 3, generator=seeded())
    ys = torch.where(xs[:, :, 1] > 0, 3.0, torch.where(xs[:, :, 0] > 0, -1.0, 1.0))
    given = greedy_tree(Prompts(xs, ys))
    assert (given - ys)[:, 40:].square().mean() < 0.1 * ys.var()
    assert not given[:, 0].any()
    shallow = greedy_tree(Prompts(xs[:2], ys[:2]), max_depth=1)
    pairs, values, x = prefix(Prompts(xs, ys), 1, 20)
    stump = DecisionTreeRegressor(max_depth=1, random_state=0).fit(pairs, values)
    assert shallow[1, 20].item() == pytest.approx(stump.predict(x[None])[0], abs=1e-5)


def test_lookup_repeats_the_latest_y_of_the_same_x():
    prompts = recurring()
    for prompt in range(10):
        latest: dict[float, float] = {}
        for x, y, given in zip(prompts.xs[prompt, :, 0], prompts.ys[prompt], lookup(prompts)[prompt], strict=True):
            assert given.item() == latest.get(x.item(), 0.0)
            latest[x.item()] = y.item()


@pytest.mark.parametrize("prior_count", [0.0, 1.5])
def test_transition_averages_are_counted_by_hand(prior_count):
    prompts = recurring()
    for prompt in range(10):
        seen: dict[float, list[float]] = {}
        given = transition_average(prompts, prior_count)[prompt]
        for x, y, value in zip(prompts.xs[prompt, :, 0], prompts.ys[prompt], given, strict=True):
            past = seen.setdefault(x.item(), [])
            wanted = sum(past) / (len(past) + prior_count) if past else 0.0
            assert value.item() == pytest.approx(wanted, abs=1e-5)
            past.append(y.item())


def test_transition_average_is_best_at_the_prior_count_of_the_truth():
    """Dirichlet(1/2) transitions among 4 symbols of values ±1, ±2: K alpha = 2."""
    values = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    rows = torch.from_numpy(np.random.default_rng(0).dirichlet([0.5] * 4, size=(3000, 4)))
    which = torch.randint(4, (3000, 24), generator=seeded())
    following = torch.multinomial(rows[torch.arange(3000)[:, None], which].flatten(0, 1), 1, generator=seeded(1))
    prompts = Prompts(torch.eye(4)[which], values[following].reshape(3000, 24))
    errors = {c: (transition_average(prompts, c) - prompts.ys).square().mean() for c in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)}
    assert min(errors, key=lambda prior_count: errors[prior_count]) == 2.0


def test_prototype_bayes_is_calibrated_and_beats_the_nearest_mean():
    prompts = prototypes(sigma=1.0, spread=0.7)
    given = prototype_bayes(prompts, sigma=1.0, spread=0.7)
    assert not given[:, 0].any()
    for k in (1, 3, 7):
        for low in np.arange(-0.75, 0.75, 0.25):
            inside = (given[:, k] > low) & (given[:, k] < low + 0.25)
            if inside.sum() > 300:
                gap = (prompts.ys - given)[inside, k].mean().item()
                assert abs(gap) < 4 / inside.sum().item() ** 0.5
    xs, ys = prompts.xs, prompts.ys
    means = [
        torch.where((ys[:, :7] == c)[:, :, None], xs[:, :7], 0).sum(1) / (ys[:, :7] == c).sum(1, True) for c in (-1, 1)
    ]
    minus, plus = (((xs[:, 7] - mean) ** 2).sum(-1) for mean in means)
    known = minus.isfinite() & plus.isfinite()
    hits = (given[known, 7].sign() == ys[known, 7]).double().mean()
    assert hits > ((minus - plus).sign() == ys[:, 7])[known].double().mean() + 0.005
    for sigma, spread in ((2.0, 0.7), (0.5, 0.7), (1.0, 2.0)):
        wrong = (prototype_bayes(prompts, sigma, spread) - ys).square().mean()
        assert wrong > (given - ys).square().mean()


def test_prototype_bayes_is_the_posterior_mean_by_monte_carlo():
    """Prototypes drawn from the prior, weighted by how likely they make the pairs before."""
    prompts, rng = prototypes(sigma=1.0, spread=0.7, n_prompts=3, n_dims=2), np.random.default_rng(0)
    draws = 0.7 * rng.standard_normal((400_000, 2, 2))
    for prompt in range(3):
        xs, ys, x = prefix(prompts, prompt, 4)
        weights = np.ones(len(draws))
        for pair_x, y in zip(xs, ys, strict=True):
            weights *= np.exp(-((pair_x - draws[:, int(y > 0)]) ** 2).sum(-1) / 2)
        minus, plus = (weights @ np.exp(-((x - draws[:, label]) ** 2).sum(-1) / 2) for label in (0, 1))
        given = prototype_bayes(prompts, 1.0, 0.7)[prompt, 4].item()
        assert given == pytest.approx((plus - minus) / (plus + minus), abs=0.02)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["standard", "unit"])
@pytest.mark.parametrize("degree", [2, 3])
def test_single_index_recovers_w(degree, kind):
    drawn, prompts = hermite(degree, kind)
    given = single_index(prompts, drawn.polynomial, unit=kind == "unit", generator=seeded(3))
    error = (given - prompts.ys).square()
    assert error[:, -1].median() < 1e-10
    assert (error[:, 10:] < 1e-6).double().mean() > 0.98
    no_context = (drawn.no_context(prompts.xs, kind) - prompts.ys).square()  # pyright: ignore[reportArgumentType]
    assert error[:, :2].mean() < 1.2 * no_context[:, :2].mean()
    assert error[:, 6:].mean() < 0.1 * no_context[:, 6:].mean()
    assert error[:, 8:].mean() < 0.1 * (best_ridge(prompts) - prompts.ys)[:, 8:].square().mean()


def test_single_index_of_a_line_is_least_squares():
    """Its mean over restarts samples the posterior, whose mean is the minimum-norm fit."""
    _, prompts = hermite(1, "standard", n_prompts=100)
    given = single_index(prompts, Polynomial([0, 1]), unit=False, generator=seeded(3), restarts=100, iterations=4)
    wanted = least_squares(prompts)
    assert (given - wanted)[:, :4].square().mean() < 3 / 100 * prompts.ys.var()
    torch.testing.assert_close(given[:, 6:], wanted[:, 6:], atol=1e-3, rtol=0)


def test_a_fit_moves_a_draw_to_the_nearest_w_that_fits():
    _, prompts = hermite(1, "standard", n_prompts=5)
    problem = line_problem(prompts)
    draws = problem.draw(3, seeded())
    away = torch.randn(draws.shape, generator=seeded(1), dtype=draws.dtype)
    for prompt in range(5):
        xs, ys, _ = prefix(prompts, prompt, 2)
        wanted = draws[prompt].numpy() + (ys - draws[prompt].numpy() @ xs.T) @ np.linalg.pinv(xs).T
        for first in (draws, away):
            found = fit(problem.before(2), first, draws, iterations=20)[prompt]
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_solution_far_longer_than_its_draw_has_no_weight():
    _, prompts = hermite(1, "standard", n_prompts=5)
    draws = torch.ones(5, 2, 4).double()
    weights = posterior_weights(line_problem(prompts).before(0), draws * torch.tensor([0.5, 4.0])[:, None], draws)
    torch.testing.assert_close(weights[:, 1], torch.full((5,), 1 / (1 + np.exp(30))).double())


def line_problem(prompts: Prompts) -> Problem:
    outer = prompts.xs[:, :, :, None] * prompts.xs[:, :, None]
    return Problem(prompts.xs, outer, prompts.ys, Polynomial([0, 1]), unit=False, noise=1e-3)


def test_single_index_allows_for_noise():
    """With 15 noisy examples of a cubic w is known to about its noise, not lost."""
    drawn, prompts = hermite(3, "unit")
    noise = 0.1 * torch.randn(prompts.ys.shape, generator=seeded(5), dtype=torch.float64)
    given = single_index(
        Prompts(prompts.xs, prompts.ys + noise), drawn.polynomial, unit=True, generator=seeded(3), noise=0.1
    )
    assert (given - prompts.ys)[:, -1].square().median() < 0.1**2


def test_every_baseline_has_a_name_and_no_other_name_is_one(prompts):
    assert baseline("lookup") is lookup
    for name, predict in BASELINES.items():
        assert predict(prompts).shape == prompts.ys.shape, name
        assert predict(prompts).dtype == prompts.ys.dtype, name
    message = r"unknown baseline 'lasoo': did you mean 'lasso'\? \(valid: least_squares, ridge, lasso"
    with pytest.raises(UserError, match=message):
        baseline("lasoo")


HINDSIGHT = {"ridge", "lasso"}  # their penalty is chosen with all of the prompts in view, by design

CAUSAL = {name: predict for name, predict in BASELINES.items() if name not in HINDSIGHT} | {
    "ridge of 0.1": partial(ridge, penalty=0.1),
    "lasso of 0.1": partial(lasso, penalty=0.1),
    "single_index": lambda p: single_index(p, CUBIC, unit=False, generator=seeded(), iterations=2),
    "single_index of length 1": lambda p: single_index(p, CUBIC, unit=True, generator=seeded(), iterations=2),
    "prototype_bayes": partial(prototype_bayes, sigma=1.0, spread=1.0),
    "transition_average": partial(transition_average, prior_count=0.5),
}


@pytest.mark.sample(13)
@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("k", [0, 1, 6])
def test_no_baseline_sees_the_pair_it_predicts_or_a_later_one(name, k):
    """Later pairs change, and the y to predict, without a trace; the pairs before leave one."""
    prompts = recurring(n_prompts=20)
    prompts = Prompts(prompts.xs, prompts.ys.sign())
    changed = Prompts(prompts.xs.clone(), prompts.ys.clone())
    changed.ys[:, k:] *= -3
    changed.xs[:, k + 1 :] = prompts.xs[:, k + 1 :].flip(1) + 0.5
    given = CAUSAL[name](prompts)
    torch.testing.assert_close(CAUSAL[name](changed)[:, : k + 1], given[:, : k + 1], atol=0, rtol=0)
    assert not torch.equal(CAUSAL[name](changed)[:, k + 1 :], given[:, k + 1 :])
