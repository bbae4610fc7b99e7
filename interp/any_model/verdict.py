"""Ablations and patches of any model in words, by the rules of `interp.ablation.verdict` that need losses alone.

1. Size: with a no-context loss as there. Without one, no difference of losses is called large or small: the loss rises,
   falls, or changes by an interval that contains 0.
2. Chance: as there.
3. Agreement: as there; differences of losses agree where their intervals overlap.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from interp.ablation import verdict as ablation
from interp.ablation.size_classes import Row, size_of
from interp.any_model.judge import REMOVAL, LossAblation
from interp.any_model.patch import LossPatchMap, name_cell, strongest
from interp.display.result import displays
from interp.display.text import counted
from interp.statistics.effects import LEAST_GAIN, LEAST_NAMED, differs_from_zero, widen_interval
from training.common.output import records
from training.common.table_rows import distinct, where

REMEDY = "larger sets, or sets over several layers, have more control sets"
BY_EFFECT = f"by {ablation.EFFECT}"
OF_LOSS = f"{BY_EFFECT}, in the unit of the loss, from {{loss_before:z.2f}} ({{way}})"
SENTENCES: dict[str, str] = {
    # rule 1, as a share of the in-context gain
    **{
        name: ablation.SENTENCES[name].replace("{mode} ablation", "{way}")
        for name in ("costs", "costs more than the gain")
    },
    "helps": f"Removing {{heads}} helps on {{where}}: the loss falls {BY_EFFECT} of the in-context gain ({{way}}); "
    "{findings}.",
    "undefined": "The intact model is not clearly better than the no-context loss on {where}: its loss is "
    "{loss_before:z.2f} against {loss_no_context:z.2f}, and a gain of less than {least_gain:g} standard errors is too "
    "uncertain to divide by. No effect of removing {heads} is given.",
    # rule 1, in the unit of the loss
    "loss rises": f"Removing {{heads}} raises the loss on {{where}} {OF_LOSS}; {{findings}}.",
    "loss falls": f"Removing {{heads}} lowers the loss on {{where}} {OF_LOSS}; {{findings}}.",
    "loss unclear": f"Removing {{heads}} changes the loss on {{where}} {OF_LOSS.replace('.2f', '.3f')}, an interval "
    "that contains 0; {findings}.",
    # rule 3
    "agree": "the intervals of all replacements overlap ({effects})",
    # patches
    "no gap": "On {condition} the clean and the corrupt run have the same losses: there is nothing to patch.",
    "no effect": "On {condition} no patch is shown to have an effect of 0.01 or more ({locations} patched).",
    "moves": f"On {{condition}} patching {{location}} moves the loss of the {{base}} run {BY_EFFECT} of the way "
    "to that of the {source} run{chosen}.",
    "chosen": " (chosen from {locations}; the interval holds for all {n_patches} of the map at once)",
}
"""Templates of sentences, filled from rows of the tables."""
LOSS_SIZES = {"part": "the loss rises", "negative": "the loss falls", "unclear": "unclear"}
"""Rule 1 in words where there is no in-context gain."""


def fill(template: str, row: Row | None = None, **values: object) -> str:
    """A template of `SENTENCES`, filled from a row of a table and further values, which take precedence."""
    return SENTENCES[template].format(**((row or {}) | values))


def loss_verdict(table: pd.DataFrame) -> list[str]:
    """One paragraph per head set, with a sentence per condition.

    Args:
        table: of a `LossAblation`.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in records(table):
        groups.setdefault(row["heads"], {}).setdefault(row["condition"], []).append(row)
    return [" ".join(map(removal_sentence, by_condition.values())) for by_condition in groups.values()]


def removal_sentence(rows: Sequence[Row]) -> str:
    """Rules 1 to 3: one set on one condition under all modes."""
    lead = next((row for row in rows if row["mode"] == "mean"), rows[0])
    values: dict[str, object] = {"where": lead["condition"], "way": way_of(lead)}
    if "undefined" in map(size_of, rows):
        return fill("undefined", lead, least_gain=LEAST_GAIN, **values)
    notes = dict.fromkeys(row["note"] for row in rows if row["note"])
    values["findings"] = "; ".join([ablation.chance_clause(lead, REMEDY), agreement_clause(rows), *notes])
    if size_of(lead) == "negative":  # the sentence has the verb, so the number is positive
        values |= {"effect": -lead["effect"], "ci_low": -lead["ci_high"], "ci_high": -lead["ci_low"]}
    return fill(size_template(lead), lead, **values)


def size_template(row: Row) -> str:
    """Rule 1: the template of a defined effect."""
    size = size_of(row)
    if row["unit"] == "loss":
        return {"part": "loss rises", "negative": "loss falls"}.get(size, "loss unclear")
    if size == "negative":
        return "helps"
    return "costs more than the gain" if round(row["ci_low"], 2) > 1 else "costs"


def agreement_clause(rows: Sequence[Row]) -> str:
    """Rule 3."""
    if rows[0]["unit"] != "loss":
        return ablation.agreement_clause(rows)
    overlap = max(row["ci_low"] for row in rows) <= min(row["ci_high"] for row in rows)
    if overlap and len(rows) > 1:
        return fill("agree", effects=", ".join("{mode} {effect:z.2f}".format(**row) for row in rows))
    return ablation.agreement_clause(rows, LOSS_SIZES)


def way_of(row: Row) -> str:
    """How heads were removed.

    >>> way_of({"mode": "mean"}), way_of({"mode": "removal"})
    ('mean ablation', 'removal')
    """
    return row["mode"] if row["mode"] == REMOVAL else f"{row['mode']} ablation"


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
    if pd.isna(best["effect"]):
        return fill("no gap", best)
    locations = counted(len(where(result.table, condition=condition)), "location")
    if abs(best["effect"]) < LEAST_NAMED or not differs_from_zero(best["ci_low"], best["ci_high"]):
        return fill("no effect", best, locations=locations)
    ends = {"base": result.base, "source": "clean" if result.base == "corrupt" else "corrupt"}
    chosen = fill("chosen", locations=locations, n_patches=n_patches) if n_patches > 1 else ""
    return fill("moves", best, location=name_cell(result.site, best), chosen=chosen, **ends)
