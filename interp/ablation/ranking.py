"""Which of many head sets matter, in words: at most three sentences per function class and range of pairs.

1. Finding: the sets whose removal costs more than `HARMLESS` of the in-context gain, the largest effect first. The
   intervals are widened so that they hold for all sets at once (`interp.statistics.effects.widen_interval`).
2. Evidence: whether the other replacements name the same sets; p against layer-matched control sets, after Holm over
   sets.
3. Limits: how many of the others are harmless and how many undecided, and what removing sets one by one cannot show.
"""

from collections.abc import Sequence

from interp.ablation.ablate import Ablation
from interp.ablation.modes import lead_mode
from interp.ablation.size_classes import HARMLESS, Row
from interp.ablation.verdict import no_gain_sentence
from interp.display.result import displays
from interp.display.text import listed
from interp.statistics.effects import SIGNIFICANT, widen_interval
from interp.statistics.p_values import draws_behind, p_number
from training.common.output import records
from training.common.table_rows import distinct, where

MOST_NAMED = 8
"""Sets that a sentence names; more are counted."""
SENTENCES = {
    "matter": "On {where} {n} of {n_sets} head sets cost more than {harmless} of the in-context gain when they are "
    "removed ({mode} ablation; intervals hold for all sets at once): {named}{more}.",
    "none matter": "On {where} none of {n_sets} head sets certainly costs more than {harmless} of the in-context gain "
    "when it is removed ({mode} ablation; intervals hold for all sets at once).",
    "helps": " Removing {helping} helps.",
    "named": "{heads} {effect:z.2f} [{low:z.2f}, {high:z.2f}]",
    "more": " and {n} more",
    "evidence": "{modes}; {chance}.",
    "one mode": "No other replacement was tried",
    "same": "All replacements ({modes}) name the same sets",
    "differ": "THE REPLACEMENTS NAME DIFFERENT SETS ({modes})",
    "of a mode": "{mode}: {heads}",
    "no controls": "there are no layer-matched control sets, hence no p-value",
    "significant": "against layer-matched control sets p after Holm over sets is at most {level} for {heads}",
    "not significant": "against layer-matched control sets p after Holm over sets is above {level} for each "
    "(smallest {p})",
    "too few": "there are too few layer-matched control sets for a p of at most {level} after Holm over {n_sets} sets "
    "(none below {least:.3g} before Holm)",
    "some open": "Of the others {n_harmless} {verb} shown to cost less than {harmless} ({mode} ablation{unchanged}); "
    "undecided: {undecided}; ",
    "none open": "All others are shown to cost less than {harmless} ({mode} ablation{unchanged}); ",
    "unchanged": ", which leaves the output of {n} of them as it is",
    "all open": "None of the others is shown to cost less than {harmless}; ",
    "no others": "",
    "together": "heads that matter only together are not found one by one (--design pairs).",
}


@displays(Ablation, "ranking")
def ranking_sentences(result: Ablation) -> list[str]:
    """The three sentences for each function class and range of pairs."""
    several = len(distinct(result.table, "points")) > 1
    lead = lead_mode(list(result.table["mode"]))
    sentences = []
    for name in distinct(result.table, "function_class"):
        for points in distinct(result.table, "points"):
            rows = records(where(result.table, function_class=name, points=points))
            label = f"{name} (pairs {points})" if several else name
            sentences.append(describe_condition(rows, lead, label))
    return sentences


