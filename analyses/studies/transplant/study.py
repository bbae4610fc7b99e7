"""Do the retrospective heads of a trained model, put into a new one, shorten its plateau? (arXiv 2410.05448)

1. Runs on one class that began with parts of another run's weights (`RunConfig.init`), named by what they took; heads
   are retrospective if they score above `ATTENDS` on the source, on selection prompts, before training.
2. The time at which a run left its plateau: the first of three evaluations at or below `LEFT` of the no-context optimum
   (study `plateaus`). Runs that had not by the end are censored there. Counts with exact intervals.
3. Exact permutation tests of ranks against runs that took nothing, and of retrospective heads against as many others of
   their layers; Holm over the comparisons of either kind. Arms share seeds: what runs of one seed have in common makes
   the tests cautious.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from analyses.comparison.histories import histories
from analyses.comparison.paired_errors import measure
from analyses.findings import Findings
from analyses.studies.plateaus.exit_times import (
    compare_times,
    comparison_sentences,
    overview_of_times,
    time_sentences,
    time_table,
)
from analyses.studies.plateaus.measures import LEFT, count_table, exit_table, run_table
from analyses.studies.transplant.figures import plot_times
from analyses.studies.transplant.measures import families_of_pairs, group_arms, heads_of_sources
from analyses.studies.transplant.verdict import verdict
from interp.ablation.size_classes import ATTENDS
from training.checkpoints.checkpoint import Checkpoint

QUESTION = "Do the retrospective heads of a trained model, put into a new one, shorten its plateau?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Counts and times of leaving the plateau by what runs began with, and tests of arms.

    Args:
        checkpoints: runs on one class that differ in what they took from a source and in seeds only.
        n_prompts: of the errors at the end, and per class of the scores of the sources.
        seed: of the prompts and the resampling.

    Raises:
        UserError: the runs cannot be compared, or a source is missing.
    """
    heads = heads_of_sources(checkpoints, n_prompts, seed)
    groups = replace(group_arms(checkpoints, heads), shared=())
    errors = measure(groups.checkpoints, groups.conditions, n_prompts=n_prompts, seed=seed, only_trained=True)
    tables, without = histories(groups.checkpoints)
    runs = run_table(groups, errors)
    exits = exit_table(runs, tables)
    times = time_table(exits, groups.checkpoints[0].step)
    families = [compare_times(exits, pairs) for pairs in families_of_pairs(list(groups.by_curriculum))]
    tests = pd.concat([family for family in families if len(family)] or families, ignore_index=True)
    return Findings(
        QUESTION,
        [*verdict(times, tests, without), *groups.notes()],
        groups.protocol
        | {"prompts": n_prompts, "seed": seed, "left at or below": LEFT, "score above": ATTENDS}
        | {"heads of the sources": {name: list(chosen) for name, chosen in heads.items()}},
        {
            "times": times,
            "tests": tests,
            "runs": runs.rename(columns={"curriculum": "arm"}),
            "exits": exits.rename(columns={"curriculum": "arm"}),
            "counts": count_table(runs, exits).rename(columns={"curriculum": "arm"}),
        },
        {"runs that left the plateau [exact 95 % interval of the share], and when": overview_of_times(times)},
        {"times": partial(plot_times, exits, groups.checkpoints[0].step)},
        details=[*time_sentences(times), *comparison_sentences(tests)],
    )
