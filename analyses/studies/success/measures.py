"""What one model looks at, holds and would predict, class by class, and averaged over the classes that it trains on.

- `attention`: the highest score of any head, beside uniform attention (`chance`) and the highest of a twin.
- `probe`: R² less the higher of its two controls (`interp.readouts.probes`), at the stage where that is highest.
- `depth`: error of the tuned implied prediction at a stage, in units of the no-context optimum. At the last stage it is
  the model's own error, by which success is defined.

The twin is the one that probes are set against: a draw of its own, so that a model which never trained is above it as
often as below.
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
from interp.scores.score import HeadScores, Measure, score_all
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records
from training.common.progress import progress_bar
from training.common.table_rows import where
from training.evaluation.evaluate import evaluation_prompts, no_context_error
from training.tasks.function_classes import function_class
from training.tasks.prompts import last_quarter

ATTENTION, PROBE, DEPTH = "attention", "probe", "depth"
PUBLISHED = "paper"
"""The score of the published heat maps: not compared, being nearly `retrospective`, but set beside the paper's."""
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

A copy of x beside the last y serves one query alone: 15 of the 23 shipped models that hold one in the middle have at
most 0.1 above controls there (zoo:mixed-0 on cubic: R² 0.93 at y_7 and 0.18 at y_15, where head 0.1 no longer looks).
"""
FIT_ON = 2
"""Prompts to fit a probe on for every one to judge it on: at 1,024 what `interp probe` takes."""
MEASURES = (*HEADS[:2], *PROBES)
Row = dict[str, Any]


def class_table(checkpoints: Sequence[Checkpoint], runs: pd.DataFrame, n_prompts: int, seed: int) -> pd.DataFrame:
    """One row per model, class that it trains on, and measure.

    Columns: `seed_group` (models with the same number share a stream of random numbers), `left`, `kind`, `measure` (of
    `depth` the stage), `value`, the head or stage `place` that it was found at, its `chance` (of probes the R² of the
    shuffled targets) and that of the twin, `untrained`; `r2` of probes.

    Args:
        checkpoints: the models.
        runs: whether each has left the plateau, by class (`analyses.studies.plateaus.study.run_table`).
        n_prompts: per class.
        seed: of the prompts and the twins.
    """
    group_of = {place: group for group, places in enumerate(independent_seeds(checkpoints)) for place in places}
    rows: list[Row] = []
    bar = progress_bar(total=len(runs), desc="success", unit="class")
    for place, checkpoint in enumerate(checkpoints):
        for run in records(where(runs, checkpoint=checkpoint.name)):
            about = {key: run[key] for key in ("checkpoint", "curriculum", "function_class", "left")}
            about |= {"seed_group": group_of[place]}
            rows += [about | row for row in measure_class(checkpoint, run["function_class"], n_prompts, seed)]
            bar.update()
    bar.close()
    return pd.DataFrame(rows)


def measure_class(checkpoint: Checkpoint, name: str, n_prompts: int, seed: int) -> list[Row]:
    """Everything about one model on one class."""
    return [
        *attention_rows(checkpoint, name, n_prompts, seed),
        *probe_rows(checkpoint, name, n_prompts, seed),
        *depth_rows(checkpoint, name, n_prompts, seed),
    ]


def attention_rows(checkpoint: Checkpoint, name: str, n_prompts: int, seed: int) -> list[Row]:
    twin = replace(checkpoint, model=untrained_twin(checkpoint.config, seed).to(checkpoint.model.device))
    found, untrained = (
        score_all(
            one,
            [name],
            measures=[Measure(SCORES[kind]) for kind in HEADS],
            n_prompts=n_prompts,
            seed=seed,
            intervals=False,
        )
        for one in (checkpoint, twin)
    )
    rows = []
    for scores, of_twin in zip(found, untrained, strict=True):
        (head, value), (_, least) = highest(scores, name), highest(of_twin, name)
        beside = {"place": str(head), "chance": scores.chance, "untrained": least}
        rows.append({"kind": ATTENTION, "measure": scores.kind.name, "value": value} | beside)
    return rows


def highest(scores: HeadScores, name: str) -> tuple[Head, float]:
    values = scores.values[name]
    layer, head = np.unravel_index(values.argmax(), values.shape)
    return Head(int(layer), int(head)), float(values.max())


def probe_rows(checkpoint: Checkpoint, name: str, n_prompts: int, seed: int) -> list[Row]:
    """One row per target that the class has."""
    exists = {target for target, _ in PROBES.values() if TARGETS[target].exists(function_class(name))}
    n_points = checkpoint.config.data.n_points
    middle, last = n_points // 2, n_points - 1
    common: dict[str, Any] = {"n_prompts": n_prompts, "n_fit": FIT_ON * n_prompts, "seed": seed}
    table = probe(checkpoint, [name], targets=sorted(exists), examples=sorted({middle, last}), **common).table
    rows = []
    for measure, (target, token) in PROBES.items():
        if target in exists:
            read = where(table, target=target, token=token, examples=middle if measure == COPY else last)
            best = max(records(read), key=lambda row: row["above"])
            beside = {"r2": best["value"], "chance": best["shuffled"], "untrained": best["untrained"]}
            found = {"kind": PROBE, "measure": measure, "value": best["above"], "place": best["stage"]}
            rows.append(found | beside)
    return rows


def depth_rows(checkpoint: Checkpoint, name: str, n_prompts: int, seed: int) -> list[Row]:
    """One row per stage."""
    config, model = checkpoint.config, checkpoint.model
    fitted_on = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed, stream="reference")
    prompts = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed)
    at, late = model_stages(config.model.n_layers), last_quarter(config.data.n_points)
    implied = implied_predictions(model, prompts, at, tuned_readouts(model, fitted_on, at))[:, KINDS.index("tuned")]
    errors = np.square(implied - prompts.ys.double().numpy())[..., late].mean((1, 2))
    unit = float(no_context_error(config, name, prompts)[:, late].double().mean())
    return [
        {"kind": DEPTH, "measure": str(stage), "value": float(error) / unit, "place": str(stage)}
        for stage, error in zip(at, errors, strict=True)
    ]


def over_classes(classes: pd.DataFrame) -> pd.DataFrame:
    """One row per model and measure, averaged over the classes that have it (`n_classes`); `succeeded` if the model has
    left the plateau on any class that it trains on."""
    succeeded = {row["checkpoint"] for row in records(classes) if row["left"]}
    of_model: dict[tuple[str, str], list[Row]] = {}
    for row in records(classes):
        of_model.setdefault((row["checkpoint"], row["measure"]), []).append(row)
    rows = []
    for (name, _), found in of_model.items():
        about = {key: found[0][key] for key in ("checkpoint", "curriculum", "seed_group", "kind", "measure")}
        means = {key: float(np.mean([row[key] for row in found])) for key in ("value", "r2", "chance", "untrained")}
        rows.append(about | {"succeeded": name in succeeded} | means | {"n_classes": len(found)})
    return pd.DataFrame(rows)
