"""How many seeds leave the plateau, and is the plateau the no-context optimum? (arXiv 2404.03558, Figure 3)

1. Errors of every checkpoint on the classes that it trains on, on the same prompts, over the last quarter of the points
   and in units of the no-context optimum. A seed has left the plateau if its ratio is at most 1 - `MARGIN`; other
   thresholds are reported too, among them one half, which `interp history` calls converged.
2. Counts over independent seeds with exact intervals; Fisher's exact test of mixed against single, Holm over classes.
3. Whether those that have not left are at the no-context optimum: the interval of the ratio over prompts lies within
   1 ± `MARGIN`. An interval that merely includes 1 could also be due to few data.
4. When the others left, from the histories: the first of three evaluations at or below a threshold.
"""

from collections.abc import Sequence

from analyses.comparison.groups import group
from analyses.comparison.histories import histories
from analyses.comparison.paired_errors import measure
from analyses.comparison.seed_figures import plot_counts, plot_ratios
from analyses.findings import Findings
from analyses.studies.plateaus.measures import (
    LEFT,
    MARGIN,
    count_table,
    exit_table,
    fisher_table,
    paper_table,
    run_table,
)
from analyses.studies.plateaus.tables import overview_tables
from analyses.studies.plateaus.verdict import SENTENCES, details, verdict
from interp.display.text import listed
from training.checkpoints.checkpoint import Checkpoint
from training.evaluation.convergence import FRACTION

QUESTION = "How many seeds leave the plateau, and is the plateau the no-context optimum?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int, seed: int) -> Findings:
    """Counts with exact intervals, tests, equivalence with the no-context optimum, and when runs left it.

    Args:
        checkpoints: runs that differ in curriculum and seeds only.
        n_prompts: per class.
        seed: of the prompts and the resampling.

    Raises:
        UserError: the runs cannot be compared.
    """
    groups = group(checkpoints)
    errors = measure(groups.checkpoints, groups.conditions, n_prompts=n_prompts, seed=seed, only_trained=True)
    tables, without = histories(groups.checkpoints)
    runs = run_table(groups, errors)
    exits = exit_table(runs, tables)
    counts = count_table(runs, exits)
    tests, paper = fisher_table(counts), paper_table(counts)
    sentences = [*verdict(runs, counts, exits, tests, paper), *groups.notes()]
    if without:
        sentences.append(SENTENCES["no history"].format(names=listed(without)))
    return Findings(
        QUESTION,
        sentences,
        groups.protocol
        | {"prompts": n_prompts, "seed": seed, "left at or below": LEFT, "equivalence margin": f"1 ± {MARGIN}"},
        {"runs": runs, "counts": counts, "exits": exits, "tests": tests, "paper": paper},
        overview_tables(runs, counts, exits),
        {"counts": lambda: plot_counts(counts, LEFT), "ratios": lambda: plot_ratios(runs, MARGIN, FRACTION)},
        details=details(runs, counts, exits),
    )
