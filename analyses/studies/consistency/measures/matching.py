"""Heads of two models, matched by their attention rather than by their number.

1. Describe each head by its mean attention pattern minus uniform causal attention, both models on the same prompts.
   Every score whose keys lie at fixed positions (all but `lookup`) is a linear function of that, so heads with the same
   description have the same scores; heads that differ by the content of a prompt only are not distinguished.
2. Compare by cosine (rows sum to 0, so it is the correlation of two patterns): 0 for heads that prefer unrelated keys,
   however strongly. By a distance all heads of an untrained model would be alike, as they hardly prefer anything.
3. Match with the Hungarian method, within layers or over all of them.
4. Judge on other data. Heads of two random models can be matched as well, by what each happens to prefer at some
   positions; therefore the matching is chosen on the first half of the pairs and judged on the second half, on other
   prompts. A head that does the same at every pair is matched there, too; a coincidence is not. In twelve random models
   the excess over random matchings within layers is 0.02, and 0.10 if the matching is chosen where it is judged.
5. Compare with matching by number, with random matchings, and with untrained models, which share the rest of the
   excess.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from interp.scores.kinds import uniform_attention
from training.tasks.prompts import Layout

Within = Literal["layer", "model"]
WITHIN: tuple[Within, ...] = ("layer", "model")
N_DRAWS = 999
Similarity = Float[np.ndarray, "layer_head layer_head"]


class Pattern(NamedTuple):
    """A model's mean attention.

    Attributes:
        attention: averaged over prompts.
        layout: the positions of the pairs.
    """

    attention: Float[np.ndarray, "layer head query_pos key_pos"]
    layout: Layout

    @property
    def n_points(self) -> int:
        """The pairs of a prompt."""
        n_pos = self.attention.shape[-1]
        return len(np.arange(n_pos)[self.layout.x_tokens(n_pos)])


class Matched(NamedTuple):
    """Similarities of the heads of two models, averaged over heads.

    Attributes:
        by_index: of heads with the same number.
        matched: of each head with its match.
        chance: of a random matching (exact expectation).
        p_index: that a random matching is as good as that by number.
        p_matched: that it is as good as the chosen one; random models share kinds of heads as well, so that it is below
            0.05 for two fifths of their pairs.
        match: of each head, counted through the layers.
    """

    by_index: float
    matched: float
    chance: float
    p_index: float
    p_matched: float
    match: Int[np.ndarray, " layer_head"]


def describe_heads(pattern: Pattern, points: range) -> Float[np.ndarray, "layer_head entry"]:
    """Attention minus uniform attention from the tokens of some pairs, of length 1; 0 for a head without preference."""
    n_pos = pattern.attention.shape[-1]
    positions = np.arange(n_pos)
    tokens = [positions[at][list(points)] for at in (pattern.layout.x_tokens(n_pos), pattern.layout.y_tokens(n_pos))]
    preference = pattern.attention - uniform_attention(n_pos).numpy()
    rows = preference[:, :, np.concatenate(tokens)]
    flat = rows.reshape(rows.shape[0] * rows.shape[1], -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, lengths, out=np.zeros_like(flat), where=lengths > 0)


def similarity(
    first: Float[np.ndarray, "layer_head entry"], second: Float[np.ndarray, "layer_head entry"]
) -> Similarity:
    """The cosine of every head of one model with every head of the other, from their descriptions."""
    return first @ second.T


def blocks(n_layers: int, n_heads: int, within: Within) -> list[slice]:
    """The heads among which matches are sought.

    >>> blocks(2, 4, "layer")
    [slice(0, 4, None), slice(4, 8, None)]
    """
    size = n_heads if within == "layer" else n_layers * n_heads
    return [slice(start, start + size) for start in range(0, n_layers * n_heads, size)]


def best_match(similarities: Similarity, among: list[slice]) -> Int[np.ndarray, " layer_head"]:
    """The match of each head that makes the sum of similarities largest (Hungarian method).

    >>> best_match(np.array([[0.1, 0.9], [0.8, 0.2]]), [slice(0, 2)]).tolist()
    [1, 0]
    """
    return np.concatenate([linear_sum_assignment(-similarities[part, part])[1] + part.start for part in among])


def match_heads(selection: Similarity, test: Similarity, among: list[slice], rng: np.random.Generator) -> Matched:
    """Match heads by one set of similarities and judge the matching by another.

    Args:
        selection: on the prompts and pairs that choose the matching.
        test: on those that judge it.
        among: blocks of heads.
        rng: draws random matchings.
    """
    heads = np.arange(len(test))
    null = np.zeros(N_DRAWS)
    for part in among:
        ours = np.broadcast_to(heads[part], (N_DRAWS, part.stop - part.start))
        null += test[ours, rng.permuted(ours, axis=1)].sum(1) / len(heads)
    by_index = float(test[heads, heads].mean())
    match = best_match(selection, among)
    matched = float(test[heads, match].mean())
    chance = sum(float(test[part, part].mean()) * (part.stop - part.start) for part in among) / len(heads)
    p_index, p_matched = (float(((null >= value - 1e-9).sum() + 1) / (N_DRAWS + 1)) for value in (by_index, matched))
    return Matched(by_index, matched, chance, p_index, p_matched, match)


def halves(n_points: int) -> tuple[range, range]:
    """The pairs that choose a matching, and those that judge it.

    >>> halves(5)
    (range(0, 2), range(2, 5))
    """
    return range(n_points // 2), range(n_points // 2, n_points)
