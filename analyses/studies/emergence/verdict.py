"""The verdict of the study of emergence: sentences that follow from its tables by rule.

An order of head and gain is shown over seeds if the t-interval of the ratio of steps excludes 1. A class that enters
after the start of training decides nothing: heads that earlier classes grew have to come first.
"""

import math
from collections.abc import Sequence

import pandas as pd

from analyses.studies.emergence.measures import LEAST_GAIN, Course
from interp.model.heads import show
from training.common.output import number, records
from training.common.table_rows import where

SENTENCES = {
    "none": "{curriculum}, {function_class}: no run has both such heads and a gain of at least {gain} at its end.",
    "order": "{curriculum}, {function_class}: in {n_both} of {n_runs} runs with head and gain the head came first in "
    "{head_first} and the gain in {gain_first}, otherwise between the same snapshots; the head's score reached half of "
    "its final value at {ratio:.2f} of the steps at which the gain did{interval}{caveat}.",
    "interval": " (t-interval over {n_seeds} seeds [{t_low:.2f}, {t_high:.2f}]){verdict}",
    "late": "; the class enters at step {enters:.0f}, and a head that earlier classes grew has to be first",
    "never": "; the class is never trained on",
    "arrivals": "{checkpoint}, {heads}: {arrivals}.",
    "arrival": "{function_class} step {score_by:.0f} (gain {gain_by:.0f}, effect then {effect})",
}


def order_sentences(orders: pd.DataFrame) -> list[str]:
    """Which comes first, by curriculum and class."""
    sentences = []
    for row in records(orders):
        interval = caveat = ""
        if row["n_seeds"] > 1:
            verdict = "" if row["t_low"] > 1 or row["t_high"] < 1 else ": no order is shown"
            interval = SENTENCES["interval"].format(**row, verdict=verdict)
        if row["enters"] > 0:
            caveat = SENTENCES["late"].format(**row)
        elif math.isnan(row["enters"]):
            caveat = SENTENCES["never"]
        counts = {"head_first": row["head first"], "gain_first": row["gain first"], "gain": LEAST_GAIN}
        template = SENTENCES["order" if row["n_both"] else "none"]
        sentences.append(template.format(**row, **counts, interval=interval, caveat=caveat))
    return sentences


def arrival_sentences(courses: Sequence[Course], arrivals: pd.DataFrame) -> list[str]:
    """When the heads of every run arrived, and their effect when the gain did."""
    sentences = []
    for course in courses:
        rows = [row for row in records(where(arrivals, checkpoint=course.checkpoint.name)) if row["order"]]
        if rows:
            parts = [SENTENCES["arrival"].format(**row, effect=number(row["effect_first"], 2)) for row in rows]
            names = {"checkpoint": course.checkpoint.name, "heads": show(course.heads)}
            sentences.append(SENTENCES["arrivals"].format(**names, arrivals="; ".join(parts)))
    return sentences
