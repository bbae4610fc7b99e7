"""Ablations of several models pooled: mean effects over independent seeds, against a control set in every model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.ablation.ablate import Ablation, add_holm, removed_components
from interp.ablation.errors import ErrorSlice, error_slices
from interp.model.heads import HeadSet, show
from interp.statistics.effects import LEAST_NAMED, interval_of, permutation_p, two_sided_p
from interp.statistics.seeds import (
    HALF,
    N_COMBINATIONS,
    all_or_nothing,
    exact_interval,
    independent_seeds,
    null_means,
    t_interval,
    unknown_seeds,
)
from training.checkpoints.checkpoint import Checkpoint
from training.common.library_defaults import library_defaults
from training.common.table_rows import where
from training.config.config import stream_seed

NO_SEEDS: dict[str, Any] = {
    **dict.fromkeys(("effect", "ci_low", "ci_high", "t_low", "t_high", "effect_min", "effect_max"), math.nan),
    **dict.fromkeys(("p_value", "p_two_sided", "smallest_p", "share_low", "share_high"), math.nan),
    "n_half": 0,
    "all_or_nothing": False,
    "n_draws": 0,
}
"""The columns of a row without any model that has a clear in-context gain."""


@library_defaults()
def pooled(
    checkpoints: Sequence[Checkpoint],
    ablations: Sequence[Ablation],
    sets: Sequence[HeadSet],
    what: str,
) -> pd.DataFrame:
    """One row per class, mode and range: the mean effect over independent seeds.

    Columns: `effect` with the bootstrap interval `ci_low`, `ci_high` and the t-interval `t_low`, `t_high`, all four NaN
    where seeds are `all_or_nothing`; `n_half`, the seeds with an effect of at least one half, and the exact interval of
    their share, `share_low`, `share_high`; `n_seeds`, `n_checkpoints` and `n_undefined` (models without a clear
    in-context gain, left out); `n_unknown_seeds`, the models whose independence is the user's statement; `effect_min`,
    `effect_max`; `p_value` of the mean effect against one layer-matched control set per model, drawn together, with
    `smallest_p`, the random draws behind it `n_draws` (0: all combinations were counted), and `p_holm` over classes;
    `p_two_sided` and `p_two_sided_holm` as in `interp.ablation.ablate.Ablation`.

    Args:
        checkpoints: the models.
        ablations: of one set each, under the same protocol.
        sets: the set of each model; they need not be the same heads.
        what: how the sets were chosen, for the column `heads`.
    """
    by_labels: dict[tuple[str, ...], dict[int, ErrorSlice]] = {}
    for index, ablation in enumerate(ablations):
        for errors in error_slices(ablation.errors, ablation.protocol.ranges, ablation.seed):
            by_labels.setdefault(tuple(errors.labels.values()), {})[index] = errors
    rows = [{"heads": what} | pooled_row(slices, checkpoints, ablations, sets) for slices in by_labels.values()]
    add_holm(rows, prefixes=("",))
    return pd.DataFrame(rows)


def pooled_row(
    slices: Mapping[int, ErrorSlice],
    checkpoints: Sequence[Checkpoint],
    ablations: Sequence[Ablation],
    sets: Sequence[HeadSet],
) -> dict[str, Any]:
    """One class, mode and range.

    Args:
        slices: of the errors, by index of the model.
        checkpoints: all models.
        ablations: of all models.
        sets: of all models.
    """
    labels = next(iter(slices.values())).labels
    removed = {i: removed_components(sets[i], ablations[i].design, checkpoints[i]) for i in slices}
    resamples = {i: values for i in slices if (values := slices[i].resamples([removed[i]])) is not None}
    defined = [*resamples]
    groups = [[defined[i] for i in group] for group in independent_seeds([checkpoints[i] for i in defined])]
    counts = {"n_seeds": len(groups), "n_checkpoints": len(defined), "n_undefined": len(slices) - len(defined)}
    counts |= {"n_unknown_seeds": len(unknown_seeds([checkpoints[i] for i in defined]))}
    if not groups:
        return labels | NO_SEEDS | counts
    rng = np.random.default_rng(stream_seed("seeds", ablations[0].seed, *labels.values()))
    effects = {i: float(slices[i].mean_effects([removed[i]])[0]) for i in defined}
    by_seed = np.array([np.mean([effects[i] for i in group]) for group in groups])
    by_seed_resampled = np.stack([np.mean([resamples[i][:, 0] for i in group], axis=0) for group in groups])
    columns = effect_columns(by_seed, by_seed_resampled, rng)
    tables = {i: where(ablations[i].table, heads=show(sets[i]), **labels) for i in defined}
    nulls = {i: where(ablations[i].null, heads=show(sets[i]), match="layer", **labels) for i in defined}
    compared = {i: tables[i]["compared_effect"].item() for i in defined}
    null = null_means(groups, {i: nulls[i]["effect"].to_numpy() for i in defined}, compared, rng)
    mean = float(np.mean([np.mean([compared[i] for i in group]) for group in groups]))
    sign = 1 if ablations[0].design == "remove" else -1
    tests = {
        "p_value": permutation_p(sign * mean, sign * null, LEAST_NAMED),
        "p_two_sided": two_sided_p(mean, null, LEAST_NAMED),
        "smallest_p": 1 / (len(null) + 1) if len(null) else math.nan,
        "n_draws": len(null) if len(null) == N_COMBINATIONS else 0,  # all combinations are fewer
    }
    return labels | columns | tests | counts


def effect_columns(
    by_seed: Float[np.ndarray, " seed"], resampled: Float[np.ndarray, "seed resample"], rng: np.random.Generator
) -> dict[str, Any]:
    """The mean effect over seeds with its intervals, and how many seeds lose at least half of the gain.

    Args:
        by_seed: the effect in each independent seed.
        resampled: the same in bootstrap resamples of prompts.
        rng: resamples seeds.
    """
    chosen = rng.integers(len(by_seed), size=resampled.shape)
    effect = interval_of(by_seed.mean(), np.take_along_axis(resampled, chosen, axis=0).mean(0))
    split = all_or_nothing(by_seed)
    ends = (math.nan,) * 4 if split else (effect.ci_low, effect.ci_high, *t_interval(by_seed))
    n_half = int((by_seed >= HALF).sum())
    return {
        "effect": effect.value,
        **dict(zip(("ci_low", "ci_high", "t_low", "t_high"), ends, strict=True)),
        "all_or_nothing": split,
        "n_half": n_half,
        **dict(zip(("share_low", "share_high"), exact_interval(n_half, len(by_seed)), strict=True)),
        "effect_min": by_seed.min(),
        "effect_max": by_seed.max(),
    }
