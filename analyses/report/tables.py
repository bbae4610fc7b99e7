"""The tidy tables behind the report, by the name of their CSV file."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analyses.report.agreement import between_classes, between_models
from analyses.report.dose import dose_correlations, dose_response
from analyses.report.evidence import LEAD, Evidence, ModelEvidence
from analyses.report.studies import study_tables
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
    """Those of `NAMES` that have rows, and those of the studies."""
    models = evidence.models
    ablations = {model.name: model.ablation for model in models if model.ablation is not None}
    every_table = {
        "models": pd.DataFrame([row for model in models for row in model_rows(model)]),
        "scores": pd.concat([scores.table for model in models for scores in model.scores.values()], ignore_index=True),
        "single_heads": dose_response(models),
        "score_against_effect": dose_correlations(models),
        "ablation": concatenate({name: ablation.table for name, ablation in ablations.items()}),
        "ablation_null": concatenate({name: ablation.null for name, ablation in ablations.items()}),
        "ablation_curves": concatenate({name: ablation.curves for name, ablation in ablations.items()}),
        "pooled": evidence.pooled,
        "between_classes": pd.concat([between_classes(model) for model in models], ignore_index=True),
        "between_models": between_models(models) if len(models) > 1 else pd.DataFrame(),
        "emergence": concatenate({model.name: model.emergence for model in models}),
        "paths": concatenate({model.name: model.paths for model in models}),
    }
    own = {name: every_table[name] for name in NAMES if not every_table[name].empty}
    return own | study_tables(evidence.studies)


def concatenate(tables_by_model: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all models below one another, the model in the first column."""
    parts = []
    for name, table in tables_by_model.items():
        if not table.empty:
            part = table.drop(columns="checkpoint", errors="ignore")
            part.insert(0, "checkpoint", name)
            parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def model_rows(model: ModelEvidence) -> list[dict[str, Any]]:
    """One row per class: configuration, error, chosen heads, and the effect of removing them."""
    config, heads = model.checkpoint.config, show(model.chosen_heads)
    rows = []
    for name in model.classes:
        single = records(where(model.singles.table, function_class=name))[0]
        measured = ("effect", "ci_low", "ci_high", "p_value", "smallest_p", "p_holm", "n_controls", "exact")
        lead = dict.fromkeys(measured, float("nan"))
        if model.ablation is not None:
            (row,) = records(where(model.ablation.table, heads=heads, function_class=name, mode=LEAD))
            lead = {key: row[key] for key in lead}
        rows.append(
            {"checkpoint": model.name, "step": model.checkpoint.step, "curriculum": model.curriculum}
            | {"seed_init": config.seeds.init, "seed_data": config.seeds.data, "seed_task": config.seeds.task}
            | {"n_layers": config.model.n_layers, "n_heads": config.model.n_heads, "found": heads}
            | {"function_class": name, "trained": name in model.trained}
            | {"nmse": single["nmse_before"], "nmse_no_context": single["nmse_no_context"]}
            | lead
        )
    return rows
