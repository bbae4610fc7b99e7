"""The verdict of the study of guides: sentences that follow from its tables by rule.

1. The guide whose rank correlation with the exact effect is highest over all models, beside the retrospective score.
2. A guide is better or worse than the retrospective score if the p of their paired difference over seeds is at most
   `SIGNIFICANT` after Holm over guides.
3. Of the heads that only one kind of score finds, what removing them costs (`interp.ablation.verdict.pooled_sentence`).
4. In how many runs with snapshots each kind of score arrives, and in which order where both do.
"""

from collections.abc import Sequence

import pandas as pd

from analyses.studies.cause.measures import MATTERS
from analyses.studies.which_score.measures import (
    FUNCTION_VECTOR,
    ONLY_ATTENDS,
    ONLY_CARRIES,
    REFERENCE,
    ModelGuides,
)
from interp.ablation.size_classes import ATTENDS
from interp.display.text import counted, listed
from interp.model.heads import show
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import p_text
from training.common.output import records
from training.common.table_rows import where

SENTENCES = {
    "nothing": "No model has a head whose removal alone changes the error beyond the noise of these prompts, so no "
    "guide can be judged.",
    "best": "Over {seeds} ({models}), the order of heads by {guide} agrees best with their exact effects: rank "
    "correlation {spearman}; it ranks {share_found:.0%} of the heads that cost more than {matters:g} alone among as "
    "many of its highest (a random order {by_chance:.0%}). The retrospective score has {reference} and "
    "{reference_found:.0%}.",
    "reference best": "Over {seeds} ({models}), no guide agrees better with the exact effects of heads than the "
    "retrospective score: rank correlation {spearman}; it ranks {share_found:.0%} of the heads that cost more than "
    "{matters:g} alone among as many of its highest (a random order {by_chance:.0%}).",
    "one seed": "One seed allows no comparison of guides.",
    "compared": "{better} {worse} (paired over seeds, p <= {significant:g} after Holm over guides).",
    "better": "Better than the retrospective score: {guides}.",
    "none better": "No guide is shown to be better than the retrospective score.",
    "worse": "Worse: {guides}",
    "none worse": "None is shown to be worse",
    "excluded": "Removing {kind}{named} costs {effect:z.2f}{interval} of the in-context gain on {function_class}, over "
    "{seeds}; {p} against layer-matched sets.",
    "no carriers": "In {n_none} of {models} no head has a function-vector score above 0 by its interval without being "
    "retrospective too.",
    "arrivals": "In runs with snapshots the highest retrospective score comes to stay above half of its final value in "
    "{attends} of {n} (final value at least {attends_least:g}), the highest function-vector score in {carries} of {n} "
    "(at least {carries_least:g}){order}.",
    "order": "; where both do, the retrospective score comes first in {first} of {both}",
}
MOST_NAMED = 3
"""Models whose heads are named in a sentence."""
ALIKE = 0.005
"""Rank correlations that a sentence shows as the same."""
KINDS = {
    ONLY_ATTENDS: "retrospective heads that are not function-vector heads",
    ONLY_CARRIES: "function-vector heads that are not retrospective",
}


