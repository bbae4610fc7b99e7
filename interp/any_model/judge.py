"""Judges removals by losses alone: from the loss of every example without a set of heads to effects, p and verdict.

1. The losses of the intact model, without each set under test, and without each of its control sets.
2. Effects with paired bootstrap intervals over examples, p against the control sets, Holm over conditions
   (`interp.ablation.ablate.effect_tables`, which `interp.ablate` uses as well).

Where the loss of a predictor that ignores the context is known, an effect is the share of the in-context gain that the
removal costs. Otherwise it is the difference of losses, in the unit of the loss.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.ablation.ablate import PREFIXES, Ablation, effect_tables
from interp.ablation.control_sets import ControlSets, Match, draw_control_sets
from interp.ablation.errors import FULL, ClassErrors, SetErrors, error_slices
from interp.ablation.runner import AblationProtocol
from interp.display.result import Axes
from interp.model.heads import MLP, Head, HeadSet, Scores, all_heads, show
from interp.scores.head_choice import HeadChoice, resolve_sets
from training.common.errors import CheckError, UserError, one_of
from training.common.progress import progress_bar
from training.config.config import stream_seed
from training.options import DEFAULT_CONTROLS, as_list

Unit = Literal["gain", "loss"]
UNITS: Mapping[Unit, str] = {
    "gain": "share of the in-context gain",
    "loss": "difference of losses, in the unit of the loss",
}
LossWithout = Callable[[HeadSet], Any]
"""From a set of heads to the loss of every example without it; the empty set is the intact model."""
Losses = Float[np.ndarray, " example"]

REMOVAL = "removal"
"""The name of the mode where only one way of removing heads is given."""
ALL = "all examples"
"""The name of the condition where none is named."""
LEAST_EXAMPLES = 8
"""Per condition; a bootstrap interval over fewer has too few distinct resamples."""
SAME = 1e-6
"""Relative difference up to which two passes of one model agree."""
MATCHES: tuple[Match, ...] = ("layer", "size")
COLUMNS = {
    "function_class": "condition",
    "nmse_before": "loss_before",
    "nmse_after": "loss_after",
    "nmse_no_context": "loss_no_context",
}


@dataclass(frozen=True, repr=False, eq=False)
class LossAblation(Ablation):
    """The result of removing sets of heads from any model: an `Ablation` whose errors are losses.

    `table` has one row per set, condition and mode: `loss_before`, `loss_after`, `loss_no_context`, `effect` with its
    95 % interval, `unit` (`gain` or `loss`, see `UNITS`), and the columns of statistics of an `Ablation`. There is no
    direct effect, and there are no curves.

    Attributes:
        about: what the table's caption says of the examples and replacements.
    """

    about: str = ""

    @property
    def unit(self) -> Unit:
        """What an effect is, see `UNITS`."""
        return self.table["unit"].iloc[0]

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"ablation": self.table, "ablation_null": self.null}

    def plot_curves(self, heads: str | None = None) -> list[Axes]:
        """Refuses: there is no error by number of in-context examples.

        Raises:
            UserError: always.
        """
        raise UserError(f"{heads or 'curves'}: losses per example have no curve over in-context examples; use plot()")


class Measured(NamedTuple):
    """Losses of every example.

    Attributes:
        intact: of the intact model.
        without: by mode and removed set.
        no_context: of a predictor that ignores the context; None where it is not known.
        unvarying: by mode, the heads whose output is already what the mode puts in its location.
    """

    intact: Losses
    without: Mapping[str, Mapping[HeadSet, Losses]]
    no_context: Losses | None = None
    unvarying: Mapping[str, frozenset[Head]] = {}


def judge(
    loss_without: LossWithout | Mapping[str, LossWithout],
    sets: HeadChoice,
    *,
    n_layers: int,
    n_heads: int,
    no_context: Any = None,
    conditions: Sequence[str] | None = None,
    n_controls: int = DEFAULT_CONTROLS,
    match: Match | str | Sequence[Match] = MATCHES,
    scores: Callable[[], Scores] | None = None,
    seed: int = 0,
    name: str = "model",
) -> LossAblation:
    """Judge the removal of sets of heads from the losses that it leads to.

    Args:
        loss_without: from a tuple of `Head`s to the losses `[example]` without them (tensor, array or list; the same
            examples in the same order every time); the empty tuple is the intact model. A mapping names several ways
            of removing heads (modes).
        sets: the sets under test: text such as `0.1`, `each` or `layer:1` (`interp.model.heads.SYNTAX`), a `Head`, some
            heads as one set, or several sets.
        n_layers: of the model.
        n_heads: per layer.
        no_context: the losses `[example]` of a predictor that ignores the context; None makes effects differences of
            losses.
        conditions: the condition of every example; effects are measured within each, and p is adjusted over them.
        n_controls: control sets per set and matching; all there are when there are no more.
        match: how control sets are matched: `layer`, `size`.
        scores: gives `[layer][head]` where `sets` is `top:K` or `above:SCORE`.
        seed: of control sets and resampling.
        name: of the model.

    Raises:
        CheckError: no removal changes any loss, or two passes of the intact model differ.
        UserError: no such heads or matching, losses that are not one finite number per example, or too few examples.

    >>> weights = {Head(0, 1): 1.0, Head(0, 3): 0.1}
    >>> result = judge(
    ...     lambda heads: [1.0 + i / 100 + sum(weights.get(head, 0) for head in heads) for i in range(20)],
    ...     "0.1", n_layers=1, n_heads=8,
    ... )
    >>> [round(value, 3) for value in result.table[["effect", "p_value"]].iloc[0]]
    [1.0, 0.125]
    """
    ways = loss_without if isinstance(loss_without, Mapping) else {REMOVAL: loss_without}
    if not ways or not all(map(callable, ways.values())):
        raise UserError("judge takes a function from a tuple of heads to losses, or a mapping of such functions")
    if min(n_layers, n_heads, n_controls + 1) < 1:
        raise UserError(f"n_layers={n_layers}, n_heads={n_heads}, n_controls={n_controls}: sizes from 1, draws from 0")
    matches = check_matches(match)
    chosen = resolve_sets(sets, n_layers, n_heads, scores)
    controls = draw_controls(chosen, n_layers, n_heads, n_controls=n_controls, match=matches, seed=seed)
    removed = removals(chosen, controls)
    intact = intact_losses(ways)
    without: dict[str, dict[HeadSet, Losses]] = {mode: {} for mode in ways}
    with progress_bar(total=len(ways) * len(removed), desc="judge", unit="set") as bar:
        for mode, way in ways.items():
            for heads in removed:
                without[mode][heads] = check_losses(way(heads), f"without {show(heads)}", len(intact))
                bar.update()
    check_acting(intact, without)
    ignoring = None if no_context is None else check_losses(no_context, "of no_context", len(intact))
    measured = Measured(intact, without, ignoring)
    return judge_losses(measured, chosen, controls, conditions=conditions, match=matches, seed=seed, name=name)


def check_matches(match: str | Sequence[str]) -> list[Match]:
    """The names of matchings.

    Raises:
        UserError: an unknown matching.
    """
    matches: list[Any] = as_list(match)
    for unknown in set(matches) - set(MATCHES):
        raise one_of("match", unknown, MATCHES)
    return matches


def draw_controls(
    sets: Sequence[HeadSet], n_layers: int, n_heads: int, *, n_controls: int, match: Sequence[Match], seed: int
) -> dict[tuple[HeadSet, Match], ControlSets]:
    """The control sets of every set and matching.

    Raises:
        UserError: a set has an MLP.
    """
    for heads in sets:
        if any(head.number == MLP for head in heads):
            raise UserError(f"heads {show(heads)}: only attention heads can be removed from a model of your own")
    alike = dict.fromkeys(all_heads(n_layers, n_heads), 1.0)  # norms, which these matchings do not read
    rng = np.random.default_rng(stream_seed("null sets", seed))
    return {
        (heads, kind): draw_control_sets(heads, alike, match=kind, n_sets=n_controls, rng=rng)
        for heads in sets
        for kind in match
    }


def removals(sets: Sequence[HeadSet], controls: Mapping[tuple[HeadSet, Match], ControlSets]) -> list[HeadSet]:
    """The sets and their control sets, each once."""
    return list(dict.fromkeys([*sets, *(control for drawn in controls.values() for control in drawn.sets)]))


def intact_losses(ways: Mapping[str, LossWithout]) -> Losses:
    """The losses of the intact model, which are the same in every way and every time.

    Raises:
        CheckError: they are not.
    """
    first, *_ = ways.values()
    intact = check_losses(first(()), "of the intact model")
    for mode, way in ways.items():
        again = check_losses(way(()), f"of the intact model ({mode})", len(intact))
        if not np.allclose(again, intact, rtol=SAME, atol=SAME * float(np.abs(intact).max())):
            raise CheckError(
                f"{mode}: removing nothing changes the losses by up to {np.abs(again - intact).max():.2g}: "
                "a model in training mode, or unseeded randomness"
            )
    return intact


def check_losses(given: Any, what: str, n_examples: int | None = None) -> Losses:
    """Losses as an array.

    Raises:
        UserError: they are not one finite number per example.
    """
    kind = getattr(given, "dtype", type(given).__name__)
    if hasattr(given, "detach") and not given.is_complex():
        given = given.detach().double().cpu()
    try:
        if given is None or np.iscomplexobj(given):
            raise TypeError
        losses = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"the losses {what} are {kind}: one number per example is needed") from None
    if losses.ndim != 1 or (n_examples is not None and len(losses) != n_examples):
        wanted = "one number per example" if n_examples is None else f"[{n_examples}], one number per example,"
        raise UserError(f"the losses {what} have shape {[*losses.shape]}: {wanted} is needed")
    n_bad = int(np.sum(~np.isfinite(losses)))
    if n_bad:
        raise UserError(f"the losses {what} are NaN or infinite on {n_bad} of {len(losses)} examples")
    return losses


def check_acting(intact: Losses, without: Mapping[str, Mapping[HeadSet, Losses]]) -> None:
    """Refuse a removal that never acts.

    Raises:
        CheckError: no set changes any loss.
    """
    for mode, by_set in without.items():
        if not any((losses != intact).any() for losses in by_set.values()):
            raise CheckError(f"{mode}: none of {len(by_set)} removed sets changes the loss of any example")


def judge_losses(
    measured: Measured,
    sets: Sequence[HeadSet],
    controls: Mapping[tuple[HeadSet, Match], ControlSets],
    *,
    conditions: Sequence[str] | None,
    match: Sequence[Match],
    seed: int,
    name: str,
    about: str = "",
) -> LossAblation:
    """The result that follows from losses.

    Args:
        measured: the losses.
        sets: under test.
        controls: their control sets.
        conditions: of every example; None is one for all.
        match: the matchings.
        seed: of resampling.
        name: of the model.
        about: for the caption.

    Raises:
        UserError: too few examples in a condition.
    """
    unit: Unit = "loss" if measured.no_context is None else "gain"
    rows_of = rows_by_condition(conditions, len(measured.intact))
    errors = {condition: errors_of(measured, rows) for condition, rows in rows_of.items()}
    protocol = AblationProtocol(len(measured.intact), seed, (slice(0, 1),))
    removed = {heads: heads for heads in removals(sets, controls)}
    slices = error_slices(errors, protocol.ranges, seed)
    table, null = effect_tables(slices, sets, controls, removed, "remove", n_tests=len(errors))
    unused = [prefix for kind, prefix in PREFIXES.items() if kind not in match and prefix]
    dropped = ("points", *(f"{kind}_" for kind in FULL), *unused)
    table = table.drop(columns=[column for column in table if str(column).startswith(dropped)]).rename(columns=COLUMNS)
    if unit == "loss":
        table["loss_no_context"] = np.nan
    table.insert(list(table.columns).index("effect"), "unit", unit)
    null = null.drop(columns="points").rename(columns=COLUMNS)
    return LossAblation(name, None, table, null, pd.DataFrame(), protocol, "remove", errors, about=about)


def rows_by_condition(conditions: Sequence[str] | None, n_examples: int) -> dict[str, np.ndarray]:
    """The examples of every condition.

    Raises:
        UserError: not one condition per example, or too few examples of one.

    >>> {name: rows.tolist() for name, rows in rows_by_condition(["a", "b"] * 8, 16).items()}["b"]
    [1, 3, 5, 7, 9, 11, 13, 15]
    """
    labels = [ALL] * n_examples if conditions is None else [str(label) for label in conditions]
    if len(labels) != n_examples:
        raise UserError(f"{len(labels)} conditions are given for {n_examples} examples: one per example is needed")
    rows = {label: np.flatnonzero([other == label for other in labels]) for label in dict.fromkeys(labels)}
    for label, of_label in rows.items():
        if len(of_label) < LEAST_EXAMPLES:
            raise UserError(
                f"{label}: {len(of_label)} examples are too few for an interval (at least {LEAST_EXAMPLES})"
            )
    return rows


def errors_of(measured: Measured, rows: np.ndarray) -> ClassErrors:
    """The losses of one condition; without a no-context loss over a gain of 1, so that effects are differences."""
    intact = measured.intact[rows, None]
    no_context = intact + 1 if measured.no_context is None else measured.no_context[rows, None]
    without = {
        mode: {heads: SetErrors(losses[rows, None]) for heads, losses in by_set.items()}
        for mode, by_set in measured.without.items()
    }
    return ClassErrors(intact, no_context, without, 0.0, measured.unvarying)
