"""The verdict of the study of clamping: sentences that follow from its tables by rule.

1. Of every arm and class, how many runs left the plateau, when, and how many are censored.
2. Two arms differ in this if the exact p of their ranks is at most `SIGNIFICANT` after Holm over arms and classes.
3. Means over seeds differ if the t-interval of the paired difference excludes 0, without a correction for the
   number of comparisons.
4. A sentence per arm sums up: on which classes it leaves the plateau at another time (rule 2), has another final error
   without the clamp, and whether the highest score of a head differs (rule 3).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.studies.clamping.measures import WITHOUT
from analyses.studies.plateaus.exit_times import comparison_sentences, direction, time_sentences
from interp.display.text import counted, listed
from training.common.output import interval, number, records
from training.common.table_rows import distinct, where

SENTENCES = {
    "arm": "{arm}, compared with unclamped twins: the plateau is left {times}; the final error without the clamp is "
    "{errors}{scores}.",
    "scores": "; the highest retrospective score of a head is {change} after training",
    "error": "{arm}, evaluated {evaluated}: the final error on {function_class} {change} ({arm_mean} of the no-context "
    "optimum, twins {twin_mean}; difference {interval} over {seeds}).",
    "highest": "{arm}: after training the highest retrospective score of a head {change} ({arm_mean}, twins "
    "{twin_mean}; difference {interval} over {seeds}).",
    "score": "{arm}: after training the retrospective score of these heads {change} ({arm_mean}, twins {twin_mean}; "
    "difference {interval} over {seeds}).",
    "effect": "{arm}: the share of the in-context gain that removing these heads costs {change} ({arm_mean}, twins "
    "{twin_mean}; difference {interval} over {seeds}).",
    "higher": "is higher than the twins'",
    "lower": "is lower than the twins'",
    "same": "does not differ from the twins' beyond chance",
    "one seed": "has no interval with one seed",
    "release": "Errors as trained are under the clamp while it acted; all others, and all scores, are without it. "
    "Each t-interval holds for a single comparison: none is corrected for the number of comparisons.",
    "no history": "It cannot be determined when {names} left: their histories do not hold the error over the last "
    "points.",
}

OUTCOMES = {
    "higher": "higher",
    "lower": "lower",
    "same": "not different beyond chance",
    "one seed": "without an interval (one seed)",
}


def verdict(
    times: pd.DataFrame, tests: pd.DataFrame, errors: pd.DataFrame, heads: pd.DataFrame, without_history: list[str]
) -> list[str]:
    """Every arm in one sentence, the details, and which runs have no history."""
    sentences = [*arm_sentences(tests, errors, heads), *details(times, tests, errors, heads), SENTENCES["release"]]
    if without_history:
        sentences.append(SENTENCES["no history"].format(names=listed(without_history)))
    return sentences


def details(times: pd.DataFrame, tests: pd.DataFrame, errors: pd.DataFrame, heads: pd.DataFrame) -> list[str]:
    """Rules 1 to 3: times, tests, errors and heads, row by row."""
    sentences = [*time_sentences(times), *comparison_sentences(tests)]
    sentences += [difference_sentence("error", row) for row in records(errors) if row["n_seeds"]]
    return sentences + [difference_sentence(row["measure"], row) for row in records(heads) if row["n_seeds"]]


def arm_sentences(tests: pd.DataFrame, errors: pd.DataFrame, heads: pd.DataFrame) -> list[str]:
    """Rule 4."""
    sentences = []
    for arm in distinct(tests, "arm") if len(tests) else []:
        times: dict[str, list[str]] = {}
        for row in records(where(tests, arm=arm)):
            outcome = direction(row["difference"], row["p_holm"]) or "at no time that is shown to differ"
            times.setdefault(outcome, []).append(row["function_class"])
        final: dict[str, list[str]] = {}
        for row in records(where(errors, arm=arm, evaluated=WITHOUT)):
            final.setdefault(OUTCOMES[change(row["low"], row["high"])], []).append(row["function_class"])
        highest = records(where(heads, arm=arm, measure="highest"))
        scores = [SENTENCES["scores"].format(change=OUTCOMES[change(row["low"], row["high"])]) for row in highest]
        values = {"times": on_classes(times), "errors": on_classes(final), "scores": "".join(scores)}
        sentences.append(SENTENCES["arm"].format(arm=arm, **values))
    return sentences


def on_classes(outcomes: Mapping[str, Sequence[str]]) -> str:
    """
    >>> on_classes({"earlier": ["linear", "quadratic"], "later": ["cubic"]})
    'earlier on linear and quadratic, later on cubic'
    """
    return ", ".join(f"{outcome} on {listed(list(names))}" for outcome, names in outcomes.items())


def difference_sentence(name: str, row: Mapping[str, Any]) -> str:
    """Rule 3."""
    means = {key: number(row[key]) for key in ("arm_mean", "twin_mean")}
    return SENTENCES[name].format(
        **{**row, **means},
        change=SENTENCES[change(row["low"], row["high"])],
        interval=interval(row["difference"], row["low"], row["high"]),
        seeds=counted(row["n_seeds"], "seed"),
    )


def change(low: float, high: float) -> str:
    """
    >>> change(0.1, 0.3), change(-0.1, 0.3), change(float("nan"), float("nan"))
    ('higher', 'same', 'one seed')
    """
    if math.isnan(low):
        return "one seed"
    return "higher" if low > 0 else "lower" if high < 0 else "same"
