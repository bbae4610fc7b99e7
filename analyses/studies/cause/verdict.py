"""The verdict of the study of causes: sentences that follow from its tables by rule.

1. Agreement with the paper on a class: the mean effect over seeds (mean ablation) is at least `HALF` of the in-context
   gain and exceeds that of layer-matched control sets (p after Holm).
2. Single removals understate heads whose joint removal costs more than the sum of their costs alone, by more than
   `MATTERS` of the gain by the interval over prompts. Heads that can replace one another do this, and so do heads whose
   contributions add up: two halves of an answer cost a quarter of a squared error each, and all of it together.
3. The score of a head is a guide to its effect to the degree that heads above `ATTENDS` matter (precision) and heads
   that matter are above it (recall).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.studies.cause.measures import MATTERS, ModelEffects
from interp.ablation.size_classes import ATTENDS, HALF
from interp.ablation.verdict import pooled_verdict
from interp.display.text import counted, listed
from interp.model.heads import show
from interp.statistics.effects import SIGNIFICANT
from training.common.output import records
from training.common.table_rows import distinct, where

PAPER: Mapping[str, float] = {"linear": 1.06, "quadratic": 1.11, "cubic": 1.41}
"""Effect of zeroing the seven heads of the published mixed model (arXiv 2404.03558, Figure 2), at 90 examples; its
control set has 0.03, 0.01 and 0.01."""
SENTENCES = {
    "located": "Heads with a score above {threshold} are in {n_with} of {models}{names}.{without}",
    "removal": "{curriculum}: {verdict}{agreement}",
    "agrees": " The paper's claim is shown on {classes}.",
    "small": " The paper's claim is not shown on {classes}: less than {half} of the gain.",
    "uncertain": " The paper's claim is not shown on {classes}: p after Holm is above {level:g}{limit}.",
    "few controls": ", and with so few control sets it cannot be smaller than {smallest_p:.3g}",
    "kept": "Without any other head, this share of the in-context gain is left (mean ablation): {shares}.{not_enough}",
    "not enough": " In no case is half of it left: the heads are not enough by themselves.",
    "together": "Where a model has several such heads ({models}), removing them together costs more than the sum of "
    "their costs alone, by more than {level} of the gain (95 % interval over prompts), in {n_more} of "
    "{cases}{most}{hidden}.",
    "hidden": " (in {n} of the other cases one of the heads alone already costs at least {half} of the gain, which can "
    "hide how the others act together)",
    "most": ", most in {checkpoint} on {function_class} ({effect:.2f} against {sum_alone:.2f}, {excess:.2f} "
    "[{ci_low:.2f}, {ci_high:.2f}] more): either one of these heads can replace another, or their contributions add up "
    "(errors are squared)",
    "guide": "On {function_class}, the rank correlation of score and effect of single heads is {spearman:.2f}"
    "{interval}. Of the heads that score above {threshold}, {costs} when removed alone; of the heads that cost more "
    "than {recalls}.",
}


def located_sentence(models: Sequence[ModelEffects]) -> str:
    """How many models have retrospective heads, and which have none."""
    names = "; ".join(f"{model.checkpoint.name} {show(model.head_set)}" for model in models if model.head_set)
    without = [model.checkpoint.name for model in models if not model.head_set]
    return SENTENCES["located"].format(
        threshold=ATTENDS,
        n_with=len(models) - len(without),
        models=counted(len(models), "model"),
        names=f": {names}" if names else "",
        without=f" None in {', '.join(without)}." if without else "",
    )


def removal_sentences(removed: pd.DataFrame) -> list[str]:
    """By curriculum, the cost of removing the heads, and whether it agrees with the paper."""
    return [
        SENTENCES["removal"].format(
            curriculum=curriculum, verdict=pooled_verdict(rows), agreement=compare_with_paper(rows)
        )
        for curriculum, rows in group_rows(removed)
    ]


def compare_with_paper(rows: pd.DataFrame) -> str:
    """Rule 1."""
    mean = [row for row in records(where(rows, mode="mean")) if row["function_class"] in PAPER and row["n_seeds"]]
    agree = [row["function_class"] for row in mean if row["effect"] >= HALF and row["p_holm"] <= SIGNIFICANT]
    small = [row["function_class"] for row in mean if row["effect"] < HALF]
    uncertain = [row for row in mean if row["function_class"] not in (*agree, *small)]
    published = listed([f"{function_class} ({PAPER[function_class]:.2f} there)" for function_class in agree])
    text = SENTENCES["agrees"].format(classes=published) if agree else ""
    if small:
        text += SENTENCES["small"].format(classes=", ".join(small), half=HALF)
    if uncertain:
        smallest_p = min(row["smallest_p"] for row in uncertain)
        limit = SENTENCES["few controls"].format(smallest_p=smallest_p) if smallest_p > SIGNIFICANT else ""
        classes = ", ".join(row["function_class"] for row in uncertain)
        text += SENTENCES["uncertain"].format(classes=classes, level=SIGNIFICANT, limit=limit)
    return text


def group_rows(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for curriculum in distinct(table, "curriculum"):
        yield curriculum, where(table, curriculum=curriculum)


def keep_sentences(kept: pd.DataFrame) -> list[str]:
    """What is left of the gain with the heads alone."""
    parts, lefts = [], list[float]()
    for curriculum, rows in group_rows(kept):
        cells = [row for row in records(where(rows, mode="mean")) if row["n_seeds"]]
        shares = ", ".join(f"{format_kept(row)} on {row['function_class']}" for row in cells)
        parts += [f"{curriculum} {shares}"] if shares else []
        lefts += [1 - row["effect"] for row in cells]
    not_enough = SENTENCES["not enough"] if max(lefts, default=1.0) < HALF else ""
    return [SENTENCES["kept"].format(shares="; ".join(parts), not_enough=not_enough)] if parts else []


def format_kept(row: Mapping[str, Any]) -> str:
    """The share that is left, with its t-interval over seeds if there is one."""
    share = f"{1 - row['effect']:z.2f}"
    return share if math.isnan(row["t_low"]) else f"{share} [{1 - row['t_high']:z.2f}, {1 - row['t_low']:z.2f}]"


def joint_sentences(costs: pd.DataFrame) -> list[str]:
    """Rule 2."""
    rows = records(costs)
    if not rows:
        return []
    more = [row for row in rows if row["ci_low"] > MATTERS]
    most = SENTENCES["most"].format(**max(more, key=lambda row: row["excess"])) if more else ""
    models, cases = listed(distinct(costs, "checkpoint")), counted(len(rows), "case")
    n_hidden = sum(row["highest_alone"] >= HALF for row in rows if row not in more)
    hidden = SENTENCES["hidden"].format(n=n_hidden, half=HALF) if n_hidden else ""
    values = {"models": models, "level": MATTERS, "n_more": len(more), "cases": cases, "most": most, "hidden": hidden}
    return [SENTENCES["together"].format(**values)]


def guide_sentences(guides: pd.DataFrame) -> list[str]:
    """Rule 3."""
    sentences = []
    for function_class in distinct(guides, "function_class"):
        rows = where(guides, function_class=function_class)
        if not rows["n_models"].iloc[0]:
            continue
        rows = records(rows.astype(dict.fromkeys(("n_seeds", "n_attend", "n_both", "n_matter"), int)))  # NaN elsewhere
        first = rows[0]
        interval = ""
        if first["n_seeds"] > 1:
            interval = f" (t-interval over {first['n_seeds']} seeds [{first['t_low']:.2f}, {first['t_high']:.2f}])"
        costs = [f"{row['n_both']} of {row['n_attend']} cost more than {row['level']}" for row in rows]
        recalls = [f"{row['level']} the score finds {row['n_both']} of {row['n_matter']}" for row in rows]
        text = {
            "interval": interval,
            "costs": f"{listed(costs)} of the gain",
            "recalls": ", of those that cost more than ".join(recalls),
        }
        sentences.append(SENTENCES["guide"].format(**first, threshold=ATTENDS, **text))
    return sentences
