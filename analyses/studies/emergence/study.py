"""When do retrospective heads appear, when do they matter, and does the head come before the loss falls?

1. The heads: those above `ATTENDS` at the end of training, on selection prompts; without any, the highest one.
2. At every snapshot, on the same prompts: their score, the model's gain (1 - error / no-context error, over the last
   quarter of the points), and the share of that gain that is lost when they are removed (mean ablation).
3. A quantity arrives between the two snapshots at which it passes half of its final value for good. Arrivals of score
   and gain are compared within a run, as a ratio of steps; ratios are pooled over independent seeds.

A head that arrives before the gain need not be its cause: the effect at that snapshot says what it does by then.
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analyses.findings import Findings
from analyses.studies.emergence.figures import plot_courses
from analyses.studies.emergence.measures import arrival_table, check_snapshots, follow_heads, order_table
from analyses.studies.emergence.tables import arrivals_overview
from analyses.studies.emergence.verdict import arrival_sentences, order_sentences
from interp.ablation.size_classes import HALF
from interp.model.heads import show
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.progress import progress_bar

QUESTION = "When do retrospective heads appear, and does the head come before the loss falls?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study on runs that kept snapshots.

    Args:
        checkpoints: loaded runs.
        n_prompts: per class and stream.
        seed: of prompts and resampling.

    Raises:
        UserError: a run kept fewer than `measures.LEAST_SNAPSHOTS`.
    """
    steps = [check_snapshots(checkpoint) for checkpoint in checkpoints]
    with progress_bar(total=sum(map(len, steps)), desc="emergence", unit="snapshot") as bar:
        courses = [
            follow_heads(checkpoint, run_steps, n_prompts, seed, bar)
            for checkpoint, run_steps in zip(checkpoints, steps, strict=True)
        ]
    arrivals = pd.concat([arrival_table(course) for course in courses], ignore_index=True)
    orders = order_table(courses, arrivals)
    return Findings(
        QUESTION,
        [*order_sentences(orders), *arrival_sentences(courses, arrivals)],
        {
            "checkpoints": [checkpoint.name for checkpoint in checkpoints],
            "heads": [show(course.heads) for course in courses],
            "independent seeds": len(independent_seeds(checkpoints)),
            "prompts": n_prompts,
            "seed": seed,
            "arrived at": f"{HALF} of the final value",
        },
        {
            "course": pd.concat([course.table for course in courses], ignore_index=True),
            "arrivals": arrivals,
            "order": orders,
        },
        {"first snapshot at or above half of the final value": arrivals_overview(arrivals)},
        {"emergence": partial(plot_courses, courses)},
    )
