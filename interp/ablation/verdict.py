"""Ablation results in words: every sentence follows by rule from the tables and claims no more than was tested.

One paragraph per head set. Where several modes were tried, mean ablation leads: zero pushes a model off its
distribution.

1. Size: an effect of at least `HALF` is most of the in-context gain; one whose interval lies within `HARMLESS` of 0 is
   none; one whose interval lies above 0 is a part; one whose interval lies below 0 is negative, removing the set helps;
   else it is unclear. Above 1 the ablated model is worse than one that ignores the context.
2. Chance: p against layer-matched control sets, after Holm; the two-sided p if removing the set helps. The smallest p
   that the number of control sets allows, or the smallest effect that could have been detected.
3. Agreement: modes agree when rule 1 puts their effects in the same class.
4. Path: direct and total effect, where they differ: later components add to it, compensate for it, or carry all of it.
5. Decoy: a single head that attends (score above `ATTENDS`), whose total and direct effects are none under every mode
   (`is_silent`), whose removal together with companions (`interp.ablation.joint`) changes no error by more either, and
   whose removal alone hardly changes predictions (mean squared change within `HARMLESS` of the gain under every mode).
   Without joint removals the sentence says what was not tested. It is a decoy on these classes and pairs: nothing is
   said of others.
6. Pairs of heads: how many interactions differ from 0 after Holm over the pairs, by what a sentence can show
   (`LEAST_NAMED`), and the strongest of each sign, with the explanations that the effects leave open (`meaning_of`).
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from interp.ablation.ablate import Ablation
from interp.ablation.cumulative import CumulativeAblation
from interp.ablation.modes import lead_mode
from interp.ablation.pairs import PairAblation
from interp.ablation.size_classes import ATTENDS, HALF, HARMLESS, Row, is_silent, size_of
from interp.display.result import displays
from interp.display.text import counted, listed
from interp.statistics.effects import LEAST_GAIN, LEAST_NAMED, SIGNIFICANT
from interp.statistics.p_values import draws_behind, p_text
from training.common.bootstrap import N_RESAMPLES
from training.common.output import records
from training.common.table_rows import where

EFFECT = "{effect:z.2f} [{ci_low:z.2f}, {ci_high:z.2f}]"
DIRECT = "{direct_effect:z.2f} [{direct_ci_low:z.2f}, {direct_ci_high:z.2f}]"
CONTROL_COST = "cost {control_effect:z.2f} on average and {extreme} ({p}{limit})"
GAIN = "of the in-context gain on {function_class} ({mode} ablation"
POOLED_GAIN = f"{GAIN}; {{effect_min:.2f}} to {{effect_max:.2f}}"
SENTENCES: dict[str, str] = {
    # rule 1
    "costs": f"Removing {{heads}} costs {EFFECT} of the in-context gain on {{where}} ({{mode}} ablation); "
    "{findings}.",
    "costs more than the gain": f"Removing {{heads}} costs {EFFECT} of the in-context gain on {{where}} ({{mode}} "
    "ablation; above 1 the ablated model is worse than one that ignores the context); {findings}.",
    "helps": f"Removing {{heads}} helps on {{where}}: the error falls by {EFFECT} of the in-context gain ({{mode}} "
    "ablation); {findings}.",
    "undefined": "{no_gain} No effect of removing {heads} is given.",
    "no gain": "The intact model is not better than the no-context optimum on {where}: its error is {ratio:.2f} times "
    "the optimum's.",
    "no certain gain": "On these prompts the intact model is not clearly better than the no-context optimum on "
    "{where}: its error is {ratio:.2f} times the optimum's, but this gain is less than {least_gain:g} standard errors, "
    "too uncertain to divide by; more prompts (--prompts) may make it certain.",
    # rule 2
    "no controls": "no other set has as many heads in the same layers, so there is no p-value",
    "all disjoint": f"{{controls}} {CONTROL_COST}",
    "some disjoint": f"of {{controls}} the {{n_disjoint}} without any of these heads {CONTROL_COST}",
    "one disjoint": "of {controls} the only one without any of these heads costs {control_effect:z.2f} ({p}{limit})",
    "over all sets": "over all {n_controls}, {p}",
    "none disjoint": "of {controls} each holds at least one of these heads ({p}{limit})",
    "least control": "{control_min:z.2f} at least",
    "largest control": "{control_max:z.2f} at most",
    "few controls": "; {n_controls} allow no p below {smallest_p:.3g}; {remedy}",
    "more controls": "more control sets exist (--controls)",
    "more seeds": "several seeds together allow a smaller p (--ckpt 'NAME-*')",
    "power": "; an effect of {detectable:.2f} would have been detected",
    "as large": "; {n} of these {cost} as much or more",
    "as large and shared": "; {n} that {hold} some of the same heads {cost} as much or more",
    # rule 3
    "one mode": "no other replacement was tried",
    "agree": "all replacements give the same verdict, {size} ({effects})",
    "disagree": "THE REPLACEMENTS GIVE DIFFERENT VERDICTS ({effects})",
    "effect of a mode": "{mode} {effect:z.2f}",
    "size of a mode": "{mode} {effect:z.2f}, {size}",
    # rule 4
    "indirect": "the effect is entirely indirect, through later components (direct effect {direct_effect:z.2f})",
    "opposite": f"its direct effect has the opposite sign ({DIRECT})",
    "compensated": f"later components compensate for part of it (direct effect {DIRECT})",
    "amplified": f"later components add to it (direct effect {DIRECT})",
    # rule 5
    "not removed jointly": "It attends as a retrospective head does (score {score:.2f}), but removing it alone "
    "{nothing}. Whether another head compensates for its removal was not tested; `interp ablate --ckpt CKPT --heads "
    "{heads} --classes {classes} --mode mean` tests this.",
    "no decoy": "It attends as a retrospective head does (score {score:.2f}), but removing it alone "
    "{nothing}. It is not a decoy: {joint}.",
    "undecided": "It attends as a retrospective head does (score {score:.2f}), but removing it alone {nothing}. "
    "Whether another head compensates for its removal is undecided: {joint}; more prompts (--null-prompts) narrow the "
    "interval.",
    "moves predictions": "It attends as a retrospective head does (score {score:.2f}), but removing it {nothing}, "
    "alone and in addition to any other head{combinations}. It does change predictions, by a mean square of "
    "{moved_effect:.2f} [{moved_ci_low:.2f}, {moved_ci_high:.2f}] of that gain on {function_class} ({mode} ablation). "
    "So it is no decoy.",
    "decoy": "It attends as a retrospective head does (score {score:.2f}), but removing it {nothing}, alone and in "
    "addition to any other head{combinations}, and changes predictions by a mean square of less than {harmless} of "
    "that gain: a decoy on {classes} (pairs {points}; other inputs were not tested).",
    "nothing": "changes the error by less than {harmless} of the in-context gain on {classes}",
    "combinations": ", or to {which} of the other heads above {attends} ({attending})",
    "joint": "with {companions} removed as well, removing it {verb} {size:.2f} [{ci_low:.2f}, {ci_high:.2f}] of the "
    "gain on {function_class} ({mode} ablation; removing {companions} alone costs {effect_companions:z.2f}, "
    "all of them {effect:z.2f})",
    # sets that are kept
    "kept": f"Keeping only {{heads}} leaves {{left:z.2f}} of the in-context gain on {{function_class}} ({{mode}} "
    f"ablation of all other heads costs {EFFECT}).",
    "kept, with p": f"Keeping only {{heads}} leaves {{left:z.2f}} of the in-context gain on {{function_class}} "
    f"({{mode}} ablation of all other heads costs {EFFECT}); {{p}} against {{n_controls}} layer-matched control sets.",
    # rule 6
    "no clear gain": "The intact model is not clearly better than the no-context optimum on {where}, so no effect of "
    "removing heads is given.",
    "interaction": "On {where} {count} (p <= {significant} after Holm over the pairs, {mode} ablation). {strongest}",
    "strongest": "Removing {heads} costs {effect:z.2f}, removing each alone {effect_first:z.2f} and "
    "{effect_second:z.2f}: interaction {interaction:z.2f} [{ci_low:z.2f}, {ci_high:z.2f}] ({p}); {meaning}{also}.",
    "as strong": "; so it is of {pairs}",
    "no interaction": "On {where} no interaction of {count} is shown to be 0.01 or more (p <= {significant} after Holm "
    "over the pairs, {mode} ablation); the strongest, of {heads}, is {interaction:z.2f} [{ci_low:z.2f}, "
    "{ci_high:z.2f}].",
    "harmless pairs": "On {where} the interaction of {each} lies within {harmless} of 0 (95 % intervals, "
    "{mode} ablation).",
    "larger sets": " Larger sets were not compared: of three heads any one may be enough (--design cumulative).",
    "adds up": "what they write adds up (errors are squared)",
    "adds up or replaces": "either one can replace the other, or what they write adds up (errors are squared)",
    "cancels": "they cancel at least in part, both together cost less than one of them alone",
    "costs less": "each costs less once the other is removed",
    # one head after another
    "order": "Removing {heads} on {function_class} in this order costs {area:.2f} [{ci_low:.2f}, {ci_high:.2f}] on "
    "average over the number of removed heads, random orders of them {random_area:.2f} ({p}; {mode} ablation).{steps}",
    "rise": " In this order the cost rises most with head {added}, from {before:z.2f} to {effect:z.2f}.",
    "fall": " It falls most with head {added}, from {before:z.2f} to {effect:z.2f}.",
    # several models
    "pooled": "Over {seeds} ({models}) {heads} costs {cost}, at least half of it in {n_half} of {seeds_counted} "
    "[{share_low:.2f}, {share_high:.2f}] (Clopper-Pearson){helps}; {p} against a layer-matched set in every "
    "model{left_out}.",
    "pooled cost of one": f"{EFFECT} {GAIN})",
    "pooled cost": f"{EFFECT} {POOLED_GAIN})",
    "pooled cost with t": f"{EFFECT} {POOLED_GAIN}; t-interval over seeds [{{t_low:.2f}}, {{t_high:.2f}}])",
    "pooled cost of two kinds": f"{{effect:.2f}} {POOLED_GAIN}; seeds are of two kinds, so the mean has no interval)",
    "pooled helps": "; below 0 the removal helps",
    "pooled left out": "; {models} without a clear in-context gain left out",
    "pooled unknown seeds": "{models} with unknown seeds: their independence is the user's statement.",
    "pooled undefined": "No model is clearly better than the no-context optimum on {function_class}.",
    "one seed": "One seed is one piece of evidence: this is no claim about a curriculum.",
}
"""Templates of sentences and of their parts, filled from rows of the tables."""


SIZES = {
    "most": "at least half of the gain",
    "part": "part of the gain",
    "none": "no effect",
    "negative": "the removal helps",
    "unclear": "unclear",
}
"""Size classes of effects (rule 1) in words."""


DISJOINT = {0: "none disjoint", 1: "one disjoint"}
"""The sentence on control sets, by the number of those that hold none of the heads, if some do."""


def fill(template: str, row: Row | None = None, **values: object) -> str:
    """A template of `SENTENCES`, filled from a row of a table and further values, which take precedence."""
    return SENTENCES[template].format(**((row or {}) | values))


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
        by_condition = groups.setdefault(row["heads"], {})
        by_condition.setdefault((row["function_class"], row["points"]), []).append(row)
    several_ranges = len(set(table["points"])) > 1
    joint_rows: dict[str, list[Row]] = {}
    for row in [] if joint is None else records(joint):
        joint_rows.setdefault(row["heads"], []).append(row)
    paragraphs = []
    for heads, by_condition in groups.items():
        sentences = [removal_sentence(rows, several_ranges) for rows in by_condition.values()]
        rows = [row for condition_rows in by_condition.values() for row in condition_rows]
        score = (scores or {}).get(heads, 0.0)
        if score > ATTENDS and "," not in heads and is_silent(rows):
            sentences.append(silent_sentence(rows, score, joint_rows.get(heads, [])))
        paragraphs.append(" ".join(sentences))
    return paragraphs


def removal_sentence(rows: Sequence[Row], several_ranges: bool) -> str:
    """Rules 1 to 4: one set on one function class and range under all modes."""
    lead = next((row for row in rows if row["mode"] == "mean"), rows[0])
    condition = lead["function_class"] + (f" (pairs {lead['points']})" if several_ranges else "")
    if "undefined" in map(size_of, rows):
        return fill("undefined", lead, no_gain=no_gain_sentence(lead, condition))
    path = path_template(lead)
    notes = dict.fromkeys(row["note"] for row in rows if row["note"])
    findings = [chance_clause(lead), agreement_clause(rows), *([fill(path, lead)] if path else []), *notes]
    if size_of(lead) == "negative":
        fall = {"effect": -lead["effect"], "ci_low": -lead["ci_high"], "ci_high": -lead["ci_low"]}
        return fill("helps", lead, where=condition, findings="; ".join(findings), **fall)
    template = "costs more than the gain" if round(lead["ci_low"], 2) > 1 else "costs"
    return fill(template, lead, where=condition, findings="; ".join(findings))


def no_gain_sentence(row: Row, condition: str) -> str:
    """Why an effect is undefined; a gain that is only too uncertain is no proof that the context is not used."""
    ratio = row["nmse_before"] / row["nmse_no_context"]
    return fill("no certain gain" if ratio < 1 else "no gain", where=condition, ratio=ratio, least_gain=LEAST_GAIN)


def chance_clause(row: Row, remedy: str = SENTENCES["more seeds"]) -> str:
    """Rule 2; the remedy is named where there are too few control sets, and all of them were drawn."""
    n, helps = row["n_controls"], size_of(row) == "negative"
    if not n:
        return fill("no controls")
    template = DISJOINT.get(row["n_disjoint"], "some disjoint") if row["n_disjoint"] < n else "all disjoint"
    test, sides = ("p_two_sided", 2) if helps else ("p_value", 1)
    adjusted = row["p_two_sided_holm" if helps else "p_holm"]
    p = p_text(row[test], draws_behind(row), holm=adjusted, sides=sides)
    limit, smallest_p = "", sides * row["smallest_p"]
    n_as_large = 0 if helps else round(row["p_value"] * (n + 1)) - 1
    if adjusted > SIGNIFICANT and n_as_large > 0:
        is_shared = row["n_disjoint"] < n and not row["control_max"] >= row["compared_effect"] - LEAST_NAMED
        hold, cost = ("holds", "costs") if n_as_large == 1 else ("hold", "cost")
        limit = fill("as large and shared" if is_shared else "as large", n=n_as_large, hold=hold, cost=cost)
    if smallest_p > SIGNIFICANT and not limit:
        way_out = remedy if row["exact"] else fill("more controls")
        limit = fill("few controls", n_controls=counted(n, "control set"), smallest_p=smallest_p, remedy=way_out)
    elif adjusted > SIGNIFICANT and not helps and not limit and row["effect"] < row["detectable"] < math.inf:
        limit = fill("power", row)
    p = f"two-sided {p}" if helps else p
    return fill(
        template,
        row,
        controls=f"{'all ' if row['exact'] else ''}{counted(n, 'layer-matched set')}",
        extreme=fill("least control" if helps else "largest control", row),
        p=fill("over all sets", n_controls=n, p=p) if 0 < row["n_disjoint"] < n else p,
        limit=limit,
    )


def agreement_clause(rows: Sequence[Row], sizes_in_words: Mapping[str, str] = SIZES) -> str:
    """Rule 3."""
    if len(rows) == 1:
        return fill("one mode")
    sizes = [sizes_in_words[size_of(row)] for row in rows]
    agree = len(set(sizes)) == 1
    template = "effect of a mode" if agree else "size of a mode"
    effects = [fill(template, row, size=size) for row, size in zip(rows, sizes, strict=True)]
    return fill("agree" if agree else "disagree", size=sizes[0], effects=(", " if agree else "; ").join(effects))


def path_template(row: Row) -> str | None:
    """Rule 4; None where direct and total effect are alike, or both none."""
    total, direct = row["effect"], row["direct_effect"]
    if row["ci_low"] <= row["direct_ci_high"] and row["direct_ci_low"] <= row["ci_high"]:
        return None
    if size_of(row, "direct_") == "none":
        return None if size_of(row) == "none" else "indirect"
    if direct * total < 0 and size_of(row) != "none":
        return "opposite"
    return "compensated" if abs(direct) > abs(total) else "amplified"


def silent_sentence(rows: Sequence[Row], score: float, joint_rows: Sequence[Row]) -> str:
    """Rule 5: what joint removals say about a head that attends and costs nothing alone."""
    classes = list(dict.fromkeys(row["function_class"] for row in rows if size_of(row) != "undefined"))
    nothing = fill("nothing", harmless=HARMLESS, classes=listed(classes))
    if not joint_rows:
        return fill("not removed jointly", rows[0], score=score, nothing=nothing, classes=",".join(classes))
    certain = [row for row in joint_rows if max(row["ci_low"], -row["ci_high"]) > HARMLESS]
    if certain:
        largest = max(certain, key=lambda row: (row["mode"] == "mean", abs(row["change"])))
        return fill("no decoy", score=score, nothing=nothing, joint=joint_clause(largest))
    widest = max(joint_rows, key=lambda row: max(row["ci_high"], -row["ci_low"]))
    if max(widest["ci_high"], -widest["ci_low"]) > HARMLESS:
        return fill("undecided", score=score, nothing=nothing, joint=joint_clause(widest))
    clauses = {"score": score, "nothing": nothing, "combinations": combinations_clause(joint_rows)}
    moving = [row for row in rows if row["moved_ci_high"] > HARMLESS]
    if moving:
        return fill("moves predictions", max(moving, key=lambda row: row["moved_effect"]), **clauses)
    points = ", ".join(dict.fromkeys(row["points"] for row in rows))
    return fill("decoy", harmless=HARMLESS, classes=listed(classes), points=points, **clauses)


def joint_clause(row: Row) -> str:
    """What removing a set adds to the removal of its companions."""
    if row["change"] > 0:
        return fill("joint", row, verb="costs", size=row["change"])
    return fill("joint", row, verb="restores", size=-row["change"], ci_low=-row["ci_high"], ci_high=-row["ci_low"])


def combinations_clause(joint_rows: Sequence[Row]) -> str:
    """Which combinations of the other heads that attend were removed, besides single ones."""
    attending = joint_rows[0]["attending"]
    n_others = attending.count(",") + 1
    n_combined = len({row["companions"] for row in joint_rows if "," in row["companions"]})
    if not n_combined:
        return ""
    which = "any combination" if n_combined == 2**n_others - n_others - 1 else "any pair and all"
    return fill("combinations", which=which, attends=ATTENDS, attending=attending)


def keep_verdict(table: pd.DataFrame) -> list[str]:
    """One paragraph per set that was kept while all other heads were removed.

    Args:
        table: of an `interp.ablation.ablate.Ablation` of the design `keep`.
    """
    paragraphs: dict[str, list[str]] = {}
    for row in records(table):
        if math.isnan(row["effect"]):
            sentence = no_gain_sentence(row, row["function_class"])
        elif row["n_controls"] and 1 - row["effect"] >= LEAST_NAMED:
            p = p_text(row["p_value"], draws_behind(row))
            sentence = fill("kept, with p", row, left=1 - row["effect"], p=p)
        else:
            sentence = fill("kept", row, left=1 - row["effect"])
        paragraphs.setdefault(row["heads"], []).append(sentence)
    return [" ".join(sentences) for sentences in paragraphs.values()]


def pooled_verdict(table: pd.DataFrame) -> str:
    """One paragraph on several models.

    Args:
        table: of `interp.ablation.pooled.pooled`.
    """
    rows = [row for row in records(table) if row["mode"] == "mean"] or records(table)
    sentences = [pooled_sentence(row) if row["n_seeds"] else fill("pooled undefined", row) for row in rows]
    if n_unknown := max((row["n_unknown_seeds"] for row in rows), default=0):
        sentences.append(fill("pooled unknown seeds", models=counted(n_unknown, "model")))
    if rows and rows[0]["n_seeds"] == 1:
        sentences.append(fill("one seed"))
    return " ".join(sentences)


def pooled_sentence(row: Row) -> str:
    """The mean effect over seeds; it has intervals where seeds are of one kind."""
    helps = (row["ci_high"] if math.isnan(row["t_high"]) else row["t_high"]) < 0
    if helps:
        p = f"two-sided {p_text(row['p_two_sided'], row['n_draws'], holm=row['p_two_sided_holm'], sides=2)}"
    else:
        p = p_text(row["p_value"], row["n_draws"], holm=row["p_holm"])
    cost = "pooled cost" if math.isnan(row["t_low"]) else "pooled cost with t"
    cost = "pooled cost of one" if row["n_seeds"] == 1 else cost
    left_out = fill("pooled left out", models=counted(row["n_undefined"], "model")) if row["n_undefined"] else ""
    return fill(
        "pooled",
        row,
        seeds=counted(row["n_seeds"], "independent seed"),
        seeds_counted=counted(row["n_seeds"], "seed"),
        models=counted(row["n_checkpoints"], "model"),
        cost=fill("pooled cost of two kinds" if row["all_or_nothing"] else cost, row),
        helps=fill("pooled helps") if helps else "",
        p=p,
        left_out=left_out,
    )


@displays(Ablation, "sentences")
def ablation_verdict(result: Ablation, scores: Mapping[str, float]) -> list[str]:
    """The verdict on every set of an ablation."""
    if result.design == "keep":
        return keep_verdict(result.table)
    return verdict(result.table, scores, result.joint)


@displays(PairAblation, "sentences")
def pairs_verdict(result: PairAblation) -> list[str]:
    """One sentence for every class and range of pairs (rule 6)."""
    several_ranges = len(set(result.table["points"])) > 1
    return [interaction_sentence(rows, several_ranges) for rows in lead_groups(result.table)]


def lead_groups(table: pd.DataFrame) -> list[list[Row]]:
    """The rows of mean ablation, or of the first mode if it was not tried, by class and range."""
    rows = records(where(table, mode=lead_mode(list(table["mode"]))))
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["function_class"], row["points"]), []).append(row)
    return list(groups.values())


def interaction_sentence(rows: Sequence[Row], several_ranges: bool) -> str:
    """Rule 6 on the pairs of one class and range."""
    condition = rows[0]["function_class"] + (f" (pairs {rows[0]['points']})" if several_ranges else "")
    if math.isnan(rows[0]["interaction"]):
        return fill("no clear gain", where=condition)
    certain = [row for row in rows if row["p_holm"] <= SIGNIFICANT and abs(row["interaction"]) >= LEAST_NAMED]
    n_pairs = counted(len(rows), "pair")
    if not certain:
        strongest = max(rows, key=lambda row: abs(row["interaction"]))
        larger = fill("larger sets") if len(rows) > 1 else ""
        widest = max(max(-row["ci_low"], row["ci_high"]) for row in rows)
        template = "harmless pairs" if widest < HARMLESS else "no interaction"
        each = f"each of {n_pairs}" if len(rows) > 1 else strongest["heads"]
        about = {"where": condition, "count": n_pairs, "each": each, "significant": SIGNIFICANT, "harmless": HARMLESS}
        return fill(template, strongest, **about) + larger
    ends = [max(certain, key=lambda row: row["interaction"]), min(certain, key=lambda row: row["interaction"])]
    by_sign = [row for row, sign in zip(ends, (1, -1), strict=True) if sign * row["interaction"] > 0]
    return fill(
        "interaction",
        rows[0],
        where=condition,
        count=f"{len(certain)} of {n_pairs} {'interacts' if len(certain) == 1 else 'interact'}",
        significant=SIGNIFICANT,
        strongest=" ".join(strongest_sentence(row, certain) for row in by_sign),
    )


def strongest_sentence(row: Row, certain: Sequence[Row]) -> str:
    """The pair with the strongest interaction of one sign, those as strong, and what it may come from."""
    alike = [other for other in certain if abs(other["interaction"] - row["interaction"]) < LEAST_NAMED]
    others = [other["heads"] for other in alike if other["heads"] != row["heads"]]
    also = fill("as strong", pairs=listed(others)) if others else ""
    p = p_text(row["p_value"], N_RESAMPLES // 2, holm=row["p_holm"])
    return fill("strongest", row, p=p, meaning=fill(meaning_of(row)), also=also)


def meaning_of(row: Row) -> str:
    """Which explanation (a key of `SENTENCES`) the effects of a pair leave open.

    >>> meaning_of({"effect_first": 0.0, "effect_second": 0.4, "effect": 0.9, "interaction": 0.5})
    'adds up or replaces'
    >>> meaning_of({"effect_first": 1.0, "effect_second": 1.8, "effect": 0.0, "interaction": -2.8})
    'cancels'
    """
    alone = (row["effect_first"], row["effect_second"])
    if row["interaction"] > 0:  # a head that costs most of the gain alone is replaced by none
        return "adds up" if min(alone) >= HALF else "adds up or replaces"
    return "cancels" if row["effect"] < max(alone) - HARMLESS else "costs less"


@displays(CumulativeAblation, "sentences")
def order_verdict(result: CumulativeAblation) -> list[str]:
    """For every class and range: does this order cost more than random orders, and which head makes the difference?"""
    sentences = []
    for row in (row for rows in lead_groups(result.area) for row in rows):
        condition = {name: row[name] for name in ("function_class", "mode", "points")}
        sentences.append(order_sentence(row, records(where(result.table, **condition))))
    return sentences


def order_sentence(row: Row, steps: Sequence[Row]) -> str:
    """The sentence on one order.

    Args:
        row: its area.
        steps: its effects, a row per removed head.
    """
    if math.isnan(row["area"]):
        return fill("no clear gain", where=row["function_class"])
    before = [0.0, *(step["effect"] for step in steps[:-1])]
    changes = [step | {"before": start} for step, start in zip(steps, before, strict=True)]
    rise, fall = (choose(changes, key=lambda step: step["effect"] - step["before"]) for choose in (max, min))
    clauses = fill("rise", rise) if rise["effect"] - rise["before"] > HARMLESS else ""
    clauses += fill("fall", fall) if fall["before"] - fall["effect"] > HARMLESS else ""
    order = ", ".join(step["added"] for step in steps)
    return fill("order", row, heads=order, p=p_text(row["p_value"], row["n_orders"]), steps=clauses)
