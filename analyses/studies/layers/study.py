"""Does the first layer need many heads, and each later layer one? (Chen et al. 2024, arXiv 2408.04532)

They train on sparse linear regression and find that the first layer uses all heads, to preprocess the examples, and
each later layer one dominant head.

1. In one layer at a time, heads are removed (mean ablation) until as few are left as keep `KEPT` of the in-context
   gain; which are left is chosen on other prompts (`measures`).
2. How many heads the first layer needs and a later one, over independent seeds, with their paired difference.
3. In how many cases (model x class) a layer needs all of its heads, one, or none.
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analyses.findings import Findings
from analyses.studies.cause.measures import name_model
from analyses.studies.layers.figures import plot_layers
from analyses.studies.layers.measures import KEPT, layer_counts, layer_table, need_table, seed_table
from analyses.studies.layers.tables import overview_tables
from analyses.studies.layers.verdict import verdict
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.progress import progress_bar

QUESTION = "Does the first layer need many heads, and each later layer one?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study on any number of models.

    Args:
        checkpoints: loaded runs of at least two layers with at least two heads.
        n_prompts: per class, to measure on; heads are chosen on as many others.
        seed: of the prompts; heads are chosen on those of the next one.

    Raises:
        UserError: a model has a single layer, or a single head in each.
    """
    for checkpoint in checkpoints:
        model = checkpoint.config.model
        if min(model.n_layers, model.n_heads) < 2:
            raise UserError(
                f"--ckpt {checkpoint.name}: {model.n_layers} layers of {model.n_heads} heads; this study needs two or "
                "more of both"
            )
    bar = progress_bar(checkpoints, desc="layers", unit="model")
    tables = pd.concat(
        [name_model(layer_table(checkpoint, n_prompts, seed), checkpoint) for checkpoint in bar], ignore_index=True
    )
    needs = need_table(tables)
    seeds, counts = seed_table(checkpoints, needs), layer_counts(needs)
    return Findings(
        QUESTION,
        verdict(seeds, counts),
        {
            "checkpoints": [checkpoint.name for checkpoint in checkpoints],
            "independent seeds": len(independent_seeds(checkpoints)),
            "prompts": n_prompts,
            "seed": seed,
            "share of the gain that is kept": KEPT,
        },
        {"seeds": seeds, "layers": counts, "needs": needs, "curves": tables},
        overview_tables(seeds, counts),
        {"layers": partial(plot_layers, tables)},
    )
