"""Ablation results in words, by rule: every sentence follows from the table and says what the test could not show.

One paragraph per set. Where several modes were tried, mean ablation leads: zero pushes a model off its distribution.

1. Size: an effect of at least `HALF` takes most of the in-context gain; one whose interval ends below `HARMLESS` is
   none; one whose interval lies above 0 is a part; else it is unclear. What exceeds 1 is damage of another kind.
2. Chance: p against layer-matched sets, after Holm; the smallest p that their number allows, or the smallest effect
   that they could have found.
3. Agreement: modes agree when rule 1 puts them in the same class.
4. Path: direct and total effect, where they differ: others react, make up for a loss, or pass it on.
5. Decoy: a set that attends (score above `ATTENDS`) but whose removal is harmless under every mode.
"""

import math
from typing import Any

import pandas as pd

from interp.display.text import counted
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import p_text
from training.common.output import records

VERDICTS = 3  # sets; beyond that a table is easier to read than sentences
HARMLESS = 0.05
HALF = 0.5
ATTENDS = 0.5

Row = dict[str, Any]


def verdict(table: pd.DataFrame, scores: dict[str, float] | None = None) -> list[str]:
    """One paragraph per head set, with a sentence or two per function class and range of pairs.

    Args:
        table: of an `interp.ablation.ablate.Ablation` in which sets were removed.
        scores: the lowest retrospective score within each set (keys as in the column `heads`), for rule 5.
    """
    groups: dict[str, dict[tuple[str, str], list[Row]]] = {}
    for row in records(table):
        cell = (row["function_class"], row["points"])
        groups.setdefault(row["heads"], {}).setdefault(cell, []).append(row)
    several_ranges = len(set(table["points"])) > 1
    return [paragraph(cells, (scores or {}).get(heads, 0.0), several_ranges) for heads, cells in groups.items()]


def paragraph(cells: dict[tuple[str, str], list[Row]], score: float, several_ranges: bool) -> str:
    """What all classes and ranges say of one set."""
    sentences = [sentence(rows, several_ranges) for rows in cells.values()]
    sizes = {size_of(row) for rows in cells.values() for row in rows}
    if score > ATTENDS and sizes == {"none"}:
        sentences.append(
            f"It attends as a retrospective head does (score {score:.2f}) but writes nothing that matters: a decoy."
        )
    return " ".join(sentences)


def size_of(row: Row) -> str:
    """Rule 1; `undefined` where the intact model makes no use of the context."""
    if math.isnan(row["effect"]):
        return "undefined"
    if row["effect"] >= HALF:
        return "most"
    if row["ci_high"] <= HARMLESS:
        return "none"
    return "part" if row["ci_low"] > 0 else "unclear"


def sentence(rows: list[Row], several_ranges: bool) -> str:
    """What the modes of one set on one class say together."""
    lead = next((row for row in rows if row["mode"] == "mean"), rows[0])
    heads, where = lead["heads"], lead["function_class"]
    if several_ranges:
        where += f" (pairs {lead['points']})"
    sizes = [size_of(row) for row in rows]
    if "undefined" in sizes:
        return f"The intact model makes no use of the context on {where}: removing {heads} has no effect to measure."
    text = f"Removing {heads} costs {cost(lead)} of the in-context gain on {where} ({lead['mode']} ablation"
    text += ", beyond 1 damage of another kind); " if lead["ci_low"] > 1 else "); "
    return text + "; ".join([chance_phrase(lead), agreement_phrase(rows, sizes), *path_phrase(lead)]) + "."


def cost(row: Row, prefix: str = "") -> str:
    return f"{row[prefix + 'effect']:.2f} [{row[prefix + 'ci_low']:.2f}, {row[prefix + 'ci_high']:.2f}]"


def chance_phrase(row: Row) -> str:
    """Rule 2."""
    n = row["n_controls"]
    if not n:
        return "no other set has as many heads in the same layers, so there is no p-value"
    text = f"{'all ' if row['exact'] else ''}{n} layer-matched set{'s' if n > 1 else ''}"
    own_cost = f"cost {row['control_effect']:.2f} on average and {row['control_max']:.2f} at most "
    if row["n_disjoint"] == n:
        text += f" {own_cost}"
    elif row["n_disjoint"]:
        text += f", of which the {row['n_disjoint']} without any of these heads {own_cost}"
    else:
        text += ", none without any of these heads, stand beside it "
    text += f"(p = {row['p_value']:.3g}, after Holm {row['p_holm']:.3g}"
    if row["smallest_p"] > SIGNIFICANT:
        text += f"; so few sets allow no p below {row['smallest_p']:.3g}"
    elif row["p_holm"] > SIGNIFICANT and math.isfinite(row["detectable"]):
        text += f"; an effect of {row['detectable']:.2f} would have been found"
    if row["size_n_controls"]:
        text += f"; against {row['size_n_controls']} sets from any layer p = {row['size_p_value']:.3g}"
    return text + ")"


