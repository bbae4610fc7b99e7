"""How alike maps of the same heads are: correlation, shared top heads, concordance of several; each with its chance.

All functions take any number of maps at once (leading axes), as bootstrap resamples need. Kendall's W adds nothing to
the mean Spearman r of m maps but its scale, W = (1 + (m - 1) r) / m without ties: it stands here because it is what a
reader asks for.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import hypergeom, rankdata

N_DRAWS = 2000
"""Of numberings of heads."""
Agreement = Callable[[Float[np.ndarray, "*batch head"], Float[np.ndarray, "*batch head"]], Float[np.ndarray, "*batch"]]


def pearson(
    one: Float[np.ndarray, "*batch head"], other: Float[np.ndarray, "*batch head"]
) -> Float[np.ndarray, "*batch"]:
    """Correlation over heads; NaN where a map is constant.

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.5])).round(2).item()
    1.0
    """
    a, b = (values - values.mean(-1, keepdims=True) for values in (one, other))
    varies = (np.ptp(one, axis=-1) > 0) & (np.ptp(other, axis=-1) > 0)
    lengths = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), lengths, out=np.full(varies.shape, np.nan), where=varies)


def spearman(
    one: Float[np.ndarray, "*batch head"], other: Float[np.ndarray, "*batch head"]
) -> Float[np.ndarray, "*batch"]:
    """Correlation of ranks over heads; ties share their mean rank.

    >>> spearman(np.array([0.1, 0.2, 0.9]), np.array([0.3, 0.5, 0.4])).item()
    0.5
    """
    return pearson(rankdata(one, axis=-1), rankdata(other, axis=-1))


def kendall_w(maps: Float[np.ndarray, "*batch map head"]) -> Float[np.ndarray, "*batch"]:
    """Kendall's coefficient of concordance: the variance of the heads' rank sums over its maximum, corrected for ties.

    1 is the same order in all m maps; independent orders give 1 / m on average. NaN where all maps are constant.

    >>> kendall_w(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])).round(3).item()
    0.333
    """
    ranked = rankdata(maps, axis=-1)
    centred = ranked - ranked.mean(-1, keepdims=True)
    largest = np.asarray(maps.shape[-2] * (centred**2).sum((-2, -1)))
    between = (centred.sum(-2) ** 2).sum(-1)
    return np.divide(between, largest, out=np.full(largest.shape, np.nan), where=largest > 0)


def top(values: Float[np.ndarray, "*batch head"], k: int) -> Bool[np.ndarray, "*batch head"]:
    """Which heads are the k highest; among equals the first ones."""
    order = np.argsort(np.argsort(-values, axis=-1, kind="stable"), axis=-1)
    return order < k


def top_overlap(k: int) -> Agreement:
    """The share of the k highest heads of one map that are among the k highest of the other; NaN for no head.

    >>> top_overlap(2)(np.array([0.9, 0.8, 0.1]), np.array([0.9, 0.1, 0.8])).item()
    0.5
    """

    def overlap(
        one: Float[np.ndarray, "*batch head"], other: Float[np.ndarray, "*batch head"]
    ) -> Float[np.ndarray, "*batch"]:
        shared = (top(one, k) & top(other, k)).sum(-1)
        return np.asarray(shared / k) if k else np.full(one.shape[:-1], np.nan)

    return overlap


def overlap_p(n_shared: int, k: int, n_heads: int) -> float:
    """P(at least as many heads shared) when both maps order their heads at random: hypergeometric, mean k² / n_heads.

    >>> round(overlap_p(1, 1, 24), 4) == round(1 / 24, 4)
    True
    """
    return float(hypergeom.sf(n_shared - 1, n_heads, k, k))


def mean_over_pairs(agreement: Agreement, maps: Float[np.ndarray, "*batch map head"]) -> Float[np.ndarray, "*batch"]:
    """The average over all pairs of maps."""
    pairs = combinations(range(maps.shape[-2]), 2)
    return np.asarray(np.mean([agreement(maps[..., a, :], maps[..., b, :]) for a, b in pairs], axis=0))


def coincidence_p(
    masks: list[Bool[np.ndarray, "layer head"]],
    pairs: list[tuple[int, int]],
    rng: np.random.Generator,
    n_draws: int = N_DRAWS,
) -> tuple[int, float, float]:
    """Do models have the same heads by index? (how many coincide, how many would by chance, p).

    Chance numbers every model's heads anew within each layer, as an independent initialisation does.

    Args:
        masks: of every model, which heads count.
        pairs: the models to compare, of equal shape.
        rng: numbers heads anew.
        n_draws: how often; p = (k + 1) / (n_draws + 1).

    >>> same = np.eye(1, 8, dtype=bool)
    >>> coincidence_p([same, same], [(0, 1)], np.random.default_rng(0))[:2]
    (1, 0.125)
    """
    found = sum(int((masks[a] & masks[b]).sum()) for a, b in pairs)
    expected = sum(float((masks[a].sum(1) * masks[b].sum(1) / masks[a].shape[1]).sum()) for a, b in pairs)
    drawn = {
        place: rng.permuted(np.broadcast_to(masks[place], (n_draws, *masks[place].shape)), axis=-1)
        for place in sorted({place for pair in pairs for place in pair})
    }
    null = sum(((drawn[a] & drawn[b]).sum((1, 2)) for a, b in pairs), np.zeros(n_draws, dtype=int))
    return found, expected, float(((null >= found).sum() + 1) / (n_draws + 1))
