"""Quadratic functions that are not functions of one direction."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from training.tasks.baselines.plain import least_squares
from training.tasks.function_classes.base import Baseline, FunctionOfX, WeightKind, directions, gaussian, project
from training.tasks.prompts import Prompts


@dataclass(frozen=True)
class CoordinatewiseQuadratic(FunctionOfX):
    """y = sum_i w_i x_i² / sqrt 3 (Garg et al. 2022)."""

    growth = 2
    has_scale = True

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Float[Tensor, "batch dim"]:
        return directions(generator, n_prompts, n_dims, kind)

    def evaluate(
        self, xs: Float[Tensor, "batch point dim"], weights: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch point"]:
        return project(xs.square(), weights) / math.sqrt(3)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        """E over symmetric w leaves sum_i E[w_i²] E[x_i⁴] / 3."""
        return float(n_dims) if kind == "standard" else 1.0

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("least_squares_on_squares", lambda prompts: least_squares(with_inputs(prompts, squares)))


@dataclass(frozen=True)
class GeneralQuadratic(FunctionOfX):
    """y = x'Wx (Kim et al. 2024), W with independent N(0, 1) entries, or of Frobenius norm 1."""

    growth = 2
    has_scale = True

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Float[Tensor, "batch dim dim"]:
        w = gaussian(generator, n_prompts, n_dims, n_dims)
        return w if kind == "standard" else w / w.norm(dim=(1, 2), keepdim=True)

    def evaluate(
        self, xs: Float[Tensor, "batch point dim"], weights: Float[Tensor, "batch dim dim"]
    ) -> Float[Tensor, "batch point"]:
        return einsum(xs, weights, xs, "batch point i, batch i j, batch point j -> batch point")

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        """E[|x|⁴] = d (d+2), times the mean square of W's d² entries."""
        return n_dims * (n_dims + 2) / (1 if kind == "standard" else n_dims**2)

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("least_squares_on_products", lambda prompts: least_squares(with_inputs(prompts, products)))


def squares(xs: Float[Tensor, "batch point dim"]) -> Float[Tensor, "batch point dim"]:
    return xs.square()


def products(xs: Float[Tensor, "batch point dim"]) -> Float[Tensor, "batch point pair"]:
    """x_i x_j for i <= j."""
    rows, columns = torch.triu_indices(xs.shape[-1], xs.shape[-1])
    return xs[..., rows] * xs[..., columns]


def with_inputs(prompts: Prompts, features: Callable[[Tensor], Tensor]) -> Prompts:
    """The same answers to features of the inputs."""
    return Prompts(features(prompts.xs), prompts.ys)
