"""Does a model have the heads of another, or do kinds of heads recur? Matching with models put together from others.

Any two models that have heads of the same few kinds can be matched, though neither is a copy of the other. So a model
is also matched with models put together at random: in every layer as many heads, each drawn from any head of that layer
in other independent models. Kinds are as frequent there as in real models; which heads occur together in one model is
lost. If heads of two real models are no more alike than that, kinds of heads recur and nothing more is shown.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analyses.studies.consistency.matching import WITHIN, Within, best_match, blocks, likeness
from analyses.studies.consistency.measures import Looks

N_MODELS = 20
"""Models put together for each model of a pair."""


class Likeness(NamedTuple):
    """Of all heads of one model with all heads of several others.

    Attributes:
        chosen: on the prompts and pairs that choose a matching.
        judged: on those that judge it.
    """

    chosen: Float[np.ndarray, "layer_head other_model other_layer_head"]
    judged: Float[np.ndarray, "layer_head other_model other_layer_head"]


def likeness_to(model: Looks, others: Sequence[Looks]) -> Likeness:
    """How alike every head of a model is to every head of other models, of equal shape."""
    return Likeness(
        np.stack([likeness(model.choosing, other.choosing) for other in others], axis=1),
        np.stack([likeness(model.judging, other.judging) for other in others], axis=1),
    )


def matched_with_kinds(alike: Likeness, n_layers: int, n_heads: int, rng: np.random.Generator) -> dict[Within, float]:
    """How alike a model's heads are to their matches in models put together from others, mean over heads and draws.

    Args:
        alike: of the model with those that heads are drawn from.
        n_layers: of each model.
        n_heads: of each layer.
        rng: draws heads.
    """
    heads, first = np.arange(n_layers * n_heads), np.repeat(np.arange(n_layers) * n_heads, n_heads)
    totals = dict.fromkeys(WITHIN, 0.0)
    for _ in range(N_MODELS):
        sources = rng.integers(alike.chosen.shape[1], size=len(heads))
        drawn = first + rng.integers(n_heads, size=len(heads))
        chosen, judged = alike.chosen[:, sources, drawn], alike.judged[:, sources, drawn]
        for within in WITHIN:
            match = best_match(chosen, blocks(n_layers, n_heads, within))
            totals[within] += float(judged[heads, match].mean())
    return {within: total / N_MODELS for within, total in totals.items()}
