"""The guides to a head's exact effect, how well each ranks the heads, and the heads that only one kind of guide finds.

A guide is a number for every head that can be had without removing it: nine scores of attention, the function-vector
score, gradient estimates of the effect of patching it, and its direct effect on the error. Guides are measured on other
prompts than the effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from analyses.comparison.groups import with_all
from analyses.comparison.snapshots import earlier_steps, spread
from analyses.studies.cause.measures import MATTERS, name_model
from analyses.studies.emergence.measures import find_arrival
from interp.ablation.ablate import Ablation, ablate, ablate_or_reasons
from interp.ablation.pooled import pooled
from interp.ablation.size_classes import ATTENDS
from interp.attribution.attribute import attribute
from interp.model.heads import Head, HeadSet, all_heads, head_set, heads_above, parse_head, show
from interp.names import CorruptionName
from interp.scores.kinds import SCORES
from interp.scores.measured import measured_score
from interp.scores.score import Measure, score_all
from interp.statistics.agreement import spearman, tie_rounding, top
from interp.statistics.effects import differs_from_zero, holm
from interp.statistics.seeds import seed_mean, seed_values
from interp.statistics.sign_flips import flips_drawn, sign_flip_p
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.output import records
from training.common.table_rows import distinct, where
from training.options import DEFAULT_CONTROLS
from training.tasks.function_classes import function_class
from training.tasks.function_classes.base import FunctionOfX

FUNCTION_VECTOR = "function_vector"
ESTIMATES: Mapping[str, str] = {"gradient": "gradient", "ig": "integrated gradient"}
"""Gradient methods (`interp.attribution.nodes.METHODS`) by the name of the guide."""
DIRECT = "direct effect"
REFERENCE = "retrospective"
"""The guide with which all others are compared."""
GUIDES = (*SCORES, FUNCTION_VECTOR, *ESTIMATES.values(), DIRECT)
ONLY_ATTENDS, ONLY_CARRIES = "retrospective only", "function-vector only"
"""Heads that one kind of score finds and the other does not."""
COURSE_PROMPTS, COURSE_SNAPSHOTS = 256, 16
Row = dict[str, Any]
Guides = Mapping[str, Float[np.ndarray, "layer head"]]


@dataclass(frozen=True)
class ModelGuides:
    """What was measured on one model.

    Attributes:
        checkpoint: the model.
        heads: one row per head and class: its exact `effect` with its interval, and a column per guide.
        sets: by kind, the heads that only this kind of score finds; without empty sets.
        ablations: by kind, the removal of these heads.
        failures: what was left out because a self-check failed.
    """

    checkpoint: Checkpoint
    heads: pd.DataFrame
    sets: dict[str, HeadSet]
    ablations: dict[str, Ablation]
    failures: list[str]

    @property
    def curriculum(self) -> str:
        return self.checkpoint.config.curriculum


def examine(checkpoint: Checkpoint, n_prompts: int, seed: int) -> ModelGuides:
    """Every guide and the exact effect of every head of a model, and the removal of heads that one score finds."""
    heads = all_heads(checkpoint.config.model.n_layers, checkpoint.config.model.n_heads)
    classes = checkpoint.config.trained_classes
    alone = remove_each(checkpoint, heads, classes, n_prompts, seed)
    guides, certain = measure_guides(checkpoint, heads, classes, n_prompts, seed + 1)
    rows = [
        {"heads": row["heads"], "function_class": row["function_class"]}
        | {key: row[key] for key in ("effect", "ci_low", "ci_high")}
        | {
            name: float(values[parse_head(row["heads"], row["heads"])])
            for name, values in guides[row["function_class"]].items()
        }
        for row in records(alone.table)
    ]
    sets = exclusive_sets(guides, certain, classes)
    ablations, failures = {}, list(alone.failures)
    for kind, members in sets.items():
        options = {"n_controls": DEFAULT_CONTROLS, "n_prompts": n_prompts, "seed": seed}
        removed, reasons = ablate_or_reasons(checkpoint, [members], classes, modes=["mean"], **options)
        failures += reasons
        if removed:
            ablations[kind] = removed
    return ModelGuides(checkpoint, name_model(pd.DataFrame(rows), checkpoint), sets, ablations, failures)


def remove_each(
    checkpoint: Checkpoint, heads: Sequence[Head], classes: Sequence[str], n_prompts: int, seed: int
) -> Ablation:
    sets = [(head,) for head in heads]
    return ablate(checkpoint, sets, classes, modes=["mean"], n_controls=0, n_prompts=n_prompts, seed=seed)


def measure_guides(
    checkpoint: Checkpoint, heads: Sequence[Head], classes: Sequence[str], n_prompts: int, seed: int
) -> tuple[Mapping[str, Guides], Mapping[str, Float[np.ndarray, "layer head"]]]:
    """By class all guides; and by class the lower ends of the intervals of function-vector scores."""
    measures = [Measure(kind) for kind in SCORES.values()] + [Measure(measured_score(FUNCTION_VECTOR))]
    scores = score_all(checkpoint, classes, measures=measures, n_prompts=n_prompts, seed=seed)
    shape = (checkpoint.config.model.n_layers, checkpoint.config.model.n_heads)
    direct = remove_each(checkpoint, heads, classes, n_prompts, seed).table
    corrupt = corruption_of(classes)
    estimates = attribute(
        checkpoint, classes, methods=[*ESTIMATES], corrupt=corrupt, direction="noise", n_prompts=n_prompts,
        seed=seed, n_validate=0,
    ).table  # fmt: skip
    guides = {
        name: {
            **{result.kind.name: result.values[name] for result in scores},
            **{
                guide: where(estimates, function_class=name, method=method)["effect"].to_numpy().reshape(shape)
                for method, guide in ESTIMATES.items()
            },
            DIRECT: where(direct, function_class=name)["direct_effect"].to_numpy().reshape(shape),
        }
        for name in classes
    }
    return guides, scores[-1].ci_low


def corruption_of(classes: Sequence[str]) -> CorruptionName:
    """Other examples before the same query; where y is no function of x alone, the same examples with permuted y.

    Other corruptions keep every x, and so what a head that attends to x writes.

    >>> corruption_of(["linear", "cubic"]), corruption_of(["linear", "markov_chain"])
    ('prompt', 'permuted')
    """
    return "prompt" if all(isinstance(function_class(name), FunctionOfX) for name in classes) else "permuted"


def exclusive_sets(
    guides: Mapping[str, Guides], certain: Mapping[str, Float[np.ndarray, "layer head"]], classes: Sequence[str]
) -> dict[str, HeadSet]:
    """The retrospective heads without the function-vector heads, and the other way round; empty sets are left out.

    Retrospective heads score above `ATTENDS`, averaged over classes. Function-vector heads are as many heads, those
    with the highest function-vector scores, if these are above 0 by their intervals on some class.
    """
    attention = np.mean([guides[name][REFERENCE] for name in classes], axis=0)
    carried = np.nan_to_num(np.mean([guides[name][FUNCTION_VECTOR] for name in classes], axis=0))
    attending = heads_above(ATTENDS, attention)
    is_certain = np.any([certain[name] > 0 for name in classes], axis=0)
    highest = top(carried.ravel(), len(attending)).reshape(carried.shape) & is_certain
    carrying = head_set(Head(int(layer), int(number)) for layer, number in np.argwhere(highest))
    sets = {
        ONLY_ATTENDS: tuple(head for head in attending if head not in carrying),
        ONLY_CARRIES: tuple(head for head in carrying if head not in attending),
    }
    return {kind: members for kind, members in sets.items() if members}


def ranking_table(models: Sequence[ModelGuides]) -> pd.DataFrame:
    """One row per model, class and guide.

    Columns: `spearman` over heads with the exact effect (NaN where no effect differs from 0); `n_matter`, the heads
    that cost more than `MATTERS` alone; `share_found`, that of these among the `n_matter` heads that the guide ranks
    highest (NaN without such heads; ties are broken at random, on average), and `by_chance`, the same for a random
    order.
    """
    rows: list[Row] = []
    for model in models:
        for name in distinct(model.heads, "function_class"):
            heads = where(model.heads, function_class=name)
            effects = heads["effect"].to_numpy()
            if not differs_from_zero(heads["ci_low"].to_numpy(), heads["ci_high"].to_numpy()).any():
                continue
            n_matter = int((effects > MATTERS).sum())
            labels = {"checkpoint": model.checkpoint.name, "curriculum": model.curriculum, "function_class": name}
            for guide in GUIDES:
                values = tie_rounding(heads[guide].to_numpy())
                rows.append(
                    labels
                    | {"guide": guide, "spearman": float(spearman(values, tie_rounding(effects)))}
                    | {"n_matter": n_matter, "n_heads": len(heads)}
                    | {"share_found": share_in_highest(values, effects > MATTERS), "by_chance": n_matter / len(heads)}
                )
    return pd.DataFrame(rows)


def share_in_highest(values: Float[np.ndarray, " head"], matters: Bool[np.ndarray, " head"]) -> float:
    """Of the heads that matter, the share among as many of the highest values; ties are broken at random, on average.

    >>> share_in_highest(np.array([1.0, 1.0, 1.0, 0.2]), np.array([True, False, False, True]))
    0.3333333333333333
    """
    n_matter = int(matters.sum())
    if not n_matter:
        return np.nan
    last = np.sort(values)[-n_matter]
    above, tied = values > last, values == last
    expected = matters[above].sum() + matters[tied].sum() * (n_matter - above.sum()) / tied.sum()
    return float(expected / n_matter)


def guide_table(models: Sequence[ModelGuides], rankings: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum (and all of them) and guide, over independent seeds.

    Columns: `spearman` averaged over the classes of a model, with its t-interval; so `share_found`, `by_chance`;
    `difference` of `spearman` from that of the retrospective score, paired within seeds, with the exact p-value of its
    mean under random signs (`n_draws` of them; 0: all) and `p_holm` over guides; `n_seeds`.
    """
    rows: list[Row] = []
    for curriculum, group in with_all(models, lambda model: model.curriculum):
        names = [model.checkpoint.name for model in group]
        checkpoints = {model.checkpoint.name: model.checkpoint for model in group}
        part = rankings.loc[rankings["checkpoint"].isin(names)] if len(rankings) else rankings
        guides = [guide_row(where(part, guide=guide), part, checkpoints) for guide in GUIDES]
        adjusted = holm([row["p_value"] for row in guides])
        rows += [
            {"curriculum": curriculum, "guide": guide} | row | {"p_holm": p_value}
            for guide, row, p_value in zip(GUIDES, guides, adjusted, strict=True)
            if row["n_seeds"]
        ]
    return pd.DataFrame(rows)


