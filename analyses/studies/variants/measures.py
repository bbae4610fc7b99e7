"""What is measured on one model, class by class and then as one row of numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.comparison.paired_errors import ClassErrors
from analyses.studies.cause import MATTERS
from analyses.studies.plateaus.study import LEFT
from interp.ablation.ablate import Ablation, ablate
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import HeadSet, all_heads, heads_above, show
from interp.scores.score import selection_scores
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records
from training.common.table_rows import where
from training.options import DEFAULT_CONTROLS

MEASURES: Mapping[str, str] = {
    "ratio": "error / no-context optimum",
    "highest": "highest retrospective score",
    "n_found": f"heads that score above {ATTENDS}",
    "share": "their share of all heads",
    "depth": "their place (0 = first layer, 1 = last)",
    "effect": "share of the in-context gain lost without them",
    "n_matter": f"heads that alone cost more than {MATTERS} of the gain",
}
"""By column, in words; means over the classes that a model trains on."""


@dataclass(frozen=True)
class Measured:
    """One model.

    Attributes:
        checkpoint: the model.
        found: its retrospective heads, chosen on selection prompts; may be empty.
        removed: their joint removal under mean ablation against layer-matched sets; None without any.
        classes: one row per class that it trains on: `ratio`, `left` (the plateau), `effect` of removing the found
            heads and `n_matter`; both NaN where the model has no clear in-context gain.
        highest: its highest score.
    """

    checkpoint: Checkpoint
    found: HeadSet
    removed: Ablation | None
    classes: pd.DataFrame
    highest: float

    @property
    def learned(self) -> bool:
        """Whether it left the plateau on a class."""
        return bool(self.classes["left"].any())


def measure(checkpoint: Checkpoint, errors: Mapping[str, ClassErrors], n_prompts: int, seed: int) -> Measured:
    """Score every head, remove each alone and those found together, on the classes that the model trains on."""
    config = checkpoint.config
    names = config.trained_classes
    scores = selection_scores(checkpoint, n_prompts, seed)
    found = heads_above(ATTENDS, scores)
    shape = config.model.n_layers, config.model.n_heads
    every: list[HeadSet] = [(head,) for head in sorted(all_heads(*shape))]
    alone = ablate(checkpoint, every, names, modes=["mean"], n_controls=0, n_prompts=n_prompts, seed=seed).table
    removed = None
    if found:
        removed = ablate(
            checkpoint,
            [found],
            names,
            modes=["mean"],
            n_controls=DEFAULT_CONTROLS,
            matches=("layer",),
            n_prompts=n_prompts,
            seed=seed,
        )
    rows = []
    for name in names:
        ratio = errors[name].value(checkpoint.name)
        of_class = where(alone, function_class=name)["effect"].to_numpy()
        matter = float(np.sum(of_class > MATTERS)) if not np.isnan(of_class).any() else np.nan
        effect = np.nan if removed is None else float(where(removed.table, function_class=name)["effect"].item())
        about = {"checkpoint": checkpoint.name, "function_class": name, "ratio": ratio, "left": ratio <= LEFT}
        rows.append(about | {"effect": effect, "n_matter": matter})
    return Measured(checkpoint, found, removed, pd.DataFrame(rows), float(scores.max()))


def model_row(one: Measured) -> dict[str, float | str | bool]:
    """One row of numbers per model; what is undefined is NaN."""
    model = one.checkpoint.config.model
    layers = [head.layer / max(1, model.n_layers - 1) for head in one.found]
    means = {name: mean_of(one.classes, name) for name in ("ratio", "effect", "n_matter")}
    return {
        "checkpoint": one.checkpoint.name,
        "learned": one.learned,
        "found": show(one.found),
        "ratio": means["ratio"],
        "highest": one.highest,
        "n_found": float(len(one.found)),
        "share": len(one.found) / (model.n_layers * model.n_heads),
        "depth": float(np.mean(layers)) if layers else np.nan,
        "effect": means["effect"],
        "n_matter": means["n_matter"],
    }


def mean_of(classes: pd.DataFrame, name: str) -> float:
    """Over the classes on which it is defined; NaN if there are none."""
    values = [row[name] for row in records(classes.dropna(subset=[name]))]
    return float(np.mean(values)) if values else np.nan
