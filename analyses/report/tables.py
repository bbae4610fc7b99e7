"""The tidy tables behind the report, by the name of their CSV file."""

from collections.abc import Sequence

import pandas as pd

from analyses.report.agreement import between_classes, between_models
from analyses.report.dose import dose_correlations, dose_response
from analyses.report.evidence import LEAD, Evidence, ModelEvidence
from interp.model.heads import show
from training.common.output import records
from training.common.table_rows import where

NAMES = (
    "models",
    "scores",
    "single_heads",
    "score_against_effect",
    "ablation",
    "ablation_null",
    "ablation_curves",
    "pooled",
    "between_classes",
    "between_models",
    "emergence",
    "paths",
)


def tables(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """Those of `NAMES` that have rows."""
    models = evidence.models
    removed = [one for one in models if one.ablation is not None]
    found = {
        "models": pd.DataFrame([row for one in models for row in model_rows(one)]),
        "scores": pd.concat([kind.table for one in models for kind in one.scores.values()], ignore_index=True),
        "single_heads": dose_response(models),
        "score_against_effect": dose_correlations(models),
        "ablation": joined(removed, [one.ablation.table for one in removed if one.ablation]),
        "ablation_null": joined(removed, [one.ablation.null for one in removed if one.ablation]),
        "ablation_curves": joined(removed, [one.ablation.curves for one in removed if one.ablation]),
        "pooled": evidence.pooled,
        "between_classes": pd.concat([between_classes(one) for one in models], ignore_index=True),
        "between_models": between_models(models) if len(models) > 1 else pd.DataFrame(),
        "emergence": joined(models, [one.emergence for one in models]),
        "paths": joined(models, [one.paths for one in models]),
    }
    return {name: found[name] for name in NAMES if not found[name].empty}


def joined(models: Sequence[ModelEvidence], parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The models' tables below one another, the model in the first column."""
    named = []
    for model, part in zip(models, parts, strict=True):
        if not part.empty:
            rest = part.drop(columns="checkpoint", errors="ignore")
            rest.insert(0, "checkpoint", model.name)
            named.append(rest)
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame()


def model_rows(model: ModelEvidence) -> list[dict[str, object]]:
    """One row per class: what the model is, how well it does, what was found and what that costs."""
    config, found = model.checkpoint.config, show(model.found)
    rows = []
    for name in model.classes:
        single = records(where(model.singles.table, function_class=name))[0]
        measured = ("effect", "ci_low", "ci_high", "p_value", "smallest_p", "p_holm", "n_controls", "exact")
        lead = dict.fromkeys(measured, float("nan"))
        if model.ablation is not None:
            (row,) = records(where(model.ablation.table, heads=found, function_class=name, mode=LEAD))
            lead = {key: row[key] for key in lead}
        rows.append(
            {"checkpoint": model.name, "step": model.checkpoint.step, "curriculum": model.curriculum}
            | {"seed_init": config.seeds.init, "seed_data": config.seeds.data, "seed_task": config.seeds.task}
            | {"n_layers": config.model.n_layers, "n_heads": config.model.n_heads, "found": found}
            | {"function_class": name, "trained": name in model.trained}
            | {"nmse": single["nmse_before"], "nmse_no_context": single["nmse_no_context"]}
            | lead
        )
    return rows
