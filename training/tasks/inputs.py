"""Where x comes from. An input distribution is called by its name, or NAME:PARAMETER (`student_t:4`)."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from training.common.errors import require
from training.tasks.registry import from_registry


@dataclass(frozen=True)
class InputDistribution(ABC):
    """Independent draws of x.

    Attributes:
        finite_moments: E|x|^p is finite for all p below this.
    """

    finite_moments: ClassVar[float] = math.inf

    @abstractmethod
    def sample(
        self, generator: torch.Generator, n_prompts: int, n_points: int, n_dims: int, rotation: int
    ) -> Float[Tensor, "batch point dim"]:
        """Inputs for a batch of prompts.

        Args:
            generator: draws them, on its device.
            n_prompts: batch.
            n_points: points per prompt.
            n_dims: dimensions.
            rotation: seed of the rotation of distributions that have one; part of a run's configuration.
        """


@dataclass(frozen=True)
class Gaussian(InputDistribution):
    """N(0, I)."""

    def sample(
        self, generator: torch.Generator, n_prompts: int, n_points: int, n_dims: int, rotation: int
    ) -> Float[Tensor, "batch point dim"]:
        return torch.randn(n_prompts, n_points, n_dims, generator=generator, device=generator.device)


@dataclass(frozen=True)
class Skewed(InputDistribution):
    """z A, z ~ N(0, I): eigenvalues 1/1 … 1/d of A in a random basis, scaled to E|x|² = d (`samplers.py`, 1c896e3)."""

    def sample(
        self, generator: torch.Generator, n_prompts: int, n_points: int, n_dims: int, rotation: int
    ) -> Float[Tensor, "batch point dim"]:
        z = torch.randn(n_prompts, n_points, n_dims, generator=generator, device=generator.device)
        return z @ skewing_matrix(n_dims, rotation).to(z.device)


@dataclass(frozen=True)
class StudentT(InputDistribution):
    """Independent Student-t coordinates with `df` degrees of freedom: variance df / (df - 2).

    The default of the authors of arXiv 2404.03558 is `student_t:1`, which has no variance.
    """

    df: float = 4.0

    def __post_init__(self) -> None:
        require("student_t", self.df, at_least=0.5)  # below it float32 has no room for the tails

    @property
    def finite_moments(self) -> float:  # type: ignore[override]
        return self.df

    def sample(
        self, generator: torch.Generator, n_prompts: int, n_points: int, n_dims: int, rotation: int
    ) -> Float[Tensor, "batch point dim"]:
        shape = (n_prompts, n_points, n_dims)
        z = torch.randn(shape, generator=generator, device=generator.device)
        half = torch.full(shape, self.df / 2, device=generator.device)
        chi_square = 2 * torch._standard_gamma(half, generator)  # pyright: ignore  # torch.distributions takes no generator
        return z / (chi_square / self.df).sqrt()


@dataclass(frozen=True)
class Laplace(InputDistribution):
    """Independent Laplace coordinates of that `variance`.

    Those of the authors of arXiv 2404.03558, Laplace(0, 1), are `laplace:2`.
    """

    variance: float = 1.0

    def __post_init__(self) -> None:
        require("laplace", self.variance, above=0)

    def sample(
        self, generator: torch.Generator, n_prompts: int, n_points: int, n_dims: int, rotation: int
    ) -> Float[Tensor, "batch point dim"]:
        u = uniform(generator, n_prompts, n_points, n_dims)
        return -u.sign() * torch.log1p(-u.abs()) * math.sqrt(self.variance / 2)


@dataclass(frozen=True)
class Cauchy(InputDistribution):
    """Independent standard Cauchy coordinates: no mean, no variance."""

    finite_moments = 1.0

    def sample(
        self, generator: torch.Generator, n_prompts: int, n_points: int, n_dims: int, rotation: int
    ) -> Float[Tensor, "batch point dim"]:
        return torch.tan(math.pi / 2 * uniform(generator, n_prompts, n_points, n_dims))


@dataclass(frozen=True)
class Uniform(InputDistribution):
    """Independent coordinates, uniform between -sqrt 3 and sqrt 3: variance 1."""

    def sample(
        self, generator: torch.Generator, n_prompts: int, n_points: int, n_dims: int, rotation: int
    ) -> Float[Tensor, "batch point dim"]:
        return math.sqrt(3) * uniform(generator, n_prompts, n_points, n_dims)


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Between -1 and 1, both excluded."""
    u = torch.rand(shape, generator=generator, device=generator.device)  # a multiple of 2^-24 in [0, 1)
    return 2 * u - (1 - 2**-24)


def skewing_matrix(n_dims: int, rotation: int) -> Float[Tensor, "dim dim"]:
    """U diag(1, 1/2, …, 1/d) U' · sqrt(d / sum of squares), with U a random orthogonal matrix of that seed."""
    generator = torch.Generator().manual_seed(rotation)
    gaussian = torch.randn(n_dims, n_dims, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    basis = q * r.diagonal().sign()  # the signs make it uniform over rotations (Mezzadri 2007)
    eigenvalues = 1 / torch.arange(1, n_dims + 1, dtype=torch.float64)
    scale = math.sqrt(n_dims / eigenvalues.square().sum().item())
    return (scale * (basis * eigenvalues) @ basis.T).float()


INPUTS: dict[str, type[InputDistribution] | InputDistribution] = {
    "gaussian": Gaussian,
    "skewed": Skewed,
    "student_t": StudentT,
    "laplace": Laplace,
    "cauchy": Cauchy,
    "uniform": Uniform,
}


def input_distribution(spec: str) -> InputDistribution:
    """The input distribution called NAME or NAME:PARAMETER.

    Raises:
        UserError: there is none, or its parameter is not valid.

    >>> input_distribution("student_t:3")
    StudentT(df=3.0)
    """
    return from_registry("input distribution", spec, INPUTS)
