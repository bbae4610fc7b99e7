"""Do retrospective heads cause in-context learning, in every model, and how good a guide is the attention pattern?

1. Locate: heads whose score exceeds `ATTENDS` on selection prompts, in every model.
2. Remove them together, under several modes, compared with layer-matched control sets; and keep them alone.
3. Pool over independent seeds, per curriculum (`interp.statistics.seeds`).
4. Where a model has several: the cost of removing them together beside the sum of their costs alone. It is larger if
   one head can replace another, and also if what they write adds up, since errors are squared.
5. Dose and response: remove every head of every model alone, and compare its effect with its score: of the heads that
   matter (effect above `MATTERS`), how many has the score found (recall), and of those that it finds, how many matter
   (precision)?
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analyses.findings import Findings
from analyses.studies.cause import figures, verdict
from analyses.studies.cause.measures import MATTERS, effect_rows, examine, measure_guides, pool_effects
from analyses.studies.cause.tables import overview_tables
from interp.ablation.modes import DEFAULT_MODES
from interp.ablation.size_classes import ATTENDS
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.progress import progress_bar
from training.options import DEFAULT_CONTROLS

QUESTION = "Do retrospective heads cause in-context learning, in every model that has them?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study on any number of models.

    Args:
        checkpoints: loaded runs.
        n_prompts: per class and stream.
        seed: of prompts, control sets and resampling.
    """
    bar = progress_bar(checkpoints, desc="cause", unit="model")
    models = [examine(checkpoint, n_prompts, seed) for checkpoint in bar]
    effects = pd.concat([effect_rows(model) for model in models], ignore_index=True)
    heads = pd.concat([model.heads for model in models], ignore_index=True)
    removed, kept = pool_effects(models, "remove"), pool_effects(models, "keep")
    costs, guides = pd.concat([model.together for model in models], ignore_index=True), measure_guides(models)
    guide_sentences = verdict.guide_sentences(guides)
    return Findings(
        QUESTION,
        [
            verdict.located_sentence(models),
            *verdict.removal_sentences(removed),
            *verdict.keep_sentences(kept),
            *verdict.joint_sentences(costs),
            *guide_sentences,
        ],
        {
            "checkpoints": [checkpoint.name for checkpoint in checkpoints],
            "independent seeds": len(independent_seeds(checkpoints)),
            "prompts": n_prompts,
            "seed": seed,
            "controls": DEFAULT_CONTROLS,
            "modes": list(DEFAULT_MODES),
            "score above": ATTENDS,
            "a head matters above": MATTERS,
        },
        {"models": effects, "pooled": removed, "kept": kept, "together": costs, "heads": heads, "guide": guides},
        overview_tables(removed, kept, guides),
        {
            "effects": partial(figures.plot_effects, effects),
            "dose_response": partial(figures.plot_dose_response, heads),
        },
        [failure for model in models for failure in model.failures],
        guide_sentences,
    )
