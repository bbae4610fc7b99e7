"""The figures of each section, drawn from the evidence."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analyses.report.agreement import between_classes, between_models, effects_of
from analyses.report.curves import dose_figure, emergence_figure, error_figure
from analyses.report.distributions import Row, against_null, extent, forest
from analyses.report.dose import dose_response
from analyses.report.evidence import LEAD, Evidence, ModelEvidence
from analyses.report.matrices import matrix
from interp.display.heat_maps import head_map
from interp.display.svg import MODES, SOFT
from interp.model.heads import show
from training.common.output import records
from training.common.table_rows import where

Labels = Mapping[str, str]
MEASURES = {
    "score_spearman": ("Scores: rank correlation", -1.0),
    "effect_spearman": ("Effects: rank correlation", -1.0),
    "overlap": ("Heads above 0.5: overlap", 0.0),
}


def overview_maps(models: Sequence[ModelEvidence], labels: Labels) -> list[str]:
    """One small map per model: mean score over its trained classes on the selection prompts."""
    return [
        head_map(one.selection, labels[one.name], "mean retrospective score", found=one.found, small=True)
        for one in models
    ]


def score_maps(model: ModelEvidence) -> list[str]:
    """One map per class."""
    return [
        head_map(values, name, "retrospective score", found=model.found)
        for name, values in model.retrospective.values.items()
    ]


def effect_maps(model: ModelEvidence) -> list[str]:
    """What removing every head alone costs, one map per class."""
    return [
        head_map(
            effects_of(model, name), name, f"effect of removing it alone ({LEAD})", found=model.found, diverging=True
        )
        for name in model.classes
    ]


def null_figures(model: ModelEvidence) -> list[str]:
    """The found set against its null distributions, one figure per class, each on its own axis."""
    by_class = {name: null_rows(model, name) for name in model.classes}
    return [against_null(rows, name, extent(rows)) for name, rows in by_class.items() if rows]


def null_rows(model: ModelEvidence, name: str) -> list[Row]:
    """One row per mode of the found set on one class."""
    if model.ablation is None:
        return []
    of_cell = {"heads": show(model.found), "function_class": name}
    table, null = where(model.ablation.table, **of_cell), where(model.ablation.null, **of_cell)
    rows = []
    for effect in records(table):
        layer, size = (by_set(where(null, mode=effect["mode"], match=match)) for match in ("layer", "size"))
        rows.append(Row(effect["mode"], effect, layer, size, MODES.get(effect["mode"], SOFT)))
    return rows


def by_set(null: pd.DataFrame) -> dict[str, float]:
    return dict(zip(null["control"], null["effect"].astype(float), strict=True))


def forests(evidence: Evidence, labels: Labels) -> list[str]:
    """All models under one another, one figure per class, by mean ablation."""
    names = list(dict.fromkeys(name for one in evidence.models for name in one.classes))
    figures: dict[str, list[Row]] = {name: [] for name in names}
    for model in evidence.models:
        for name in model.classes:
            lead = next((row for row in null_rows(model, name) if row.label == LEAD), None)
            if lead is None:
                why = "failed a self-check" if model.found else "no head found"
                nothing = {"effect": np.nan, "ci_low": np.nan, "ci_high": np.nan, "why": why}
                lead = Row("", nothing, {}, {}, SOFT)
            figures[name].append(lead._replace(label=labels[model.name], other={}))
    ends = extent([row for rows in figures.values() for row in rows])
    return [forest(rows, name, ends) for name, rows in figures.items()]


def error_figures(model: ModelEvidence) -> list[str]:
    """Error by number of examples with and without the found heads, one figure per class."""
    if model.ablation is None:
        return []
    curves = model.ablation.curves
    mine = pd.concat([where(curves, heads=""), where(curves, heads=show(model.found))])
    figures = []
    for name in model.classes:
        of_class = where(mine, function_class=name)
        lines = {
            str(mode): list(zip(curve["examples"].astype(float), curve["nmse"].astype(float), strict=True))
            for mode, curve in of_class.groupby("mode", sort=False)
        }
        figures.append(error_figure(lines, name))
    return figures


def class_matrices(model: ModelEvidence) -> list[str]:
    """Agreement between the classes of a model."""
    return matrices(between_classes(model), list(model.classes))


def model_matrices(models: Sequence[ModelEvidence], labels: Labels) -> list[str]:
    """Agreement between models."""
    table = between_models(models)
    named = table.assign(first=table["first"].map(labels), second=table["second"].map(labels))  # pyright: ignore
    return matrices(named, [labels[one.name] for one in models])


def matrices(table: pd.DataFrame, names: list[str]) -> list[str]:
    grids = {key: table[key].to_numpy(dtype=float).reshape(len(names), len(names)) for key in MEASURES}
    return [matrix(grids[key], names, title, low=low) for key, (title, low) in MEASURES.items()]


def dose_figures(models: Sequence[ModelEvidence], labels: Labels) -> list[str]:
    """Effect against score, one figure per class on one axis."""
    dose = dose_response(models).dropna(subset=["effect"])
    dose = dose.assign(checkpoint=dose["checkpoint"].map(labels))  # pyright: ignore
    if dose.empty:
        return []
    effects = dose["effect"].tolist()
    low, high = min(0.0, *effects), max(1.0, *effects)
    margin = 0.1 * (high - low)  # intervals that reach further are cut there
    names = list(dict.fromkeys(dose["function_class"]))
    ends = (low - margin, high + margin)
    return [dose_figure(records(where(dose, function_class=name)), name, ends) for name in names]


def emergence_figures(model: ModelEvidence) -> list[str]:
    """Scores and error by training step, one figure per class."""
    figures = []
    for name, table in model.emergence.groupby("function_class", sort=False):
        scores = {
            str(head): list(zip(curve["step"].astype(float), curve["score"].astype(float), strict=True))
            for head, curve in table.groupby("head", sort=False)
        }
        steps = table.drop_duplicates("step")
        error = list(zip(steps["step"].astype(float), steps["error"].astype(float), strict=True))
        figures.append(emergence_figure(scores, error, str(name)))
    return figures
