"""Which score of a head tells what removing it costs: attention, function vector, gradient, or direct effect?

1. The exact effect of every head: the share of the in-context gain that is lost when it alone is removed (mean
   ablation), on every class that the model trains on.
2. The guides (`measures.GUIDES`), on other prompts: nine scores of attention; the function-vector score (Todd et al.
   2023, arXiv 2310.15213); gradient estimates of the effect of patching a head; its direct effect.
3. For every guide the rank correlation with the effect over the heads of a model, and how many of the heads that matter
   are among as many of its highest. Independent seeds are the unit; guides are compared with the retrospective score.
4. Removal with exclusion (Yin and Steinhardt 2025, arXiv 2502.14010): retrospective heads that are no function-vector
   heads, and function-vector heads that are not retrospective, against layer-matched control sets.
5. Over the snapshots of runs that kept them: when the highest score of each of the two kinds arrives.
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analyses.comparison.snapshots import earlier_steps
from analyses.findings import Findings
from analyses.studies.cause.measures import MATTERS
from analyses.studies.which_score.figures import plot_courses, plot_guides
from analyses.studies.which_score.measures import (
    COURSE_PROMPTS,
    arrival_table,
    describe_sets,
    examine,
    exclusion_table,
    follow_scores,
    guide_table,
    ranking_table,
)
from analyses.studies.which_score.tables import overview_tables
from analyses.studies.which_score.verdict import arrival_sentences, exclusion_sentences, guide_sentences
from interp.ablation.size_classes import ATTENDS
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.progress import progress_bar
from training.options import DEFAULT_CONTROLS

QUESTION = "Which score of a head tells what removing it costs?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study on any number of models.

    Args:
        checkpoints: loaded runs; snapshots are read where a run kept them.
        n_prompts: per class, for effects, and as many others for guides.
        seed: of prompts and control sets; guides take the next one.
    """
    models = [
        examine(checkpoint, n_prompts, seed) for checkpoint in progress_bar(checkpoints, desc="guides", unit="model")
    ]
    rankings = ranking_table(models)
    guides, exclusion = guide_table(models, rankings), exclusion_table(models)
    followed = [checkpoint for checkpoint in checkpoints if earlier_steps(checkpoint)]
    rows = [follow_scores(checkpoint, seed + 1) for checkpoint in progress_bar(followed, desc="course", unit="run")]
    course = pd.DataFrame([row for of_run in rows for row in of_run])
    arrivals = arrival_table(course)
    details = exclusion_sentences(models, exclusion)
    return Findings(
        QUESTION,
        [*guide_sentences(models, guides), *details, *arrival_sentences(arrivals)],
        {
            "checkpoints": [checkpoint.name for checkpoint in checkpoints],
            "independent seeds": len(independent_seeds(checkpoints)),
            "prompts": n_prompts,
            "prompts of snapshots": COURSE_PROMPTS,
            "seed": seed,
            "controls": DEFAULT_CONTROLS,
            "score above": ATTENDS,
            "a head matters above": MATTERS,
        },
        {
            "guides": guides,
            "rankings": rankings,
            "heads": pd.concat([model.heads for model in models], ignore_index=True),
            "sets": describe_sets(models),
            "exclusion": exclusion,
            "course": course,
            "arrivals": arrivals,
        },
        overview_tables(guides, exclusion),
        {"guides": partial(plot_guides, guides)} | ({"course": partial(plot_courses, course)} if len(course) else {}),
        [failure for model in models for failure in model.failures],
        details,
    )
