"""Ablation of heads in pairs: does removing both cost more than the sum of removing each?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.ablation.errors import ErrorSlice, error_slices
from interp.ablation.modes import Mode
from interp.ablation.plan import Plan, plan
from interp.ablation.runner import AblationProtocol, measure
from interp.ablation.store import Store
from interp.display.result import Result
from interp.model.engine import Site
from interp.model.heads import Head, head_set, show
from interp.model.opened import opens_models
from interp.names import ModeName
from interp.scores.head_choice import HeadChoice
from interp.statistics.effects import holm, interval_of
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.options import DEFAULT_MEMORY, DEFAULT_PROMPTS

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
    """Heads removed in pairs.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per pair of heads, class, mode and range: effects of each head alone and of both, and
            `interaction` = both minus the sum, with its 95 % interval, the bootstrap `p_value` of no interaction, and
            `p_holm` over pairs of heads.
        protocol: prompts, site and positions.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    protocol: AblationProtocol

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"pairs": self.table}


@opens_models
def pairs(
    checkpoint: Checkpoint,
    heads: HeadChoice,
    classes: str | Sequence[str] | None = None,
    *,
    modes: ModeName | str | Mode | Sequence[ModeName | str | Mode] | None = None,
    site: Site | str = "z",
    tokens: str = "all",
    points: str | None = None,
    n_prompts: int = DEFAULT_PROMPTS,
    seed: int = 0,
    memory: int = DEFAULT_MEMORY,
    store: Store | None = None,
) -> PairAblation:
    """Does removing two heads cost more than the sum of removing each?

    It does if one can replace the other, and also if what they write adds up, since errors are squared.

    Args:
        checkpoint: a loaded run.
        heads: all pairs of these are removed; named as in `interp.ablate`.
        classes: function classes; None takes those of the run.
        modes: of the ablations.
        site: of heads.
        tokens: at which they are removed.
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
        tokens=tokens,
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
    head_pairs = [head_set(pair) for pair in combinations(heads, 2)]
    controls = [*((head,) for head in heads), *head_pairs]
    errors = measure(checkpoint, planned.classes, [heads], controls, planned.modes, protocol)
    rows: Rows = []
    for errors_slice in error_slices(errors, protocol.ranges, protocol.seed):
        slice_rows = [pair_row(errors_slice, *pair) for pair in head_pairs]
        adjusted = holm([row["p_value"] for row in slice_rows])
        rows += [row | {"p_holm": p_value} for row, p_value in zip(slice_rows, adjusted, strict=True)]
    return PairAblation(checkpoint.name, checkpoint.step, pd.DataFrame(rows), protocol)


def pair_row(errors: ErrorSlice, first: Head, second: Head) -> dict[str, Any]:
    """The interaction of two heads on one slice of errors."""
    sets = [(first,), (second,), (first, second)]
    effects, resamples = errors.mean_effects(sets), errors.resamples(sets)
    if resamples is None:
        effects, resamples = np.full(3, np.nan), np.full((2, 3), np.nan)
    without_first, without_second, without_both = effects.tolist()
    differences = resamples[:, 2] - resamples[:, 0] - resamples[:, 1]
    interaction = interval_of(without_both - without_first - without_second, differences)
    return {
        "heads": show((first, second)),
        **errors.labels,
        "effect_first": without_first,
        "effect_second": without_second,
        "effect": without_both,
        "interaction": interaction.value,
        "ci_low": interaction.ci_low,
        "ci_high": interaction.ci_high,
        "p_value": bootstrap_p(differences),
    }


def bootstrap_p(differences: Float[np.ndarray, " resample"]) -> float:
    """Two-sided p-value of no difference, from bootstrap resamples of the difference; at least 2/(n+1).

    >>> bootstrap_p(np.arange(1.0, 1000.0))
    0.002
    """
    if np.isnan(differences).any():
        return float("nan")
    n = len(differences)
    return float(min(1.0, 2 * (min((differences <= 0).sum(), (differences >= 0).sum()) + 1) / (n + 1)))
