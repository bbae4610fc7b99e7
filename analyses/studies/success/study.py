"""What sets models that learned in context apart from those that stayed on the plateau?

1. A model succeeded if on a class that it trains on its error is at most `LEFT` of the no-context optimum's, the rule
   of the study of plateaus.
2. By model, averaged over the classes that it trains on (`measures.by_class`): how much any head attends to its own x
   or to the nearest one, how well x, X'y, w and w·x can be decoded, above controls, and the prediction implied by the
   residual stream at every stage.
3. Successful against failed models (`measures.comparison`): over all, within a curriculum, and on one class.
4. The verdict, by rule: above all whether failed models hold the ingredients and do not use them, or lack them.
"""

from collections.abc import Sequence
from functools import partial

from analyses.comparison.groups import group
from analyses.comparison.paired_errors import measure
from analyses.findings import Findings
from analyses.studies.plateaus.measures import LEFT, run_table
from analyses.studies.success.figures import plot_depth, plot_measures
from analyses.studies.success.measures.by_class import DEPTH, average_classes, class_table
from analyses.studies.success.measures.comparison import compared_table
from analyses.studies.success.tables import overview_tables
from analyses.studies.success.verdict import FAINT, verdict
from interp.readouts.lens import check_enough
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.table_rows import where

QUESTION = "What sets models that learned in context apart from those that stayed on the plateau?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Compare successful with failed models.

    Args:
        checkpoints: runs that differ in curriculum and seeds only.
        n_prompts: per class, to judge on; probes are fitted on twice as many.
        seed: of the prompts, the twins and the resampling.

    Raises:
        UserError: the runs cannot be compared, their prompts have no query after an example, or there are too few
            prompts to fit a lens on.
    """
    check_enough(n_prompts)
    for checkpoint in checkpoints:
        if checkpoint.config.data.n_points < 2:
            raise UserError(f"--ckpt {checkpoint.name}: its prompts have 1 pair; success needs two or more")
    groups = group(checkpoints)
    errors = measure(groups.checkpoints, groups.conditions, n_prompts=n_prompts, seed=seed, only_trained=True)
    classes = class_table(groups.checkpoints, run_table(groups, errors), n_prompts, seed)
    models = average_classes(classes)
    compared = compared_table(models, classes)
    depth = where(models, kind=DEPTH).drop(columns=["kind", "r2", "chance", "untrained"])
    return Findings(
        QUESTION,
        [*verdict(models, classes, compared), *groups.notes()],
        groups.protocol | {"prompts": n_prompts, "seed": seed, "succeeded at or below": LEFT, "held above": FAINT},
        {
            "models": models.loc[models["kind"] != DEPTH],
            "depth": depth.rename(columns={"measure": "stage", "value": "error"}),
            "compared": compared,
            "classes": classes,
        },
        overview_tables(models, compared),
        {"measures": partial(plot_measures, models), "depth": partial(plot_depth, models)},
    )
