"""The verdict of the study of what heads carry: sentences that follow from its tables by rule.

1. x_i can be read from the outputs of heads if the mean R² over seeds is at least `DECODED`.
2. The strongest reader of a model is the group with the best evidence for a share that differs from 0
   (`interp.statistics.effects.rank_by_evidence`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.comparison.groups import with_all
from analyses.studies.trace.measures import OTHERS, READERS, RETROSPECTIVE, UNTRAINED, TracedModel, strongest_reader
from interp.display.text import counted
from training.common.output import records
from training.common.table_rows import distinct, where

DECODED = 0.5
"""R² from which on a head counts as one that writes x_i."""
SENTENCES = {
    "decoding": "{curriculum}: x_i {verb} be read from the outputs of the retrospective heads at y_i (R² {own}; the "
    "other heads {others:.2f}, the same heads untrained {untrained:.2f}).",
    "no reader": "{curriculum}: no group of readers is shown to have a share of the heads' effect.",
    "reader": "{curriculum}: the strongest reader is {counts} of {models}; the share of the heads' effect that goes "
    "through {reader} is {share}{agreement}.",
    "left out": "No head scores above {threshold} in {models}.",
}


def decoding_sentences(decoded: pd.DataFrame) -> list[str]:
    """Rule 1, by curriculum."""
    sentences = []
    for curriculum in distinct(decoded, "curriculum"):
        rows = {row["heads"]: row for row in records(where(decoded, curriculum=curriculum))}
        own = rows[RETROSPECTIVE]
        verb = "can" if own["r2"] >= DECODED else "can hardly"
        values = {"others": rows[OTHERS]["r2"], "untrained": rows[UNTRAINED]["r2"]}
        sentences.append(
            SENTENCES["decoding"].format(curriculum=curriculum, verb=verb, own=format_outcome(own, "r2"), **values)
        )
    return sentences


def reader_sentences(traced: Sequence[TracedModel], shares: pd.DataFrame) -> list[str]:
    """Rule 2, by curriculum, and in how many models."""
    sentences = []
    for curriculum, models in with_all(traced, lambda model: model.curriculum):
        strongest = Counter(filter(None, map(strongest_reader, models)))
        counts = {reader: strongest[reader] for reader in READERS if reader in strongest}
        if not counts:
            sentences.append(SENTENCES["no reader"].format(curriculum=curriculum))
            continue
        first = max(counts, key=lambda reader: counts[reader])
        (row,) = records(where(shares, curriculum=curriculum, reader=first))
        agree = counts[first] == len(models) > 1
        sentences.append(
            SENTENCES["reader"].format(
                curriculum=curriculum,
                counts=", ".join(f"{READERS[reader]} in {n}" for reader, n in counts.items()),
                models=counted(len(models), "model"),
                share=format_outcome(row, "share"),
                reader=READERS[first],
                agreement=", the same in every model" if agree else "",
            )
        )
    return sentences


def format_outcome(row: Mapping[str, Any], column: str) -> str:
    """A mean with its t-interval over seeds, if there is one; where seeds are all or nothing, the count of each."""
    if row["n_seeds"] < 2:
        return f"{row[column]:.2f}, one seed"
    if row["all_or_nothing"]:
        count = f"{row['n_half']} of {row['n_seeds']} seeds [{row['share_low']:.2f}, {row['share_high']:.2f}]"
        return f"{row[column]:.2f} (all or nothing: at least half in {count}, Clopper-Pearson)"
    return f"{row[column]:.2f} [{row['t_low']:.2f}, {row['t_high']:.2f}], {row['n_seeds']} seeds"
