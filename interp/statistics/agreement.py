"""Agreement between maps of the same heads: correlations, shared top heads, concordance of several maps.

All functions take any number of maps at once (leading axes), as bootstrap resamples need. Kendall's W is the mean
Spearman r of m maps on another scale, W = (1 + (m - 1) r) / m without ties; it is here because it is usually reported.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import hypergeom, rankdata

from interp.statistics.effects import TIE

N_DRAWS = 2000
"""Random numberings of heads."""
Agreement = Callable[[Float[np.ndarray, "*batch head"], Float[np.ndarray, "*batch head"]], Float[np.ndarray, "*batch"]]


def pearson(x: Float[np.ndarray, "*batch head"], y: Float[np.ndarray, "*batch head"]) -> Float[np.ndarray, "*batch"]:
    """Correlation over heads; NaN where a map is constant.

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.5])).round(2).item()
    1.0
    """
    dx, dy = (values - values.mean(-1, keepdims=True) for values in (x, y))
    varies = (np.ptp(x, axis=-1) > 0) & (np.ptp(y, axis=-1) > 0)
    norms = np.sqrt((dx**2).sum(-1) * (dy**2).sum(-1))
    return np.divide((dx * dy).sum(-1), norms, out=np.full(varies.shape, np.nan), where=varies)


def spearman(x: Float[np.ndarray, "*batch head"], y: Float[np.ndarray, "*batch head"]) -> Float[np.ndarray, "*batch"]:
    """Correlation of ranks over heads; ties share their mean rank.

    >>> spearman(np.array([0.1, 0.2, 0.9]), np.array([0.3, 0.5, 0.4])).item()
    0.5
    """
    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def tie_rounding(values: Float[np.ndarray, "*batch head"]) -> Float[np.ndarray, "*batch head"]:
    """Scores or effects in units of the engine's tolerance, so that those which differ by rounding alone share a rank.

    >>> spearman(tie_rounding(np.array([0.0, 1e-9, 0.5])), np.array([2.0, 1.0, 3.0])).round(3).item()
    0.866
    """
    return np.round(values / TIE)


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
    """Which heads are the k highest; among equals, the first."""
    order = np.argsort(np.argsort(-values, axis=-1, kind="stable"), axis=-1)
    return order < k


def top_overlap(k: int) -> Agreement:
    """The share of the k highest heads of one map that are among the k highest of the other; NaN for k = 0.

    >>> top_overlap(2)(np.array([0.9, 0.8, 0.1]), np.array([0.9, 0.1, 0.8])).item()
    0.5
    """

    def overlap(
        x: Float[np.ndarray, "*batch head"], y: Float[np.ndarray, "*batch head"]
    ) -> Float[np.ndarray, "*batch"]:
        shared = (top(x, k) & top(y, k)).sum(-1)
        return np.asarray(shared / k) if k else np.full(x.shape[:-1], np.nan)

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
    """Do the same heads, by number, count in different models? (coincidences, expected coincidences, p).

    The null distribution renumbers every model's heads at random within each layer, as independent initialisation does.

    Args:
        masks: of every model, which heads count.
        pairs: indices of the models to compare, which have equal shapes.
        rng: renumbers heads.
        n_draws: renumberings; p = (k + 1) / (n_draws + 1).

    >>> same = np.eye(1, 8, dtype=bool)
    >>> coincidence_p([same, same], [(0, 1)], np.random.default_rng(0))[:2]
    (1, 0.125)
    """
    observed = sum(int((masks[a] & masks[b]).sum()) for a, b in pairs)
    expected = sum(float((masks[a].sum(1) * masks[b].sum(1) / masks[a].shape[1]).sum()) for a, b in pairs)
    renumbered = {
        model: rng.permuted(np.broadcast_to(masks[model], (n_draws, *masks[model].shape)), axis=-1)
        for model in sorted({model for pair in pairs for model in pair})
    }
    null = sum(((renumbered[a] & renumbered[b]).sum((1, 2)) for a, b in pairs), np.zeros(n_draws, dtype=int))
    return observed, expected, float(((null >= observed).sum() + 1) / (n_draws + 1))
