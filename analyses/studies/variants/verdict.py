"""What variants show, in sentences that follow from the tables by rule."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.comparison.groups import Groups
from analyses.studies.variants.comparison import N_PERMUTATIONS
from analyses.studies.variants.grouping import REFERENCE, changes
from analyses.studies.variants.measures import MEASURES
from interp.ablation.size_classes import ATTENDS, HALF
from interp.display.text import counted, listed
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import p_number
from training.common.output import interval, records
from training.common.table_rows import where

PAPER = {
    "one_hot": "brings minimal improvement",
    "vector": "is worse on quadratic and cubic",
}
"""Instruction tokens on the mixed curriculum, by kind (paper.md, section 10.2; second-hand, no figures)."""


def verdict(
    models: pd.DataFrame, compared: pd.DataFrame, errors: pd.DataFrame, trends: pd.DataFrame, groups: Groups
) -> list[str]:
    """Everywhere or not, each variant, trends, instructions beside the paper, and what few seeds cannot show."""
    variants = [variant_sentence(name, models, compared) for name in groups.by_curriculum]
    return [
        *everywhere(models),
        *variants,
        *trend_sentences(trends),
        *instruction_sentences(errors, groups),
        *groups.exclusions(),
    ]


def everywhere(models: pd.DataFrame) -> list[str]:
    """In how many of the models that left the plateau there is a retrospective head, and in how many it matters."""
    learned, plateaued = (records(where(models, learned=value)) for value in (True, False))
    having = [row for row in learned if row["n_found"]]
    without = [named(row, f"highest {row['highest']:.2f}") for row in learned if not row["n_found"]]
    harmless = [named(row, f"{row['effect']:.2f}") for row in having if not row["effect"] >= HALF]
    text = f"Of {counted(len(learned), 'model')} that left the plateau on a class, {len(having)} have a head with a "
    text += f"score above {ATTENDS}" + (f"; none is in {listed(without)}." if without else ".")
    sentences = [text]
    if having:
        n_harmed = len(having) - len(harmless)
        text = f"Removing these heads (mean ablation) costs at least {HALF} of the in-context gain in {n_harmed} of "
        sentences.append(text + f"{len(having)}" + (f"; not in {listed(harmless)}." if harmless else "."))
    if plateaued:
        n_having = sum(bool(row["n_found"]) for row in plateaued)
        sentences.append(f"Of {counted(len(plateaued), 'model')} that stayed on it, {n_having} have one.")
    return sentences


def named(row: Mapping[str, Any], what: str) -> str:
    return f"{row['checkpoint']} ({row['variant']}, {what})"


def variant_sentence(variant: str, models: pd.DataFrame, compared: pd.DataFrame) -> str:
    """One variant, and what differs from the reference beyond chance (Welch, Holm over variants)."""
    here = {row["measure"]: row for row in records(where(compared, variant=variant))}
    rows = records(where(models, variant=variant))
    text = f"{variant} ({counted(len(rows), 'seed')}, {sum(bool(row['learned']) for row in rows)} left the plateau): "
    text += "; ".join(f"{MEASURES[name]} {cell(here[name])}" for name in ("ratio", "n_found", "effect") if name in here)
    differ = [row for row in here.values() if row.get("p_holm", np.nan) <= SIGNIFICANT]
    if differ:
        said = [
            f"{MEASURES[row['measure']]} ({interval(row['difference'], row['low'], row['high'])})" for row in differ
        ]
        text += f". Differs from the reference in {listed(said)}"
    return text + "."


def cell(row: Mapping[str, Any]) -> str:
    """A mean over seeds with its t-interval."""
    return "undefined" if not row["n_seeds"] else interval(row["value"], row["t_low"], row["t_high"])


def trend_sentences(trends: pd.DataFrame) -> list[str]:
    """Trends whose p after Holm is significant, and the settings that show none."""
    found = []
    for setting, rows in trends.groupby("setting", sort=False):
        said = [trend(row) for row in records(rows) if row["p_holm"] <= SIGNIFICANT]
        text = f"With {setting} {listed(said)}" if said else f"Along {setting} no measure has a trend beyond chance"
        n_models = max(row["n_models"] for row in records(rows))
        found.append(f"{text}, over {counted(n_models, 'model')}, Holm over all trends.")
    return found


def trend(row: Mapping[str, Any]) -> str:
    direction = "rises" if row["spearman"] > 0 else "falls"
    p_holm = p_number(row["p_holm"], N_PERMUTATIONS, unadjusted=row["p_value"])
    return f"{MEASURES[row['measure']]} {direction} (Spearman {row['spearman']:.2f}, p after Holm {p_holm})"


def instruction_sentences(errors: pd.DataFrame, groups: Groups) -> list[str]:
    """Variants that change nothing but the instruction, beside what the paper says of that kind."""
    reference = groups.by_curriculum[REFERENCE][0].config
    found = []
    for variant, checkpoints in groups.by_curriculum.items():
        changed = changes(reference, checkpoints[0].config)
        kind = changed.get("instruction.kind")
        if kind not in PAPER or any(key.partition(".")[0] != "instruction" for key in changed):
            continue
        rows = records(where(errors, variant=variant).dropna(subset=["low"]))
        said = [f"{row['function_class']} {interval(row['difference'], row['low'], row['high'])}" for row in rows]
        text = f"{variant}: error against the reference, above 0 = worse: {', '.join(said)}. The paper says that it "
        found.append(f"{text}{PAPER[kind]}: {agreement(kind, rows)}.")
    return found


def agreement(kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """
    >>> agreement("one_hot", [{"function_class": "linear", "low": -0.1, "high": 0.1}])
    'not contradicted, no class differs beyond chance'
    """
    better = [row["function_class"] for row in rows if row["high"] < 0]
    worse = [row["function_class"] for row in rows if row["low"] > 0]
    if not better and not worse:
        return f"{'not contradicted' if kind == 'one_hot' else 'not shown'}, no class differs beyond chance"
    said = [f"{word} on {listed(names)}" for word, names in (("better", better), ("worse", worse)) if names]
    agrees = kind == "vector" and {"quadratic", "cubic"} <= set(worse)
    return f"{'agrees' if agrees else 'DISAGREES'}, {' and '.join(said)} here"
