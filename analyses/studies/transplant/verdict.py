"""The verdict of the study of transplants: sentences that follow from its tables by rule.

1. Of every arm, how many runs left the plateau, when, and how many are censored.
2. Two arms differ if the exact p of their ranks is at most `SIGNIFICANT` after Holm over comparisons of their kind.
3. Retrospective heads shorten the plateau if runs with them leave earlier than runs that took nothing and than runs
   with as many other heads. A trained model needs them for it if runs without them leave later than runs without
   others.
"""

import pandas as pd

from analyses.studies.plateaus.exit_times import comparison_sentences, time_sentences
from analyses.studies.transplant.measures import EVERYTHING, NOTHING, OTHERS, RETROSPECTIVE
from interp.display.text import listed
from interp.statistics.effects import SIGNIFICANT
from training.common.output import records

SENTENCES = {
    "enough": "Retrospective heads alone shorten the plateau: with them runs leave it earlier than with nothing, and "
    "earlier than with as many other heads of their layers.",
    "not enough": "It is not shown that retrospective heads alone shorten the plateau: that needs runs with them to "
    "leave earlier than runs with nothing and than runs with as many other heads.",
    "needed": "A trained model needs its retrospective heads to leave early: without them runs leave later than "
    "without as many other heads.",
    "not needed": "It is not shown that a trained model needs its retrospective heads to leave early.",
    "no history": "It cannot be determined when {names} left: their histories do not hold the error over the last "
    "points.",
}


def verdict(times: pd.DataFrame, tests: pd.DataFrame, without_history: list[str]) -> list[str]:
    """Rules 1 to 3, and which runs have no history."""
    sentences = [*time_sentences(times), *comparison_sentences(tests), *conclusions(tests)]
    if without_history:
        sentences.append(SENTENCES["no history"].format(names=listed(without_history)))
    return sentences


def conclusions(tests: pd.DataFrame) -> list[str]:
    """Rule 3, as far as there are runs for it."""
    shown = {(row["arm"], row["reference"]): direction(row["difference"], row["p_holm"]) for row in records(tests)}
    kept = [arm for arm, reference in shown if arm.startswith(RETROSPECTIVE) and reference == NOTHING]
    sentences = []
    for arm in kept:
        other = (arm, arm.replace(RETROSPECTIVE, OTHERS))
        if other in shown:
            both = shown[arm, NOTHING] == shown[other] == "earlier"
            sentences.append(SENTENCES["enough" if both else "not enough"])
    reset = (f"{EVERYTHING} but {RETROSPECTIVE}", f"{EVERYTHING} but {OTHERS}")
    if reset in shown:
        sentences.append(SENTENCES["needed" if shown[reset] == "later" else "not needed"])
    return sentences


def direction(difference: float, p_holm: float) -> str:
    """
    >>> direction(-3.0, 0.01), direction(3.0, 0.2)
    ('earlier', '')
    """
    if p_holm > SIGNIFICANT:
        return ""
    return "later" if difference > 0 else "earlier"
