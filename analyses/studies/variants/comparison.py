"""Variants beside the reference, over independent seeds, and trends along one setting."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.comparison.groups import Groups
from analyses.comparison.paired_errors import ClassErrors
from analyses.studies.variants.grouping import REFERENCE, at, changes
from analyses.studies.variants.measures import MEASURES
from interp.statistics.agreement import spearman
from interp.statistics.effects import holm, permutation_p
from interp.statistics.seed_intervals import welch
from interp.statistics.seeds import seed_mean
from training.common.output import records
from training.common.table_rows import where
from training.config.parse import to_dict

ENOUGH = 5
"""Models below which a rank correlation can reach no p below 1/12."""
COLUMNS = ["variant", "measure", "value", "t_low", "t_high", "n_seeds", "difference", "low", "high", "p_value"]
N_PERMUTATIONS = 9999
ROUNDING = 1e-9
Numbers = Float[np.ndarray, " model"]


def compare(models: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """One row per variant and measure.

    Columns: `value`, the mean over the independent seeds on which it is defined, with its t-interval `t_low`, `t_high`
    and `n_seeds`; `difference` to the reference with Welch's interval `low`, `high`, its `p_value`, and `p_holm` over
    the variants of the measure.

    Args:
        models: one row of numbers per model (`measures.model_row`), with its `curriculum`, which is the variant.
        groups: the models by variant.
    """
    rows = []
    for measure in MEASURES:
        reference = values_of(models, REFERENCE, measure)
        for variant, checkpoints in groups.by_curriculum.items():
            values = values_of(models, variant, measure)
            kept = [(one, values[one.name]) for one in checkpoints if one.name in values]
            mean = seed_mean([one for one, _ in kept], [value for _, value in kept])
            row: dict[str, Any] = {"variant": variant, "measure": measure, **mean.named("value")}
            if variant != REFERENCE and values and reference:
                found = welch(np.array(list(values.values())), np.array(list(reference.values())))
                row |= {"difference": found.value, "low": found.low, "high": found.high, "p_value": found.p_value}
            rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    families = table.groupby("measure", sort=False)["p_value"]
    return table.assign(p_holm=families.transform(lambda p_values: holm(p_values.tolist())))


def values_of(models: pd.DataFrame, variant: str, measure: str) -> dict[str, float]:
    """By checkpoint, where it is defined."""
    rows = records(where(models, variant=variant).dropna(subset=[measure]))
    return {row["checkpoint"]: float(row[measure]) for row in rows}


def errors_by_class(groups: Groups, errors: Mapping[str, Mapping[str, ClassErrors]]) -> pd.DataFrame:
    """One row per variant and class that it trains on: mean `ratio` to the no-context optimum over seeds with its
    interval, and the `difference` to the reference where that trains on the class too, with its interval over seeds and
    prompts.

    Args:
        groups: the models by variant.
        errors: by variant and class.
    """
    rows = []
    for variant, checkpoints in groups.by_curriculum.items():
        ours = [one.name for one in checkpoints]
        for name, of_class in errors[variant].items():
            ratio = of_class.mean_ratio(ours)
            row: dict[str, Any] = {"variant": variant, "function_class": name, "ratio": ratio.value}
            row |= {"ratio_low": ratio.low, "ratio_high": ratio.high, "n_seeds": len(ours)}
            other = errors[REFERENCE].get(name)
            if variant != REFERENCE and other is not None:
                theirs = [one.name for one in groups.by_curriculum[REFERENCE]]
                found = of_class.difference(ours, theirs, other)
                row |= {"difference": found.value, "low": found.low, "high": found.high}
            rows.append(row)
    columns = ["variant", "function_class", "ratio", "ratio_low", "ratio_high", "n_seeds", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def trends(models: pd.DataFrame, groups: Groups, seed: int) -> pd.DataFrame:
    """One row per setting that varies alone and measure: Spearman over models, those of the reference among them.

    Columns: `setting`, `measure`, `n_models`, `spearman`, two-sided permutation `p_value`, `p_holm` over all of them.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for setting, places in varied_alone(groups).items():
        for measure in MEASURES:
            kept = [row for row in records(models.dropna(subset=[measure])) if row["checkpoint"] in places]
            xs = np.array([places[row["checkpoint"]] for row in kept])
            found = rank_correlation(xs, np.array([float(row[measure]) for row in kept]), rng)
            rows.append({"setting": setting, "measure": measure, "n_models": len(kept), **found})
    table = pd.DataFrame(rows, columns=["setting", "measure", "n_models", "spearman", "p_value"])
    return table.assign(p_holm=holm(table["p_value"].tolist()))


def varied_alone(groups: Groups) -> dict[str, dict[str, float]]:
    """By numeric setting that is all that a variant changes, its value in every model of such variants and of the
    reference."""
    reference = groups.by_curriculum[REFERENCE]
    found: dict[str, dict[str, float]] = {}
    for variant, checkpoints in groups.by_curriculum.items():
        changed = changes(reference[0].config, checkpoints[0].config)
        if variant == REFERENCE or len(changed) != 1:
            continue
        ((setting, value),) = changed.items()
        if isinstance(value, int | float):
            base = float(at(to_dict(reference[0].config), setting))
            places = found.setdefault(setting, {one.name: base for one in reference})
            places |= {one.name: float(value) for one in checkpoints}
    return found


def rank_correlation(xs: Numbers, ys: Numbers, rng: np.random.Generator) -> dict[str, float]:
    """Spearman with its two-sided permutation p; NaN where either does not vary, or there are too few."""
    if len(xs) < ENOUGH or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return {"spearman": np.nan, "p_value": np.nan}
    shuffled = rng.permuted(np.tile(ys, (N_PERMUTATIONS, 1)), axis=1)
    observed, null = float(spearman(xs, ys)), spearman(np.broadcast_to(xs, shuffled.shape), shuffled)
    return {"spearman": observed, "p_value": permutation_p(abs(observed) - ROUNDING, np.abs(null))}
