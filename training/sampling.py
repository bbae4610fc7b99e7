"""Sampling of prompts: a function class, an input distribution, optionally a shift, optionally short prompts."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from training.common.digits import require_whole
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.config.config import RunConfig
from training.pools import draw_from_pool
from training.tasks.function_classes import function_class
from training.tasks.function_classes.base import Weights
from training.tasks.inputs import input_distribution
from training.tasks.prompts import Prompts, one_hot_instruction
from training.tasks.shifts import check_shift


class Draw(NamedTuple):
    """Functions and raw inputs, before y is known.

    Attributes:
        xs: raw inputs.
        weights: one function per prompt.
    """

    xs: Float[Tensor, "batch point dim"]
    weights: Weights


class Sampled(NamedTuple):
    """Prompts and the functions behind them.

    Attributes:
        prompts: what a model reads.
        weights: one function per prompt, as the prompts follow it (after a shift of the weights).
    """

    prompts: Prompts
    weights: Weights


def sample_prompts(
    config: RunConfig,
    name: str,
    generator: torch.Generator,
    n_prompts: int,
    *,
    inputs: str | None = None,
    shift: str = "none",
    n_points: int | None = None,
    n_dims: int | None = None,
) -> Prompts:
    """Draw prompts of a function class with the inputs and layout of a run, each with its own function.

    A run with a pool draws functions from it (`training.pools`), otherwise every function is fresh.
    Equal generator states give linear, quadratic, cubic and quartic the same w and x, so that they can be compared
    prompt by prompt. Tensors are drawn on the device of the generator.

    Args:
        config: the run.
        name: function class.
        generator: of all draws.
        n_prompts: batch size.
        inputs: input distribution; None is the run's first.
        shift: a change of the whole prompt (`training.tasks.shifts`); query shifts go through `shifted_queries`.
        n_points: pairs; None is the run's number.
        n_dims: coordinates that are not 0; None is all.

    Raises:
        UserError: unknown function class, input distribution or shift.
    """
    return sample_functions(
        config, name, generator, n_prompts, inputs=inputs, shift=shift, n_points=n_points, n_dims=n_dims
    ).prompts


@library_defaults()
def sample_functions(
    config: RunConfig,
    name: str,
    generator: torch.Generator,
    n_prompts: int,
    *,
    inputs: str | None = None,
    shift: str = "none",
    n_points: int | None = None,
    n_dims: int | None = None,
) -> Sampled:
    """The prompts of `sample_prompts`, with their functions; arguments and errors are the same."""
    drawn = function_class(name)
    chosen = check_shift(shift, name)
    xs, weights = draw(config, name, generator, n_prompts, inputs, n_points or config.data.n_points, n_dims)
    if n_dims is not None and n_dims < config.model.n_dims:
        xs[..., n_dims:] = 0
    xs = chosen.inputs(xs, generator)
    if chosen.reaches == "weights":
        weights = chosen.weights(weights)
    xs, ys = drawn.pairs(xs, weights, generator)
    ys = chosen.outputs(ys, generator)
    prompts = Prompts(xs, ys, config.layout, instruction(config, name, inputs, n_prompts, xs.device))
    return Sampled(prompts, weights)


@library_defaults()
def crossed_prompts(
    config: RunConfig, name: str, functions: torch.Generator, inputs: torch.Generator, n_prompts: int
) -> Prompts:
    """Prompts with the functions that `sample_prompts` would draw from one generator and the inputs from another."""
    n_points = config.data.n_points
    weights = draw(config, name, functions, n_prompts, None, n_points).weights
    xs = draw(config, name, inputs, n_prompts, None, n_points).xs
    xs, ys = function_class(name).pairs(xs, weights, functions)
    return Prompts(xs, ys, config.layout, instruction(config, name, None, n_prompts, xs.device))


def draw(
    config: RunConfig,
    name: str,
    generator: torch.Generator,
    n_prompts: int,
    inputs: str | None,
    n_points: int,
    n_used: int | None = None,
) -> Draw:
    """Functions and raw inputs of all dimensions; functions for inputs of which only `n_used` coordinates are not 0."""
    require_whole("n_prompts", n_prompts, at_least=1)
    drawn, n_dims = function_class(name), config.model.n_dims
    if drawn.least_dims > n_dims:
        raise UserError(f"{name} needs model.n_dims >= {drawn.least_dims} (this run: {n_dims})")
    if config.data.n_functions:
        weights = draw_from_pool(config, name, generator, n_prompts)
    elif n_used is None or n_used >= n_dims:
        weights = drawn.sample_weights(generator, n_prompts, n_dims, config.data.weights)
    else:
        weights = drawn.sample_weights_within(generator, n_prompts, n_dims, config.data.weights, n_used)
    source = input_distribution(inputs or config.data.inputs[0])
    return Draw(source.sample(generator, n_prompts, n_points, n_dims, config.data.rotation), weights)


@library_defaults()
def shifted_queries(
    config: RunConfig,
    name: str,
    generator: torch.Generator,
    n_prompts: int,
    *,
    shift: str,
    inputs: str | None = None,
) -> dict[int, Prompts]:
    """For every number of examples that the shift allows, prompts that end in a shifted query.

    Examples and functions are the same ones throughout; the last pair of each value is the query and its answer.

    Raises:
        UserError: the shift does not apply to this class.
    """
    drawn = function_class(name)
    chosen = check_shift(shift, name)
    xs, weights = draw(config, name, generator, n_prompts, inputs, config.data.n_points)
    examples = chosen.inputs(xs, generator)
    prompts = {}
    for k in range(xs.shape[1]):
        if chosen.allows(k, xs.shape[2]):
            query = chosen.query(examples[:, :k], xs[:, k], generator)
            inputs_k, ys = drawn.pairs(torch.cat((examples[:, :k], query[:, None]), dim=1), weights, generator)
            prompts[k] = Prompts(inputs_k, ys, config.layout, instruction(config, name, inputs, n_prompts, xs.device))
    return prompts


def instruction(
    config: RunConfig, name: str, inputs: str | None, n_prompts: int, device: torch.device
) -> Float[Tensor, "batch n_instruction coordinate"] | None:
    """The instruction tokens that this run puts into a prompt.

    Raises:
        UserError: the run has no instruction for this class or these inputs.
    """
    if config.instruction.kind == "none":
        return None
    value = {"class": name, "inputs": inputs or config.data.inputs[0], "nothing": ""}[config.instruction.encodes]
    if value not in config.instruction_values:
        raise UserError(f"this run has no instruction for {value} (it has: {', '.join(config.instruction_values)})")
    n_dims, n_vectors = config.model.n_dims, config.layout.n_vectors
    coordinate = config.instruction_values.index(value) + (n_dims if n_vectors else 0)
    return one_hot_instruction(coordinate, n_dims + n_vectors, n_prompts, config.layout.n_instruction).to(device)
