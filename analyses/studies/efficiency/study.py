"""Does a mixed curriculum need a ninth of the data? (arXiv 2404.03558, Figure 4)

The paper counts cubic steps only: its mixed run saw 1/9 of the cubic prompts of the single run, and ended at a
comparable error; total prompts and compute were the same. So three measures are reported - prompts of the class,
prompts in all, operations - for two questions:

1. To reach an error (a fraction of the no-context optimum, over the last quarter of the points, kept for three
   evaluations), how much does a curriculum need as a share of what training on the class alone needs? Medians over
   pairs of seeds; seeds that never reach it are censored, not dropped (`analyses.studies.efficiency.measures`).
2. At the same compute, which error is lower? That is the paper's comparison; the share of prompts of the class is
   reported with it.

Errors come from the histories: 256 held-out prompts, different ones for every seed.
"""

from collections.abc import Sequence

from analyses.comparison.groups import group
from analyses.comparison.histories import MEASURES, NEEDED, histories, tidy
from analyses.comparison.seed_figures import plot_spending
from analyses.findings import Findings
from analyses.studies.efficiency.measures import matched_table, need_table, ratio_table, trained_history
from analyses.studies.efficiency.tables import overview_tables
from analyses.studies.efficiency.verdict import SENTENCES, details, verdict
from interp.display.text import listed
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.evaluation.convergence import HELD

QUESTION = "Does a mixed curriculum need a ninth of the data?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int, seed: int) -> Findings:  # noqa: ARG001 - as all studies
    """Needs of each run to reach each error, ratios over pairs of seeds, and errors at matched compute.

    Args:
        checkpoints: runs that differ in curriculum and seeds only.
        n_prompts: not used; the errors are those of the histories.
        seed: of the resampling.

    Raises:
        UserError: the runs cannot be compared, or no history has the columns that are needed.
    """
    tables, without = histories(checkpoints)
    if not tables:
        raise UserError(
            f"{listed(without)}: the history has no {', '.join(NEEDED)} (format version 1, or none); data efficiency "
            "cannot be computed from it"
        )
    groups = group([checkpoint for checkpoint in checkpoints if checkpoint.name in tables])
    history = trained_history(groups, tables)
    needs, matched = need_table(history), matched_table(history)
    ratios = ratio_table(needs, seed)
    training = {checkpoint.name: tables[checkpoint.name] for checkpoint in groups.checkpoints}
    sentences = [*verdict(ratios, matched, needs), *groups.notes()]
    if without:
        sentences.append(SENTENCES["no history"].format(names=listed(without)))
    return Findings(
        QUESTION,
        sentences,
        groups.protocol | {"seed": seed, "evaluations held": HELD, "errors": "of the histories, held-out prompts"},
        {"ratios": ratios, "matched": matched, "needs": needs, "training": tidy(training, groups.curriculum_of)},
        overview_tables(ratios, matched),
        {"spending": lambda: plot_spending(history, MEASURES)},
        details=details(ratios, matched),
    )
