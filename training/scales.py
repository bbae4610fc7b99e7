"""The size of y and the error of the no-context optimum: in closed form, or estimated once and with its error.

Where E[y²] does not exist (a cubic of Student-t inputs, anything linear in Cauchy inputs) the unit is the square that
a normal y with the same median |y| would have; means of squared errors then wander with the sample, and outputs say
that the scale is `robust`.
"""

import math
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from training.function_classes import WeightKind, function_class
from training.inputs import input_distribution

N_CHUNKS, CHUNK, POINTS = 16, 4096, 8  # prompts by prompts by points of a simulation
NORMAL_MEDIAN = 0.6744897501960817  # median |z|, z ~ N(0, 1)


class Scale(NamedTuple):
    """A population value.

    Attributes:
        value: of it.
        error: its standard error, 0 if it is exact.
        how: `exact`, `estimated`, or `robust` where the mean is infinite.
    """

    value: float
    error: float
    how: Literal["exact", "estimated", "robust"]


@cache
def second_moment(name: str, inputs: str, n_dims: int, kind: WeightKind, rotation: int) -> Scale:
    """E[y²] of a function class on an input distribution: the error of predicting zero."""
    if inputs == "gaussian":
        return Scale(function_class(name).second_moment(n_dims, kind), 0.0, "exact")
    return scale_of(simulated(name, inputs, n_dims, kind, rotation)[0], name, inputs)


@cache
def no_context_moment(name: str, inputs: str, n_dims: int, kind: WeightKind, rotation: int) -> Scale:
    """E[(y - E[y given x])²]: the error of the no-context optimum."""
    return scale_of(simulated(name, inputs, n_dims, kind, rotation)[1], name, inputs)


def scale_of(squares: Float[Tensor, "prompt point"], name: str, inputs: str) -> Scale:
    finite = 2 * function_class(name).growth < input_distribution(inputs).finite_moments
    return mean_scale(squares) if finite else robust_scale(squares)


@lru_cache(maxsize=4)
def simulated(
    name: str, inputs: str, n_dims: int, kind: WeightKind, rotation: int
) -> tuple[Float[Tensor, "prompt point"], Float[Tensor, "prompt point"]]:
    """y² and the squared error of the no-context optimum, on prompts from a seed of their own."""
    chunks = list(simulate_chunks(name, inputs, n_dims, kind, rotation))
    zero, no_context = (torch.cat(errors) for errors in zip(*chunks, strict=True))
    return zero, no_context


def simulate_chunks(
    name: str, inputs: str, n_dims: int, kind: WeightKind, rotation: int
) -> Iterator[tuple[Float[Tensor, "prompt point"], Float[Tensor, "prompt point"]]]:
    drawn, source = function_class(name), input_distribution(inputs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(N_CHUNKS):
        weights = drawn.sample_weights(generator, CHUNK, n_dims, kind)
        raw = source.sample(generator, CHUNK, POINTS, n_dims, rotation)
        xs, ys = drawn.pairs(raw, weights, generator)
        yield ys.double().square(), (drawn.no_context(xs, kind) - ys).double().square()


def mean_scale(squares: Float[Tensor, "prompt point"]) -> Scale:
    by_prompt = squares.mean(1)
    return Scale(by_prompt.mean().item(), by_prompt.std().item() / math.sqrt(len(by_prompt)), "estimated")


def robust_scale(squares: Float[Tensor, "prompt point"]) -> Scale:
    """From the median |y|; its error from the spread of the medians of ten parts."""
    values = torch.stack([part.flatten().median() for part in squares.chunk(10)]) / NORMAL_MEDIAN**2
    return Scale(values.mean().item(), values.std().item() / math.sqrt(len(values)), "robust")
