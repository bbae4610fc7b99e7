"""Composite models: does a model have the heads of another one, or do the same kinds of heads recur in all?

Any two models with heads of the same few kinds can be matched, though neither is a copy of the other. So a model is
also matched with composite models: each layer has as many heads, each drawn at random from the heads of that layer in
other independent models. Kinds are as frequent there as in real models, but the heads no longer come from one model.
Where heads of two real models are no more similar than that, kinds of heads recur and nothing more is shown.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analyses.studies.consistency.measures.attention import HeadAttention
from analyses.studies.consistency.measures.matching import WITHIN, Within, best_match, blocks, similarity

N_MODELS = 20
"""Composite models for each model of a pair."""


class PoolSimilarity(NamedTuple):
    """Cosines of all heads of one model with all heads of several others.

    Attributes:
        selection: on the prompts and pairs that choose a matching.
        test: on those that judge it.
    """

    selection: Float[np.ndarray, "layer_head other_model other_layer_head"]
    test: Float[np.ndarray, "layer_head other_model other_layer_head"]


def similarity_to_pool(model: HeadAttention, pool: Sequence[HeadAttention]) -> PoolSimilarity:
    """The similarity of every head of a model to every head of other models of equal shape."""
    return PoolSimilarity(
        np.stack([similarity(model.selection_descriptions, other.selection_descriptions) for other in pool], axis=1),
        np.stack([similarity(model.test_descriptions, other.test_descriptions) for other in pool], axis=1),
    )


def match_composites(
    pool: PoolSimilarity, n_layers: int, n_heads: int, rng: np.random.Generator
) -> dict[Within, float]:
    """The similarity of a model's heads to their matches in composite models, mean over heads and draws.

    Args:
        pool: similarities of the model to those that heads are drawn from.
        n_layers: of each model.
        n_heads: of each layer.
        rng: draws heads.
    """
    heads, first = np.arange(n_layers * n_heads), np.repeat(np.arange(n_layers) * n_heads, n_heads)
    totals = dict.fromkeys(WITHIN, 0.0)
    for _ in range(N_MODELS):
        sources = rng.integers(pool.selection.shape[1], size=len(heads))
        drawn = first + rng.integers(n_heads, size=len(heads))
        selection, test = pool.selection[:, sources, drawn], pool.test[:, sources, drawn]
        for within in WITHIN:
            match = best_match(selection, blocks(n_layers, n_heads, within))
            totals[within] += float(test[heads, match].mean())
    return {within: total / N_MODELS for within, total in totals.items()}
