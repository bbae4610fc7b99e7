"""The measures of one model, class by class and then as one row of numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.comparison.paired_errors import ClassErrors
from analyses.studies.cause.measures import MATTERS
from analyses.studies.plateaus.measures import LEFT
from interp.ablation.ablate import Ablation, ablate
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import HeadSet, all_heads, heads_above, show
from interp.scores.score import selection_scores
from training.checkpoints.checkpoint import Checkpoint
from training.common.table_rows import where
from training.options import DEFAULT_CONTROLS

MEASURES: Mapping[str, str] = {
    "ratio": "error / no-context optimum",
    "highest": "highest retrospective score",
    "n_found": f"heads that score above {ATTENDS}",
    "share": "their share of all heads",
    "depth": "their depth (0 = first layer, 1 = last)",
    "effect": "share of the in-context gain lost without them",
    "n_matter": f"heads that alone cost more than {MATTERS} of the gain",
}
"""By column, in words; means over the classes that a model trains on."""


@dataclass(frozen=True)
class ModelMeasures:
    """One model.

    Attributes:
        checkpoint: the model.
        head_set: its retrospective heads, chosen on selection prompts; may be empty.
        removed: their joint removal under mean ablation with layer-matched control sets; None without any.
        classes: one row per class that it trains on: `ratio`, `left` (the plateau), `effect` of removing the head set
            and `n_matter`; both NaN where the model has no clear in-context gain.
        highest: its highest score.
    """

    checkpoint: Checkpoint
    head_set: HeadSet
    removed: Ablation | None
    classes: pd.DataFrame
    highest: float

    def row(self) -> dict[str, float | str | bool]:
        """The model's row of numbers; what is undefined is NaN."""
        model, n_found = self.checkpoint.config.model, len(self.head_set)
        depths = [head.layer / max(1, model.n_layers - 1) for head in self.head_set]
        means = self.classes[["ratio", "effect", "n_matter"]].mean().to_dict()
        return {
            "checkpoint": self.checkpoint.name,
            "learned": bool(self.classes["left"].any()),
            "found": show(self.head_set),
            "ratio": means["ratio"],
            "highest": self.highest,
            "n_found": float(n_found),
            "share": n_found / (model.n_layers * model.n_heads),
            "depth": float(np.mean(depths)) if depths else np.nan,
            "effect": means["effect"],
            "n_matter": means["n_matter"],
        }


def measure_model(
    checkpoint: Checkpoint, errors: Mapping[str, ClassErrors], n_prompts: int, seed: int
) -> ModelMeasures:
    """Score every head, remove each alone and those above `ATTENDS` together, on the classes the model trains on."""
    config = checkpoint.config
    classes = config.trained_classes
    scores = selection_scores(checkpoint, n_prompts, seed)
    head_set = heads_above(ATTENDS, scores)
    single_heads: list[HeadSet] = [(head,) for head in sorted(all_heads(config.model.n_layers, config.model.n_heads))]
    alone = ablate(
        checkpoint, single_heads, classes, modes=["mean"], n_controls=0, n_prompts=n_prompts, seed=seed, total_only=True
    )
    removed = None
    if head_set:
        removed = ablate(
            checkpoint,
            [head_set],
            classes,
            modes=["mean"],
            n_controls=DEFAULT_CONTROLS,
            matches=("layer",),
            n_prompts=n_prompts,
            seed=seed,
        )
    rows = []
    for function_class in classes:
        ratio = errors[function_class].value(checkpoint.name)
        effects = where(alone.table, function_class=function_class)["effect"].to_numpy()
        effect = np.nan if removed is None else where(removed.table, function_class=function_class)["effect"].item()
        rows.append(
            {
                "checkpoint": checkpoint.name,
                "function_class": function_class,
                "ratio": ratio,
                "left": ratio <= LEFT,
                "effect": float(effect),
                "n_matter": np.nan if np.isnan(effects).any() else float(np.sum(effects > MATTERS)),
            }
        )
    return ModelMeasures(checkpoint, head_set, removed, pd.DataFrame(rows), float(scores.max()))
