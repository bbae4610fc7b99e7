"""Ablations of several models pooled: mean effects over independent seeds, against a control set in every model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.ablation.ablate import Ablation, removed_by
from interp.ablation.errors import Cell, cells
from interp.model.heads import HeadSet, show
from interp.statistics.effects import holm, interval_of, permutation_p, two_sided_p
from interp.statistics.seeds import (
    HALF,
    N_COMBINATIONS,
    all_or_nothing,
    exact_interval,
    independent_seeds,
    null_means,
    t_interval,
)
from training.checkpoints.checkpoint import Checkpoint
from training.common.library_defaults import library_defaults
from training.config.config import stream_seed


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
    in-context gain, left out); `effect_min`, `effect_max`; `p_value` of the mean effect against one layer-matched set
    per model, drawn together, with `smallest_p`, the random draws behind it `n_draws` (0: all combinations were
    counted), and `p_holm` over classes; `p_two_sided` and `p_two_sided_holm` as in `interp.ablation.ablate.Ablation`.

    Args:
        checkpoints: the models.
        ablations: of one set each, under the same protocol.
        sets: the set of each model; they need not be the same heads.
        what: how the sets were chosen, for the column `heads`.
    """
    by_key: dict[tuple[str, str, str], dict[int, Cell]] = {}
    for place, ablation in enumerate(ablations):
        for cell in cells(ablation.errors, ablation.protocol.ranges, ablation.seed):
            by_key.setdefault(tuple(cell.about.values()), {})[place] = cell  # type: ignore[arg-type]
    rows = [pooled_row(key, of_key, checkpoints, ablations, sets, what) for key, of_key in by_key.items()]
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault((row["mode"], row["points"]), []).append(row)
    for family in families.values():
        for test, name in (("p_value", "p_holm"), ("p_two_sided", "p_two_sided_holm")):
            for row, p_value in zip(family, holm([row[test] for row in family]), strict=True):
                row[name] = p_value
    return pd.DataFrame(rows)


def pooled_row(
    key: tuple[str, str, str],
    of_key: Mapping[int, Cell],
    checkpoints: Sequence[Checkpoint],
    ablations: Sequence[Ablation],
    sets: Sequence[HeadSet],
    what: str,
) -> dict[str, Any]:
    about = {"heads": what} | dict(zip(("function_class", "mode", "points"), key, strict=True))
    removed = {place: removed_by(sets[place], ablations[place].design, checkpoints[place]) for place in of_key}
    resamples = {place: cell.resamples([removed[place]]) for place, cell in of_key.items()}
    used = [place for place, one in resamples.items() if one is not None]
    groups = [[used[i] for i in group] for group in independent_seeds([checkpoints[place] for place in used])]
    counts = {"n_seeds": len(groups), "n_checkpoints": len(used), "n_undefined": len(of_key) - len(used)}
    if not groups:
        nothing = (
            "effect",
            "ci_low",
            "ci_high",
            "t_low",
            "t_high",
            "effect_min",
            "effect_max",
            "p_value",
            "p_two_sided",
            "smallest_p",
            "share_low",
            "share_high",
        )
        return about | dict.fromkeys(nothing, math.nan) | {"n_half": 0, "all_or_nothing": False, "n_draws": 0} | counts
    values = {place: float(of_key[place].mean_effects([removed[place]])[0]) for place in used}
    by_seed = np.array([np.mean([values[place] for place in group]) for group in groups])
    rng = np.random.default_rng(stream_seed("seeds", ablations[0].seed, *key))
    drawn = np.stack([np.mean([resamples[place][:, 0] for place in group], axis=0) for group in groups])  # type: ignore[index]
    chosen = rng.integers(len(groups), size=drawn.shape)
    effect = interval_of(by_seed.mean(), np.take_along_axis(drawn, chosen, axis=0).mean(0))
    split = all_or_nothing(by_seed)
    ends = (math.nan,) * 4 if split else (effect.ci_low, effect.ci_high, *t_interval(by_seed))
    n_half = int((by_seed >= HALF).sum())
    others = {
        place: matching(ablations[place].null, sets[place], key, match="layer")["effect"].to_numpy() for place in used
    }
    own = {place: matching(ablations[place].table, sets[place], key)["compared_effect"].item() for place in used}
    null = null_means(groups, others, own, rng)
    compared = np.mean([np.mean([own[place] for place in group]) for group in groups])
    sign = 1 if ablations[0].design == "remove" else -1
    return (
        about
        | {
            "effect": effect.value,
            **dict(zip(("ci_low", "ci_high", "t_low", "t_high"), ends, strict=True)),
            "all_or_nothing": split,
            "n_half": n_half,
            **dict(zip(("share_low", "share_high"), exact_interval(n_half, len(by_seed)), strict=True)),
            "effect_min": by_seed.min(),
            "effect_max": by_seed.max(),
            "p_value": permutation_p(sign * float(compared), sign * null),
            "p_two_sided": two_sided_p(float(compared), null),
            "smallest_p": 1 / (len(null) + 1) if len(null) else math.nan,
            "n_draws": len(null) if len(null) == N_COMBINATIONS else 0,  # all combinations are fewer
        }
        | counts
    )


def matching(table: pd.DataFrame, heads: HeadSet, key: tuple[str, str, str], **others: str) -> pd.DataFrame:
    """The rows of one set, class, mode and range."""
    about = {"heads": show(heads)} | dict(zip(("function_class", "mode", "points"), key, strict=True)) | others
    return table.loc[np.logical_and.reduce([table[column] == value for column, value in about.items()])]
