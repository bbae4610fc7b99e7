"""Ablation results in words, by rule: every sentence follows from the table and says what the test could not show.

1. Size: an effect of at least `HALF` takes most of the in-context gain; one whose interval ends below `HARMLESS` is
   none; one whose interval lies above 0 is a part; else it is unclear. What exceeds 1 is damage of another kind.
2. Chance: p against layer-matched sets, after Holm, and the smallest p that their number allows.
3. Agreement: zero, mean and resample agree when rule 1 puts them in the same class.
4. Decoy: a set that attends (score above `ATTENDS`) but whose removal is harmless under every mode.
"""

import math
from typing import Any

import pandas as pd

from training.output import records

HARMLESS = 0.05
HALF = 0.5
ATTENDS = 0.5
SIGNIFICANT = 0.05

Row = dict[str, Any]


def verdict(table: pd.DataFrame, scores: dict[str, float] | None = None) -> list[str]:
    """One sentence per head set and function class.

    Args:
        table: of an `interp.ablation.Ablation`.
        scores: the lowest retrospective score within each set (keys as in the column `heads`), for rule 4.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in records(table):
        groups.setdefault((row["heads"], row["function_class"]), []).append(row)
    return [sentence(rows, (scores or {}).get(heads, 0.0)) for (heads, _), rows in groups.items()]


def size_of(row: Row) -> str:
    """Rule 1; `undefined` where the intact model makes no use of the context."""
    if math.isnan(row["effect"]):
        return "undefined"
    if row["effect"] >= HALF:
        return "most"
    if row["ci_high"] <= HARMLESS:
        return "none"
    return "part" if row["ci_low"] > 0 else "unclear"


def sentence(rows: list[Row], score: float) -> str:
    """What the modes of one set on one class say together."""
    first, sizes = rows[0], [size_of(row) for row in rows]
    heads, name = first["heads"], first["function_class"]
    if "undefined" in sizes:
        return f"The intact model makes no use of the context on {name}: removing {heads} has no effect to measure."
    cost = f"{first['effect']:.2f} [{first['ci_low']:.2f}, {first['ci_high']:.2f}]"
    text = f"Removing {heads} costs {cost} of the in-context gain on {name} ({first['mode']} ablation"
    text += ", beyond 1 damage of another kind); " if first["ci_low"] > 1 else "); "
    text += f"{chance_phrase(first)}; {agreement_phrase(rows, sizes)}."
    if score > ATTENDS and set(sizes) == {"none"}:
        text += (
            f" It attends as a retrospective head does (score {score:.2f}) but writes nothing that matters: a decoy."
        )
    return text


def chance_phrase(row: Row) -> str:
    """Rule 2."""
    n = row["n_controls"]
    if not n:
        return "no other set has as many heads in the same layers, so there is no p-value"
    text = f"{'all ' if row['exact'] else ''}{n} layer-matched set{'s' if n > 1 else ''} "
    text += f"cost {row['control_effect']:.2f} on average and {row['control_max']:.2f} at most "
    text += f"(p = {row['p_value']:.3g}, after Holm {row['p_holm']:.3g}"
    if row["smallest_p"] > SIGNIFICANT:
        text += f"; so few sets allow no p below {row['smallest_p']:.3g}"
    if row["size_n_controls"]:
        text += f"; against {row['size_n_controls']} sets from any layer p = {row['size_p_value']:.3g}"
    return text + ")"


def agreement_phrase(rows: list[Row], sizes: list[str]) -> str:
    """Rule 3."""
    if len(rows) == 1:
        return "no other replacement was tried beside it"
    effects = ", ".join(f"{row['mode']} {row['effect']:.2f}" for row in rows)
    return f"{'the replacements agree' if len(set(sizes)) == 1 else 'THE REPLACEMENTS DISAGREE'} ({effects})"
