"""The verdict of the study of architectures: sentences that follow from its tables by rule.

1. Which learn and which have retrospective heads are counts of independent seeds with exact intervals.
2. The cost of these heads is the pooled effect of removing them, against layer-matched control sets.
3. An architecture differs from the reference in a count (Fisher) or a mean (Welch) if p is at most `SIGNIFICANT` after
   Holm over architectures. Where so few seeds allow no smaller p, that is stated.
"""

import pandas as pd

from analyses.comparison.groups import Groups
from analyses.studies.architectures.measures import HEADS
from analyses.studies.cause.measures import MATTERS
from analyses.studies.plateaus.measures import LEFT
from analyses.studies.plateaus.tables import format_share
from analyses.studies.variants.measures.by_model import MEASURES
from analyses.studies.variants.measures.grouping import REFERENCE
from analyses.studies.variants.tables import format_mean
from interp.ablation.size_classes import ATTENDS
from interp.ablation.verdict import pooled_verdict
from interp.display.text import counted, listed
from interp.statistics.effects import SIGNIFICANT
from training.common.output import interval, records
from training.common.table_rows import where
from training.config.config import ModelConfig
from training.evaluation.convergence import FRACTION

SENTENCES = {
    "reference": "The reference is {architecture}. All architectures were trained by one recipe: one that stayed on "
    "the plateau may leave it under another.",
    "learned": "{variant}: left the plateau (error at most {left:g} of the no-context optimum) on {counts}; converged "
    "(at most {converged:g}) on {converged_counts}.",
    "heads": "{variant}: of {learned} that left the plateau on a class, {n_with} have a head with a retrospective "
    "score above {threshold} {share}{layers}; the highest scores are {highest_min:.2f} to {highest_max:.2f} (uniform "
    "attention: {chance:.2f}).",
    "none learned": "{variant}: none of {seeds} left the plateau on any class; {n_stayed_with} have a head with a "
    "retrospective score above {threshold}.",
    "cost": "{variant}: {verdict}",
    "no set": "{variant}: no head scores above {threshold}, so there is no set to remove; the number of heads that "
    "alone cost more than {matters} of the in-context gain is {n_matter} (mean over seeds and classes [t-interval]).",
    "no gain": "{variant}: no head scores above {threshold}, and no model has a clear in-context gain to lose.",
    "count": "Compared with the reference, {differences} (Fisher, Holm over architectures).",
    "learned more or less": "{variant} left the plateau on {count} in {n} of {n_seeds} seeds against {reference_n} of "
    "{reference_seeds} (p after Holm {p_holm:.3g})",
    "heads more or less": "{variant} has retrospective heads in {n} of {n_seeds} seeds against {reference_n} of "
    "{reference_seeds} (p after Holm {p_holm:.3g})",
    "no count": "No count differs from the reference's beyond chance (Fisher, Holm over architectures); so few seeds "
    "allow no p below {smallest_p:.3g} before Holm.",
    "mean": "{variant} differs from the reference in {measures} (difference, Welch's interval, Holm over "
    "architectures).",
    "no mean": "No mean over seeds differs from the reference's beyond chance (Welch, Holm over architectures).",
}


def verdict(
    groups: Groups,
    counts: pd.DataFrame,
    heads: pd.DataFrame,
    effects: pd.DataFrame,
    compared: pd.DataFrame,
    tests: pd.DataFrame,
) -> list[str]:
    """Each architecture: what it learned, its heads and their cost; then comparisons, and runs that were left out."""
    sentences = [SENTENCES["reference"].format(architecture=describe(groups.by_curriculum[REFERENCE][0].config.model))]
    for variant in groups.by_curriculum:
        sentences += [
            learned_sentence(variant, counts),
            head_sentence(variant, heads),
            cost_sentence(variant, effects, compared),
        ]
    return [*sentences, *count_sentences(tests), *mean_sentences(compared), *groups.notes()]


def describe(model: ModelConfig) -> str:
    """
    >>> describe(ModelConfig(n_layers=1, n_heads=2, d_model=8, n_dims=3, n_ctx=6))
    'norm=layer, positions=learned, d_mlp=32, act=gelu_new'
    """
    return f"norm={model.norm}, positions={model.positions}, d_mlp={model.mlp_width}, act={model.act}"


def learned_sentence(variant: str, counts: pd.DataFrame) -> str:
    """In how many seeds each class was learned."""
    left, converged = (records(where(counts, curriculum=variant, threshold=line)) for line in (LEFT, FRACTION))
    return SENTENCES["learned"].format(
        variant=variant,
        left=LEFT,
        counts=listed(
            [f"{row['function_class']} in {row['n_left']} of {row['n_seeds']} {format_share(row)}" for row in left]
        ),
        converged=FRACTION,
        converged_counts=listed([f"{row['function_class']} in {row['n_left']}" for row in converged]),
    )


def head_sentence(variant: str, heads: pd.DataFrame) -> str:
    """In how many seeds that learned there is a retrospective head."""
    (row,) = records(where(heads, variant=variant))
    layers = row["layers"].split(",") if row["layers"] else []
    values = {
        "learned": counted(row["n_learned"], "seed"),
        "seeds": counted(row["n_seeds"], "seed"),
        "threshold": ATTENDS,
        "share": format_share(row),
        "layers": f", in layer{'s' if len(layers) > 1 else ''} {listed(layers)}" if layers else "",
    }
    return SENTENCES["heads" if row["n_learned"] else "none learned"].format(**row | values)


def cost_sentence(variant: str, effects: pd.DataFrame, compared: pd.DataFrame) -> str:
    """What removing the heads costs; without any, how many heads matter alone."""
    rows = where(effects, variant=variant) if len(effects) else effects
    if len(rows):
        return SENTENCES["cost"].format(variant=variant, verdict=pooled_verdict(rows))
    (alone,) = records(where(compared, variant=variant, measure="n_matter"))
    template = SENTENCES["no set" if alone["n_seeds"] else "no gain"]
    return template.format(variant=variant, threshold=ATTENDS, matters=MATTERS, n_matter=format_mean(alone))


def count_sentences(tests: pd.DataFrame) -> list[str]:
    """Rule 3 for counts."""
    rows = records(tests)
    if not rows:
        return []
    templates = {True: SENTENCES["heads more or less"], False: SENTENCES["learned more or less"]}
    differences = [templates[row["count"] == HEADS].format(**row) for row in rows if row["p_holm"] <= SIGNIFICANT]
    if differences:
        return [SENTENCES["count"].format(differences=listed(differences))]
    return [SENTENCES["no count"].format(smallest_p=min(row["smallest_p"] for row in rows))]


def mean_sentences(compared: pd.DataFrame) -> list[str]:
    """Rule 3 for means."""
    by_variant: dict[str, list[str]] = {}
    for row in records(compared):
        if row["p_holm"] <= SIGNIFICANT:
            text = f"{MEASURES[row['measure']]} ({interval(row['difference'], row['low'], row['high'])})"
            by_variant.setdefault(row["variant"], []).append(text)
    if not by_variant and (compared["variant"] != REFERENCE).to_numpy().any():
        return [SENTENCES["no mean"]]
    return [SENTENCES["mean"].format(variant=name, measures=listed(texts)) for name, texts in by_variant.items()]
