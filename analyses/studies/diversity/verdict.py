"""The verdict of the study of pools: sentences that follow from its tables by rule.

1. A pool size is on the side of memory (regression) if the t-interval of its leaning over seeds lies above (below) 0.
   There is a threshold if the smallest sizes are on the side of memory and the largest on that of regression.
2. Heads are counts of runs per side on fresh functions; a seed has runs at several sizes, so that they have no
   interval together (by size: table `heads`).
3. The cost of the highest-scoring head is a pooled effect against layer-matched control sets, per size and source.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from analyses.comparison.groups import Groups
from analyses.studies.diversity.measures import FRESH, Threshold
from interp.ablation.size_classes import ATTENDS
from interp.ablation.verdict import pooled_verdict
from interp.display.text import counted, listed
from training.common.output import records
from training.common.table_rows import distinct, where
from training.tasks.function_classes import function_class

WHERE = {"pool": "On prompts with functions of the pool", "fresh": "On prompts with fresh functions"}
SIDES = {"memory": "nearer to dMMSE", "regression": "nearer to {learner}", "undecided": "on neither side"}

SENTENCES = {
    "threshold": "{where}, models trained on up to {below} functions are nearer to dMMSE, and from {above} functions "
    "on nearer to {learner}{crossings}.",
    "crossings": "; the leaning changes sign at {low:.3g} to {high:.3g} functions over {seeds} (geometric mean "
    "{mean:.3g})",
    "no threshold": "{where}, no threshold is shown between the pool sizes that were tested: {sides} (t-interval of "
    "the leaning over seeds).",
    "heads": "{side}: {n_with} of {runs} have a head with a retrospective score above {threshold}; the highest scores "
    "are {highest_min:.2f} to {highest_max:.2f} (uniform attention: {chance:.2f}).",
    "cost": "{size}, {source}: {verdict}",
    "transient": "Of {memories} that end nearer to dMMSE on fresh functions, {n_regression} had a snapshot nearer to "
    "{learner} before.",
    "shared pools": "Runs of different seeds share a pool ({seeds}): their spread does not contain that of pools.",
}


def verdict(
    groups: Groups,
    leanings: pd.DataFrame,
    thresholds: Mapping[str, Threshold],
    heads: pd.DataFrame,
    effects: pd.DataFrame,
    transients: pd.DataFrame,
) -> list[str]:
    """Thresholds on both sources, heads on both sides, their cost, earlier regressions, and runs that were left out."""
    learner = name_learner(groups)
    sentences = [threshold_sentence(source, leanings, thresholds[source], learner) for source in WHERE]
    sentences += head_sentences(heads, where(leanings, functions="fresh"), learner)
    sentences += cost_sentences(effects)
    n_memory, n_regression = (sum(transients[column].tolist()) for column in ("n_memory", "n_regression"))
    if n_memory:
        memories = counted(n_memory, "run")
        sentences.append(SENTENCES["transient"].format(memories=memories, n_regression=n_regression, learner=learner))
    notes = [note for note in groups.exclusions() if note.startswith("Left out")]
    named = {
        f"{counted(int(size), 'function') if int(size) != FRESH else 'no pool'}:": runs
        for size, runs in groups.by_curriculum.items()
    }
    return [*sentences, *shared_pools(groups), *replace(groups, by_curriculum=named).few_seeds(), *notes]


def cost_sentences(effects: pd.DataFrame) -> list[str]:
    """Rule 3, a sentence per pool size and source of functions."""
    return [
        cost_sentence(size, source, where(effects, n_functions=size, functions=source))
        for size in distinct(effects, "n_functions")
        for source in distinct(where(effects, n_functions=size), "functions")
    ]


def name_learner(groups: Groups) -> str:
    """The learner of the class in words."""
    config = groups.checkpoints[0].config
    (name,) = config.trained_classes
    return function_class(name).informed_baseline(config.data.weights, config.model.n_dims).name.replace("_", " ")


def threshold_sentence(source: str, leanings: pd.DataFrame, threshold: Threshold, learner: str) -> str:
    """Rule 1."""
    if not threshold.exists:
        rows = records(where(leanings, functions=source))
        sizes = {side: [str(row["n_functions"]) for row in rows if row["side"] == side] for side in SIDES}
        parts = [f"{SIDES[side].format(learner=learner)} at {listed(of)} functions" for side, of in sizes.items() if of]
        return SENTENCES["no threshold"].format(where=WHERE[source], sides="; ".join(parts))
    crossings = ""
    if threshold.crossings:
        mean = sum(map(math.log2, threshold.crossings)) / len(threshold.crossings)
        crossings = SENTENCES["crossings"].format(
            low=min(threshold.crossings),
            high=max(threshold.crossings),
            seeds=counted(len(threshold.crossings), "seed"),
            mean=2**mean,
        )
    values = {"below": threshold.below, "above": threshold.above, "crossings": crossings, "learner": learner}
    return SENTENCES["threshold"].format(where=WHERE[source], **values)


def head_sentences(heads: pd.DataFrame, leanings: pd.DataFrame, learner: str) -> list[str]:
    """Rule 2; runs without a pool have no side."""
    side_of = {row["n_functions"]: row["side"] for row in records(leanings)}
    labels = {side: f"Pool sizes {words.format(learner=learner)} on fresh functions" for side, words in SIDES.items()}
    sentences = []
    for side, label in {**labels, None: "Runs without a pool"}.items():
        rows = [row for row in records(heads) if side_of.get(row["n_functions"]) == side]
        if rows:
            n_with, n_seeds = sum(row["n_with"] for row in rows), sum(row["n_seeds"] for row in rows)
            sizes = f" ({listed([str(row['n_functions']) for row in rows])})" if side else ""
            sentences.append(
                SENTENCES["heads"].format(
                    side=f"{label}{sizes}",
                    n_with=n_with,
                    runs=counted(n_seeds, "run"),
                    threshold=ATTENDS,
                    highest_min=min(row["highest_min"] for row in rows),
                    highest_max=max(row["highest_max"] for row in rows),
                    chance=rows[0]["chance"],
                )
            )
    return sentences


def cost_sentence(size: int, source: str, rows: pd.DataFrame) -> str:
    """Rule 3."""
    pool = f"Pool of {counted(size, 'function')}" if size else "No pool"
    words = {"pool": "functions of the pool", "fresh": "fresh functions"}[source]
    return SENTENCES["cost"].format(size=pool, source=words, verdict=pooled_verdict(rows))


def shared_pools(groups: Groups) -> list[str]:
    """A sentence if seeds of one size share a pool."""
    for size, runs in groups.by_curriculum.items():
        pool_seeds = [run.config.data.pool_seed for run in runs]
        if int(size) != FRESH and len({*pool_seeds}) < len(pool_seeds):
            return [SENTENCES["shared pools"].format(seeds=listed([f"pool_seed={seed}" for seed in {*pool_seeds}]))]
    return []
