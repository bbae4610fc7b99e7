"""Polynomials of one variable: the Hermite sums of the paper, and their values."""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import Polynomial
from numpy.polynomial.hermite_e import HermiteE
from torch import Tensor


@cache
def hermite_sum(degree: int) -> Polynomial:
    """The sum of the first `degree` normalised Hermite polynomials over sqrt(degree), as a polynomial."""
    series = [0.0] + [1 / math.sqrt(degree * math.factorial(j)) for j in range(1, degree + 1)]
    return HermiteE(series).convert(kind=Polynomial)


def horner(coefficients: np.ndarray, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The polynomial with these coefficients, lowest power first, at t."""
    result = torch.full_like(t, float(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        result = result * t + float(coefficient)
    return result
