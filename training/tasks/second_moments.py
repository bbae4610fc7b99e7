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

from training.tasks.function_classes import FunctionClass, WeightKind, function_class
from training.tasks.inputs import Gaussian, InputDistribution, input_distribution

N_CHUNKS, CHUNK, POINTS = 16, 4096, 8  # prompts by prompts by points of a simulation
NORMAL_MEDIAN = 0.6744897501960817  # median |z|, z ~ N(0, 1)


Predictor = Literal["zero", "no_context"]


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


def second_moment(name: str, inputs: str, n_dims: int, kind: WeightKind, rotation: int) -> Scale:
    """E[y²] of a function class on an input distribution: the error of predicting zero."""
    return scale("zero", function_class(name), input_distribution(inputs), n_dims, kind, rotation)


def no_context_moment(name: str, inputs: str, n_dims: int, kind: WeightKind, rotation: int) -> Scale:
    """E[(y - E[y given x])²]: the error of the no-context optimum."""
    return scale("no_context", function_class(name), input_distribution(inputs), n_dims, kind, rotation)


@cache
def scale(
    predictor: Predictor, drawn: FunctionClass, source: InputDistribution, n_dims: int, kind: WeightKind, rotation: int
) -> Scale:
    """Kept by what is drawn rather than by its name, which a notebook may give to another class."""
    if predictor == "zero" and isinstance(source, Gaussian):
        return Scale(drawn.second_moment(n_dims, kind), 0.0, "exact")
    squares = simulated(drawn, source, n_dims, kind, rotation)[predictor]
    finite = 2 * drawn.growth < source.finite_moments
    return mean_scale(squares) if finite else robust_scale(squares)


@lru_cache(maxsize=4)
def simulated(
    drawn: FunctionClass, source: InputDistribution, n_dims: int, kind: WeightKind, rotation: int
) -> dict[Predictor, Float[Tensor, "prompt point"]]:
    """The squared errors of both predictors, on prompts from a seed of their own."""
    chunks = list(simulate_chunks(drawn, source, n_dims, kind, rotation))
    zero, no_context = (torch.cat(errors) for errors in zip(*chunks, strict=True))
    return {"zero": zero, "no_context": no_context}


def simulate_chunks(
    drawn: FunctionClass, source: InputDistribution, n_dims: int, kind: WeightKind, rotation: int
) -> Iterator[tuple[Float[Tensor, "prompt point"], Float[Tensor, "prompt point"]]]:
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
