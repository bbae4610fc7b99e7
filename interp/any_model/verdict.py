"""Ablations of any model in words, by the rules of `interp.ablation.verdict` that need losses alone.

1. Size: with a no-context loss as there; else whether the interval of the difference of losses leaves out 0.
2. Chance and 3. agreement: as there.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from interp.ablation.size_classes import Row, size_of
from interp.ablation.verdict import agreement_clause, chance_clause, fill
from interp.any_model.judge import REMOVAL, LossAblation
from interp.any_model.patch import LossPatchMap, name_cell, strongest
from interp.display.result import displays
from interp.display.text import counted, decimals
from interp.statistics.effects import LEAST_GAIN, rank_by_evidence, widen_interval
from training.common.output import records
from training.common.table_rows import distinct, where

REMEDY = "larger sets, or sets over several layers, have more control sets"


def loss_verdict(table: pd.DataFrame) -> list[str]:
    """One paragraph per head set, with a sentence per condition.

    Args:
        table: of a `LossAblation`.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in records(table):
        groups.setdefault(row["heads"], {}).setdefault(row["condition"], []).append(row)
    return [" ".join(map(sentence, by_condition.values())) for by_condition in groups.values()]


def sentence(rows: Sequence[Row]) -> str:
    """The modes of one set on one condition together."""
    lead = next((row for row in rows if row["mode"] == "mean"), rows[0])
    sizes = [size_of(row) for row in rows]
    if "undefined" in sizes:
        return without_clear_gain(lead)
    phrases = [size_phrase(lead), chance_clause(lead, REMEDY), agreement(rows)]
    phrases += dict.fromkeys(row["note"] for row in rows if row["note"])
    return "; ".join(phrases) + "."


def agreement(rows: Sequence[Row]) -> str:
    """Rule 3; differences of losses, whose sizes have no levels, agree where their intervals overlap."""
    overlap = max(row["ci_low"] for row in rows) <= min(row["ci_high"] for row in rows)
    if rows[0]["unit"] == "loss" and overlap and len(rows) > 1:
        return fill("agree", effects=", ".join("{mode} {effect:z.2f}".format(**row) for row in rows))
    return agreement_clause(rows)


def cost(row: Row, *, negative: bool = False) -> str:
    """An effect with its interval; `negative` turns both round."""
    value, low, high = row["effect"], row["ci_low"], row["ci_high"]
    value, low, high = (-value, -high, -low) if negative else (value, low, high)
    return f"{decimals(value)} [{decimals(low)}, {decimals(high)}]"


def size_phrase(row: Row) -> str:
    """Rule 1."""
    heads, where, mode = row["heads"], row["condition"], f"({way_of(row)}"
    if row["unit"] == "loss":
        return loss_phrase(row)
    if size_of(row) == "negative":
        return f"Removing {heads} helps on {where}: it adds {cost(row, negative=True)} of the in-context gain {mode})"
    above = "; above 1 the model is worse than one that ignores the context" if round(row["ci_low"], 2) > 1 else ""
    return f"Removing {heads} costs {cost(row)} of the in-context gain on {where} {mode}{above})"


def loss_phrase(row: Row) -> str:
    """Rule 1 in the unit of the loss."""
    verbs: Mapping[str, str] = {"part": "raises", "negative": "lowers"}
    size = size_of(row)
    amount = cost(row, negative=size == "negative")
    text = f"Removing {row['heads']} {verbs.get(size, 'changes')} the loss on {row['condition']} by {amount}, in the "
    text += f"unit of the loss, from {decimals(row['loss_before'])} ({way_of(row)})"
    return text + (", an interval that contains 0" if size == "unclear" else "")


def way_of(row: Row) -> str:
    """
    >>> way_of({"mode": "mean"}), way_of({"mode": "removal"})
    ('mean ablation', 'removal')
    """
    return row["mode"] if row["mode"] == REMOVAL else f"{row['mode']} ablation"


def without_clear_gain(row: Row) -> str:
    """Why an effect is undefined."""
    return (
        f"The intact model is not clearly better than the no-context loss on {row['condition']}: its loss is "
        f"{decimals(row['loss_before'])} against {decimals(row['loss_no_context'])}, and an effect needs a gain of "
        f"more than {LEAST_GAIN:g} standard errors. The effect of removing {row['heads']} is undefined."
    )


@displays(LossAblation, "sentences")
def loss_sentences(result: LossAblation, scores: Mapping[str, float]) -> list[str]:
    """The verdict on every set."""
    del scores  # rule 5 of `interp.ablation.verdict` needs direct effects
    return loss_verdict(result.table)


@displays(LossPatchMap, "sentences")
def patch_sentences(result: LossPatchMap) -> list[str]:
    """A sentence per condition: the location with the best evidence, or that none has any."""
    return [patch_sentence(result, condition) for condition in distinct(result.table, "condition")]


def patch_sentence(result: LossPatchMap, condition: str) -> str:
    """What the map of one condition says."""
    (best,) = strongest(result, condition, 1)
    n_patches = len(result.table)
    low, high = widen_interval(best["effect"], best["ci_low"], best["ci_high"], n_patches)
    best |= {"ci_low": low, "ci_high": high}
    n_locations = counted(len(where(result.table, condition=condition)), "location")
    if pd.isna(best["effect"]):
        return f"On {condition} the clean and the corrupt run have the same losses: there is nothing to patch."
    if rank_by_evidence(best["effect"], best["ci_low"], best["ci_high"])[0]:
        return f"On {condition} no patch is shown to have an effect ({n_locations} patched)."
    return (
        f"On {condition} patching {name_cell(result.site, best)} moves the {result.base} run {cost(best)} of the way "
        f"to the other (chosen from {n_locations}; the interval holds for all {n_patches} of the map at once)."
    )
