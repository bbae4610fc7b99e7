"""Joint removal: whether a set that costs nothing alone matters once other heads are gone.

A head that stands in for others, or that others stand in for, costs nothing alone. So every set that attends but costs
nothing is removed together with companions, and its cost is what it adds to theirs:

1. every other head of the model, alone;
2. every combination of the other heads whose score exceeds `ATTENDS` (of more than `COMBINED`, every pair and all).

Effects above 1 count as 1: beyond that there is no use of the context left that could be lost. Intervals hold for all
companions, classes, modes and ranges of a set at once (normal approximation, Bonferroni).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.ablation.errors import Cell, cells, failed_sets
from interp.ablation.modes import Mode
from interp.ablation.runner import Protocol, measure
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
    protocol: Protocol,
) -> pd.DataFrame:
    """One row per set, companions, class, mode and range; empty without sets.

    Columns: `heads`, `companions`, `effect_companions` (removed without the set), `effect` (of both), `change` (of the
    second from the first, both at most 1) with its simultaneous 95 % interval `ci_low`, `ci_high`, and `attending`, the
    companions whose combinations were tried.

    Args:
        checkpoint: the model.
        classes: function classes.
        sets: of heads.
        scores: by which heads attend.
        modes: what removed heads give; fitted ones are left out.
        protocol: of the ablation; joint removals are measured on the prompts of its null sets.

    Raises:
        CheckError: a removal did not act, or acted where it should not.
    """
    modes = [mode for mode in modes if not mode.fitted]
    if not sets or not modes:
        return pd.DataFrame()
    attending, heads = heads_above(ATTENDS, scores), all_heads(*scores.shape)
    companions = {one: list(companions_of(one, attending, heads)) for one in sets}
    joint = [head_set(own) for one in sets for other in companions[one] for own in (other, (*other, *one))]
    fewer = replace(protocol, n_prompts=protocol.n_compared, n_null_prompts=None)
    errors = measure(checkpoint, classes, sets, joint, modes, fewer)
    if failures := failed_sets(errors):
        raise CheckError(next(iter(failures.values())))
    every_cell = [*cells(errors, fewer.ranges, fewer.seed)]
    rows = []
    for one in sets:
        n_tests = len(companions[one]) * len(every_cell)
        about = {"heads": show(one), "attending": show(tuple(head for head in attending if head not in one))}
        rows += [about | row for cell in every_cell for row in changes(cell, one, companions[one], n_tests)]
    return pd.DataFrame(rows)


def companions_of(heads: HeadSet, attending: HeadSet, every: HeadSet) -> Iterator[HeadSet]:
    """The sets of other heads together with which `heads` are removed.

    >>> from interp.model.heads import Head
    >>> a, b, c, d = (Head(0, number) for number in range(4))
    >>> [show(one) for one in companions_of((a,), (a, b, c), (a, b, c, d))]
    ['0.1', '0.2', '0.3', '0.1,0.2']
    """
    yield from ((head,) for head in every if head not in heads)
    others = tuple(head for head in attending if head not in heads)
    few = len(others) <= COMBINED
    for size in range(2, len(others) + 1):
        if few or size in (2, len(others)):
            yield from combinations(others, size)


def changes(cell: Cell, heads: HeadSet, companions: Sequence[HeadSet], n_tests: int) -> Iterator[dict[str, Any]]:
    """What removing a set adds to the removal of companions, in one cell; nothing where effects are undefined."""
    from scipy.special import ndtri

    alone, together = list(companions), [head_set((*other, *heads)) for other in companions]
    resamples = cell.resamples([*alone, *together])
    if resamples is None:
        return
    effects = cell.mean_effects([*alone, *together])
    of_others, of_both = np.split(effects, 2)
    lost = np.minimum(resamples, 1.0)
    errors = (lost[:, len(alone) :] - lost[:, : len(alone)]).std(axis=0)
    half = -float(ndtri(SIGNIFICANT / 2 / n_tests)) * errors
    for other, first, both, width in zip(companions, of_others, of_both, half, strict=True):
        change = min(both, 1.0) - min(first, 1.0)
        yield {"companions": show(other), **cell.about} | {
            "effect_companions": first,
            "effect": both,
            "change": change,
            "ci_low": change - width,
            "ci_high": change + width,
        }
