"""Variants compared with the reference over independent seeds, and trends along one setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.comparison.groups import Groups
from analyses.comparison.paired_errors import ClassErrors
from analyses.studies.variants.measures.by_model import MEASURES, ModelMeasures
from analyses.studies.variants.measures.grouping import REFERENCE, changed_settings, get_setting
from interp.ablation.pooled import pooled
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
ERROR_COLUMNS = ["variant", "function_class", "ratio", "ratio_low", "ratio_high", "n_seeds"]
ERROR_COLUMNS += ["difference", "low", "high"]
N_PERMUTATIONS = 9999
ROUNDING = 1e-9
Numbers = Float[np.ndarray, " model"]


def compare_measures(models: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """One row per variant and measure.

    Columns: `value`, the mean over the independent seeds on which it is defined, with its t-interval `t_low`, `t_high`
    and `n_seeds`; `difference` to the reference with Welch's interval `low`, `high`, its `p_value`, and `p_holm` over
    the variants of the measure.

    Args:
        models: one row of numbers per model (`by_model.ModelMeasures.row`), with its `variant`.
        groups: the models by variant.
    """
    rows = []
    for measure in MEASURES:
        reference = values_by_checkpoint(models, REFERENCE, measure)
        for variant, checkpoints in groups.by_curriculum.items():
            values = values_by_checkpoint(models, variant, measure)
            defined = [checkpoint for checkpoint in checkpoints if checkpoint.name in values]
            mean = seed_mean(defined, [values[checkpoint.name] for checkpoint in defined])
            row: dict[str, Any] = {"variant": variant, "measure": measure, **mean.named("value")}
            if variant != REFERENCE and values and reference:
                estimate = welch(np.array(list(values.values())), np.array(list(reference.values())))
                row |= dict(zip(("difference", "low", "high", "p_value"), estimate, strict=True))
            rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    families = table.groupby("measure", sort=False)["p_value"]
    return table.assign(p_holm=families.transform(lambda p_values: holm(p_values.tolist())))


def values_by_checkpoint(models: pd.DataFrame, variant: str, measure: str) -> dict[str, float]:
    """The values of a measure where it is defined."""
    rows = records(where(models, variant=variant).dropna(subset=[measure]))
    return {row["checkpoint"]: float(row[measure]) for row in rows}


def compare_errors(groups: Groups, errors: Mapping[str, Mapping[str, ClassErrors]]) -> pd.DataFrame:
    """One row per variant and class that it trains on: mean `ratio` to the no-context optimum over seeds with its
    interval, and the `difference` to the reference where that trains on the class too, with its interval over seeds and
    prompts.

    Args:
        groups: the models by variant.
        errors: by variant and class.
    """
    rows = []
    theirs = [checkpoint.name for checkpoint in groups.by_curriculum[REFERENCE]]
    for variant, checkpoints in groups.by_curriculum.items():
        ours = [checkpoint.name for checkpoint in checkpoints]
        for function_class, class_errors in errors[variant].items():
            ratio = class_errors.mean_ratio(ours)
            row: dict[str, Any] = {"variant": variant, "function_class": function_class, "ratio": ratio.value}
            row |= {"ratio_low": ratio.low, "ratio_high": ratio.high, "n_seeds": len(ours)}
            reference = errors[REFERENCE].get(function_class)
            if variant != REFERENCE and reference is not None:
                difference = class_errors.difference(ours, theirs, reference)
                row |= {"difference": difference.value, "low": difference.low, "high": difference.high}
            rows.append(row)
    return pd.DataFrame(rows, columns=ERROR_COLUMNS)


def pool_effects(measured: Sequence[ModelMeasures]) -> pd.DataFrame:
    """The effects of removing the head sets, over the independent seeds of one variant (`interp.ablation.pooled`)."""
    parts = [(model.checkpoint, model.removed, model.head_set) for model in measured if model.removed is not None]
    if not parts:
        return pd.DataFrame()
    checkpoints, ablations, sets = zip(*parts, strict=True)
    return pooled(checkpoints, ablations, sets, "the set of retrospective heads")


def trend_table(models: pd.DataFrame, groups: Groups, seed: int) -> pd.DataFrame:
    """One row per setting that varies alone and measure: Spearman over models, including those of the reference.

    Columns: `setting`, `measure`, `n_models`, `spearman`, two-sided permutation `p_value`, `p_holm` over all of them.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for setting, values in varied_alone(groups).items():
        for measure in MEASURES:
            defined = [row for row in records(models.dropna(subset=[measure])) if row["checkpoint"] in values]
            xs = np.array([values[row["checkpoint"]] for row in defined])
            correlation = rank_correlation(xs, np.array([float(row[measure]) for row in defined]), rng)
            rows.append({"setting": setting, "measure": measure, "n_models": len(defined), **correlation})
    table = pd.DataFrame(rows, columns=["setting", "measure", "n_models", "spearman", "p_value"])
    return table.assign(p_holm=holm(table["p_value"].tolist()))


def varied_alone(groups: Groups) -> dict[str, dict[str, float]]:
    """By numeric setting that is the only change of a variant, its value in every model of such variants and of the
    reference."""
    reference = groups.by_curriculum[REFERENCE]
    settings: dict[str, dict[str, float]] = {}
    for variant, checkpoints in groups.by_curriculum.items():
        changed = changed_settings(reference[0].config, checkpoints[0].config)
        if variant == REFERENCE or len(changed) != 1:
            continue
        ((setting, value),) = changed.items()
        if isinstance(value, int | float):
            base = float(get_setting(to_dict(reference[0].config), setting))
            values = settings.setdefault(setting, {checkpoint.name: base for checkpoint in reference})
            values |= {checkpoint.name: float(value) for checkpoint in checkpoints}
    return settings


def rank_correlation(xs: Numbers, ys: Numbers, rng: np.random.Generator) -> dict[str, float]:
    """Spearman with its two-sided permutation p; NaN where either does not vary, or there are too few."""
    if len(xs) < ENOUGH or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return {"spearman": np.nan, "p_value": np.nan}
    shuffled = rng.permuted(np.tile(ys, (N_PERMUTATIONS, 1)), axis=1)
    observed, null = float(spearman(xs, ys)), spearman(np.broadcast_to(xs, shuffled.shape), shuffled)
    return {"spearman": observed, "p_value": permutation_p(abs(observed) - ROUNDING, np.abs(null))}
