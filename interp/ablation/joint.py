"""Joint removal: whether a set that costs nothing alone matters once other heads are removed as well.

A head that replaces others, or that others can replace, costs nothing alone. So every set that attends but costs
nothing is removed together with companions, and its cost is what it adds to theirs. Companions are

1. every other head of the model, alone;
2. every combination of the other heads whose score exceeds `ATTENDS` (of more than `COMBINED`, every pair and all).

Effects above 1 count as 1, because the use of context cannot be lost twice. Intervals hold for all companions, classes,
modes and ranges of a set at once (normal approximation, Bonferroni).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.ablation.errors import ErrorSlice, error_slices, failed_sets
from interp.ablation.modes import Mode
from interp.ablation.runner import AblationProtocol, measure
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import HeadSet, all_heads, head_set, heads_above, show
from interp.statistics.effects import SIGNIFICANT
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import CheckError

COMBINED = 5
"""Heads of which every combination is removed."""


def joint_removals(
    checkpoint: Checkpoint,
    classes: Sequence[str],
    sets: Sequence[HeadSet],
    scores: Float[np.ndarray, "layer head"],
    modes: Sequence[Mode],
    protocol: AblationProtocol,
) -> pd.DataFrame:
    """One row per set, companions, class, mode and range; empty without sets.

    Columns: `heads`, `companions`, `effect_companions` (removed without the set), `effect` (of both), `change` (the
    difference of the two, both at most 1) with its simultaneous 95 % interval `ci_low`, `ci_high`, and `attending`, the
    companions whose combinations were removed.

    Args:
        checkpoint: the model.
        classes: function classes.
        sets: of heads.
        scores: by which heads attend.
        modes: of the ablations; fitted ones are left out.
        protocol: of the ablation; joint removals are measured on the prompts of its control sets.

    Raises:
        CheckError: a removal did not act, or acted where it should not.
    """
    modes = [mode for mode in modes if not mode.fitted]
    if not sets or not modes:
        return pd.DataFrame()
    attending, every_head = heads_above(ATTENDS, scores), all_heads(*scores.shape)
    companions = {heads: list(companions_of(heads, attending, every_head)) for heads in sets}
    removed = [
        union for heads in sets for others in companions[heads] for union in (head_set(others), union_of(others, heads))
    ]
    protocol = replace(protocol, n_prompts=protocol.n_shared_prompts, n_null_prompts=None)
    errors = measure(checkpoint, classes, sets, removed, modes, protocol)
    if failures := failed_sets(errors):
        raise CheckError(next(iter(failures.values())))
    slices = [*error_slices(errors, protocol.ranges, protocol.seed)]
    rows = []
    for heads in sets:
        n_tests = len(companions[heads]) * len(slices)
        labels = {"heads": show(heads), "attending": show(tuple(head for head in attending if head not in heads))}
        rows += [labels | row for errors in slices for row in joint_rows(errors, heads, companions[heads], n_tests)]
    return pd.DataFrame(rows)


def union_of(heads: HeadSet, others: HeadSet) -> HeadSet:
    return head_set((*heads, *others))


def companions_of(heads: HeadSet, attending: HeadSet, every_head: HeadSet) -> Iterator[HeadSet]:
    """The sets of other heads together with which `heads` are removed.

    >>> from interp.model.heads import Head
    >>> a, b, c, d = (Head(0, number) for number in range(4))
    >>> [show(companions) for companions in companions_of((a,), (a, b, c), (a, b, c, d))]
    ['0.1', '0.2', '0.3', '0.1,0.2']
    """
    yield from ((head,) for head in every_head if head not in heads)
    others = tuple(head for head in attending if head not in heads)
    for size in range(2, len(others) + 1):
        if len(others) <= COMBINED or size in (2, len(others)):
            yield from combinations(others, size)


def joint_rows(
    errors: ErrorSlice, heads: HeadSet, companions: Sequence[HeadSet], n_tests: int
) -> Iterator[dict[str, Any]]:
    """What removing a set adds to the removal of each of its companions; no rows where effects are undefined."""
    from scipy.special import ndtri

    removed = [*companions, *(union_of(others, heads) for others in companions)]
    resamples = errors.resamples(removed)
    if resamples is None:
        return
    effects_of_companions, effects_of_both = np.split(errors.mean_effects(removed), 2)
    resampled_of_companions, resampled_of_both = np.split(np.minimum(resamples, 1.0), 2, axis=1)
    standard_errors = (resampled_of_both - resampled_of_companions).std(axis=0)
    half_widths = -float(ndtri(SIGNIFICANT / 2 / n_tests)) * standard_errors
    for others, of_companions, of_both, half_width in zip(
        companions, effects_of_companions, effects_of_both, half_widths, strict=True
    ):
        change = min(of_both, 1.0) - min(of_companions, 1.0)
        yield {
            "companions": show(others),
            **errors.labels,
            "effect_companions": of_companions,
            "effect": of_both,
            "change": change,
            "ci_low": change - half_width,
            "ci_high": change + half_width,
        }
