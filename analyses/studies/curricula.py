"""Which curricula learn which function classes, and which forget? (The curricula of arXiv 2404.03558.)

1. Errors of every checkpoint on all classes, on the same prompts; what each curriculum learned, and what training on
   other classes costs a class (`analyses.comparison.comparison`).
2. What was learned and lost again, from the histories (`analyses.comparison.forgetting`).
3. Comparison with the same cells of the paper's figures.
"""

from collections.abc import Sequence

from analyses.comparison.comparison import compare, in_units
from analyses.comparison.groups import group
from analyses.comparison.histories import histories
from analyses.comparison.paired_errors import measure
from analyses.findings import Findings
from training.checkpoints.checkpoint import Checkpoint

QUESTION = "Which curricula learn which function classes, and which forget?"
PAPER_NO_CONTEXT = {"linear": 1.12, "quadratic": 14.7, "cubic": 619.0}
PAPER = {
    "mixed": {"linear": 0.027, "quadratic": 0.61, "cubic": 8.0},
    "random": {"linear": 0.078, "quadratic": 8.6, "cubic": 21.0},
    "sequential": {"linear": 17.0, "quadratic": 29.0, "cubic": 5.0},
    "single:linear": {"linear": 0.007},
    "single:quadratic": {"quadratic": 14.3},
    "single:cubic": {"cubic": 5.0},
}
"""MSE / n_dims after 90 examples (upper bounds where the line lies on the axis), and the no-context optimum on the same
64 prompts: digitised from the figures of `supp_viz_mse` in the authors' code at 1c896e3. One seed each."""


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int, seed: int) -> Findings:
    """Errors over seeds, forgetting, costs, and the comparison with the paper's cells.

    Args:
        checkpoints: runs that differ in curriculum and seeds only.
        n_prompts: per class.
        seed: of the prompts and the resampling.

    Raises:
        UserError: the runs cannot be compared.
    """
    groups = group(checkpoints)
    errors = measure(groups.checkpoints, groups.conditions, n_prompts=n_prompts, seed=seed)
    tables, _ = histories(groups.checkpoints)
    published = in_units(PAPER, PAPER_NO_CONTEXT)
    return compare(QUESTION, groups, errors, tables, published, {"prompts": n_prompts, "seed": seed})