def describe_condition(rows: Sequence[Row], lead: str, label: str) -> str:
    """The sentences on one class and range.

    Args:
        rows: of all sets and modes.
        lead: the mode whose effects are named.
        label: the class, with the range if there are several.
    """
    rows = [widen(row, len({row["heads"] for row in rows})) for row in rows]
    leading = sorted((row for row in rows if row["mode"] == lead), key=lambda row: -row["effect"])
    defined = [row for row in leading if row["effect"] == row["effect"]]
    if not defined:
        return no_gain_sentence(leading[0], label)
    matter = [row for row in defined if row["low"] > HARMLESS]
    harmless = [row for row in defined if -HARMLESS <= row["high"] <= HARMLESS]
    helping = [row["heads"] for row in defined if row["high"] < -HARMLESS]
    about = {"where": label, "mode": lead, "harmless": HARMLESS, "n_sets": len(leading), "n": len(matter)}
    finding = SENTENCES["matter" if matter else "none matter"].format(
        **about,
        named=", ".join(SENTENCES["named"].format(**row) for row in matter[:MOST_NAMED]),
        more=SENTENCES["more"].format(n=len(matter) - MOST_NAMED) if len(matter) > MOST_NAMED else "",
    )
    if helping:
        finding += SENTENCES["helps"].format(helping=listed(helping))
    chance = describe_chance(matter or defined, len(leading))
    evidence = SENTENCES["evidence"].format(modes=describe_modes(rows), chance=chance)
    judged = {row["heads"] for row in [*matter, *harmless]} | {*helping}
    undecided = [row["heads"] for row in leading if row["heads"] not in judged]
    named = listed(undecided[:MOST_NAMED])
    named += SENTENCES["more"].format(n=len(undecided) - MOST_NAMED) if len(undecided) > MOST_NAMED else ""
    n_unchanged = sum(bool(row["note"]) for row in harmless)
    unchanged = SENTENCES["unchanged"].format(n=n_unchanged) if n_unchanged else ""
    others = SENTENCES[describe_others(len(harmless), len(undecided))]
    about |= {
        "n_harmless": len(harmless),
        "verb": "is" if len(harmless) == 1 else "are",
        "undecided": named,
        "unchanged": unchanged,
    }
    limits = others.format(**about) + SENTENCES["together"]
    return " ".join([finding, evidence, limits[0].upper() + limits[1:]])


def describe_others(n_harmless: int, n_open: int) -> str:
    """Which sentence (a key of `SENTENCES`) says what is known of the sets that neither cost nor help.

    >>> describe_others(3, 1), describe_others(3, 0), describe_others(0, 1)
    ('some open', 'none open', 'all open')
    """
    if not n_open:
        return "none open" if n_harmless else "no others"
    return "some open" if n_harmless else "all open"


def widen(row: Row, n_sets: int) -> Row:
    """The row with the interval that holds for all sets at once, as `low` and `high`."""
    low, high = widen_interval(row["effect"], row["ci_low"], row["ci_high"], n_sets)
    return row | {"low": low, "high": high}


def describe_modes(rows: Sequence[Row]) -> str:
    """Whether every mode names the same sets."""
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    if len(modes) == 1:
        return SENTENCES["one mode"]
    named = {mode: [row["heads"] for row in rows if row["mode"] == mode and row["low"] > HARMLESS] for mode in modes}
    if len({frozenset(heads) for heads in named.values()}) == 1:
        return SENTENCES["same"].format(modes=listed(modes))
    parts = (SENTENCES["of a mode"].format(mode=mode, heads=listed(heads) or "none") for mode, heads in named.items())
    return SENTENCES["differ"].format(modes="; ".join(parts))


def describe_chance(rows: Sequence[Row], n_sets: int) -> str:
    """p of these sets against layer-matched control sets, after Holm over all sets."""
    tested = [row for row in rows if row["n_controls"] and row["p_holm_heads"] == row["p_holm_heads"]]
    if not tested:
        return SENTENCES["no controls"]
    significant = [row["heads"] for row in tested if row["p_holm_heads"] <= SIGNIFICANT]
    if significant:
        return SENTENCES["significant"].format(level=SIGNIFICANT, heads=listed(significant[:MOST_NAMED]))
    best = min(tested, key=lambda row: row["p_holm_heads"])
    p = p_number(best["p_holm_heads"], draws_behind(best), unadjusted=best["p_value"])
    least = min(row["smallest_p"] for row in tested)
    name = "too few" if least * n_sets > SIGNIFICANT else "not significant"
    return SENTENCES[name].format(level=SIGNIFICANT, p=p, least=least, n_sets=n_sets)
