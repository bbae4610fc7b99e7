"""Ablation results in words, by rule: every sentence follows from the tables and says no more than was tested.

One paragraph per set. Where several modes were tried, mean ablation leads: zero pushes a model off its distribution.

1. Size: an effect of at least `HALF` takes most of the in-context gain; one whose interval lies within `HARMLESS` of 0
   is none; one whose interval lies above 0 is a part; one whose interval lies below 0 is negative, removing the set
   helps; else it is unclear. Above 1 the ablated model is worse than one that ignores the context.
2. Chance: p against layer-matched sets, after Holm; of a set whose removal helps, the two-sided p. The smallest p that
   the number of sets allows, or the smallest effect that could have been detected.
3. Agreement: modes agree when rule 1 puts them in the same class.
4. Path: direct and total effect, where they differ: later components add to it, compensate for it, or carry all of it.
5. Decoy: a single head that attends (score above `ATTENDS`), whose total and direct effects are none under every mode
   (`is_silent`), and whose removal together with companions (`interp.ablation.joint`) changes no more either. Without
   joint removals the sentence names what was not tested.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from interp.ablation.ablate import Ablation
from interp.ablation.size_classes import ATTENDS, HARMLESS, Row, is_silent, size_of
from interp.display.result import displays
from interp.display.text import counted, decimals, listed
from interp.statistics.effects import LEAST_GAIN, SIGNIFICANT
from interp.statistics.p_values import draws_behind, p_text
from training.common.output import records


def verdict(
    table: pd.DataFrame, scores: Mapping[str, float] | None = None, joint: pd.DataFrame | None = None
) -> list[str]:
    """One paragraph per head set, with a sentence or two per function class and range of pairs.

    Args:
        table: of an `interp.ablation.ablate.Ablation` in which sets were removed.
        scores: the lowest retrospective score within each set (keys as in the column `heads`), for rule 5.
        joint: of the same ablation, for rule 5; None or empty if nothing was removed jointly.
    """
    groups: dict[str, dict[tuple[str, str], list[Row]]] = {}
    for row in records(table):
        cell = (row["function_class"], row["points"])
        groups.setdefault(row["heads"], {}).setdefault(cell, []).append(row)
    several_ranges = len(set(table["points"])) > 1
    together: dict[str, list[Row]] = {}
    for row in [] if joint is None else records(joint):
        together.setdefault(row["heads"], []).append(row)
    return [
        paragraph(cells, (scores or {}).get(heads, 0.0), together.get(heads, []), several_ranges)
        for heads, cells in groups.items()
    ]


def paragraph(
    cells: Mapping[tuple[str, str], list[Row]], score: float, together: Sequence[Row], several_ranges: bool
) -> str:
    """All classes and ranges of one set."""
    sentences = [sentence(rows, several_ranges) for rows in cells.values()]
    rows = [row for of_cell in cells.values() for row in of_cell]
    if score > ATTENDS and "," not in rows[0]["heads"] and is_silent(rows):
        sentences.append(silent_sentence(rows, score, together))
    return " ".join(sentences)


def silent_sentence(rows: Sequence[Row], score: float, together: Sequence[Row]) -> str:
    """Rule 5: what joint removals say of a head that attends and costs nothing alone."""
    names = list(dict.fromkeys(row["function_class"] for row in rows if size_of(row) != "undefined"))
    text = f"It attends as a retrospective head does (score {score:.2f}), but removing it "
    nothing = f"changes less than {HARMLESS} of the in-context gain on {listed(names)}"
    if not together:
        return (
            f"{text}alone {nothing}. Whether another head stands in for it was not tested; `interp ablate --ckpt CKPT "
            f"--heads {rows[0]['heads']} --classes {','.join(names)} --mode mean` tests it."
        )
    certain = [row for row in together if max(row["ci_low"], -row["ci_high"]) > HARMLESS]
    if certain:
        largest = max(certain, key=lambda row: (row["mode"] == "mean", abs(row["change"])))
        return f"{text}alone says little: {joint_phrase(largest)}. It is no decoy."
    widest = max(together, key=lambda row: max(row["ci_high"], -row["ci_low"]))
    if max(widest["ci_high"], -widest["ci_low"]) > HARMLESS:
        return (
            f"{text}alone {nothing}. Whether another head stands in for it is undecided: {joint_phrase(widest)}; more "
            "prompts (--null-prompts) narrow the interval."
        )
    return f"{text}{nothing}, alone, together with any other head{combinations_phrase(together)}: a decoy."


def combinations_phrase(together: Sequence[Row]) -> str:
    """Which combinations of the other heads that attend were removed, beside single ones."""
    attending = together[0]["attending"]
    n_others = attending.count(",") + 1
    n_combined = len({row["companions"] for row in together if "," in row["companions"]})
    if not n_combined:
        return ""
    what = "any combination" if n_combined == 2**n_others - n_others - 1 else "any pair and all"
    return f", and together with {what} of the other heads above {ATTENDS} ({attending})"


def joint_phrase(row: Row) -> str:
    """What removing a set adds to the removal of its companions."""
    verb = "costs" if row["change"] > 0 else "gives back"
    return (
        f"once {row['companions']} is removed, too, it {verb} {abs(row['change']):.2f} "
        f"[{row['ci_low']:.2f}, {row['ci_high']:.2f}] of the gain on {row['function_class']} ({row['mode']} ablation; "
        f"{row['companions']} {decimals(row['effect_companions'])}, together {decimals(row['effect'])})"
    )


def without_clear_gain(row: Row, where: str) -> str:
    """Why an effect is undefined; a gain that is only too uncertain is no proof that the context is not used."""
    ratio = row["nmse_before"] / row["nmse_no_context"]
    text = (
        f"The intact model is not clearly better than the no-context optimum on {where}: its error is {ratio:.2f} of "
    )
    text += f"it, and an effect needs a gain of more than {LEAST_GAIN:g} standard errors"
    return text + ("; more prompts (--prompts) may show such a gain." if ratio < 1 else ".")


def sentence(rows: list[Row], several_ranges: bool) -> str:
    """The modes of one set on one class together."""
    lead = next((row for row in rows if row["mode"] == "mean"), rows[0])
    heads, where = lead["heads"], lead["function_class"]
    if several_ranges:
        where += f" (pairs {lead['points']})"
    sizes = [size_of(row) for row in rows]
    if "undefined" in sizes:
        return f"{without_clear_gain(lead, where)} The effect of removing {heads} is undefined."
    mode = f"({lead['mode']} ablation"
    if size_of(lead) == "negative":
        text = f"Removing {heads} helps on {where}: the error falls by {cost(lead, negative=True)} of the in-context "
        text += f"gain {mode}); "
    else:
        text = f"Removing {heads} costs {cost(lead)} of the in-context gain on {where} {mode}"
        text += (
            "; above 1 the ablated model is worse than one that ignores the context); "
            if round(lead["ci_low"], 2) > 1
            else "); "
        )
    phrases = [chance_phrase(lead), agreement_phrase(rows, sizes), *path_phrase(lead)]
    notes = list(dict.fromkeys(row["note"] for row in rows if row["note"]))
    return text + "; ".join([*phrases, *notes]) + "."


def cost(row: Row, prefix: str = "", *, negative: bool = False) -> str:
    """An effect with its interval; `negative` turns both round."""
    value, low, high = (row[prefix + name] for name in ("effect", "ci_low", "ci_high"))
    if negative:
        value, low, high = -value, -high, -low
    return f"{decimals(value)} [{decimals(low)}, {decimals(high)}]"


def chance_phrase(row: Row) -> str:
    """Rule 2."""
    n, helps = row["n_controls"], size_of(row) == "negative"
    if not n:
        return "no other set has as many heads in the same layers, so there is no p-value"
    text = f"{'all ' if row['exact'] else ''}{n} layer-matched set{'s' if n > 1 else ''}"
    extreme = f"{decimals(row['control_min'])} at least" if helps else f"{decimals(row['control_max'])} at most"
    own_cost = f"cost {decimals(row['control_effect'])} on average and {extreme} "
    if row["n_disjoint"] == n:
        text += f" {own_cost}"
    elif row["n_disjoint"]:
        text += f", of which the {row['n_disjoint']} without any of these heads {own_cost}"
    else:
        text = f"compared with {text}, all of which share a head with it "
    p_value, p_holm, sides = ("p_two_sided", "p_two_sided_holm", 2) if helps else ("p_value", "p_holm", 1)
    text += f"({'two-sided ' if helps else ''}{p_text(row[p_value], draws_behind(row), holm=row[p_holm], sides=sides)}"
    smallest = row["smallest_p"] * (2 if helps else 1)
    if smallest > SIGNIFICANT:
        text += f"; with only {counted(n, 'control set')} p cannot be smaller than {smallest:.3g}; several seeds, "
        text += "pooled (--ckpt 'NAME-*'), allow a smaller p"
    elif row[p_holm] > SIGNIFICANT and math.isfinite(row["detectable"]) and not helps:
        text += f"; an effect of {row['detectable']:.2f} would have been detected"
    return text + ")"


def agreement_phrase(rows: list[Row], sizes: list[str]) -> str:
    """Rule 3."""
    if len(rows) == 1:
        return "no other replacement was tried"
    effects = ", ".join(f"{row['mode']} {decimals(row['effect'])}" for row in rows)
    return f"{'the replacements agree' if len(set(sizes)) == 1 else 'THE REPLACEMENTS DISAGREE'} ({effects})"


def path_phrase(row: Row) -> list[str]:
    """Rule 4; nothing where direct and total effect are alike, or both none."""
    total, direct = row["effect"], row["direct_effect"]
    if row["ci_low"] <= row["direct_ci_high"] and row["direct_ci_low"] <= row["ci_high"]:
        return []
    if size_of(row) == size_of(row, "direct_") == "none":
        return []
    if size_of(row, "direct_") == "none":
        return [f"the effect is entirely indirect, through later components (direct effect {decimals(direct)})"]
    if direct * total < 0 and size_of(row) != "none":
        return [f"its direct effect has the opposite sign ({cost(row, 'direct_')})"]
    if abs(direct) > abs(total):
        return [f"later components compensate for part of it (direct effect {cost(row, 'direct_')})"]
    return [f"later components add to it (direct effect {cost(row, 'direct_')})"]


def keep_verdict(table: pd.DataFrame) -> list[str]:
    """One paragraph per set that was kept while all other heads were removed.

    Args:
        table: of an `interp.ablation.ablate.Ablation` of the design `keep`.
    """
    groups: dict[str, list[str]] = {}
    for row in records(table):
        if math.isnan(row["effect"]):
            text = without_clear_gain(row, row["function_class"])
        else:
            text = f"With no head but {row['heads']} {1 - row['effect']:.2f} of the in-context gain on "
            text += f"{row['function_class']} is left ({row['mode']} ablation of all others costs {cost(row)})"
            if row["n_controls"]:
                p_value = p_text(row["p_value"], draws_behind(row))
                text += f"; {p_value} against {row['n_controls']} layer-matched control sets"
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
            sentences.append(f"No model is clearly better than the no-context optimum on {row['function_class']}.")
            continue
        helps = (row["ci_high"] if math.isnan(row["t_high"]) else row["t_high"]) < 0
        text = f"Over {counted(row['n_seeds'], 'independent seed')} ({counted(row['n_checkpoints'], 'model')}) "
        p_value = p_text(row["p_value"], row["n_draws"], holm=row["p_holm"])
        if helps:
            p_value = f"two-sided {p_text(row['p_two_sided'], row['n_draws'], holm=row['p_two_sided_holm'], sides=2)}"
        text += f"{row['heads']} costs {pooled_cost(row)}{'; below 0 the removal helps' if helps else ''}; {p_value} "
        text += "against a layer-matched set in every model"
        if row["n_undefined"]:
            text += f"; {counted(row['n_undefined'], 'model')} without a clear in-context gain left out"
        sentences.append(text + ".")
    if rows and rows[0]["n_seeds"] == 1:
        sentences.append("One seed is one piece of evidence: this is no claim about a curriculum.")
    return " ".join(sentences)


@displays(Ablation, "sentences")
def ablation_verdict(result: Ablation, scores: Mapping[str, float]) -> list[str]:
    """The verdict on every set of an ablation."""
    if result.design == "keep":
        return keep_verdict(result.table)
    return verdict(result.table, scores, result.joint)
