"""Tests of a mean over independent seeds by random signs, exact where seeds are few."""

from itertools import product

import numpy as np
from jaxtyping import Float

N_FLIPS = 10_000
"""Random signs; all of them are taken where there are fewer."""


def sign_flip_p(differences: Float[np.ndarray, " seed"]) -> float:
    """Two-sided p of a mean: how often random signs of its parts give one as far from 0.

    It holds where the parts are symmetric about 0 if there is no effect, as paired differences are. NaN for fewer than
    two parts, or where all are 0.

    >>> sign_flip_p(np.array([0.1, 0.2, 0.3]))
    0.25
    """
    n = len(differences)
    if n < 2 or not differences.any():
        return np.nan
    if flips_drawn(n):
        signs, n_extra = np.random.default_rng(0).choice((1, -1), (N_FLIPS, n)), 1
    else:
        signs, n_extra = np.array(list(product((1, -1), repeat=n))), 0
    sums = np.abs(signs @ differences)
    n_extreme = int((sums >= abs(differences.sum()) - 1e-12).sum())
    return (n_extreme + n_extra) / (len(signs) + n_extra)


def flips_drawn(n: int) -> int:
    """How many random signs are drawn for `n` parts; 0 where all signs are taken.

    >>> flips_drawn(10), flips_drawn(20)
    (0, 10000)
    """
    return N_FLIPS if 2**n > N_FLIPS else 0
