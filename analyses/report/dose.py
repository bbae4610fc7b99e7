"""Dose and response: how strongly every head attends, and what removing it alone costs, over all models."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analyses.report.agreement import effects_of, rank_correlation
from analyses.report.evidence import ModelEvidence
from interp.ablation.size_classes import ATTENDS, HALF
from training.common.output import records
from training.common.table_rows import where

EFFECT = ("effect", "ci_low", "ci_high")


def dose_response(models: Sequence[ModelEvidence]) -> pd.DataFrame:
    """One row per model, function class and head.

    Columns: `checkpoint`, `function_class`, `trained` (whether the model was trained on it), `head`, `found`, `score`
    (retrospective, test prompts), `effect` of removing it alone with `ci_low`, `ci_high`; NaN if a self-check failed.
    """
    rows = []
    for model in models:
        for name in model.classes:
            removals = {row["heads"]: row for row in records(where(model.singles.table, function_class=name))}
            for head in model.heads:
                row = removals.get(str(head), dict.fromkeys(EFFECT, math.nan))  # NaN: its self-check failed
                about = {"checkpoint": model.name, "function_class": name, "trained": name in model.trained}
                which = {"head": str(head), "found": head in model.chosen_heads}
                score = {"score": float(model.retrospective.values[name][head])}
                rows.append(about | which | score | {key: row[key] for key in EFFECT})
    return pd.DataFrame(rows)


def dose_correlations(models: Sequence[ModelEvidence]) -> pd.DataFrame:
    """One row per model and class: `spearman` of score and effect over the heads, `n_heads`."""
    rows = []
    for model in models:
        for name in model.classes:
            rho = rank_correlation(model.retrospective.values[name], effects_of(model, name))
            about = {"checkpoint": model.name, "function_class": name}
            rows.append(about | {"spearman": rho, "n_heads": len(model.heads)})
    return pd.DataFrame(rows)


def agreement_of_score_and_effect(dose: pd.DataFrame) -> dict[str, int]:
    """How many single heads attend (score above `ATTENDS`), matter (effect of at least `HALF`), and do both.

    Only trained classes on which the effect is defined; a head counts once for every class of every model.
    """
    used = dose[dose["trained"] & ~dose["effect"].isna()]
    attends, matters = used["score"] > ATTENDS, used["effect"] >= HALF
    counts = {"attend": attends.sum(), "matter": matters.sum(), "both": (attends & matters).sum(), "all": len(used)}
    return {key: int(value) for key, value in counts.items()}


def median_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Of the defined values; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return (float(np.median(defined)), min(defined), max(defined)) if defined else (math.nan, math.nan, math.nan)
