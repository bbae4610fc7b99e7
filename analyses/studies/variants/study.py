"""What changes with size, prompt length, function class or instruction, and what stays?

1. Variants: runs of one configuration, named after its differences from that of the first checkpoint, the reference.
2. In every model: the error in units of the no-context optimum; the heads above `ATTENDS` on selection prompts, their
   number and layers; the cost of removing them (mean ablation, with layer-matched control sets); how many heads matter
   alone (`measures.by_model`).
3. Each variant compared with the reference, over independent seeds (Welch, Holm over variants); trends along a setting
   that varies alone (Spearman, permutation p, Holm over all trends).
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analyses.comparison.paired_errors import ClassErrors, errors_on
from analyses.findings import Findings
from analyses.studies.variants.figures import plot_variants
from analyses.studies.variants.measures.by_model import measure_model
from analyses.studies.variants.measures.comparison import (
    compare_errors,
    compare_measures,
    pool_effects,
    trend_table,
)
from analyses.studies.variants.measures.grouping import REFERENCE, group_variants
from analyses.studies.variants.tables import overview_tables
from analyses.studies.variants.verdict import verdict
from interp.ablation.size_classes import ATTENDS
from training.checkpoints.checkpoint import Checkpoint
from training.common.progress import progress_bar
from training.options import DEFAULT_CONTROLS

QUESTION = "What changes with size, prompt length, function class or instruction, and what stays?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study; the first checkpoint's variant is the reference.

    Args:
        checkpoints: loaded runs.
        n_prompts: per class and stream.
        seed: of prompts, control sets and resampling.
    """
    groups = group_variants(checkpoints)
    errors: dict[str, dict[str, ClassErrors]] = {}
    models, classes, effects = [], [], []
    with progress_bar(total=len(groups.checkpoints), desc="variants", unit="model") as bar:
        for variant, runs in groups.by_curriculum.items():
            names = runs[0].config.trained_classes
            errors[variant] = {name: errors_on(runs, name, n_prompts=n_prompts, seed=seed) for name in names}
            measured = []
            for checkpoint in runs:
                measured.append(measure_model(checkpoint, errors[variant], n_prompts, seed))
                bar.update()
            models.append(pd.DataFrame([model.row() for model in measured]).assign(variant=variant))
            classes.append(pd.concat([model.classes for model in measured], ignore_index=True).assign(variant=variant))
            effects.append(pool_effects(measured).assign(variant=variant))
    rows = pd.concat(models, ignore_index=True)
    compared, error_rows = compare_measures(rows, groups), compare_errors(groups, errors)
    trends = trend_table(rows, groups, seed)
    return Findings(
        QUESTION,
        verdict(rows, compared, error_rows, trends, groups),
        {
            "reference": groups.by_curriculum[REFERENCE][0].name,
            "checkpoints": [checkpoint.name for checkpoint in groups.checkpoints],
            "left out": list(groups.left_out) or "none",
            "prompts": n_prompts,
            "seed": seed,
            "controls": DEFAULT_CONTROLS,
            "score above": ATTENDS,
        },
        {
            "models": rows,
            "classes": pd.concat(classes, ignore_index=True),
            "effects": pd.concat(effects, ignore_index=True),
            "variants": compared,
            "errors": error_rows,
            "trends": trends,
        },
        overview_tables(compared, error_rows),
        {"variants": partial(plot_variants, rows)},
    )
