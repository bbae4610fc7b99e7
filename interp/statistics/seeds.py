"""Evidence from several models: the independent seed is the unit, not the prompt.

Models that share a stream of random numbers share their heads (arXiv 2404.03558, section 4.3) and count as one seed.
Two intervals: a hierarchical bootstrap that resamples seeds and, within them, prompts (the same for all models), and a
t-interval over the seeds' effects, which is wider, and more honest, where seeds are few.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import COVERAGE
from training.common.errors import UserError

N_COMBINATIONS = 10_000
HALF, GAP = 0.5, 0.25
"""For outcomes from 0 to 1: the boundary between two kinds of seeds, and the least distance between the kinds."""


def independent_seeds(checkpoints: Sequence[Checkpoint]) -> list[list[int]]:
    """Indices of checkpoints, grouped so that those that share a seed of initialisation, data or task are together.

    Checkpoints of one run with unknown seeds are one seed.

    Raises:
        UserError: one of several runs has unknown seeds and no label, so that nothing says whether it is independent.
    """
    groups: list[tuple[set[tuple[str, object]], list[int]]] = []
    for index, checkpoint in enumerate(checkpoints):
        seeds, members = streams(checkpoint), [index]
        for group in [group for group in groups if group[0] & seeds]:
            seeds, members = seeds | group[0], members + group[1]
            groups.remove(group)
        groups.append((seeds, sorted(members)))
    unlabelled = [checkpoint.name for checkpoint in checkpoints if not has_origin(checkpoint)]
    if unlabelled and len(groups) > 1:
        raise UserError(
            f"{unlabelled[0]} has unknown seeds: it counts as independent of other runs only if you say so "
            "(--independent, or `interp import --seed-label NAME`)"
        )
    return sorted(members for _, members in groups)


def streams(checkpoint: Checkpoint) -> set[tuple[str, object]]:
    """The streams of random numbers behind a run, by name and seed; for unknown seeds their label, or the run."""
    seeds = checkpoint.config.seeds
    numbers = {"init": seeds.init, "data": seeds.data, "task": seeds.task}
    known = {*numbers.items(), ("source", checkpoint.config.init.sha256 or None)}
    own: set[tuple[str, object]] = {(name, seed) for name, seed in known if seed is not None}
    if not seeds.are_known:
        label = checkpoint.config.seed_label
        own.add(("label", label) if label else ("run", str(checkpoint.directory.resolve())))
    return own


def has_origin(checkpoint: Checkpoint) -> bool:
    """Whether its seeds are known, or a user has named them."""
    return checkpoint.config.seeds.are_known or bool(checkpoint.config.seed_label)


def as_independent(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints, every run with unknown seeds as a seed of its own: what `--independent` asserts."""
    return [checkpoint if has_origin(checkpoint) else labelled(checkpoint) for checkpoint in checkpoints]


def labelled(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, config=replace(checkpoint.config, seed_label=str(checkpoint.directory.resolve())))


