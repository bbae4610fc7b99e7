"""How far two maps of heads agree: rank correlation over all heads, overlap of those above a threshold."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.report.evidence import ModelEvidence
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import all_heads, show
from interp.statistics.agreement import spearman, tie_rounding
from training.common.table_rows import where

Map = Float[np.ndarray, "layer head"]
MEASURES = ("score_spearman", "effect_spearman", "overlap")


def rank_correlation(first: Map, second: Map) -> float:
    """Spearman over heads; NaN where either map is constant, up to rounding, or lacks a value."""
    if not np.isfinite([first, second]).all():
        return math.nan
    return float(spearman(tie_rounding(first.ravel()), tie_rounding(second.ravel())))


def overlap(first: Map, second: Map) -> float:
    """Heads above `ATTENDS` in both maps, as a share of those above it in either; NaN if there are none.

    >>> overlap(np.array([[0.9, 0.8, 0.1]]), np.array([[0.9, 0.1, 0.1]]))
    0.5
    """
    either = np.sum((first > ATTENDS) | (second > ATTENDS))
    return float(np.sum((first > ATTENDS) & (second > ATTENDS)) / either) if either else math.nan


def effects_of(model: ModelEvidence, function_class: str) -> Map:
    """The effect of removing every head alone on one class; NaN for heads whose self-check failed."""
    effects = where(model.singles.table, function_class=function_class).set_index("heads")["effect"]
    names = [show((head,)) for head in all_heads(*model.selection.shape)]
    return effects.reindex(names).to_numpy(dtype=float).reshape(model.selection.shape)


def compare_maps(scores: tuple[Map, Map], effects: tuple[Map, Map]) -> dict[str, float]:
    """The values of `MEASURES` for two maps of scores and two of effects; NaN where the shapes differ."""
    if scores[0].shape != scores[1].shape:
        return dict.fromkeys(MEASURES, math.nan)
    return dict(zip(MEASURES, (rank_correlation(*scores), rank_correlation(*effects), overlap(*scores)), strict=True))


def between_classes(model: ModelEvidence) -> pd.DataFrame:
    """One row per pair of the model's classes: `first`, `second`, and the columns of `MEASURES`."""
    scores = model.retrospective.values
    effects = {name: effects_of(model, name) for name in model.classes}
    rows = [
        {"checkpoint": model.name, "first": first, "second": second}
        | compare_maps((scores[first], scores[second]), (effects[first], effects[second]))
        for first, second in product(model.classes, repeat=2)
    ]
    return pd.DataFrame(rows)


def between_models(models: Sequence[ModelEvidence]) -> pd.DataFrame:
    """One row per pair of models, heads matched by layer and index; NaN where the shapes differ.

    Columns: `first`, `second`, `score_spearman` and `overlap` of the mean scores over the trained classes,
    `effect_spearman` of the mean effects over the trained classes in which they are defined.
    """
    effects = {model.name: mean_effect(model) for model in models}
    rows = [
        {"first": first.name, "second": second.name}
        | compare_maps((first.selection, second.selection), (effects[first.name], effects[second.name]))
        for first, second in product(models, repeat=2)
    ]
    return pd.DataFrame(rows)


def mean_effect(model: ModelEvidence) -> Map:
    """Of every head alone, over the trained classes on which the model uses the context; NaN if there are none.

    A head whose self-check failed on one of them has NaN.
    """
    maps = [effects_of(model, function_class) for function_class in model.trained]
    defined = [effects for effects in maps if not np.isnan(effects).all()]
    return np.mean(defined, axis=0) if defined else np.full(model.selection.shape, math.nan)
