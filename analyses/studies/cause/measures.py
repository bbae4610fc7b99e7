"""Effects of the retrospective heads of every model: together, kept alone, one by one, and pooled over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from analyses.comparison.groups import with_all
from interp.ablation.ablate import Ablation, Design, ablate, ablate_or_reasons
from interp.ablation.errors import ErrorSlice, error_slices
from interp.ablation.pooled import pooled
from interp.ablation.size_classes import ATTENDS, HALF
from interp.model.heads import HeadSet, all_heads, heads_above, show
from interp.scores.score import score, selection_scores
from interp.statistics.agreement import spearman, tie_rounding
from interp.statistics.effects import differs_from_zero, interval_of
from interp.statistics.seeds import seed_mean
from training.checkpoints.checkpoint import Checkpoint
from training.common.table_rows import distinct, where
from training.options import DEFAULT_CONTROLS

MATTERS = 0.1
"""The share of the in-context gain from which on a single head counts as one that matters."""
LEVELS = (MATTERS, HALF)
POOLED_SETS = {"remove": "the set of retrospective heads", "keep": "the set of all other heads"}


@dataclass(frozen=True)
class ModelEffects:
    """What was measured on one model.

    Attributes:
        checkpoint: the model.
        head_set: its retrospective heads; may be empty.
        ablations: their joint removal (`remove`) and the removal of all others (`keep`); without those that failed.
        heads: one row per head and class: `score` with its interval, `effect` of removing it alone with its interval
            and `note`, why there is none.
        together: one row per class with a clear gain, if there are several retrospective heads: `joint_costs`.
        failures: which heads were left out because a self-check failed for them.
    """

    checkpoint: Checkpoint
    head_set: HeadSet
    ablations: dict[Design, Ablation]
    heads: pd.DataFrame
    together: pd.DataFrame
    failures: list[str]

    @property
    def curriculum(self) -> str:
        return self.checkpoint.config.curriculum


def examine(checkpoint: Checkpoint, n_prompts: int, seed: int) -> ModelEffects:
    """Locate, remove and keep the retrospective heads of one model, and remove each head alone."""
    config = checkpoint.config
    head_set = heads_above(ATTENDS, selection_scores(checkpoint, n_prompts, seed))
    remove_set = partial(ablate_or_reasons, checkpoint, [head_set], n_controls=DEFAULT_CONTROLS)
    remove_set = partial(remove_set, n_prompts=n_prompts, seed=seed)
    ablations: dict[Design, Ablation] = {}
    failures: list[str] = []
    if head_set:
        removed, reasons = remove_set()
        kept, other_reasons = remove_set(matches=("layer",), design="keep")
        attempts: dict[Design, Ablation | None] = {"remove": removed, "keep": kept}
        ablations = {design: ablation for design, ablation in attempts.items() if ablation}
        failures = list(dict.fromkeys([*reasons, *other_reasons]))
    single_heads = [(head,) for head in sorted(all_heads(config.model.n_layers, config.model.n_heads))]
    alone = ablate(
        checkpoint, single_heads, modes=["mean"], n_controls=0, n_prompts=n_prompts, seed=seed, total_only=True
    )
    scores = score(checkpoint, config.evaluated_classes, n_prompts=n_prompts, seed=seed).table
    scores["heads"] = [f"{layer}.{head}" for layer, head in zip(scores["layer"], scores["head"], strict=True)]
    names = {"value": "score", "ci_low": "score_low", "ci_high": "score_high"}
    scores = scores.drop(columns="score").rename(columns=names)
    heads = scores[["heads", "function_class", "score", "score_low", "score_high", "chance"]].merge(
        alone.table[["heads", "function_class", "points", "mode", "effect", "ci_low", "ci_high", "note"]]
    )
    together = joint_costs(checkpoint, head_set, ablations.get("remove"), alone)
    failures += alone.failures
    return ModelEffects(checkpoint, head_set, ablations, name_model(heads, checkpoint), together, failures)


def name_model(table: pd.DataFrame, checkpoint: Checkpoint) -> pd.DataFrame:
    """The table with the columns that name its model in front."""
    columns = {"checkpoint": checkpoint.name, "step": checkpoint.step, "curriculum": checkpoint.config.curriculum}
    return pd.concat([pd.DataFrame(columns, index=table.index), table], axis=1)


def effect_rows(model: ModelEffects) -> pd.DataFrame:
    """The joint removal and keeping of one model's heads, a row per class and mode; empty without heads."""
    parts = [ablation.table.assign(design=ablation.design) for ablation in model.ablations.values()]
    return name_model(pd.concat(parts, ignore_index=True), model.checkpoint) if parts else pd.DataFrame()