def guide_row(rows: pd.DataFrame, all_rows: pd.DataFrame, checkpoints: Mapping[str, Checkpoint]) -> Row:
    """One guide over the models of a group."""
    by_model = model_means(rows, "spearman")
    used = [checkpoints[name] for name in by_model]
    mean = seed_mean(used, list(by_model.values()))
    shares = model_means(rows, "share_found")
    reference = model_means(where(all_rows, guide=REFERENCE), "spearman")
    differences = seed_values(used, [value - reference[name] for name, value in by_model.items()])
    return {
        **mean.named("spearman"),
        "share_found": seed_mean([checkpoints[name] for name in shares], list(shares.values())).value,
        "by_chance": float(rows["by_chance"].loc[rows["share_found"].notna()].mean()),
        "difference": float(differences.mean()) if len(differences) else np.nan,
        "p_value": sign_flip_p(differences),
        "n_draws": flips_drawn(len(differences)),
    }


def model_means(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """By model, the mean over the classes on which there is a value."""
    values: dict[str, list[float]] = {}
    for row in records(rows.dropna(subset=[column])):
        values.setdefault(row["checkpoint"], []).append(row[column])
    return {name: float(np.mean(of_model)) for name, of_model in values.items()}


def exclusion_table(models: Sequence[ModelGuides]) -> pd.DataFrame:
    """One row per kind of set, curriculum and class: removal pooled over seeds (`interp.ablation.pooled.pooled`)."""
    parts = []
    for kind in (ONLY_ATTENDS, ONLY_CARRIES):
        having = [model for model in models if kind in model.ablations]
        for curriculum, group in with_all(having, lambda model: model.curriculum):
            checkpoints = [model.checkpoint for model in group]
            ablations = [model.ablations[kind] for model in group]
            rows = pooled(checkpoints, ablations, [model.sets[kind] for model in group], kind)
            rows.insert(0, "curriculum", curriculum)
            parts.append(rows)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def follow_scores(checkpoint: Checkpoint, seed: int) -> list[Row]:
    """The highest retrospective and function-vector score of any head at snapshots of a run, averaged over classes."""
    classes, device = checkpoint.config.trained_classes, str(checkpoint.model.device)
    measures = [Measure(SCORES[REFERENCE]), Measure(measured_score(FUNCTION_VECTOR))]
    rows = []
    for step in spread([*earlier_steps(checkpoint), checkpoint.step], COURSE_SNAPSHOTS):
        snapshot = checkpoint if step == checkpoint.step else load(f"{checkpoint.directory}@{step}", device)
        scores = score_all(snapshot, classes, measures=measures, n_prompts=COURSE_PROMPTS, seed=seed, intervals=False)
        rows += [
            {
                "checkpoint": checkpoint.name,
                "curriculum": checkpoint.config.curriculum,
                "step": step,
                "guide": result.kind.name,
                "highest": float(np.nan_to_num(result.mean(classes)).max()),
            }
            for result in scores
        ]
    return rows


def arrival_table(course: pd.DataFrame) -> pd.DataFrame:
    """By run and kind of score, the snapshots between which its highest value passes half of its final one for good.

    Missing where the final value is at most that of `least_value`.
    """
    rows: list[Row] = []
    for name in distinct(course, "checkpoint") if len(course) else []:
        for guide in (REFERENCE, FUNCTION_VECTOR):
            part = where(course, checkpoint=name, guide=guide)
            arrival = find_arrival(part["step"].tolist(), part["highest"].tolist(), least_value(guide))
            after, by = arrival or (np.nan, np.nan)
            rows.append(
                {"checkpoint": name, "guide": guide, "final": part["highest"].iloc[-1], "after": after, "by": by}
            )
    return pd.DataFrame(rows)


def least_value(guide: str) -> float:
    """From which value on a score counts as present."""
    return ATTENDS if guide == REFERENCE else MATTERS


def describe_sets(models: Sequence[ModelGuides]) -> pd.DataFrame:
    """One row per model and kind of set: the heads that only this kind of score finds."""
    return pd.DataFrame(
        [
            {"checkpoint": model.checkpoint.name, "kind": kind, "heads": show(members)}
            for model in models
            for kind, members in model.sets.items()
        ]
    )
