"""Bootstrap intervals over prompts: resample whole prompts, so that whatever is paired stays paired."""

import numpy as np
from jaxtyping import Float

N_RESAMPLES = 2000
COVERAGE = 0.95


def bootstrap_weights(
    n_prompts: int, rng: np.random.Generator, n_resamples: int = N_RESAMPLES
) -> Float[np.ndarray, "resample prompt"]:
    """How much each prompt counts in each resample: `weights @ values` are the resampled means of any values.

    All NaN for a single prompt, which says nothing about the spread over prompts: so is every interval made of them.

    >>> bootstrap_weights(1, np.random.default_rng(0), n_resamples=2).tolist()
    [[nan], [nan]]
    """
    if n_prompts == 1:
        return np.full((n_resamples, 1), np.nan)
    return rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=n_resamples) / n_prompts


def percentile_interval(
    resamples: Float[np.ndarray, "resample ..."],
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """The central 95 % of a bootstrap distribution: (low, high)."""
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(resamples, [tail, 100 - tail], axis=0)
    return low, high


def mean_interval(
    values: Float[np.ndarray, "prompt ..."], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """95 % interval for the mean over prompts, which lies in it; NaN for a single prompt.

    >>> mean_interval(np.ones((1, 2)), np.random.default_rng(0))
    (array([nan, nan]), array([nan, nan]))
    """
    weights = bootstrap_weights(len(values), rng)
    resamples = weights @ values.reshape(len(values), -1)
    low, high = percentile_interval(resamples.reshape(-1, *values.shape[1:]))
    mean = values.mean(0)
    return np.minimum(low, mean), np.maximum(high, mean)
