"""Do models remember a pool of functions or learn the class, and do retrospective heads serve both?

1. Pools: runs that differ in `data.n_functions`, `data.pool_seed` and seeds only, on one class. Memory is the posterior
   mean over the run's pool (dMMSE); regression is the learner that knows the law of functions and noise: ridge with
   the matching penalty for `noisy_linear`, otherwise the baseline of the class (Raventós et al. 2023, 2306.15063).
2. Distances of predictions to both, on prompts with functions of the pool and with fresh ones, at the end and at every
   snapshot; their contrast over independent seeds says on which side a pool size is.
3. Heads: per size the seeds whose highest retrospective score, on selection prompts of the pool, exceeds `ATTENDS`.
4. Effects: the highest-scoring head removed (mean ablation), with the other heads of its layer as control sets, on both
   sources of functions; effects are shares of the in-context gain over the no-context optimum of that source.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from analyses.findings import Findings
from analyses.studies.diversity.figures import plot_course, plot_distances
from analyses.studies.diversity.measures import (
    count_transients,
    distance_rows,
    find_threshold,
    group_pools,
    head_table,
    leaning_table,
    seed_crossings,
)
from analyses.studies.diversity.tables import overview_tables
from analyses.studies.diversity.verdict import cost_sentences, verdict
from interp.ablation.ablate import ablate
from interp.ablation.pooled import pooled
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import HeadSet, highest_head
from interp.scores.score import score, selection_scores
from training.checkpoints.checkpoint import Checkpoint, load, snapshot_steps
from training.common.progress import progress_bar
from training.common.table_rows import label_rows, where
from training.evaluation.evaluate import predictions
from training.options import DEFAULT_CONTROLS
from training.pools import draws_from, sources_of
from training.tasks.baselines import Predictor

QUESTION = "From which pool size on do models learn the class rather than remember functions, and by which heads?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study.

    Args:
        checkpoints: runs of several pool sizes that differ in pools and seeds only.
        n_prompts: per source of functions and stream.
        seed: of prompts, control sets and resampling.

    Raises:
        UserError: the runs differ in more, or cannot be compared (`measures.group_pools`).
    """
    groups = group_pools(checkpoints)
    rows: list[dict[str, Any]] = []
    heads: dict[str, HeadSet] = {}
    highest: dict[str, float] = {}
    for checkpoint in progress_bar(groups.checkpoints, desc="diversity", unit="model"):
        rows += distance_rows(checkpoint, predictors_by_step(checkpoint), n_prompts, seed)
        scores = selection_scores(checkpoint, n_prompts, seed)
        heads[checkpoint.name] = (highest_head(scores),)
        highest[checkpoint.name] = float(scores.max())
    course = pd.DataFrame(rows)
    distances = where(course, step=groups.checkpoints[0].step)
    leanings = leaning_table(groups, distances)
    crossings = {source: seed_crossings(groups, distances, source) for source in ("pool", "fresh")}
    thresholds = {
        source: find_threshold(where(leanings, functions=source), crossed) for source, crossed in crossings.items()
    }
    first = groups.checkpoints[0]
    chance = score(first, n_prompts=n_prompts, seed=seed, stream="selection", intervals=False).chance
    head_counts, transients = head_table(groups, highest, chance), count_transients(course)
    effects = pd.concat(
        [
            label_rows(removed_effects(runs, heads, source, n_prompts, seed), n_functions=int(size), functions=source)
            for size, runs in groups.by_curriculum.items()
            for source in sources_of(runs[0].config)
        ],
        ignore_index=True,
    )
    return Findings(
        QUESTION,
        verdict(groups, leanings, thresholds, head_counts, effects, transients),
        groups.protocol
        | {"prompts": n_prompts, "seed": seed, "controls": DEFAULT_CONTROLS, "score above": ATTENDS}
        | {f"crossings on {source} functions": crossed for source, crossed in crossings.items()},
        {
            "distances": distances,
            "leanings": leanings,
            "heads": head_counts,
            "effects": effects,
            "course": course,
            "transients": transients,
        },
        overview_tables(distances, leanings, head_counts, effects),
        {"distances": partial(plot_distances, distances), "course": partial(plot_course, course)},
        details=cost_sentences(effects),
    )


def predictors_by_step(checkpoint: Checkpoint) -> dict[int, "partial[Predictor]"]:
    """What gives the model at every snapshot up to the checkpoint's step, and there."""
    steps = [step for step in snapshot_steps(checkpoint.directory) if step < checkpoint.step]
    earlier = {step: partial(predictor_at, checkpoint, step) for step in steps}
    return earlier | {checkpoint.step: partial(predictor_at, checkpoint, None)}


def predictor_at(checkpoint: Checkpoint, step: int | None) -> Predictor:
    """The model at a snapshot; None is the checkpoint's own."""
    at = checkpoint if step is None else load(f"{checkpoint.directory}@{step}", str(checkpoint.model.device))
    return partial(predictions, at.model)


def removed_effects(
    checkpoints: Sequence[Checkpoint], heads: dict[str, HeadSet], source: str, n_prompts: int, seed: int
) -> pd.DataFrame:
    """The highest-scoring heads of one pool size removed, on functions of one source, over independent seeds."""
    at_source = [replace(run, config=draws_from(run.config, source)) for run in checkpoints]
    sets = [heads[run.name] for run in checkpoints]
    ablations = [
        ablate(
            run,
            [head_set],
            run.config.trained_classes,
            modes=["mean"],
            n_controls=DEFAULT_CONTROLS,
            matches=("layer",),
            n_prompts=n_prompts,
            seed=seed,
        )
        for run, head_set in zip(at_source, sets, strict=True)
    ]
    return pooled(at_source, ablations, sets, "the highest-scoring head")
