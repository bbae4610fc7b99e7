"""Attention, probes and tuned predictions of one model, class by class, and averaged over the classes it trains on.

- `attention`: the highest score of any head, with that of uniform attention (`chance`) and the highest of a twin.
- `probe`: R² minus the higher of its two controls (`interp.readouts.probes`), at the stage where that is highest.
- `depth`: error of the tuned implied prediction at a stage, in units of the no-context optimum. At the last stage it is
  the model's own error, by which success is defined.

The twin is the untrained model that probes are compared with: an independent draw, so that a model that never trained
is as often above it as below.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from interp.model.heads import Head
from interp.readouts.lens import KINDS, implied_predictions, tuned_readouts
from interp.readouts.probes import probe, untrained_twin
from interp.readouts.stream import Token, model_stages
from interp.readouts.targets import TARGETS
from interp.scores.kinds import SCORES
from interp.scores.score import Measure, score_all
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records
from training.common.progress import progress_bar
from training.common.table_rows import where
from training.evaluation.evaluate import evaluation_prompts, no_context_error
from training.tasks import function_classes
from training.tasks.prompts import last_quarter

ATTENTION, PROBE, DEPTH = "attention", "probe", "depth"
PUBLISHED = "paper"
"""The score of the published heat maps: nearly `retrospective`, so not tested, but compared with the paper's maps."""
HEADS = ("retrospective", "lookup", PUBLISHED)
PROBES: Mapping[str, tuple[str, Token]] = {
    "x at y": ("x", "y"),
    "X'y at y": ("xty", "y"),
    "X'y at x": ("xty", "x"),
    "w at y": ("w", "y"),
    "w at x": ("w", "x"),
    "t at x": ("t", "x"),
}
"""By measure the target of a probe and the token type at which it reads."""
COPY = "x at y"
"""Read in the middle of a prompt, all others after the last number of examples.

A copy of x at the last y serves one query alone: 15 of the 23 shipped models with a copy in the middle of the prompt
have at most 0.1 above controls there (zoo:mixed-0 on cubic: R² 0.93 at y_7 and 0.18 at y_15, where head 0.1 no longer
attends to x).
"""
FIT_ON = 2
"""Prompts to fit a probe on for each prompt to judge it on: with 1,024, the numbers of `interp probe`."""
MEASURES = (*HEADS[:2], *PROBES)
Row = dict[str, Any]


def class_table(checkpoints: Sequence[Checkpoint], runs: pd.DataFrame, n_prompts: int, seed: int) -> pd.DataFrame:
    """One row per model, class that it trains on, and measure.

    Columns: `seed_group` (models with the same number share a stream of random numbers), `left`, `kind`, `measure` (of
    `depth` the stage), `value`, the head or stage of that value, `place`, its `chance` (of probes the R² of shuffled
    targets) and that of the twin, `untrained`; `r2` of probes.

    Args:
        checkpoints: the models.
        runs: whether each has left the plateau, by class (`analyses.studies.plateaus.measures.run_table`).
        n_prompts: per class.
        seed: of the prompts and the twins.
    """
    seed_groups = {index: group for group, indices in enumerate(independent_seeds(checkpoints)) for index in indices}
    rows: list[Row] = []
    bar = progress_bar(total=len(runs), desc="success", unit="class")
    for index, checkpoint in enumerate(checkpoints):
        for run in records(where(runs, checkpoint=checkpoint.name)):
            columns = {key: run[key] for key in ("checkpoint", "curriculum", "function_class", "left")}
            columns |= {"seed_group": seed_groups[index]}
            for measure in (attention_rows, probe_rows, depth_rows):
                rows += [columns | row for row in measure(checkpoint, run["function_class"], n_prompts, seed)]
            bar.update()
    bar.close()
    return pd.DataFrame(rows)


def attention_rows(checkpoint: Checkpoint, function_class: str, n_prompts: int, seed: int) -> list[Row]:
    """One row per score."""
    twin = replace(checkpoint, model=untrained_twin(checkpoint.config, seed).to(checkpoint.model.device))
    measures = [Measure(SCORES[kind]) for kind in HEADS]
    trained, untrained = (
        score_all(model, [function_class], measures=measures, n_prompts=n_prompts, seed=seed, intervals=False)
        for model in (checkpoint, twin)
    )
    rows = []
    for scores, twin_scores in zip(trained, untrained, strict=True):
        values = scores.values[function_class]
        layer, head = np.unravel_index(values.argmax(), values.shape)
        rows.append(
            {
                "kind": ATTENTION,
                "measure": scores.kind.name,
                "value": float(values.max()),
                "place": str(Head(int(layer), int(head))),
                "chance": scores.chance,
                "untrained": float(twin_scores.values[function_class].max()),
            }
        )
    return rows


def probe_rows(checkpoint: Checkpoint, function_class: str, n_prompts: int, seed: int) -> list[Row]:
    """One row per target that the class has."""
    properties = function_classes.function_class(function_class)
    targets = {target for target, _ in PROBES.values() if TARGETS[target].exists(properties)}
    n_points = checkpoint.config.data.n_points
    middle, last = n_points // 2, n_points - 1
    table = probe(
        checkpoint,
        [function_class],
        targets=sorted(targets),
        examples=sorted({middle, last}),
        n_prompts=n_prompts,
        n_fit=FIT_ON * n_prompts,
        seed=seed,
    ).table
    rows = []
    for measure, (target, token) in PROBES.items():
        if target in targets:
            stage_rows = where(table, target=target, token=token, examples=middle if measure == COPY else last)
            best = max(records(stage_rows), key=lambda row: row["above"])
            rows.append(
                {
                    "kind": PROBE,
                    "measure": measure,
                    "value": best["above"],
                    "place": best["stage"],
                    "r2": best["value"],
                    "chance": best["shuffled"],
                    "untrained": best["untrained"],
                }
            )
    return rows


def depth_rows(checkpoint: Checkpoint, function_class: str, n_prompts: int, seed: int) -> list[Row]:
    """One row per stage."""
    config, model = checkpoint.config, checkpoint.model
    fitted_on = evaluation_prompts(config, function_class, n_prompts=n_prompts, seed=seed, stream="reference")
    prompts = evaluation_prompts(config, function_class, n_prompts=n_prompts, seed=seed)
    names, late = model_stages(config.model.n_layers), last_quarter(config.data.n_points)
    readouts = tuned_readouts(model, fitted_on, names)
    implied = implied_predictions(model, prompts, names, readouts)[:, KINDS.index("tuned")]
    errors = np.square(implied - prompts.ys.double().numpy())[..., late].mean((1, 2))
    unit = float(no_context_error(config, function_class, prompts)[:, late].double().mean())
    return [
        {"kind": DEPTH, "measure": str(stage), "value": float(error) / unit, "place": str(stage)}
        for stage, error in zip(names, errors, strict=True)
    ]


def average_classes(classes: pd.DataFrame) -> pd.DataFrame:
    """One row per model and measure, averaged over the classes that have it (`n_classes`); `succeeded` if the model has
    left the plateau on any class that it trains on."""
    keys = ["checkpoint", "curriculum", "seed_group", "kind", "measure"]
    values = ["value", "r2", "chance", "untrained"]
    table = pd.DataFrame(classes.groupby(keys, sort=False, as_index=False)[values].mean())
    succeeded = set(where(classes, left=True)["checkpoint"])
    table.insert(len(keys), "succeeded", [checkpoint in succeeded for checkpoint in table["checkpoint"]])
    return table.assign(n_classes=classes.groupby(keys, sort=False).size().to_numpy())
