"""Finite pools of functions, from which the prompts of a run draw theirs (Raventós et al. 2023, arXiv 2306.15063).

With `data.n_functions` above 0, every function class has a pool of that many functions. It is drawn by the class's own
law from `data.pool_seed`, on the CPU, whatever device a run is on, and never stored: the seed is the pool. Linear,
quadratic, cubic and quartic have the same w in it, as in prompts.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from training.common.errors import UserError, one_of
from training.config.config import RunConfig, stream_seed
from training.tasks.baselines import Predictor
from training.tasks.baselines.posterior import posterior_mean, prior_mean
from training.tasks.function_classes import FunctionClass, FunctionOfX, WeightKind, function_class
from training.tasks.function_classes.base import Baseline, Weights
from training.tasks.prompts import Prompts

Source = Literal["pool", "fresh"]
SOURCES: tuple[Source, ...] = ("pool", "fresh")

SMALL_NOISE = 0.01
"""Of a class without label noise: the standard deviation that its posterior assumes, in units of sqrt(E[y²])."""


def sources_of(config: RunConfig) -> tuple[Source, ...]:
    """Where functions can come from: the pool, if the run has one, and fresh draws of the class."""
    return SOURCES if config.data.n_functions else ("fresh",)


def draws_from(config: RunConfig, source: str) -> RunConfig:
    """The configuration whose prompts draw functions of the run's `pool`, or `fresh` functions of the class.

    A checkpoint with the latter, `dataclasses.replace(checkpoint, config=draws_from(checkpoint.config, "fresh"))`,
    is scored, ablated and patched on fresh functions.

    Raises:
        UserError: it is neither, or the run has no pool.
    """
    if source not in SOURCES:
        raise one_of("functions", source, SOURCES)
    if source not in sources_of(config):
        raise UserError("functions 'pool': the run draws fresh functions for every prompt (data.n_functions=0)")
    return config if source == "pool" else replace(config, data=replace(config.data, n_functions=0))


def pool_of(config: RunConfig, name: str) -> Weights:
    """The functions of a class's pool: weights, one function per entry of the first axis, on the CPU."""
    data = config.data
    return draw_pool(function_class(name), data.n_functions, data.pool_seed, config.model.n_dims, data.weights)


@lru_cache(maxsize=16)
def draw_pool(drawn: FunctionClass, n_functions: int, pool_seed: int, n_dims: int, kind: WeightKind) -> Weights:
    """Kept by what is drawn rather than by its name, which a notebook may give to another class."""
    generator = torch.Generator().manual_seed(stream_seed("pool", pool_seed))
    return drawn.sample_weights(generator, n_functions, n_dims, kind)


def draw_from_pool(config: RunConfig, name: str, generator: torch.Generator, n_prompts: int) -> Weights:
    """A function of the pool for every prompt, all equally likely, where the generator lives."""
    device = generator.device
    chosen = torch.randint(config.data.n_functions, (n_prompts,), generator=generator, device=device)
    return for_each_tensor(pool_of(config, name), lambda weights: weights.to(device)[chosen])


def for_each_tensor(weights: Weights, change: Callable[[Tensor], Tensor]) -> Weights:
    """The same change of every tensor of which functions consist."""
    return tuple(map(change, weights)) if isinstance(weights, tuple) else change(weights)


def has_values(config: RunConfig, name: str) -> bool:
    """Whether the functions of the class's pool can be asked at any x, as Bayes' rule needs."""
    return bool(config.data.n_functions) and isinstance(function_class(name), FunctionOfX)


def pool_values(
    config: RunConfig, name: str, xs: Float[Tensor, "batch point dim"]
) -> Float[Tensor, "batch point function"]:
    """The value of every function of the pool at every x, in the precision of xs."""
    drawn: Any = function_class(name)
    weights = for_each_tensor(
        pool_of(config, name),
        lambda tensor: tensor.to(xs.device, xs.dtype if tensor.is_floating_point() else tensor.dtype),
    )
    everywhere = rearrange(xs, "batch point dim -> 1 (batch point) dim").expand(config.data.n_functions, -1, -1)
    values = drawn.evaluate(everywhere, weights).to(xs.dtype)
    return rearrange(values, "function (batch point) -> batch point function", batch=len(xs))


def assumed_noise(config: RunConfig, name: str) -> float:
    """The standard deviation of y around its function: the class's label noise, or `SMALL_NOISE` where it has none."""
    return function_class(name).label_noise or SMALL_NOISE * config.second_moment(name) ** 0.5


def dmmse(config: RunConfig, name: str) -> Predictor:
    """The discrete Bayes estimator: the posterior mean of y over the pool, exact for Gaussian label noise.

    Raises:
        UserError: the run has no pool, or y is no function of x in this class.
    """
    if not has_values(config, name):
        raise UserError(f"dmmse needs data.n_functions above 0 and a class whose y is a function of x (given: {name})")
    values = partial(pool_values, config, name)
    noise = assumed_noise(config, name)
    return partial(posterior_mean, values=values, n_functions=config.data.n_functions, noise=noise)


def no_context(config: RunConfig, name: str, prompts: Prompts) -> Float[Tensor, "batch point"]:
    """E[y given x], the no-context optimum, over the functions from which the run's prompts draw.

    Of a class whose y is no function of x it is that of fresh functions, also with a pool.
    """
    if has_values(config, name):
        return prior_mean(prompts, partial(pool_values, config, name), config.data.n_functions)
    return config.predict_without_context(name, prompts.xs)


def pool_baselines(config: RunConfig, name: str) -> list[Baseline]:
    """Of a run with a pool: the learner that remembers it, `dmmse`, and the one that knows the class and its noise."""
    if not config.data.n_functions:
        return []
    general = function_class(name).informed_baseline(config.data.weights, config.model.n_dims)
    return [Baseline("dmmse", dmmse(config, name)), general] if has_values(config, name) else [general]
