"""How far a patch moves the prediction from the run that is patched (base) to the run it is patched from (source).

    effect = mean((p - p_base) (p_source - p_base)) / mean((p_source - p_base)²)

over prompts: 0 = the prediction is unchanged, 1 = as if everything had been patched. It is linear in the patched
prediction p, so the effects of components that do not interact add up, and its gradient is that of a prediction.

Three errors over E[y²] stand beside it: squared error to the clean answer (NMSE), squared distance to the clean
prediction, and NMSE above that of the no-context optimum. They show what the effect alone cannot: a patch that moves
half of the prompts all the way has the same effect as one that moves all prompts half-way, but another distance.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from interp.statistics.effects import UNDEFINED, Effect, interval_of

LEAST_GAP = 1e-12
"""Mean squared gap, in units of the mean squared prediction, below which base and source are the same."""


class Outcomes(NamedTuple):
    """Predictions at the query.

    Attributes:
        patched: under every variant.
        clean: of the clean run.
        corrupt: of the corrupt run.
        answer: the clean prompt's y.
        no_context: of the no-context optimum.
        unit: E[y²].
    """

    patched: Float[np.ndarray, "variant prompt"]
    clean: Float[np.ndarray, " prompt"]
    corrupt: Float[np.ndarray, " prompt"]
    answer: Float[np.ndarray, " prompt"]
    no_context: Float[np.ndarray, " prompt"]
    unit: float

    @property
    def nmse(self) -> Float[np.ndarray, "variant prompt"]:
        """Squared error to the clean answer over E[y²], under every variant."""
        return np.square(self.patched - self.answer) / self.unit


METRICS = {
    "effect": "share of the way from the run that is patched to the run it is patched from",
    "nmse": "squared error to the clean answer over E[y²]",
    "distance_to_clean": "squared distance to the clean prediction over E[y²]",
    "nmse_above_no_context": "nmse less that of the no-context optimum",
}


def effect_of(
    patched: Float[np.ndarray, "variant prompt"],
    base: Float[np.ndarray, " prompt"],
    source: Float[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "resample prompt"],
) -> list[Effect]:
    """The effect of every variant with its interval; undefined where base and source predict the same.

    Args:
        patched: predictions under every variant.
        base: predictions of the run that was patched.
        source: predictions of the run that activations came from.
        weights: bootstrap resamples of prompts (`training.common.bootstrap.bootstrap_weights`).

    >>> base, source = np.zeros(4), np.array([1.0, -1.0, 2.0, 1.0])
    >>> [round(effect.value, 3) for effect in effect_of(np.stack([base, source / 2]), base, source, np.eye(4))]
    [0.0, 0.5]
    """
    if not gap_exists(base, source):
        return [UNDEFINED for _ in patched]
    resamples = effect_resamples(patched, base, source, weights)
    gap = source - base
    values = ((patched - base) * gap).mean(1) / np.square(gap).mean()
    return [interval_of(value, of_variant) for value, of_variant in zip(values, resamples.T, strict=True)]


def effect_resamples(
    patched: Float[np.ndarray, "variant prompt"],
    base: Float[np.ndarray, " prompt"],
    source: Float[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "resample prompt"],
) -> Float[np.ndarray, "resample variant"]:
    """Effects in bootstrap resamples; numerator and denominator are resampled together."""
    gap = source - base
    return (weights @ ((patched - base) * gap).T) / (weights @ np.square(gap))[:, None]


def gap_exists(base: Float[np.ndarray, " prompt"], source: Float[np.ndarray, " prompt"]) -> bool:
    """Whether the two runs predict differently, by more than rounding (`LEAST_GAP`)."""
    size = np.square(base).mean() + np.square(source).mean()
    return bool(np.square(source - base).mean() > LEAST_GAP * size)


def error_metrics(outcomes: Outcomes) -> dict[str, Float[np.ndarray, "variant prompt"]]:
    """By name (`METRICS`), the error of every variant on every prompt."""
    return {
        "nmse": outcomes.nmse,
        "distance_to_clean": np.square(outcomes.patched - outcomes.clean) / outcomes.unit,
        "nmse_above_no_context": outcomes.nmse - np.square(outcomes.no_context - outcomes.answer) / outcomes.unit,
    }
