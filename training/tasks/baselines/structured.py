"""Reference predictors for classes other than functions of w·x: each knows its class and the class's parameters."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from training.tasks.baselines.plain import MATCH
from training.tasks.baselines.prefixes import before, distances_before
from training.tasks.prompts import Prompts

CHUNK = 64  # prompts at a time: a class may have thousands of functions


def prototype_bayes(prompts: Prompts, sigma: float, spread: float) -> Float[Tensor, "batch point"]:
    """E[y_k+1 given x_k+1 and the k pairs before], y = ±1 with equal odds and x = p_y + sigma · N(0, I).

    Both prototypes are unknown, p_y ~ N(0, spread² I). With n examples of y that sum to s, p_y is normal with mean
    r s/n and variance r sigma²/n, r = n spread² / (n spread² + sigma²), which gives x its density under either y.

    Args:
        prompts: xs, and ys of ±1.
        sigma: standard deviation of x around its prototype; positive.
        spread: standard deviation of a prototype's coordinates.
    """
    xs, ys = prompts.xs.double(), prompts.ys.double()
    minus, plus = (log_density(xs, (ys.sign() == label).double(), sigma, spread) for label in (-1, 1))
    return torch.tanh((plus - minus) / 2).to(prompts.ys.dtype)


def log_density(
    xs: Float[Tensor, "batch point dim"], is_member: Float[Tensor, "batch point"], sigma: float, spread: float
) -> Float[Tensor, "batch point"]:
    """log p(x given the members among the points before it) had x the same prototype, up to a constant.

    Args:
        xs: inputs.
        is_member: 1 where x is known to have this prototype, else 0.
        sigma: as in `prototype_bayes`.
        spread: as in `prototype_bayes`.
    """
    n, total = before(is_member)[:, :, None], before(is_member[:, :, None] * xs)
    evidence = n * spread**2 + sigma**2
    mean = total * spread**2 / evidence
    variance = sigma**2 + sigma**2 * spread**2 / evidence
    return -(((xs - mean).square() / variance + variance.log()).sum(-1)) / 2


def transition_average(prompts: Prompts, prior_count: float) -> Float[Tensor, "batch point"]:
    """y_k+1 as the sum of earlier y whose x equals x_k+1, over their number + prior_count; 0 without any.

    If x stands for a symbol and y is the value of the symbol that follows, this is the posterior mean of y under a
    Dirichlet(alpha) prior on the transitions of K symbols, for prior_count = K alpha and values of mean 0.

    Args:
        prompts: xs that recur, and ys.
        prior_count: how many examples of y = 0 the prior is worth; 0 for the plain mean.
    """
    ys = prompts.ys.double()
    is_same = (distances_before(prompts.xs.double()) < MATCH).double()
    total, count = (is_same @ ys[:, :, None]).squeeze(-1), is_same.sum(-1)
    return torch.where(count > 0, total / (count + prior_count), 0.0).to(prompts.ys.dtype)


def fitting_hypotheses(
    prompts: Prompts,
    values: Callable[[Float[Tensor, "batch point dim"]], Float[Tensor, "batch point hypothesis"]],
) -> Float[Tensor, "batch point"]:
    """y_k+1 averaged over all functions of a finite class that fit the k pairs before it: no learner does better.

    Args:
        prompts: xs, and ys without noise.
        values: of every function of the class at xs; all functions are equally likely.
    """
    chunks = []
    for xs, ys in zip(prompts.xs.split(CHUNK), prompts.ys.split(CHUNK), strict=True):
        guesses = values(xs)
        fits = (before((guesses != ys[:, :, None]).float()) == 0).float()
        chunks.append((fits * guesses).sum(-1) / fits.sum(-1))
    return torch.cat(chunks)
