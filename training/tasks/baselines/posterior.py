"""The posterior mean over a finite pool of equally likely functions: dMMSE of Raventós et al. 2023 (2306.15063)."""

from collections.abc import Callable, Iterator

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from training.tasks.baselines.prefixes import before
from training.tasks.prompts import Prompts

VALUES_AT_ONCE = 2**18  # of all functions on a chunk of prompts: 2 MB in float64, times hidden units and the like

Values = Callable[[Float[Tensor, "batch point dim"]], Float[Tensor, "batch point function"]]


def posterior_mean(prompts: Prompts, values: Values, n_functions: int, noise: float) -> Float[Tensor, "batch point"]:
    """E[y_k+1 given x_k+1 and the k pairs before], where y is a function of the pool plus N(0, noise²).

    Args:
        prompts: xs and ys.
        values: of every function of the pool at xs.
        n_functions: in the pool.
        noise: standard deviation of y around its function; positive.
    """
    means = []
    for xs, ys in chunks_of_prompts(prompts, n_functions):
        guesses = values(xs.double())
        misfit = before((guesses - ys.double()[:, :, None]).square())
        posterior = torch.softmax(-misfit / (2 * noise**2), dim=-1)
        means.append(einsum(posterior, guesses, "batch point function, batch point function -> batch point"))
    return torch.cat(means).to(prompts.ys.dtype)


def prior_mean(prompts: Prompts, values: Values, n_functions: int) -> Float[Tensor, "batch point"]:
    """E[y given x], the mean of the pool's functions: the no-context optimum of prompts that draw from the pool."""
    means = [values(xs.double()).mean(-1) for xs, _ in chunks_of_prompts(prompts, n_functions)]
    return torch.cat(means).to(prompts.ys.dtype)


def chunks_of_prompts(
    prompts: Prompts, n_functions: int
) -> Iterator[tuple[Float[Tensor, "batch point dim"], Float[Tensor, "batch point"]]]:
    """xs and ys of so many prompts at a time that the values of all functions fit into memory."""
    size = max(1, VALUES_AT_ONCE // (n_functions * prompts.ys.shape[1]))
    yield from zip(prompts.xs.split(size), prompts.ys.split(size), strict=True)
