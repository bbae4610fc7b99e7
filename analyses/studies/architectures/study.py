"""Which architectures learn in context, which grow retrospective heads, and what does removing these cost?

1. Architectures: runs that differ in `ARCHITECTURE` and seeds only, named after their differences from the first
   checkpoint's, the reference.
2. Which learn: counts of seeds with exact intervals, by the error over the last quarter of the points in units of the
   no-context optimum (`plateaus`): at most `LEFT` has left the plateau, at most `FRACTION` has converged.
3. Which grow heads: of the seeds that left the plateau on a class, those with a head that scores above `ATTENDS` on
   selection prompts; beside the score under uniform attention.
4. The cost: these heads removed together (mean ablation), with layer-matched control sets, over independent seeds; and
   how many heads matter alone, which finds heads that look elsewhere.
5. Each architecture compared with the reference: counts by Fisher's exact test, means by Welch's, Holm over
   architectures.
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analyses.comparison.histories import histories
from analyses.comparison.paired_errors import measure
from analyses.findings import Findings
from analyses.studies.architectures.measures import compare_counts, group_architectures, head_table
from analyses.studies.architectures.tables import overview_tables
from analyses.studies.architectures.verdict import verdict
from analyses.studies.plateaus.measures import LEFT, count_table, exit_table, run_table
from analyses.studies.variants.figures import plot_variants
from analyses.studies.variants.measures.by_model import measure_model
from analyses.studies.variants.measures.comparison import compare_errors, compare_measures, pool_effects
from analyses.studies.variants.measures.grouping import REFERENCE
from interp.ablation.size_classes import ATTENDS
from interp.scores.score import score
from training.checkpoints.checkpoint import Checkpoint
from training.common.progress import progress_bar
from training.common.table_rows import label_rows
from training.options import DEFAULT_CONTROLS

QUESTION = "Which architectures learn in context, which grow retrospective heads, and what does removing these cost?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study; the first checkpoint's architecture is the reference.

    Args:
        checkpoints: runs that differ in architecture and seeds only.
        n_prompts: per class and stream.
        seed: of prompts, control sets and resampling.

    Raises:
        UserError: the runs differ in more.
    """
    groups = group_architectures(checkpoints)
    first = groups.by_curriculum[REFERENCE][0]
    errors = measure(groups.checkpoints, groups.conditions, n_prompts=n_prompts, seed=seed, only_trained=True)
    bar = progress_bar(groups.checkpoints, desc="architectures", unit="model")
    measured = {checkpoint.name: measure_model(checkpoint, errors, n_prompts, seed) for checkpoint in bar}
    by_variant = {
        variant: [measured[checkpoint.name] for checkpoint in runs] for variant, runs in groups.by_curriculum.items()
    }
    models = pd.DataFrame(
        [model.row() | {"variant": variant} for variant, group in by_variant.items() for model in group]
    )
    effects = [
        label_rows(rows, variant=variant)
        for variant, group in by_variant.items()
        if len(rows := pool_effects(group))  # an empty table would turn counts into floats
    ]
    trained = first.config.trained_classes
    chance = score(first, trained, n_prompts=n_prompts, seed=seed, stream="selection", intervals=False).chance
    runs = run_table(groups, errors)
    counts = count_table(runs, exit_table(runs, histories(groups.checkpoints)[0]))
    heads = head_table(by_variant, chance)
    tests = compare_counts(counts, heads)
    pooled = pd.concat(effects, ignore_index=True) if effects else pd.DataFrame()
    compared = compare_measures(models, groups)
    error_rows = compare_errors(groups, dict.fromkeys(groups.by_curriculum, errors))
    return Findings(
        QUESTION,
        verdict(groups, counts, heads, pooled, compared, tests),
        groups.protocol
        | {
            "reference": first.name,
            "prompts": n_prompts,
            "seed": seed,
            "controls": DEFAULT_CONTROLS,
            "score above": ATTENDS,
            "left at or below": LEFT,
        },
        {
            "models": models,
            "classes": pd.concat([model.classes for model in measured.values()], ignore_index=True),
            "runs": runs.rename(columns={"curriculum": "variant"}),
            "counts": counts.rename(columns={"curriculum": "variant"}),
            "heads": heads,
            "effects": pooled,
            "means": compared,
            "errors": error_rows,
            "tests": tests,
        },
        overview_tables(counts, compared, error_rows),
        {"architectures": partial(plot_variants, models)},
    )