def pool_effects(models: Sequence[ModelEffects], design: Design) -> pd.DataFrame:
    """Effects over independent seeds, by curriculum (`interp.ablation.pooled.pooled`)."""
    parts = []
    for curriculum, group in with_all([m for m in models if design in m.ablations], lambda model: model.curriculum):
        checkpoints, ablations = [model.checkpoint for model in group], [model.ablations[design] for model in group]
        rows = pooled(checkpoints, ablations, [model.head_set for model in group], POOLED_SETS[design])
        rows.insert(0, "curriculum", curriculum)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def joint_costs(checkpoint: Checkpoint, head_set: HeadSet, removed: Ablation | None, alone: Ablation) -> pd.DataFrame:
    """One row per class with a clear gain: the `effect` of removing several heads together, the sum of their effects
    alone, `sum_alone`, the largest of these, `highest_alone`, and the `excess` of the first over the second with its
    95 % interval over prompts, `ci_low` and `ci_high` (mean ablation); empty for fewer than two heads, or where a
    self-check failed.

    Args:
        checkpoint: the model.
        head_set: the heads.
        removed: their joint removal.
        alone: the removal of every single head, on the same prompts.
    """
    columns = ["checkpoint", "heads", "function_class", "effect", "sum_alone", "highest_alone", "excess"]
    columns += ["ci_low", "ci_high"]
    single_heads, rows = [(head,) for head in head_set], []
    if len(head_set) > 1 and removed and not {str(head) for head in head_set} & set(alone.failed):
        by_class = {errors.function_class: errors for errors in error_slices_of(alone)}
        for together in error_slices_of(removed):
            singly = by_class[together.function_class]
            resamples, resamples_alone = together.resamples([head_set]), singly.resamples(single_heads)
            if resamples is not None and resamples_alone is not None:
                effect, effects_alone = together.mean_effects([head_set])[0], singly.mean_effects(single_heads)
                sum_alone = effects_alone.sum()
                excess = interval_of(effect - sum_alone, resamples[:, 0] - resamples_alone.sum(1))
                names = [checkpoint.name, show(head_set), together.function_class]
                costs = [effect, sum_alone, effects_alone.max()]
                rows.append([*names, *costs, excess.value, excess.ci_low, excess.ci_high])
    return pd.DataFrame(rows, columns=columns)


def error_slices_of(ablation: Ablation) -> list[ErrorSlice]:
    """The errors under mean ablation, by class."""
    slices = error_slices(ablation.errors, ablation.protocol.ranges, ablation.seed)
    return [errors for errors in slices if errors.mode == "mean"]


def measure_guides(models: Sequence[ModelEffects]) -> pd.DataFrame:
    """How well the score of a head predicts its effect, by class and by the effect from which on a head matters.

    Columns: `level`, that effect; `spearman` over the heads of a model, mean over independent seeds with its
    t-interval; over all heads of all models `n_matter` (effect above `level`), `n_attend` (score above `ATTENDS`),
    `n_both`, `precision`, `recall`. Models without a clear in-context gain on a class are left out; `n_models` are
    left.
    """
    rows = []
    for function_class in dict.fromkeys(name for model in models for name in distinct(model.heads, "function_class")):
        tables = [
            (model.checkpoint, table)
            for model in models
            if len(table := where(model.heads, function_class=function_class).dropna(subset=["effect"]))
        ]
        columns: dict[str, Any] = {"function_class": function_class, "n_models": len(tables)}
        if not tables:
            rows += [columns | {"level": level} for level in LEVELS]
            continue
        checkpoints, heads = zip(*tables, strict=True)
        rank = seed_mean(checkpoints, [rank_correlation(table) for table in heads])
        rows += [columns | guide_row(pd.concat(heads), level, rank.named("spearman")) for level in LEVELS]
    return pd.DataFrame(rows)


def guide_row(heads: pd.DataFrame, level: float, rank: dict[str, float]) -> dict[str, Any]:
    """Precision and recall of the score over the heads of all models."""
    matter, attend = heads["effect"] > level, heads["score"] > ATTENDS
    n_matter, n_attend, n_both = (int(mask.to_numpy().sum()) for mask in (matter, attend, matter & attend))
    counts = {"n_heads": len(heads), "n_matter": n_matter, "n_attend": n_attend, "n_both": n_both}
    shares = {"precision": share(n_both, n_attend), "recall": share(n_both, n_matter)}
    return {"level": level} | rank | counts | shares


def rank_correlation(heads: pd.DataFrame) -> float:
    """Spearman of score and effect; NaN where no effect differs from 0, so that their ranks are noise."""
    if not differs_from_zero(heads["ci_low"].to_numpy(), heads["ci_high"].to_numpy()).any():
        return float("nan")
    return float(spearman(*(tie_rounding(heads[column].to_numpy()) for column in ("score", "effect"))))


def share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
