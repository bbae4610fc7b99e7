"""Which head of one model does what a head of another does? Heads matched by attention rather than by number.

1. Describe each head by its mean attention pattern less uniform causal attention, both models on the same prompts.
   Every score whose keys lie at fixed places (all but `lookup`) is a linear function of that, so that heads with the
   same description have the same scores; what depends on a prompt's content, it cannot tell apart.
2. Compare by cosine (rows sum to 0: the correlation of two patterns): 0 for heads that prefer unrelated keys, however
   strongly. Distances would make all heads of an untrained model alike, which hardly prefer anything.
3. Match by the Hungarian method, within layers or over all of them.
4. Judge elsewhere. Heads of two random models can be matched as well, by what each happens to prefer at some positions;
   therefore the matching is chosen on the first half of the pairs and judged on the second, on other prompts. A head
   that does the same thing at every pair is still matched there, a coincidence is not: in twelve random models the
   excess over random matchings within layers is 0.02, against 0.10 if it is chosen at the pairs that judge.
5. Beside it: matched by number, random matchings, and untrained models, to which the rest of the excess belongs.
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


class Pattern(NamedTuple):
    """A model's mean attention.

    Attributes:
        attention: averaged over prompts.
        layout: where the pairs stand.
    """

    attention: Float[np.ndarray, "layer head query_pos key_pos"]
    layout: Layout

    @property
    def n_points(self) -> int:
        """The pairs of a prompt."""
        n_pos = self.attention.shape[-1]
        return len(np.arange(n_pos)[self.layout.x_tokens(n_pos)])


class Matched(NamedTuple):
    """How alike the heads of two models are, averaged over heads.

    Attributes:
        by_index: head with head of the same number.
        matched: each with its match.
        chance: the mean over random matchings, exactly.
        p_index: that a random matching is as good as that by number.
        p_matched: as good as the chosen one; even random models have kinds of heads, for two fifths of their pairs it
            is below 0.05.
        match: of each head, counted through the layers.
    """

    by_index: float
    matched: float
    chance: float
    p_index: float
    p_matched: float
    match: Int[np.ndarray, " layer_head"]


def descriptions(pattern: Pattern, points: range) -> Float[np.ndarray, "layer_head entry"]:
    """Attention less uniform attention from the tokens of some pairs, of length 1; 0 for a head without preference."""
    n_pos = pattern.attention.shape[-1]
    everywhere = np.arange(n_pos)
    tokens = [everywhere[at][list(points)] for at in (pattern.layout.x_tokens(n_pos), pattern.layout.y_tokens(n_pos))]
    preferred = pattern.attention - uniform_attention(n_pos).numpy()
    rows = preferred[:, :, np.concatenate(tokens)]
    flat = rows.reshape(rows.shape[0] * rows.shape[1], -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, lengths, out=np.zeros_like(flat), where=lengths > 0)


def likeness(
    one: Float[np.ndarray, "layer_head entry"], other: Float[np.ndarray, "layer_head entry"]
) -> Float[np.ndarray, "layer_head layer_head"]:
    """The cosine of every head of one model with every head of the other, from their descriptions."""
    return one @ other.T


def blocks(n_layers: int, n_heads: int, within: Within) -> list[slice]:
    """The heads among which matches are sought.

    >>> blocks(2, 4, "layer")
    [slice(0, 4, None), slice(4, 8, None)]
    """
    size = n_heads if within == "layer" else n_layers * n_heads
    return [slice(start, start + size) for start in range(0, n_layers * n_heads, size)]


def best_match(alike: Float[np.ndarray, "layer_head layer_head"], among: list[slice]) -> Int[np.ndarray, " layer_head"]:
    """The match of each head that makes the sum of likenesses largest (Hungarian method).

    >>> best_match(np.array([[0.1, 0.9], [0.8, 0.2]]), [slice(0, 2)]).tolist()
    [1, 0]
    """
    return np.concatenate([linear_sum_assignment(-alike[part, part])[1] + part.start for part in among])


def compare(
    chosen: Float[np.ndarray, "layer_head layer_head"],
    judged: Float[np.ndarray, "layer_head layer_head"],
    among: list[slice],
    rng: np.random.Generator,
) -> Matched:
    """Match heads by one likeness and judge the matching by another.

    Args:
        chosen: on the prompts and pairs that choose.
        judged: on those that judge.
        among: blocks of heads.
        rng: draws random matchings.
    """
    heads = np.arange(len(judged))
    null = np.zeros(N_DRAWS)
    for part in among:
        ours = np.broadcast_to(heads[part], (N_DRAWS, part.stop - part.start))
        null += judged[ours, rng.permuted(ours, axis=1)].sum(1) / len(heads)
    by_index = float(judged[heads, heads].mean())
    match = best_match(chosen, among)
    matched = float(judged[heads, match].mean())
    chance = sum(float(judged[part, part].mean()) * (part.stop - part.start) for part in among) / len(heads)
    p_index, p_matched = (float(((null >= value - 1e-9).sum() + 1) / (N_DRAWS + 1)) for value in (by_index, matched))
    return Matched(by_index, matched, chance, p_index, p_matched, match)


def halves(n_points: int) -> tuple[range, range]:
    """The pairs that choose, and those that judge.

    >>> halves(5)
    (range(0, 2), range(2, 5))
    """
    return range(n_points // 2), range(n_points // 2, n_points)