def unknown_seeds(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """The names of the checkpoints whose seeds are unknown."""
    return [checkpoint.name for checkpoint in checkpoints if not checkpoint.config.seeds.are_known]


def unknown_seeds_note(checkpoints: Sequence[Checkpoint]) -> str:
    """A sentence for results that pool several models; empty where all seeds are known.

    >>> unknown_seeds_note([])
    ''
    """
    n_unknown = len(unknown_seeds(checkpoints))
    if not n_unknown or len(checkpoints) == 1:
        return ""
    return (
        f"The seeds of {n_unknown} of the {len(checkpoints)} models are unknown (imported runs): that they are "
        "independent is the user's statement, not a finding."
    )


def null_means(
    groups: Sequence[Sequence[int]],
    controls: Mapping[int, Float[np.ndarray, " set"]],
    tested: Mapping[int, float],
    rng: np.random.Generator,
) -> Float[np.ndarray, " combination"]:
    """Null distribution of the mean over seeds: in every model the effect of any matched set, drawn at random.

    All combinations, or `N_COMBINATIONS` random ones if there are more. The tested set of a model is one of the sets
    that can be drawn; only the combination of all tested sets is left out.

    Args:
        groups: indices of the models that count as one seed; these draw together (`drawn_together`).
        controls: effects of each model's control sets.
        tested: effect of each model's tested set.
        rng: draws combinations.
    """
    if any(len(effects) == 0 for effects in controls.values()):
        return np.array([])
    choices = [drawn_together([np.append(controls[model], tested[model]) for model in group]) for group in groups]
    if math.prod(len(effects) for effects in choices) > N_COMBINATIONS:
        return np.mean([rng.choice(effects, N_COMBINATIONS) for effects in choices], axis=0)
    return np.mean([axis.ravel()[:-1] for axis in np.meshgrid(*choices, indexing="ij")], axis=0)


def drawn_together(choices: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, " draw"]:
    """Mean effects of models that count as one seed, one value per draw; the last one is that of their tested sets.

    Such models have the same heads, so that their sets are no independent draws. Sets of the same rank of effect are
    drawn together, as many as the model with the fewest sets has: of all ways to draw them jointly, this one has the
    widest spread of means.

    >>> drawn_together([np.array([0.0, 0.25, 1.0]), np.array([0.5, 0.0, 2.0])]).tolist()
    [0.0, 0.375, 1.5]
    """
    if len(choices) == 1:
        return choices[0]
    ranks = np.linspace(0, 1, min(map(len, choices)))
    return np.mean([np.quantile(effects, ranks) for effects in choices], axis=0)


class SeedMean(NamedTuple):
    """A mean over independent seeds, with its t-interval (NaN for a single seed)."""

    value: float
    t_low: float
    t_high: float
    n_seeds: int

    def named(self, name: str) -> dict[str, float]:
        """As columns of a table, with the mean in the column `name`."""
        return {name: self.value, "t_low": self.t_low, "t_high": self.t_high, "n_seeds": self.n_seeds}


def seed_mean(checkpoints: Sequence[Checkpoint], values: Sequence[float]) -> SeedMean:
    """The mean of one value per model over independent seeds; models that share a seed are averaged first.

    NaN without models.
    """
    by_seed = seed_values(checkpoints, values)
    return SeedMean(float(by_seed.mean()), *t_interval(by_seed), len(by_seed)) if len(by_seed) else NO_SEED


def seed_values(checkpoints: Sequence[Checkpoint], values: Sequence[float]) -> Float[np.ndarray, " seed"]:
    """One value per independent seed from one per model: the mean of models that share a seed."""
    return np.array([np.mean([values[model] for model in group]) for group in independent_seeds(checkpoints)])


def outcome_columns(
    checkpoints: Sequence[Checkpoint], values: Sequence[float], name: str
) -> dict[str, float | int | bool]:
    """Columns of a table: `seed_mean` of outcomes from 0 to 1, and how many seeds reach one half.

    The t-interval is NaN where seeds are `all_or_nothing`; `n_half` seeds have an outcome of at least one half, and
    their share has the exact interval `share_low`, `share_high`.

    Args:
        checkpoints: the models.
        values: of each.
        name: the column of the mean.
    """
    by_seed, columns = seed_values(checkpoints, values), seed_mean(checkpoints, values).named(name)
    split, n_half = all_or_nothing(by_seed), int((by_seed >= HALF).sum())
    share_low, share_high = exact_interval(n_half, len(by_seed)) if len(by_seed) else (math.nan, math.nan)
    ends = dict.fromkeys(("t_low", "t_high"), math.nan) if split else {}
    counts = {"all_or_nothing": split, "n_half": n_half, "share_low": share_low, "share_high": share_high}
    return columns | ends | counts


NO_SEED = SeedMean(math.nan, math.nan, math.nan, 0)


def all_or_nothing(by_seed: Float[np.ndarray, " seed"]) -> bool:
    """Whether outcomes from 0 to 1 (an effect, an error over the no-context optimum's, a share) are of two kinds.

    They are if seeds lie on both sides of `HALF`, and the gap between the two sides is at least `GAP` and at least the
    range of the seeds on either side.

    >>> [all_or_nothing(np.array(x)) for x in ([0.02, 0.05, 1.0], [0.4, 0.5, 0.7], [0.01, 0.02, 0.02])]
    [True, False, False]
    """
    low, high = by_seed[by_seed < HALF], by_seed[by_seed >= HALF]
    if not (len(low) and len(high)):
        return False
    return bool(high.min() - low.max() >= max(GAP, np.ptp(low), np.ptp(high)))


def exact_interval(k: int, n: int) -> tuple[float, float]:
    """95 % interval for a share of which k of n were observed (Clopper and Pearson 1934).

    >>> [round(x, 4) for x in exact_interval(0, 5)], [round(x, 4) for x in exact_interval(3, 5)]
    ([0.0, 0.5218], [0.1466, 0.9473])
    """
    from scipy.special import betaincinv

    tail = (1 - COVERAGE) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    return low, float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0


def t_interval(by_seed: Float[np.ndarray, " seed"]) -> tuple[float, float]:
    """95 % interval for the mean over seeds, mean ± t(n - 1) s / sqrt(n); NaN for a single seed.

    >>> [round(x, 2) for x in t_interval(np.array([1.0, 1.2, 1.1]))]
    [0.85, 1.35]
    """
    from scipy.special import stdtrit  # takes a quarter of a second, which a single model does not need

    n = len(by_seed)
    if n < 2:
        return math.nan, math.nan
    half_width = float(stdtrit(n - 1, (1 + COVERAGE) / 2) * by_seed.std(ddof=1) / math.sqrt(n))
    return float(by_seed.mean() - half_width), float(by_seed.mean() + half_width)
