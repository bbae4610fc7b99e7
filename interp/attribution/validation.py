"""Validation of estimates: their agreement with exact patching of the same nodes or edges on the same prompts.

It answers four questions, since no single number answers them all: is the order right (Spearman), are the largest
effects among the largest estimates (top-k overlap, beside that of k drawn at random), are the signs right, and how
wrong is the worst estimate.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from interp.statistics.agreement import spearman, top_overlap

NEGLIGIBLE = 1e-5
"""Effects below this are rounding (the engine's tolerance) and count as 0."""
RELEVANT = 0.01
"""Signs are compared where the exact effect is at least this share of the largest."""
TOPS = (5, 10, 20)


def validate_estimates(
    exact: Float[np.ndarray, " node"],
    estimates: Float[np.ndarray, " node"],
    names: Sequence[str],
    *,
    n_prompts: int,
    sizes: Float[np.ndarray, " node"] | None = None,
    nonzero: Bool[np.ndarray, " node"] | None = None,
) -> dict[str, Any]:
    """Compare estimated with exact effects of the same nodes or edges.

    Args:
        exact: by intervention.
        estimates: with their signs.
        names: of the nodes or edges, in the same order.
        n_prompts: on which both were measured.
        sizes: what ranks the estimates, where that is not their absolute value (AtP*).
        nonzero: which exact effects differ from 0 (`interp.statistics.effects.differs_from_zero`); None takes all.
            Ranks of effects that do not are noise, so correlations are over these, and top k up to their number.

    Returns:
        `n`: nodes or edges compared; `n_prompts`. `top_K`: the share of the K largest exact effects that are among the
        K largest estimates; `chance_K`: its expectation for K drawn at random. `n_nonzero`: exact effects whose 95 %
        interval leaves out 0. `spearman`: rank correlation of these effects; `spearman_size`: of their sizes (for AtP*,
        of its means over dropped layers). `signs`: share of relevant effects with the right sign; `n_signs`: their
        number. `worst`: the node or edge whose estimate is farthest off; `worst_exact`, `worst_approximate`. Shares and
        correlations are NaN where there are too few effects.

    Raises:
        ValueError: the three have different lengths.

    >>> row = validate_estimates(np.array([0.5, -0.2, 0.1]), np.array([0.4, 0.1, 0.1]), "abc", n_prompts=8)
    >>> round(row["spearman"], 3), round(row["signs"], 3), row["worst"]
    (0.866, 0.667, 'b')
    """
    if not len(exact) == len(estimates) == len(names):
        raise ValueError(f"{len(exact)} exact effects, {len(estimates)} estimates, {len(names)} names")
    exact, estimates = zero_rounding(exact), zero_rounding(estimates)
    sizes = np.abs(estimates) if sizes is None else zero_rounding(sizes)
    nonzero = np.ones(len(exact), dtype=bool) if nonzero is None else nonzero
    is_relevant = np.abs(exact) >= max(NEGLIGIBLE, RELEVANT * np.abs(exact).max(initial=0))
    relevant = is_relevant & nonzero
    worst = int(np.argmax(np.abs(exact - estimates)))
    tops = [k for k in TOPS if k < len(exact)]
    overlaps = {k: float(top_overlap(k)(np.abs(exact), sizes)) if k <= nonzero.sum() else np.nan for k in tops}
    is_right = np.sign(exact[relevant]) == np.sign(estimates[relevant])
    return {
        "n": len(exact),
        "n_prompts": n_prompts,
        **{f"top_{k}": share for k, share in overlaps.items()},
        **{f"chance_{k}": k / len(exact) for k in tops},
        "n_nonzero": int(nonzero.sum()),
        "spearman": rank_correlation(exact[nonzero], estimates[nonzero]),
        "spearman_size": rank_correlation(np.abs(exact[nonzero]), sizes[nonzero]),
        "signs": float(is_right.mean()) if relevant.any() else np.nan,
        "n_signs": int(relevant.sum()),
        "worst": names[worst],
        "worst_exact": float(exact[worst]),
        "worst_approximate": float(estimates[worst]),
    }


def zero_rounding(effects: Float[np.ndarray, " node"]) -> Float[np.ndarray, " node"]:
    return np.where(np.abs(effects) < NEGLIGIBLE, 0.0, effects)


def rank_correlation(first: Float[np.ndarray, " node"], second: Float[np.ndarray, " node"]) -> float:
    """Spearman's correlation; NaN of fewer than two values or of constants."""
    return float(spearman(first, second).round(12)) if len(first) > 1 else np.nan
