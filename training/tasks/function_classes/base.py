"""What every class of functions can do: draw a function, evaluate it, and say what no context at all would predict."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from training.tasks.baselines import Predictor
from training.tasks.baselines.plain import least_squares

WeightKind = Literal["standard", "unit"]
Weights = Any  # a tensor or a tuple of tensors, one function per entry of the first axis


class Baseline(NamedTuple):
    """A predictor that sees what the model sees.

    Attributes:
        name: in tables.
        predict: prompts -> prediction of every y from the pairs before it.
    """

    name: str
    predict: Predictor


@dataclass(frozen=True)
class FunctionClass(ABC):
    """A family of functions from which every prompt draws one. The first field, if any, is its parameter.

    Attributes:
        growth: |y| grows like |x|^growth, which decides whether E[y²] exists for heavy-tailed inputs.
        has_scale: its weights are one tensor, and multiplying them by a number gives another function of the class.
        least_dims: the fewest input dimensions on which it makes sense.
        label_noise: standard deviation of y around its function.
    """

    growth: ClassVar[float]
    has_scale: ClassVar[bool] = False
    label_noise: ClassVar[float] = 0.0

    @property
    def least_dims(self) -> int:
        return 1

    @abstractmethod
    def sample_weights(self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind) -> Weights:
        """One function per prompt; `unit` weights are normalised so that y keeps its size in any dimension."""

    def sample_weights_within(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind, n_used: int
    ) -> Weights:
        """As `sample_weights`, for inputs that are 0 beyond their first `n_used` coordinates, as while these grow."""
        del n_used
        return self.sample_weights(generator, n_prompts, n_dims, kind)

    @abstractmethod
    def pairs(
        self, xs: Float[Tensor, "batch point dim"], weights: Weights, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch point dim"], Float[Tensor, "batch point"]]:
        """(xs, ys) from raw inputs; `generator` draws label noise, and the order of what is not a function of x."""

    @abstractmethod
    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        """E[y²] over x ~ N(0, I) and the weights: the error of predicting zero."""

    def no_context(self, xs: Float[Tensor, "batch point dim"], kind: WeightKind) -> Float[Tensor, "batch point"]:
        """E[y given x], the best prediction without any example: the no-context optimum."""
        return torch.zeros_like(xs[..., 0])

    def baseline(self, kind: WeightKind) -> Baseline:
        """What an informed reader would compare a model with on this class."""
        return Baseline("least_squares", least_squares)

    def informed_baseline(self, kind: WeightKind, n_dims: int) -> Baseline:
        """The baseline that knows the spread of functions and label noise too, where it differs from `baseline`."""
        del n_dims
        return self.baseline(kind)


@dataclass(frozen=True)
class FunctionOfX(FunctionClass):
    """A class whose y is a function of x and the weights, so that it can be asked at any x."""

    @abstractmethod
    def evaluate(self, xs: Float[Tensor, "batch point dim"], weights: Weights) -> Float[Tensor, "batch point"]:
        """y for every x."""

    def pairs(
        self, xs: Float[Tensor, "batch point dim"], weights: Weights, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch point dim"], Float[Tensor, "batch point"]]:
        del generator
        return xs, self.evaluate(xs, weights)


@dataclass(frozen=True)
class SingleIndex(FunctionOfX):
    """A class whose y depends on x only through t = w·x, so that it is a link function and a direction w."""

    @abstractmethod
    def link(self, t: Float[Tensor, "batch point"]) -> Float[Tensor, "batch point"]:
        """y as a function of t."""

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Float[Tensor, "batch dim"]:
        return directions(generator, n_prompts, n_dims, kind)

    def evaluate(
        self, xs: Float[Tensor, "batch point dim"], weights: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch point"]:
        return self.link(project(xs, weights))


def gaussian(generator: torch.Generator, *shape: int) -> Tensor:
    """N(0, 1) where the generator lives."""
    return torch.randn(*shape, generator=generator, device=generator.device)


def directions(generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind) -> Float[Tensor, "batch dim"]:
    """w ~ N(0, I), or the same on the unit sphere."""
    w = gaussian(generator, n_prompts, n_dims)
    return w if kind == "standard" else w / w.norm(dim=1, keepdim=True)


def project(xs: Float[Tensor, "batch point dim"], w: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch point"]:
    """t = w·x."""
    return (xs @ w[:, :, None]).squeeze(-1)


def signs(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """-1 or 1, never 0."""
    return torch.where(values > 0, 1.0, -1.0)
