"""How far two maps of heads agree: rank correlation over all heads, overlap of those above a threshold."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.report.evidence import ModelEvidence
from interp.ablation.size_classes import ATTENDS
from interp.statistics.agreement import spearman
from training.common.table_rows import where

Map = Float[np.ndarray, "layer head"]
MEASURES = ("score_spearman", "effect_spearman", "overlap")


def rank_correlation(first: Map, second: Map) -> float:
    """Spearman over heads; NaN where either map is constant or lacks a value."""
    return float(spearman(first.ravel(), second.ravel())) if np.isfinite([first, second]).all() else math.nan


def overlap(first: Map, second: Map) -> float:
    """Heads above `ATTENDS` in both maps, as a share of those above it in either; NaN if there are none.

    >>> overlap(np.array([[0.9, 0.8, 0.1]]), np.array([[0.9, 0.1, 0.1]]))
    0.5
    """
    either = np.sum((first > ATTENDS) | (second > ATTENDS))
    return float(np.sum((first > ATTENDS) & (second > ATTENDS)) / either) if either else math.nan


def effects_of(model: ModelEvidence, name: str) -> Map:
    """The effect of removing every head alone on one class."""
    return (
        where(model.singles.table, function_class=name)["effect"].to_numpy(dtype=float).reshape(model.selection.shape)
    )


def between_classes(model: ModelEvidence) -> pd.DataFrame:
    """One row per pair of the model's classes: `first`, `second`, and the columns of `MEASURES`."""
    rows = []
    for first, second in product(model.classes, repeat=2):
        values = model.retrospective.values
        rows.append(
            {
                "checkpoint": model.name,
                "first": first,
                "second": second,
                "score_spearman": rank_correlation(values[first], values[second]),
                "effect_spearman": rank_correlation(effects_of(model, first), effects_of(model, second)),
                "overlap": overlap(values[first], values[second]),
            }
        )
    return pd.DataFrame(rows)


def between_models(models: Sequence[ModelEvidence]) -> pd.DataFrame:
    """One row per pair of models, heads matched by their place; NaN where the shapes differ.

    Columns: `first`, `second`, `score_spearman` and `overlap` of the mean scores over the trained classes,
    `effect_spearman` of the mean effects over the trained classes in which they are defined.
    """
    effects = {model.name: mean_effect(model) for model in models}
    rows = []
    for first, second in product(models, repeat=2):
        alike = first.selection.shape == second.selection.shape
        measures: Mapping[str, tuple[Callable[[Map, Map], float], Map, Map]] = {
            "score_spearman": (rank_correlation, first.selection, second.selection),
            "effect_spearman": (rank_correlation, effects[first.name], effects[second.name]),
            "overlap": (overlap, first.selection, second.selection),
        }
        row: dict[str, Any] = {"first": first.name, "second": second.name}
        rows.append(row | {key: how(*maps) if alike else math.nan for key, (how, *maps) in measures.items()})
    return pd.DataFrame(rows)


def mean_effect(model: ModelEvidence) -> Map:
    """Of every head alone, over the trained classes on which the model uses the context; NaN if there are none."""
    maps = [effects_of(model, name) for name in model.trained]
    used = [one for one in maps if not np.isnan(one).any()]
    return np.mean(used, axis=0) if used else np.full(model.selection.shape, math.nan)
