"""Functions of a linear form beyond the plain one: sparse, noisy, thresholded, bent, wrapped into a wave."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from training.common.errors import require
from training.tasks.baselines.lasso import best_lasso
from training.tasks.baselines.plain import best_ridge, least_squares, ridge, sign_of_ridge
from training.tasks.function_classes.base import (
    Baseline,
    SingleIndex,
    WeightKind,
    gaussian,
    signs,
)


@dataclass(frozen=True)
class SparseLinear(SingleIndex):
    """y = w·x with `nonzero` nonzero coordinates (Garg et al. 2022; their 3 of 20).

    While dimensions grow, they are drawn among those in use, as in the code of Garg et al.
    """

    nonzero: int = 3
    growth = 1
    has_scale = True

    def __post_init__(self) -> None:
        require("sparse_linear", self.nonzero, at_least=1)

    @property
    def least_dims(self) -> int:
        return self.nonzero

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Float[Tensor, "batch dim"]:
        return self.sample_weights_within(generator, n_prompts, n_dims, kind, n_dims)

    def sample_weights_within(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind, n_used: int
    ) -> Float[Tensor, "batch dim"]:
        w = gaussian(generator, n_prompts, n_dims)
        draws = torch.rand(n_prompts, n_dims, generator=generator, device=generator.device)
        draws[:, n_used:] = 2  # above every other: the first `n_used` of the order are those in use, shuffled
        order = draws.argsort(dim=1)
        w = torch.where(order < min(self.nonzero, n_used), w, 0.0)
        return w if kind == "standard" else w / w.norm(dim=1, keepdim=True)

    def link(self, t: Float[Tensor, "batch point"]) -> Float[Tensor, "batch point"]:
        return t

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return float(self.nonzero) if kind == "standard" else 1.0

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("lasso", best_lasso)


@dataclass(frozen=True)
class NoisyLinear(SingleIndex):
    """y = w·x + noise of standard deviation `noise`, in the examples and in the answer.

    The code of Garg et al. 2022 has no noise by default, and can rescale y to the variance d (`renormalize_ys`), which
    is not done here.
    """

    noise: float = 0.5
    growth = 1
    has_scale = True

    def __post_init__(self) -> None:
        require("noisy_linear", self.noise, at_least=0)

    @property
    def label_noise(self) -> float:  # type: ignore[override]
        return self.noise

    def link(self, t: Float[Tensor, "batch point"]) -> Float[Tensor, "batch point"]:
        return t

    def pairs(
        self, xs: Float[Tensor, "batch point dim"], weights: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch point dim"], Float[Tensor, "batch point"]]:
        clean = self.evaluate(xs, weights)
        return xs, clean + self.noise * gaussian(generator, *clean.shape)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return (n_dims if kind == "standard" else 1.0) + self.noise**2

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("ridge", best_ridge)

    def informed_baseline(self, kind: WeightKind, n_dims: int) -> Baseline:
        """Ridge with the penalty noise² / E[w_i²] and no intercept: the posterior mean for w ~ N(0, I).

        For w of length 1 it is the best linear estimator. Without noise it is its limit, least squares.
        """
        if not self.noise:
            return Baseline("least_squares", least_squares)
        penalty = self.noise**2 * (1 if kind == "standard" else n_dims)
        return Baseline("matched_ridge", partial(ridge, penalty=penalty, intercept=False))


@dataclass(frozen=True)
class LinearClassification(SingleIndex):
    """y = the sign of w·x, a number like that of any class: errors are squared.

    The code of Garg et al. 2022 trains logits with cross-entropy instead; such models cannot be imported.
    """

    growth = 0

    def link(self, t: Float[Tensor, "batch point"]) -> Float[Tensor, "batch point"]:
        return signs(t)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return 1.0

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("sign_of_ridge", sign_of_ridge)


@dataclass(frozen=True)
class LeakyReLU(SingleIndex):
    """y = w·x where that is positive and `slope`·w·x where it is negative: a single index with one bend."""

    slope: float = 0.2
    growth = 1
    has_scale = True

    def link(self, t: Float[Tensor, "batch point"]) -> Float[Tensor, "batch point"]:
        return torch.nn.functional.leaky_relu(t, self.slope)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return (1 + self.slope**2) / 2 * (n_dims if kind == "standard" else 1.0)

    def no_context(self, xs: Float[Tensor, "batch point dim"], kind: WeightKind) -> Float[Tensor, "batch point"]:
        """(1 - slope) E[max(t, 0)], where t given x is |x| times a normal, or times a unit vector's coordinate."""
        n_dims = xs.shape[-1]
        positive_part = 1 / math.sqrt(2 * math.pi)
        if kind == "unit":
            positive_part = math.exp(math.lgamma(n_dims / 2) - math.lgamma((n_dims + 1) / 2)) / (2 * math.sqrt(math.pi))
        return (1 - self.slope) * positive_part * xs.norm(dim=-1)

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("least_squares", least_squares)


@dataclass(frozen=True)
class Sinusoid(SingleIndex):
    """y = sqrt(2) sin(frequency · w·x)."""

    frequency: float = 1.0
    growth = 0
    has_scale = True

    def __post_init__(self) -> None:
        require("sinusoid", self.frequency, above=0)

    def link(self, t: Float[Tensor, "batch point"]) -> Float[Tensor, "batch point"]:
        return math.sqrt(2) * torch.sin(self.frequency * t)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        """1 - E[cos 2ft]: t is N(0, 1) for unit w; for standard w, t given x is N(0, |x|²) and |x|² chi-square."""
        squared = self.frequency**2
        return 1 - (math.exp(-2 * squared) if kind == "unit" else (1 + 4 * squared) ** (-n_dims / 2))

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("ridge", best_ridge)
