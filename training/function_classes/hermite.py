"""Sums of Hermite polynomials of one direction: the paper's linear, quadratic and cubic.

arXiv 2404.03558 uses the sums of the first m normalised Hermite polynomials (paper.md, section 2): with t = w·x,

    y = 1/sqrt(m) · sum_{j=1..m} He_j(t) / sqrt(j!)

All moments below follow from the even moments of t, exactly:

    standard w ~ N(0, I_d):      t | x ~ N(0, |x|²),   E[t^2k | x] = (2k-1)!! |x|^2k
    unit     w / |w|:            t | w ~ N(0, 1),      E[t^2k | x] = (2k-1)!! |x|^2k / (d (d+2) … (d+2k-2))
"""

import math
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import Polynomial
from numpy.polynomial.hermite_e import HermiteE
from torch import Tensor

from training.baselines import least_squares, single_index
from training.function_classes.base import Baseline, FunctionOfX, WeightKind, directions, project


@dataclass(frozen=True)
class Hermite(FunctionOfX):
    """y = the sum of the first `degree` normalised Hermite polynomials of w·x."""

    degree: int
    has_scale = True

    @property
    def growth(self) -> float:  # type: ignore[override]
        return self.degree

    @property
    def polynomial(self) -> Polynomial:
        """y as a polynomial in t = w·x, lowest power first.

        >>> Hermite(2).polynomial.coef.round(3).tolist()  # (t + (t² - 1)/sqrt 2)/sqrt 2
        [-0.5, 0.707, 0.5]
        """
        return hermite_sum(self.degree)

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Float[Tensor, "batch dim"]:
        return directions(generator, n_prompts, n_dims, kind)

    def evaluate(
        self, xs: Float[Tensor, "batch point dim"], weights: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch point"]:
        return horner(self.polynomial.coef, project(xs, weights))

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        """E[y²]; for standard weights at 20 dims: 20, 330.25 and 8933 for degree 1, 2 and 3."""
        even = (self.polynomial**2).coef[::2]
        norm_moments = [chi2_moment(n_dims, k) if kind == "standard" else 1.0 for k in range(len(even))]
        return float(
            sum(c * double_factorial(2 * k - 1) * m for k, (c, m) in enumerate(zip(even, norm_moments, strict=True)))
        )

    def no_context(self, xs: Float[Tensor, "batch point dim"], kind: WeightKind) -> Float[Tensor, "batch point"]:
        n_dims = xs.shape[-1]
        even = self.polynomial.coef[::2]
        shrink = [1.0 if kind == "standard" else chi2_moment(n_dims, k) for k in range(len(even))]
        moments = [c * double_factorial(2 * k - 1) / s for k, (c, s) in enumerate(zip(even, shrink, strict=True))]
        return horner(np.array(moments), xs.square().sum(-1))

    def baseline(self, kind: WeightKind) -> Baseline:
        if self.degree == 1:
            return Baseline("least_squares", least_squares)
        return Baseline("single_index", partial(single_index, polynomial=self.polynomial, unit=kind == "unit"))


@cache
def hermite_sum(degree: int) -> Polynomial:
    series = [0.0] + [1 / math.sqrt(degree * math.factorial(j)) for j in range(1, degree + 1)]
    return HermiteE(series).convert(kind=Polynomial)


def horner(coefficients: np.ndarray, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The polynomial with these coefficients, lowest power first, at t."""
    result = torch.full_like(t, float(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        result = result * t + float(coefficient)
    return result


def chi2_moment(n_dims: int, k: int) -> float:
    """E[|x|^2k] for x ~ N(0, I): d (d+2) … (d+2k-2).

    >>> chi2_moment(20, 2)
    440.0
    """
    return float(math.prod(n_dims + 2 * i for i in range(k)))


def double_factorial(n: int) -> int:
    """n!! for odd n; (-1)!! = 1.

    >>> [double_factorial(n) for n in (-1, 1, 3, 5)]
    [1, 1, 3, 15]
    """
    return math.prod(range(n, 0, -2))
