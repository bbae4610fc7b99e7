"""Sums of Hermite polynomials of one direction: the paper's linear, quadratic and cubic.

arXiv 2404.03558 uses the sums of the first m normalised Hermite polynomials (`tasks.py`, 1c896e3): with t = w·x,

    y = 1/sqrt(m) · sum_{j=1..m} He_j(t) / sqrt(j!)

All moments below follow from the even moments of t, exactly:

    standard w ~ N(0, I_d):      t | x ~ N(0, |x|²),   E[t^2k | x] = (2k-1)!! |x|^2k
    unit     w / |w|:            t | w ~ N(0, 1),      E[t^2k | x] = (2k-1)!! |x|^2k / (d (d+2) … (d+2k-2))
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import Polynomial
from torch import Tensor

from training.tasks.baselines.plain import least_squares
from training.tasks.baselines.single_index import single_index
from training.tasks.function_classes.base import Baseline, SingleIndex, WeightKind
from training.tasks.polynomials import hermite_sum, horner
from training.tasks.prompts import Prompts


@dataclass(frozen=True)
class Hermite(SingleIndex):
    """y = the sum of the first `degree` normalised Hermite polynomials of w·x."""

    degree: int
    has_scale = True

    @property
    def growth(self) -> float:  # type: ignore[override]
        return float(self.degree)

    @property
    def polynomial(self) -> Polynomial:
        """y as a polynomial in t = w·x, lowest power first.

        >>> Hermite(2).polynomial.coef.round(3).tolist()  # (t + (t² - 1)/sqrt 2)/sqrt 2
        [-0.5, 0.707, 0.5]
        """
        return hermite_sum(self.degree)

    def link(self, t: Float[Tensor, "batch point"]) -> Float[Tensor, "batch point"]:
        return horner(self.polynomial.coef, t)

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
        return Baseline("single_index", partial(self.known_polynomial, unit=kind == "unit"))

    def known_polynomial(self, prompts: Prompts, *, unit: bool) -> Float[Tensor, "batch point"]:
        """A learner that knows the class and has only w to find; its random starts are always the same."""
        return single_index(prompts, self.polynomial, unit=unit, generator=torch.Generator().manual_seed(0))


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
