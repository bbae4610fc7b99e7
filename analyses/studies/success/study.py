"""What sets models that learned in context apart from those that stayed on the plateau?

1. A model succeeded if on a class that it trains on its error is at most `LEFT` of the no-context optimum's, the rule
   of the study of plateaus.
2. By model, averaged over the classes that it trains on: how much any head looks at its own x or looks up the nearest,
   what can be decoded of x, X'y, w and w·x above controls, and what the stream would predict at every stage
   (`measured`).
3. Successful against failed models, over all, within a curriculum, and on one class (`compared`).
4. Say what follows (`verdict`): above all whether failed models hold the ingredients and do not use them, or lack them.
"""

from collections.abc import Sequence
from functools import partial

from analyses.comparison.groups import group
from analyses.comparison.paired_errors import measure
from analyses.findings import Findings
from analyses.studies.plateaus.study import LEFT, run_table
from analyses.studies.success import figures as plots
from analyses.studies.success import verdict
from analyses.studies.success.comparison import compared_table
from analyses.studies.success.measures import DEPTH, class_table, over_classes
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
    for one in checkpoints:
        if one.config.data.n_points < 2:
            raise UserError(f"--ckpt {one.name}: its prompts have 1 pair; success needs two or more")
    groups = group(checkpoints)
    errors = measure(groups.checkpoints, groups.conditions, n_prompts=n_prompts, seed=seed, only_trained=True)
    classes = class_table(groups.checkpoints, run_table(groups, errors), n_prompts, seed)
    models = over_classes(classes)
    compared = compared_table(models, classes)
    is_depth = models["kind"] == DEPTH
    depth = where(models, kind=DEPTH).drop(columns=["kind", "r2", "chance", "untrained"])
    return Findings(
        QUESTION,
        [*verdict.sentences(models, classes, compared), *groups.notes()],
        groups.protocol
        | {"prompts": n_prompts, "seed": seed, "succeeded at or below": LEFT, "held above": verdict.FAINT},
        {
            "models": models.loc[~is_depth],
            "depth": depth.rename(columns={"measure": "stage", "value": "error"}),
            "compared": compared,
            "classes": classes,
        },
        verdict.shown(models, compared),
        {"measures": partial(plots.plot_measures, models), "depth": partial(plots.plot_depth, models)},
    )
