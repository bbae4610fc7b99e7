"""The verdict of the study of transplants: sentences that follow from its tables by rule.

1. Of every arm, how many runs left the plateau, when, and how many are censored.
2. Two arms differ if the exact p of their ranks is at most `SIGNIFICANT` after Holm over comparisons of their kind.
3. Retrospective heads, with what else an arm takes, shorten the plateau if runs with them leave earlier than runs that
   took nothing and than runs with as many other heads. A whole trained model needs them for it if runs without them
   leave later than runs without as many others.
"""

import pandas as pd

from analyses.studies.plateaus.exit_times import comparison_sentences, direction, time_sentences
from analyses.studies.transplant.measures import EVERYTHING, NOTHING, OTHERS, RETROSPECTIVE
from interp.display.text import listed
from training.common.output import records

SENTENCES = {
    "enough": "A run that begins with {arm} of a trained model has a shorter plateau: it leaves it earlier than runs "
    "that begin with nothing, and earlier than with as many other heads of their layers.",
    "not enough": "It is not shown that {arm} shorten the plateau: runs that begin with them would have to leave it "
    "earlier than runs that begin with nothing and than runs with as many other heads of their layers.",
    "needed": "A run that begins with a whole trained model needs its retrospective heads to leave early: without them "
    "it leaves later than without as many other heads of their layers.",
    "not needed": "It is not shown that a run that begins with a whole trained model needs its retrospective heads to "
    "leave early.",
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
    directions = {(row["arm"], row["reference"]): direction(row["difference"], row["p_holm"]) for row in records(tests)}
    kept = [arm for arm, reference in directions if arm.startswith(RETROSPECTIVE) and reference == NOTHING]
    sentences = []
    for arm in kept:
        others = (arm, arm.replace(RETROSPECTIVE, OTHERS))
        if others in directions:
            is_enough = directions[arm, NOTHING] == directions[others] == "earlier"
            sentences.append(SENTENCES["enough" if is_enough else "not enough"].format(arm=arm))
    reset = (f"{EVERYTHING} but {RETROSPECTIVE}", f"{EVERYTHING} but {OTHERS}")
    if reset in directions:
        sentences.append(SENTENCES["needed" if directions[reset] == "later" else "not needed"])
    return sentences