def guide_sentences(models: Sequence[ModelGuides], guides: pd.DataFrame) -> list[str]:
    """Rules 1 and 2, over all models or the only curriculum."""
    if not len(guides):
        return [SENTENCES["nothing"]]
    rows = {row["guide"]: row for row in records(where(guides, curriculum=guides["curriculum"].iloc[-1]))}
    reference, best = rows[REFERENCE], max(rows.values(), key=lambda row: row["spearman"])
    ties = [row for row in rows.values() if row["spearman"] >= best["spearman"] - ALIKE]
    first = SENTENCES["reference best" if reference in ties else "best"].format(
        seeds=counted(best["n_seeds"], "independent seed"),
        models=counted(len(models), "model"),
        guide=listed([name_guide(row["guide"]) for row in ties]) + (" alike" if len(ties) > 1 else ""),
        spearman=with_interval(best),
        share_found=best["share_found"],
        by_chance=best["by_chance"],
        matters=MATTERS,
        reference=with_interval(reference),
        reference_found=reference["share_found"],
    )
    if best["n_seeds"] < 2:
        return [first, SENTENCES["one seed"]]
    certain = [row for row in rows.values() if row["p_holm"] <= SIGNIFICANT]
    better = [name_guide(row["guide"]) for row in certain if row["difference"] > 0]
    worse = [name_guide(row["guide"]) for row in certain if row["difference"] < 0]
    compared = SENTENCES["compared"].format(
        better=SENTENCES["better"].format(guides=listed(better)) if better else SENTENCES["none better"],
        worse=SENTENCES["worse"].format(guides=listed(worse)) if worse else SENTENCES["none worse"],
        significant=SIGNIFICANT,
    )
    return [first, compared]


def name_guide(guide: str) -> str:
    """
    >>> name_guide("function_vector"), name_guide("direct effect")
    ('the score function vector', 'direct effect')
    """
    return f"the score {guide.replace('_', ' ')}" if "_" in guide or guide in ("self", "paper", "lookup") else guide


def with_interval(row: dict[str, float]) -> str:
    ends = f" [{row['t_low']:.2f}, {row['t_high']:.2f}]" if row["n_seeds"] > 1 else ""
    return f"{row['spearman']:.2f}{ends}"


def exclusion_sentences(models: Sequence[ModelGuides], exclusion: pd.DataFrame) -> list[str]:
    """Rule 3, a sentence per kind and class over all models, and in how many models there is nothing to remove."""
    sentences = []
    for kind, meaning in KINDS.items():
        rows = records(where(exclusion, heads=kind)) if len(exclusion) else []
        for row in [row for row in rows if row["curriculum"] == rows[-1]["curriculum"] and row["n_seeds"]]:
            ends = "" if row["n_seeds"] < 2 else f" [{row['t_low']:.2f}, {row['t_high']:.2f}]"
            sentences.append(
                SENTENCES["excluded"].format(
                    kind=meaning,
                    named=name_heads(models, kind),
                    effect=row["effect"],
                    interval=ends,
                    function_class=row["function_class"],
                    seeds=counted(row["n_seeds"], "independent seed"),
                    p=p_text(row["p_value"], row["n_draws"], holm=row["p_holm"]),
                )
            )
    n_none = sum(ONLY_CARRIES not in model.sets for model in models)
    if n_none:
        sentences.append(SENTENCES["no carriers"].format(n_none=n_none, models=counted(len(models), "model")))
    return sentences


def name_heads(models: Sequence[ModelGuides], kind: str) -> str:
    """The removed heads of each model, in brackets; nothing for many models, of which the table tells them."""
    removed = [f"{model.checkpoint.name} {show(model.sets[kind])}" for model in models if kind in model.sets]
    return f" ({'; '.join(removed)})" if len(removed) <= MOST_NAMED else ""


def arrival_sentences(arrivals: pd.DataFrame) -> list[str]:
    """Rule 4."""
    if not len(arrivals):
        return []
    by_guide = {
        guide: {row["checkpoint"]: row for row in records(where(arrivals, guide=guide)) if row["by"] == row["by"]}
        for guide in (REFERENCE, FUNCTION_VECTOR)
    }
    attends, carries = by_guide[REFERENCE], by_guide[FUNCTION_VECTOR]
    both = [name for name in attends if name in carries]
    first = sum(attends[name]["by"] <= carries[name]["after"] for name in both)
    return [
        SENTENCES["arrivals"].format(
            attends=len(attends),
            carries=len(carries),
            n=arrivals["checkpoint"].nunique(),
            attends_least=ATTENDS,
            carries_least=MATTERS,
            order=SENTENCES["order"].format(first=first, both=len(both)) if both else "",
        )
    ]
