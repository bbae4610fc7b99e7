"""The verdict of the study of layers: sentences that follow from its tables by rule.

1. How many heads the first layer needs and a later one, over all models.
2. The first layer needs more (fewer) heads if the t-interval of the paired difference lies above (below) 0 and the p of
   random signs is at most `SIGNIFICANT`; else no difference is shown.
3. In how many cases the first layer needs all heads, and a later layer at most one.
"""

import pandas as pd

from analyses.studies.layers.measures import KEPT
from interp.display.text import counted
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import p_text
from training.common.output import records

SENTENCES = {
    "nothing": "No model has a clear in-context gain on a class, so nothing is said of its layers.",
    "needs": "To keep {kept:.0%} of the in-context gain, the first layer needs {first:.1f}{first_ends} heads and a "
    "later layer {later:.1f}{later_ends} on average, over {seeds} (mean ablation of the other heads of one layer).",
    "more": "The first layer needs more heads than a later one: {difference:.1f}{ends} ({p}, random signs over seeds).",
    "fewer": "The first layer needs fewer heads than a later one: {difference:.1f}{ends} ({p}, random signs over "
    "seeds).",
    "no difference": "No difference between the first layer and later ones is shown ({difference:z.1f}{ends}{p}).",
    "one seed": "One seed allows no test of the difference between the first layer and later ones ({difference:z.1f}).",
    "cases": "All heads of the first layer are needed in {n_all} of {cases} (model x class); in later layers at "
    "most one head is needed in {n_one} of {n_later}, none in {n_none}.",
}


def verdict(seeds: pd.DataFrame, counts: pd.DataFrame) -> list[str]:
    """Rules 1 to 3, over all models or the only curriculum."""
    if not len(seeds):
        return [SENTENCES["nothing"]]
    row = records(seeds)[-1]
    first, *later = records(counts)
    n_enough = sum(layer["n_one"] + layer["n_none"] for layer in later)
    return [
        SENTENCES["needs"].format(
            **row,
            kept=KEPT,
            first_ends=ends(row, "first"),
            later_ends=ends(row, "later"),
            seeds=counted(row["n_seeds"], "independent seed"),
        ),
        difference_sentence(row),
        SENTENCES["cases"].format(
            n_all=first["n_all"],
            cases=counted(first["n_cases"], "case"),
            n_one=n_enough,
            n_none=sum(layer["n_none"] for layer in later),
            n_later=sum(layer["n_cases"] for layer in later),
        ),
    ]


def difference_sentence(row: dict[str, float]) -> str:
    """Rule 2."""
    if row["n_seeds"] < 2:
        return SENTENCES["one seed"].format(**row)
    low, high = row["difference_low"], row["difference_high"]
    is_certain = row["p_value"] <= SIGNIFICANT and (low > 0 or high < 0)
    kind = ("more" if low > 0 else "fewer") if is_certain else "no difference"
    p = "" if row["p_value"] != row["p_value"] else p_text(row["p_value"], int(row["n_draws"]))
    values = {"difference": row["difference"], "ends": ends(row, "difference")}
    return SENTENCES[kind].format(**values, p=f"; {p}" if p and kind == "no difference" else p)


def ends(row: dict[str, float], name: str) -> str:
    """The t-interval over seeds; nothing for a single seed."""
    return f" [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]" if row["n_seeds"] > 1 else ""
