"""Ablation of heads two by two: is removing both worse than the sum of removing each?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.ablation.errors import Cell, cells
from interp.ablation.modes import DEFAULT_MODES, Mode
from interp.ablation.plan import Plan, plan
from interp.ablation.runner import MEMORY, Protocol, measure
from interp.ablation.store import Store
from interp.display.result import Result
from interp.model.heads import Head, head_set, show
from interp.scores.head_choice import HeadChoice
from interp.statistics.effects import holm, interval_of
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.options import DEFAULT_PROMPTS

Rows = list[dict[str, Any]]


def check_several(design: str, heads: Sequence[Head]) -> None:
    """Refuse fewer than two heads.

    Raises:
        UserError: there are fewer.
    """
    if len(heads) < 2:
        raise UserError(f"--design {design} needs at least two heads (given: {show(tuple(heads))})")


@dataclass(frozen=True, repr=False, eq=False)
class PairAblation(Result):
    """Heads removed two by two.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per pair, class, mode and range: effects of each head alone and of both, and `interaction` = both
            minus the sum, with its 95 % interval, the bootstrap `p_value` of no interaction, and `p_holm` over pairs.
        protocol: prompts, site and positions.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    protocol: Protocol

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"pairs": self.table}


@library_defaults()
def pairs(
    checkpoint: Checkpoint,
    heads: HeadChoice,
    classes: str | Sequence[str] | None = None,
    *,
    modes: str | Sequence[str | Mode] = DEFAULT_MODES,
    site: str = "z",
    at: str = "all",
    points: str | None = None,
    n_prompts: int = DEFAULT_PROMPTS,
    seed: int = 0,
    memory: int = MEMORY,
    store: Store | None = None,
) -> PairAblation:
    """Is removing two heads worse than the sum of removing each? Above 0: they stand in for one another.

    Args:
        checkpoint: a loaded run.
        heads: all pairs of these are tried; named as in `interp.ablate`.
        classes: function classes; None takes those of the run.
        modes: what removed heads give.
        site: of heads.
        at: the tokens at which they are removed.
        points: ranges of pairs over which the effect is measured.
        n_prompts: per class.
        seed: of prompts and resampling.
        memory: bytes that activations may take.
        store: keeps finished pieces.

    Raises:
        CheckError: a removal did not act.
        UserError: fewer than two heads, or an unknown name.
    """
    planned = plan(
        checkpoint,
        heads,
        classes,
        modes=modes,
        site=site,
        at=at,
        points=points,
        n_prompts=n_prompts,
        seed=seed,
        memory=memory,
        store=store,
    )
    return run(planned)


def run(planned: Plan) -> PairAblation:
    """Carry out a plan for all pairs of its heads."""
    heads, checkpoint, protocol = planned.heads, planned.checkpoint, planned.protocol
    check_several("pairs", heads)
    both = [head_set(pair) for pair in combinations(heads, 2)]
    errors = measure(
        checkpoint, planned.classes, [heads], [*((head,) for head in heads), *both], planned.modes, protocol
    )
    rows = []
    for cell in cells(errors, protocol.ranges, protocol.seed):
        new_rows = [pair_row(cell, *pair) for pair in both]
        for row, p_value in zip(new_rows, holm([row["p_value"] for row in new_rows]), strict=True):
            row["p_holm"] = p_value
        rows += new_rows
    return PairAblation(checkpoint.name, checkpoint.step, pd.DataFrame(rows), protocol)


def pair_row(cell: Cell, first: Head, second: Head) -> dict[str, Any]:
    """One pair in one cell."""
    sets = [(first,), (second,), (first, second)]
    alone, other, joint = cell.mean_effects(sets)
    resamples = cell.resamples(sets)
    if resamples is None:
        alone = other = joint = np.nan
        resamples = np.full((2, 3), np.nan)
    differences = resamples[:, 2] - resamples[:, 0] - resamples[:, 1]
    interaction = interval_of(joint - alone - other, differences)
    return (
        {"heads": show((first, second))}
        | cell.about
        | {
            "effect_first": float(alone),
            "effect_second": float(other),
            "effect": float(joint),
            "interaction": interaction.value,
            "ci_low": interaction.ci_low,
            "ci_high": interaction.ci_high,
            "p_value": bootstrap_p(differences),
        }
    )


def bootstrap_p(differences: Float[np.ndarray, " resample"]) -> float:
    """Two-sided p-value of no difference, from resamples of one; at least 2/(n+1).

    >>> bootstrap_p(np.arange(1.0, 1000.0))
    0.002
    """
    if np.isnan(differences).any():
        return float("nan")
    n = len(differences)
    return float(min(1.0, 2 * (min((differences <= 0).sum(), (differences >= 0).sum()) + 1) / (n + 1)))
