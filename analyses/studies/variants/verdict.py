"""The verdict of the study of variants: sentences that follow from its tables by rule.

1. A variant differs from the reference in a measure if p (Welch) is at most `SIGNIFICANT` after Holm over variants; a
   measure has a trend along a setting if the permutation p is, after Holm over all trends.
2. Removing heads harms a model if it costs at least `HALF` of the in-context gain.
3. A paper's statement on an instruction is compared on the classes whose difference to the reference excludes 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.comparison.groups import Groups
from analyses.studies.variants.measures.by_model import MEASURES
from analyses.studies.variants.measures.comparison import N_PERMUTATIONS
from analyses.studies.variants.measures.grouping import REFERENCE, changed_settings
from analyses.studies.variants.tables import format_mean
from interp.ablation.size_classes import ATTENDS, HALF
from interp.display.text import counted, listed
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import p_number
from training.common.output import interval, records
from training.common.table_rows import distinct, where

PAPER = {"one_hot": "brings minimal improvement", "vector": "is worse on quadratic and cubic"}
"""Instruction tokens on the mixed curriculum, by kind (arXiv 2404.03558; second-hand, no figures)."""
SENTENCES = {
    "heads": "Of {models} that left the plateau on a class, {n_with} have a head with a score above {threshold}"
    "{without}.",
    "without": "; none is in {names}",
    "harm": "Removing these heads (mean ablation) costs at least {half} of the in-context gain in {n_harmed} of "
    "{n_with}{harmless}.",
    "harmless": "; not in {names}",
    "stayed": "Of {models} that stayed on it, {n_with} have one.",
    "variant": "{variant} ({seeds}, {n_learned} left the plateau): {measures}{differences}.",
    "differences": ". Differs from the reference in {measures}",
    "trend": "With {setting} {trends}, over {models}, Holm over all trends.",
    "no trend": "Along {setting} no measure has a trend beyond chance, over {models}, Holm over all trends.",
    "instruction": "{variant}: error against the reference, above 0 = worse: {errors}. According to the paper it "
    "{statement}: {agreement}.",
}
Row = Mapping[str, Any]


def verdict(
    models: pd.DataFrame, compared: pd.DataFrame, errors: pd.DataFrame, trends: pd.DataFrame, groups: Groups
) -> list[str]:
    """All models, each variant, trends, instructions compared with the paper, and runs that were left out."""
    return [
        *model_sentences(models),
        *(variant_sentence(variant, models, compared) for variant in groups.by_curriculum),
        *trend_sentences(trends),
        *instruction_sentences(errors, groups),
        *groups.exclusions(),
    ]


def model_sentences(models: pd.DataFrame) -> list[str]:
    """In how many of the models that left the plateau there is a retrospective head, and in how many it matters."""
    learned, stayed = (records(where(models, learned=value)) for value in (True, False))
    with_heads = [row for row in learned if row["n_found"]]
    without = [name_model(row, f"highest {row['highest']:.2f}") for row in learned if not row["n_found"]]
    harmless = [name_model(row, f"{row['effect']:.2f}") for row in with_heads if not row["effect"] >= HALF]
    counts = {"n_with": len(with_heads), "n_harmed": len(with_heads) - len(harmless), "half": HALF}
    names = {"without": without, "harmless": harmless}
    texts = {key: SENTENCES[key].format(names=listed(value)) if value else "" for key, value in names.items()}
    values = {"models": counted(len(learned), "model"), "threshold": ATTENDS, **counts, **texts}
    sentences = [SENTENCES[key].format(**values) for key in ("heads", *(["harm"] if with_heads else []))]
    if stayed:
        n_with = sum(bool(row["n_found"]) for row in stayed)
        sentences.append(SENTENCES["stayed"].format(models=counted(len(stayed), "model"), n_with=n_with))
    return sentences


def name_model(row: Row, value: str) -> str:
    return f"{row['checkpoint']} ({row['variant']}, {value})"


def variant_sentence(variant: str, models: pd.DataFrame, compared: pd.DataFrame) -> str:
    """One variant, and its differences from the reference by rule 1."""
    cells = {row["measure"]: row for row in records(where(compared, variant=variant))}
    learned = where(models, variant=variant)["learned"].astype(bool)
    differences = [
        f"{MEASURES[row['measure']]} ({interval(row['difference'], row['low'], row['high'])})"
        for row in cells.values()
        if row["p_holm"] <= SIGNIFICANT
    ]
    return SENTENCES["variant"].format(
        variant=variant,
        seeds=counted(len(learned), "seed"),
        n_learned=learned.sum(),
        measures="; ".join(f"{MEASURES[key]} {format_mean(cells[key])}" for key in ("ratio", "n_found", "effect")),
        differences=SENTENCES["differences"].format(measures=listed(differences)) if differences else "",
    )


def trend_sentences(trends: pd.DataFrame) -> list[str]:
    """The trends of every setting by rule 1."""
    sentences = []
    for setting in distinct(trends, "setting"):
        rows = records(where(trends, setting=setting))
        texts = [format_trend(row) for row in rows if row["p_holm"] <= SIGNIFICANT]
        models = counted(max(row["n_models"] for row in rows), "model")
        template = SENTENCES["trend" if texts else "no trend"]
        sentences.append(template.format(setting=setting, trends=listed(texts), models=models))
    return sentences


def format_trend(row: Row) -> str:
    direction = "rises" if row["spearman"] > 0 else "falls"
    p_holm = p_number(row["p_holm"], N_PERMUTATIONS, unadjusted=row["p_value"])
    return f"{MEASURES[row['measure']]} {direction} (Spearman {row['spearman']:.2f}, p after Holm {p_holm})"


def instruction_sentences(errors: pd.DataFrame, groups: Groups) -> list[str]:
    """Variants that change only the instruction, compared with the paper's statement on that kind."""
    reference = groups.by_curriculum[REFERENCE][0].config
    sentences = []
    for variant, checkpoints in groups.by_curriculum.items():
        changed = changed_settings(reference, checkpoints[0].config)
        kind = changed.get("instruction.kind")
        if kind not in PAPER or any(key.partition(".")[0] != "instruction" for key in changed):
            continue
        rows = records(where(errors, variant=variant).dropna(subset=["low"]))
        texts = [f"{row['function_class']} {interval(row['difference'], row['low'], row['high'])}" for row in rows]
        agreement = compare_with_paper(kind, rows)
        values = {"variant": variant, "errors": ", ".join(texts), "statement": PAPER[kind], "agreement": agreement}
        sentences.append(SENTENCES["instruction"].format(**values))
    return sentences


def compare_with_paper(kind: str, rows: Sequence[Row]) -> str:
    """
    >>> compare_with_paper("one_hot", [{"function_class": "linear", "low": -0.1, "high": 0.1}])
    'not contradicted, no class differs beyond chance'
    """
    better = [row["function_class"] for row in rows if row["high"] < 0]
    worse = [row["function_class"] for row in rows if row["low"] > 0]
    if not better and not worse:
        return f"{'not contradicted' if kind == 'one_hot' else 'not shown'}, no class differs beyond chance"
    texts = [f"{word} on {listed(names)}" for word, names in (("better", better), ("worse", worse)) if names]
    agrees = kind == "vector" and {"quadratic", "cubic"} <= set(worse)
    return f"{'agrees' if agrees else 'DISAGREES'}, {' and '.join(texts)} here"
