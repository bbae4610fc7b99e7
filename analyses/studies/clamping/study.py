"""What does forcing or forbidding attention from y to its x during training change? (after arXiv 2404.07129)

1. Runs trained under a clamp (`RunConfig.clamping`), each beside its twin of the same seeds without one.
2. When runs left the plateau (study `plateaus`), by the error of the forward pass that was trained: under the clamp
   while it acted. Exact permutation tests of ranks against the twins; Holm over arms and classes.
3. The error at the end, paired by seed: without the clamp, and, where it acted to the end, as trained.
4. Of heads that were fixed, after training: retrospective score and cost of their removal, paired with those of the
   twin's heads of the same names.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from analyses.comparison.histories import histories
from analyses.comparison.paired_errors import measure
from analyses.findings import Findings
from analyses.studies.clamping.figures import plot_courses
from analyses.studies.clamping.measures import (
    UNCLAMPED,
    as_trained,
    clamped_arms,
    compare_heads,
    error_table,
    find_twins,
    group_arms,
    head_table,
)
from analyses.studies.clamping.tables import overview_of_differences
from analyses.studies.clamping.verdict import details, verdict
from analyses.studies.plateaus.exit_times import compare_times, overview_of_times, time_table
from analyses.studies.plateaus.measures import LEFT, exit_table, run_table
from training.checkpoints.checkpoint import Checkpoint

QUESTION = "What does forcing or forbidding attention from y to its x during training change?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Times of leaving the plateau, final errors and heads of runs trained under a clamp, beside unclamped twins.

    Args:
        checkpoints: runs that differ in their clamp and seeds only, with an unclamped run of the seeds of every other.
        n_prompts: per class.
        seed: of the prompts and the resampling.

    Raises:
        UserError: the runs cannot be compared, or a clamped run has no twin.
    """
    groups = replace(group_arms(checkpoints), shared=())  # twins share seeds by design
    twins = find_twins(groups)
    errors = measure(groups.checkpoints, groups.conditions, n_prompts=n_prompts, seed=seed, only_trained=True)
    tables, without = histories(groups.checkpoints)
    trained = as_trained(tables)
    exits = exit_table(run_table(groups, errors), trained)
    times = time_table(exits, groups.checkpoints[0].step)
    tests = compare_times(exits, [(arm, UNCLAMPED) for arm in clamped_arms(groups)])
    differences = error_table(groups, twins, errors, trained)
    heads = head_table(groups, twins, n_prompts, seed)
    compared = compare_heads(heads)
    return Findings(
        QUESTION,
        [*verdict(times, tests, differences, compared, without), *groups.notes()],
        groups.protocol | {"prompts": n_prompts, "seed": seed, "left at or below": LEFT},
        {
            "times": times,
            "tests": tests,
            "exits": exits.rename(columns={"curriculum": "arm"}),
            "errors": differences,
            "heads": heads,
            "compared": compared,
        },
        {
            "runs that left the plateau [exact 95 % interval of the share], and when": overview_of_times(times),
            "final error / no-context optimum [t-interval over seeds]": overview_of_differences(differences),
            "heads after training [t-interval over seeds]": overview_of_differences(compared),
        },
        {"courses": partial(plot_courses, trained, groups.curriculum_of)},
        details=details(times, tests, differences, compared),
    )
