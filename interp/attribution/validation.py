"""The receipt of an approximation: its agreement with exact patching of the same nodes or edges on the same prompts.

Four questions, since no one number answers them all: is the order right (Spearman), are the largest ones found (top-k
overlap, with the overlap that chance would give), are the signs right, and how wrong is the worst estimate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

NEGLIGIBLE = 1e-5
"""Effects below this are rounding (the engine's tolerance) and count as 0."""
RELEVANT = 0.01
"""Signs are compared where the exact effect is at least this share of the largest."""
TOPS = (5, 10, 20)


@dataclass(frozen=True)
class Receipt:
    """Agreement of approximate with exact effects.

    Attributes:
        n: nodes or edges compared.
        n_nonzero: of them with an exact effect whose 95 % interval leaves out 0; the next four are about these alone,
            and NaN where they are too few.
        n_prompts: on which both were measured.
        spearman: rank correlation of the effects.
        spearman_size: rank correlation of their sizes (for AtP*, of its means over dropped layers).
        overlap: by k, the share of the k largest exact effects that are among the k largest approximate ones.
        chance: by k, the expected overlap of k drawn at random.
        signs: share of relevant effects with the right sign.
        n_signs: how many are relevant.
        worst: the node or edge whose estimate is farthest off.
        worst_exact: its exact effect.
        worst_approximate: its estimate.
    """

    n: int
    n_nonzero: int
    n_prompts: int
    spearman: float
    spearman_size: float
    overlap: Mapping[int, float]
    chance: Mapping[int, float]
    signs: float
    n_signs: int
    worst: str
    worst_exact: float
    worst_approximate: float

    def row(self) -> dict[str, Any]:
        """The receipt as one row of a table."""
        tops = {f"top_{k}": value for k, value in self.overlap.items()}
        chances = {f"chance_{k}": value for k, value in self.chance.items()}
        plain = {key: value for key, value in vars(self).items() if key not in ("overlap", "chance")}
        return {"n": plain.pop("n"), "n_prompts": plain.pop("n_prompts"), **tops, **chances, **plain}


def receipt(
    exact: Float[np.ndarray, " node"],
    approximate: Float[np.ndarray, " node"],
    names: Sequence[str],
    *,
    n_prompts: int,
    sizes: Float[np.ndarray, " node"] | None = None,
    nonzero: Bool[np.ndarray, " node"] | None = None,
) -> Receipt:
    """Compare approximate with exact effects of the same nodes or edges.

    Args:
        exact: by intervention.
        approximate: with their signs.
        names: of the nodes or edges, in the same order.
        n_prompts: on which both were measured.
        sizes: what ranks them, where that is not the approximate effects' absolute value (AtP*).
        nonzero: which exact effects differ from 0 (`interp.statistics.effects.differs_from_zero`); None takes all.
            Ranks of effects that do not are noise, so correlations are over these, and top k up to their number.

    Raises:
        ValueError: the three do not belong together.

    >>> found = receipt(np.array([0.5, -0.2, 0.1]), np.array([0.4, 0.1, 0.1]), "abc", n_prompts=8)
    >>> round(found.spearman, 3), round(found.signs, 3), found.worst
    (0.866, 0.667, 'b')
    """
    if not len(exact) == len(approximate) == len(names):
        raise ValueError(f"{len(exact)} exact effects, {len(approximate)} approximate ones, {len(names)} names")
    exact, approximate = without_rounding(exact), without_rounding(approximate)
    sizes = np.abs(approximate) if sizes is None else without_rounding(sizes)
    nonzero = np.ones(len(exact), dtype=bool) if nonzero is None else nonzero
    relevant = is_relevant(exact) & nonzero
    worst = int(np.argmax(np.abs(exact - approximate)))
    tops = [k for k in TOPS if k < len(exact)]
    ranked = {k for k in tops if k <= nonzero.sum()}
    return Receipt(
        n=len(exact),
        n_nonzero=int(nonzero.sum()),
        n_prompts=n_prompts,
        spearman=rank_correlation(exact[nonzero], approximate[nonzero]),
        spearman_size=rank_correlation(np.abs(exact[nonzero]), sizes[nonzero]),
        overlap={k: top_overlap(np.abs(exact), sizes, k) if k in ranked else np.nan for k in tops},
        chance={k: k / len(exact) for k in tops},
        signs=float(np.mean(np.sign(exact[relevant]) == np.sign(approximate[relevant]))) if relevant.any() else np.nan,
        n_signs=int(relevant.sum()),
        worst=names[worst],
        worst_exact=float(exact[worst]),
        worst_approximate=float(approximate[worst]),
    )


def without_rounding(effects: Float[np.ndarray, " node"]) -> Float[np.ndarray, " node"]:
    return np.where(np.abs(effects) < NEGLIGIBLE, 0.0, effects)


def is_relevant(exact: Float[np.ndarray, " node"]) -> Bool[np.ndarray, " node"]:
    return np.abs(exact) >= max(NEGLIGIBLE, RELEVANT * np.abs(exact).max(initial=0))


def rank_correlation(first: Float[np.ndarray, " node"], second: Float[np.ndarray, " node"]) -> float:
    """Spearman's correlation, equal values sharing their mean rank; NaN of fewer than two or of constants.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 9.0]))
    1.0
    """
    if len(first) < 2:
        return float("nan")
    ranks = np.stack([pd.Series(one).rank().to_numpy(dtype=float) for one in (first, second)])
    varies = bool((ranks != ranks[:, :1]).any(1).all())
    return float(np.corrcoef(ranks)[0, 1].round(12)) if varies else float("nan")


def top_overlap(exact: Float[np.ndarray, " node"], approximate: Float[np.ndarray, " node"], k: int) -> float:
    """The share of the k largest exact sizes that are among the k largest approximate ones.

    >>> top_overlap(np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.0, 2.0]), 2)
    0.5
    """
    return len({*largest(exact, k)} & {*largest(approximate, k)}) / k


def largest(values: Float[np.ndarray, " node"], k: int) -> Int[np.ndarray, " k"]:
    """The places of the k largest values; of equal ones the first."""
    return np.argsort(-values, kind="stable")[:k]
