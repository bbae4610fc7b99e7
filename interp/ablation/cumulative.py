"""Cumulative ablation: heads removed one after another in a given order, compared with random orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.ablation.errors import ErrorSlice, error_slices
from interp.ablation.modes import Mode
from interp.ablation.pairs import Rows, check_several
from interp.ablation.plan import Plan, plan
from interp.ablation.runner import AblationProtocol, measure
from interp.ablation.store import Store
from interp.display.result import Result
from interp.model.engine import Site
from interp.model.heads import MLP, Head, head_set, parse_head, show
from interp.model.opened import opens_models
from interp.names import ModeName
from interp.scores.head_choice import HeadChoice, choose_sets
from interp.scores.score import selection_scores
from interp.statistics.effects import interval_of, permutation_p
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import stream_seed
from training.options import DEFAULT_MEMORY, DEFAULT_ORDERS, DEFAULT_PROMPTS


@dataclass(frozen=True, repr=False, eq=False)
class CumulativeAblation(Result):
    """Heads removed one after another.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per class, mode, range and number of removed heads `k`: the head `added`, the `effect` of all k
            with its interval, and the mean, lowest and highest effect of k heads in random orders.
        area: one row per class, mode and range: `area`, the mean effect over k = 1 … n (the area under the curve) with
            its interval, and `p_value` against the areas of `n_orders` random orders of the same heads.
        protocol: prompts, site and positions.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    area: pd.DataFrame
    protocol: AblationProtocol

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"cumulative": self.table, "cumulative_area": self.area}


@opens_models
def cumulative(
    checkpoint: Checkpoint,
    order: HeadChoice,
    classes: str | Sequence[str] | None = None,
    *,
    modes: ModeName | str | Mode | Sequence[ModeName | str | Mode] | None = None,
    site: Site | str = "z",
    tokens: str = "all",
    points: str | None = None,
    n_prompts: int = DEFAULT_PROMPTS,
    n_orders: int = DEFAULT_ORDERS,
    seed: int = 0,
    memory: int = DEFAULT_MEMORY,
    store: Store | None = None,
) -> CumulativeAblation:
    """Remove heads one after another in this order, and in random orders for comparison.

    Args:
        checkpoint: a loaded run.
        order: the heads, the first to be removed first; those that are named by a rule (`all`, `top:K`, `above:SCORE`,
            `layer:L`) in the order of their retrospective score on selection prompts.
        classes: function classes; None takes those of the run.
        modes: of the ablations.
        site: of heads.
        tokens: at which they are removed.
        points: ranges of pairs over which the effect is measured.
        n_prompts: per class.
        n_orders: random orders.
        seed: of prompts, orders and resampling.
        memory: bytes that activations may take.
        store: keeps finished pieces.

    Raises:
        CheckError: a removal did not act.
        UserError: fewer than two heads, or an unknown name.
    """
    heads = order_heads(checkpoint, order, n_prompts, seed)
    check_several("cumulative", heads)
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
    return run(planned, heads, n_orders=n_orders)


def order_heads(checkpoint: Checkpoint, order: HeadChoice, n_prompts: int, seed: int) -> list[Head]:
    """The heads in the order in which they are named, or by score where a rule names them.

    Raises:
        UserError: there are no such heads.
    """
    if not isinstance(order, str):
        choose_sets(checkpoint, order)  # refuses heads that do not exist
        return [head for member in ([order] if isinstance(order, Head) else order) for head in named_heads(member)]
    scores = selection_scores(checkpoint, n_prompts, seed)
    sets = choose_sets(checkpoint, order, scores=scores)
    if order[:1] == "L" or order[:1].isdigit():
        return named_heads(order)
    return sort_by_score([head for members in sets for head in members], scores)


def named_heads(member: str | Head | Sequence[Head]) -> list[Head]:
    """The heads of a `Head`, of several, or of text such as `0.2,0.1`, in the order in which they are named."""
    if isinstance(member, str):
        return [parse_head(name.strip(), member) for name in member.split(",")]
    return [member] if isinstance(member, Head) else list(member)


def sort_by_score(heads: Sequence[Head], scores: Float[np.ndarray, "layer head"]) -> list[Head]:
    """The heads, that with the highest score first.

    Raises:
        UserError: an MLP is among them.
    """
    if any(head.number == MLP for head in heads):
        raise UserError("--design cumulative removes in the order of score, which MLPs do not have: name heads only")
    return sorted(heads, key=lambda head: (-scores[head], head))


def run(planned: Plan, order: Sequence[Head], *, n_orders: int = DEFAULT_ORDERS) -> CumulativeAblation:
    """Carry out a plan for the heads in this order; the arguments are those of `cumulative`."""
    checkpoint, protocol, seed = planned.checkpoint, planned.protocol, planned.protocol.seed
    rng = np.random.default_rng(stream_seed("orders", seed))
    orders = [list(order)] + [[order[i] for i in rng.permutation(len(order))] for _ in range(n_orders)]
    prefixes = [[head_set(heads[: k + 1]) for k in range(len(order))] for heads in orders]
    every_head = head_set(order)
    controls = [heads for of_order in prefixes for heads in of_order]
    errors = measure(checkpoint, planned.classes, [every_head], controls, planned.modes, protocol)
    rows, areas = [], []
    for errors_slice in error_slices(errors, protocol.ranges, seed):
        curves = np.array([errors_slice.mean_effects(of_order) for of_order in prefixes])
        resamples = errors_slice.resamples(prefixes[0])
        if resamples is None:
            curves = np.full_like(curves, np.nan)
            resamples = np.full((2, len(order)), np.nan)
        rows += curve_rows(errors_slice, order, curves, resamples)
        area = interval_of(curves[0].mean(), resamples.mean(1))
        random_areas = curves[1:].mean(1)
        areas.append(
            errors_slice.labels
            | {
                "heads": show(every_head),
                "area": area.value,
                "ci_low": area.ci_low,
                "ci_high": area.ci_high,
                "p_value": permutation_p(area.value, random_areas),
                "n_orders": n_orders,
                "random_area": random_areas.mean() if n_orders else np.nan,
            }
        )
    return CumulativeAblation(checkpoint.name, checkpoint.step, pd.DataFrame(rows), pd.DataFrame(areas), protocol)


def curve_rows(
    errors: ErrorSlice,
    order: Sequence[Head],
    curves: Float[np.ndarray, "order step"],
    resamples: Float[np.ndarray, "resample step"],
) -> Rows:
    """One row per number of removed heads; the first of the curves is that of `order`."""
    rows = []
    for k, head in enumerate(order):
        effect = interval_of(curves[0, k], resamples[:, k])
        random_effects = curves[1:, k] if len(curves) > 1 else np.array([np.nan])
        rows.append(
            errors.labels
            | {
                "k": k + 1,
                "added": str(head),
                "effect": effect.value,
                "ci_low": effect.ci_low,
                "ci_high": effect.ci_high,
                "random_effect": random_effects.mean(),
                "random_low": random_effects.min(),
                "random_high": random_effects.max(),
            }
        )
    return rows
