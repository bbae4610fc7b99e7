"""Runs trained under a clamp beside their twins: arms, times as trained, paired errors, heads that were fixed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.comparison.groups import CLASSES, Groups, group
from analyses.comparison.paired_errors import ClassErrors
from interp.ablation.ablate import ablate
from interp.model.heads import parse_heads
from interp.scores.score import selection_scores
from interp.statistics.seeds import t_interval
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.table_rows import where
from training.config.config import RunConfig

UNCLAMPED = "unclamped"
WITHOUT, AS_TRAINED = "without the clamp", "as trained"
CLAMPED_ERROR = "nmse_tail_clamped"
Twins = Mapping[str, Checkpoint]
"""By name of a run, the run of the same seeds without a clamp."""


def describe_arm(config: RunConfig) -> str:
    """
    >>> from training.config.parse import from_preset
    >>> describe_arm(from_preset("tiny", "mixed", 0, ["clamping.action=forbid"]))
    'forbid on all heads, steps 0 to 3000'
    """
    clamping = config.clamping
    if clamping.action == "none":
        return UNCLAMPED
    heads = ",".join(clamping.heads) or "all heads"
    return f"{clamping.action} on {heads}, steps {clamping.first} to {clamping.until or config.recipe.steps}"


def group_arms(checkpoints: Sequence[Checkpoint]) -> Groups:
    """The checkpoints by arm, the unclamped twins first.

    Raises:
        UserError: they differ in more than the clamp and seeds.
    """
    arms = {checkpoint.name: describe_arm(checkpoint.config) for checkpoint in checkpoints}
    order = list(dict.fromkeys([UNCLAMPED, *arms.values()]))
    kind = CLASSES._replace(
        curriculum_of=lambda checkpoint: arms[checkpoint.name],
        free=("clamping", "seeds", "record"),
        order=order.index,
        free_within=("seeds", "record"),
        varied="the clamp",
    )
    return group(checkpoints, kind)


def find_twins(groups: Groups) -> Twins:
    """The unclamped twin of every clamped run.

    Raises:
        UserError: a clamped run has none, or there is no clamped run.
    """
    unclamped = {run.config.seeds: run for run in groups.by_curriculum.get(UNCLAMPED, ())}
    twins: dict[str, Checkpoint] = {}
    for arm, runs in groups.by_curriculum.items():
        for run in runs if arm != UNCLAMPED else ():
            if run.config.seeds not in unclamped:
                raise UserError(f"{run.name} has no unclamped twin: name a run with the same seeds and no clamping")
            twins[run.name] = unclamped[run.config.seeds]
    if not twins:
        raise UserError("none of the runs was trained under a clamp (clamping.action)")
    return twins


def as_trained(histories: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Histories whose `ratio` is the error of the forward pass that was trained: clamped while a clamp acted."""
    tables = {}
    for name, history in histories.items():
        if CLAMPED_ERROR in history:
            errors = history[CLAMPED_ERROR].astype(float).fillna(history["nmse_tail"])
            history = history.assign(ratio=errors / history["no_context_tail"])
        tables[name] = history
    return tables


def error_table(
    groups: Groups, twins: Twins, errors: Mapping[str, ClassErrors], trained: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """One row per clamped arm, class and forward pass: mean final error over the no-context optimum's of the arm and of
    its twins, and the `difference` paired by seed with its t-interval `low`, `high`.

    Without the clamp on the prompts of the study; as trained on the runs' own held-out prompts (last row of their
    histories), where the clamp acted to the end.
    """
    rows = []
    for arm, runs in clamped_arms(groups).items():
        lasts = runs[0].config.clamping.until in (0, runs[0].config.recipe.steps)
        for function_class, measured in errors.items():
            values = {WITHOUT: [(measured.value(run.name), measured.value(twins[run.name].name)) for run in runs]}
            pairs = [(run.name, twins[run.name].name) for run in runs]
            if lasts and all(name in trained for pair in pairs for name in pair):
                values[AS_TRAINED] = [
                    (last_ratio(trained[ours], function_class), last_ratio(trained[theirs], function_class))
                    for ours, theirs in pairs
                ]
            rows += [
                {"arm": arm, "function_class": function_class, "evaluated": how, **paired(np.array(both))}
                for how, both in values.items()
            ]
    return pd.DataFrame(rows)


def clamped_arms(groups: Groups) -> dict[str, Sequence[Checkpoint]]:
    return {arm: runs for arm, runs in groups.by_curriculum.items() if arm != UNCLAMPED}


def last_ratio(history: pd.DataFrame, function_class: str) -> float:
    return float(where(history, function_class=function_class).sort_values("step")["ratio"].iloc[-1])


def paired(values: np.ndarray) -> dict[str, Any]:
    """Columns of a table from pairs `[seed, (arm, twin)]`: both means and the mean difference with its t-interval, over
    the seeds of which both values exist."""
    values = values[~np.isnan(values).any(1)]
    if not len(values):
        return dict.fromkeys(("arm_mean", "twin_mean", "difference", "low", "high"), np.nan) | {"n_seeds": 0}
    differences = values[:, 0] - values[:, 1]
    low, high = t_interval(differences)
    means = {"arm_mean": float(values[:, 0].mean()), "twin_mean": float(values[:, 1].mean())}
    return means | {"difference": float(differences.mean()), "low": low, "high": high, "n_seeds": len(values)}


def head_table(groups: Groups, twins: Twins, n_prompts: int, seed: int) -> pd.DataFrame:
    """One row per clamped run: the highest retrospective score of any of its heads and of its twin's; and, where heads
    are named, of these heads the mean `score` and the `effect` of removing them (mean ablation; mean over the classes
    on which the model has a clear in-context gain, NaN without any), and the same of the twin's heads of these names.
    All without the clamp."""
    rows = []
    for arm, runs in clamped_arms(groups).items():
        for run in runs:
            pair = {"": run, "twin_": twins[run.name]}
            row: dict[str, Any] = {"arm": arm, "checkpoint": run.name, "heads": ",".join(run.config.clamping.heads)}
            for prefix, model in pair.items():
                values = measure_heads(model, run.config.clamping.heads, n_prompts, seed)
                row |= {prefix + name: value for name, value in values.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def measure_heads(checkpoint: Checkpoint, heads: Sequence[str], n_prompts: int, seed: int) -> dict[str, float]:
    config = checkpoint.config
    scores = selection_scores(checkpoint, n_prompts, seed)
    row = {"highest": float(scores.max()), "score": np.nan, "effect": np.nan}
    if heads:
        (head_set,) = parse_heads(",".join(heads), config.model.n_layers, config.model.n_heads)
        options: dict[str, Any] = {"modes": ["mean"], "n_controls": 0, "n_prompts": n_prompts, "seed": seed}
        effects = ablate(checkpoint, [head_set], config.trained_classes, **options).table["effect"].to_numpy()
        effects = effects[~np.isnan(effects)]
        row |= {
            "score": float(np.mean([scores[h.layer, h.number] for h in head_set])),
            "effect": float(effects.mean()) if len(effects) else np.nan,
        }
    return row


def compare_heads(heads: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and measure (`highest`, `score`, `effect`): both means, and the difference paired by seed."""
    rows = []
    for arm in heads["arm"].unique():
        runs = where(heads, arm=arm)
        for name in ("highest", "score", "effect"):
            pairs = runs[[name, f"twin_{name}"]].to_numpy(dtype=float)
            rows.append({"arm": arm, "measure": name, **paired(pairs)})
    return pd.DataFrame(rows)