def agreement_phrase(rows: list[Row], sizes: list[str]) -> str:
    """Rule 3."""
    if len(rows) == 1:
        return "no other replacement was tried beside it"
    effects = ", ".join(f"{row['mode']} {row['effect']:.2f}" for row in rows)
    return f"{'the replacements agree' if len(set(sizes)) == 1 else 'THE REPLACEMENTS DISAGREE'} ({effects})"


def path_phrase(row: Row) -> list[str]:
    """Rule 4; nothing where direct and total effect are alike."""
    total, direct = row["effect"], row["direct_effect"]
    if row["ci_low"] <= row["direct_ci_high"] and row["direct_ci_low"] <= row["ci_high"]:
        return []
    if max(abs(row["direct_ci_low"]), abs(row["direct_ci_high"])) <= HARMLESS:
        return [f"it acts through later components alone (direct effect {direct:.2f})"]
    if direct > total:
        return [f"later components repair part of it (direct effect {cost(row, 'direct_')})"]
    return [f"later components add to it (direct effect {cost(row, 'direct_')})"]


def keep_verdict(table: pd.DataFrame) -> list[str]:
    """One paragraph per set that was kept while all other heads were removed.

    Args:
        table: of an `interp.ablation.ablate.Ablation` of the design `keep`.
    """
    groups: dict[str, list[str]] = {}
    for row in records(table):
        if math.isnan(row["effect"]):
            text = f"The intact model makes no use of the context on {row['function_class']}."
        else:
            text = f"With no head but {row['heads']} {1 - row['effect']:.2f} of the in-context gain on "
            text += f"{row['function_class']} is left ({row['mode']} ablation of all others costs {cost(row)})"
            if row["n_controls"]:
                text += f"; p = {row['p_value']:.3g} that any of {row['n_controls']} layer-matched sets does as well"
            text += "."
        groups.setdefault(row["heads"], []).append(text)
    return [" ".join(sentences) for sentences in groups.values()]


def pooled_cost(row: Row) -> str:
    """The mean effect with its intervals, which it has where seeds are of one kind, and a count with its own."""
    gain = f"of the in-context gain on {row['function_class']} ({row['mode']} ablation; {row['effect_min']:.2f} to "
    gain += f"{row['effect_max']:.2f}"
    count = f"at least half of it in {row['n_half']} of {row['n_seeds']} seeds "
    count += f"[{row['share_low']:.2f}, {row['share_high']:.2f}] (Clopper-Pearson)"
    if row["all_or_nothing"]:
        return f"{row['effect']:.2f} {gain}; seeds are of two kinds, so the mean has no interval), {count}"
    if not math.isnan(row["t_low"]):
        gain += f"; t-interval over seeds [{row['t_low']:.2f}, {row['t_high']:.2f}]"
    return f"{cost(row)} {gain}), {count}"


def pooled_verdict(table: pd.DataFrame) -> str:
    """One paragraph on several models.

    Args:
        table: of `interp.ablation.pooled.pooled`.
    """
    rows = [row for row in records(table) if row["mode"] == "mean"] or records(table)
    sentences = []
    for row in rows:
        if not row["n_seeds"]:
            sentences.append(f"No model makes use of the context on {row['function_class']}.")
            continue
        text = f"Over {counted(row['n_seeds'], 'independent seed')} ({counted(row['n_checkpoints'], 'model')}) "
        p_value = p_text(row["p_value"], row["n_draws"], holm=row["p_holm"])
        text += f"{row['heads']} costs {pooled_cost(row)}; {p_value} against a layer-matched set in every model"
        if row["n_undefined"]:
            text += f"; {counted(row['n_undefined'], 'model')} without use of the context left out"
        sentences.append(text + ".")
    if rows and rows[0]["n_seeds"] == 1:
        sentences.append("One seed is one piece of evidence: this is no claim about a curriculum.")
    return " ".join(sentences)
