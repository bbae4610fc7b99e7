"""Ablation: how much the error grows when components are removed, compared with random sets of components.

1. Draw test prompts and, apart from them, reference and partner prompts (`interp.ablation.reference_activations`).
2. Check on some of them that every removal acts (`interp.model.self_checks`).
3. Remove every set under test and every control set on the same prompts (`interp.ablation.runner`).
4. Effects with paired bootstrap intervals; p-values against the control sets; Holm over function classes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from interp.ablation.control_sets import MATCHES, ControlSets, Match, draw_control_sets
from interp.ablation.errors import FULL, ClassErrors, ErrorSlice, error_slices, failed_sets
from interp.ablation.joint import joint_removals
from interp.ablation.modes import Mode
from interp.ablation.plan import Plan, plan
from interp.ablation.reference_activations import reference_values
from interp.ablation.runner import AblationProtocol, SetCheckError, measure
from interp.ablation.size_classes import ATTENDS, VERDICTS, is_silent
from interp.ablation.store import Store
from interp.display.result import Axes, Result
from interp.model.engine import Site
from interp.model.heads import MLP, Head, HeadSet, all_heads, show
from interp.model.opened import opens_models
from interp.names import ModeName
from interp.scores.head_choice import HeadChoice
from interp.scores.score import selection_scores
from interp.statistics.effects import (
    LEAST_NAMED,
    Effect,
    detectable_effect,
    holm,
    permutation_p,
    two_sided_p,
)
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError, one_of
from training.common.output import records
from training.common.table_rows import distinct, where
from training.config.config import stream_seed
from training.evaluation.own_prompts import OwnPrompts
from training.evaluation.own_run import open_own
from training.options import DEFAULT_CONTROLS, DEFAULT_MEMORY, DEFAULT_NULL_PROMPTS, DEFAULT_PROMPTS, as_list

Design = Literal["remove", "keep"]
PREFIXES: Mapping[Match, str] = {"layer": "", "size": "size_", "norm": "norm_"}

Controls = Mapping[tuple[HeadSet, Match], ControlSets]
Rows = list[dict[str, Any]]


@dataclass(frozen=True, repr=False, eq=False)
class Ablation(Result):
    """The result of removing sets of components.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per set, function class, mode and range of pairs. Errors are NMSE. `effect` (later components
            react), `frozen_effect` (they react, with every later norm's scale as in the intact run; NaN if the model
            has no norms) and `direct_effect` (only what the set itself writes into the final residual stream changes),
            each with its 95 % interval; `moved_effect`, the mean squared change of the predictions over the in-context
            gain, with its interval. Against layer-matched control sets: `p_value`, `p_holm` (over classes),
            `p_holm_heads` (over the sets, on one class), `n_controls`, `smallest_p`, `exact` (whether these are all the
            sets there are), from `compared_effect`, the effect on the prompts of the control sets; `p_two_sided`, twice
            the smaller of `p_value` (the set costs more than others) and its mirror image (it costs less: removing it
            helps more), `p_two_sided_holm` and `p_two_sided_holm_heads`;
            `control_effect` (mean), `control_min` and `control_max` of the `n_disjoint` control sets that share no
            component with this one; `detectable`, the smallest effect that the test could have found (of a set that is
            kept, the largest). The same with the prefixes `size_` and `norm_` against the other matchings. `note` says
            why there is no effect where the set's output already equals the replacement value (pruned or constant
            heads).
        null: one row per control set, function class, mode, range and matching: the effects behind the p-values.
        curves: `nmse` by number of examples, one row per set, class, mode and number; the modes `intact` and
            `no_context` belong to no set.
        protocol: prompts, site and positions.
        design: whether the sets were removed or kept.
        errors: by function class, everything that was measured.
        scores: the lowest retrospective score within each set, by its name; empty where scores were not given.
        joint: of heads that attend but cost nothing alone, their removal together with other heads
            (`interp.ablation.joint.joint_removals`); empty where there are none or scores were not given.
        failed: by name, the sets that were left out because a self-check failed for them, with the reason.
    """

    checkpoint: str
    step: int | None
    table: pd.DataFrame
    null: pd.DataFrame
    curves: pd.DataFrame
    protocol: AblationProtocol
    design: Design
    errors: Mapping[str, ClassErrors] = field(repr=False)
    scores: Mapping[str, float] = field(default_factory=dict)
    joint: pd.DataFrame = field(default_factory=pd.DataFrame)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.protocol.seed

    @property
    def n_prompts(self) -> int:
        return self.protocol.n_prompts

    @property
    def spot_check(self) -> float:
        """Largest relative difference from float64 among the sets that cost most."""
        return max(errors.spot_check for errors in self.errors.values())

    @property
    def failures(self) -> list[str]:
        """Which sets were left out and why, a sentence each."""
        return [f"{self.checkpoint}: {heads} left out, {reason}" for heads, reason in self.failed.items()]

    def sentences(self, scores: dict[str, float] | None = None) -> list[str]:
        """The verdict on every set; of many sets, those that matter (`interp.ablation.ranking`).

        Args:
            scores: the lowest retrospective score within each set, by its name; None takes those given to `ablate`.
        """
        if len(distinct(self.table, "heads")) > VERDICTS:
            return self.view("ranking") if self.design == "remove" and self.find_view("ranking") else []
        return self.all_sentences(scores)

    def all_sentences(self, scores: Mapping[str, float] | None = None) -> list[str]:
        """The verdict on every set, however many there are."""
        return self.view("sentences", self.scores if scores is None else scores)

    def plot(self, heads: str | None = None) -> list[Axes]:
        """The effects of one set with those of its control sets, or of all sets as a heat map.

        Args:
            heads: a set, as in the table; None takes the only one, or all where there are several.

        Raises:
            UserError: there is no such set.
        """
        if heads is None and len(distinct(self.table, "heads")) > 1:
            return self.view("plot_effects")
        return self.view("plot", self.choose_set(heads))

    def plot_curves(self, heads: str | None = None) -> list[Axes]:
        """Error by number of examples, intact and without one set.

        Args:
            heads: a set, as in the table; None takes the first.

        Raises:
            UserError: there is no such set.
        """
        return self.view("plot_curves", self.choose_set(heads))

    def choose_set(self, heads: str | None) -> str:
        sets = distinct(self.table, "heads")
        if heads is not None and heads not in sets:
            raise one_of("heads", heads, sets)
        return sets[0] if heads is None else heads

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        joint = {"ablation_joint": self.joint} if len(self.joint) else {}
        return {"ablation": self.table, "ablation_null": self.null, "ablation_curves": self.curves, **joint}


@opens_models
def ablate(
    checkpoint: Checkpoint,
    heads: HeadChoice,
    classes: str | Sequence[str] | None = None,
    *,
    modes: ModeName | str | Mode | Sequence[ModeName | str | Mode] | None = None,
    design: Design = "remove",
    site: Site | str = "z",
    tokens: str = "all",
    points: str | None = None,
    n_prompts: int = DEFAULT_PROMPTS,
    n_null_prompts: int = DEFAULT_NULL_PROMPTS,
    n_controls: int = DEFAULT_CONTROLS,
    matches: Match | str | Sequence[Match] = tuple(MATCHES),
    seed: int = 0,
    memory: int = DEFAULT_MEMORY,
    store: Store | None = None,
    scores: Float[np.ndarray, "layer head"] | None = None,
    prompts: OwnPrompts | None = None,
    total_only: bool = False,
) -> Ablation:
    """Remove sets of components and compare the cost with that of random sets.

    Args:
        checkpoint: a loaded run (`interp.load`).
        heads: the sets: text such as `0.1`, `above:0.5` or `each` (`interp.model.heads.SYNTAX`), a `Head`, some heads,
            or several sets. `top:K` and `above:SCORE` choose on other prompts (stream `selection`) than the test.
        classes: function classes; None takes those of the run.
        modes: names in `interp.ablation.modes.MODES`, or modes of your own; None is `zero`, `mean` and
            `resample`, or uniform attention at the site `pattern`, which has no other.
        design: `remove` the sets, or `keep` only them and remove every other head.
        site: of heads: `z`, `pattern` or `value`, see `interp.model.engine.SITES`. MLPs are removed at mlp_out.
        tokens: at which components are removed, see `interp.model.positions.TOKENS`.
        points: the ranges of pairs over which the effect is measured, such as `0-3,12-15`; None is the last quarter.
        n_prompts: per class; the same ones for every condition.
        n_null_prompts: on how many of them, the first ones, control sets are measured; a set under test is compared
            with them by its effect on the same prompts. Prompts add little to the spread of effects over sets.
        n_controls: control sets per set and matching; all there are if there are no more.
        matches: how control sets are matched, see `interp.ablation.control_sets.MATCHES`.
        seed: of prompts, control sets and resampling.
        memory: bytes that activations may take.
        store: keeps finished pieces, so that an interrupted ablation resumes (`interp.ablation.store.Store`).
        scores: retrospective scores on selection prompts; heads that attend (above `ATTENDS`) but cost nothing alone
            are then removed together with other heads, too (`interp.ablation.joint`). Computed where heads are text.
        prompts: of your own, in the place of `classes` (`interp.OwnPrompts`). A random half chooses heads and gives
            means and partners; of the other at most `n_prompts` are tested on.
        total_only: leave out direct effects, frozen LayerNorm and curves, which take two thirds of the time.

    Raises:
        CheckError: every removal failed to act, or acted where it should not; if only some did, these sets are left
            out and named in `failed`.
        UserError: unknown heads, class, mode, site, tokens or range.

    >>> from interp import load
    >>> result = ablate(load("zoo:mixed-0"), "0.0", "linear", n_prompts=64, n_controls=5)
    >>> list(result.table["mode"])
    ['zero', 'mean', 'resample']
    """
    checkpoint, n_prompts = open_own(checkpoint, prompts, classes, n_prompts, is_split=True)
    if isinstance(heads, str) and scores is None:
        scores = selection_scores(checkpoint, n_prompts, seed)
    planned = plan(
        checkpoint,
        heads,
        classes,
        modes=modes,
        site=site,
        tokens=tokens,
        points=points,
        n_prompts=n_prompts,
        n_null_prompts=n_null_prompts,
        seed=seed,
        memory=memory,
        store=store,
        scores=scores,
        total_only=total_only,
    )
    chosen_matches: list[Any] = as_list(matches)
    for unknown in set(chosen_matches) - set(MATCHES):
        raise one_of("match", unknown, MATCHES)
    return run(planned, design=design, n_controls=n_controls, matches=chosen_matches)


def run(
    planned: Plan,
    *,
    design: Design = "remove",
    n_controls: int = DEFAULT_CONTROLS,
    matches: Sequence[Match] = tuple(MATCHES),
) -> Ablation:
    """Carry out a plan; the arguments are those of `ablate`."""
    checkpoint, classes, protocol = planned.checkpoint, planned.classes, planned.protocol
    norms = output_norms(checkpoint, checkpoint.config.evaluated_classes, protocol.seed)  # whatever classes are named
    rng = np.random.default_rng(stream_seed("null sets", protocol.seed))
    controls: Controls = {
        (heads, match): draw_control_sets(heads, norms, match=match, n_sets=n_controls, rng=rng)
        for heads in planned.sets
        for match in matches
    }
    all_controls = list(dict.fromkeys(control for drawn in controls.values() for control in drawn.sets))
    removed = {heads: removed_components(heads, design, checkpoint) for heads in [*planned.sets, *all_controls]}
    errors = measure(
        checkpoint,
        classes,
        [removed[heads] for heads in planned.sets],
        [removed[control] for control in all_controls],
        planned.modes,
        protocol,
    )
    sets, controls, failed = leave_out_failures(planned.sets, controls, removed, failed_sets(errors))
    slices = error_slices(errors, protocol.ranges, protocol.seed)
    table, null = effect_tables(slices, sets, controls, removed, design, n_tests=len(errors))
    if checkpoint.config.model.norm == "none":
        table[[f"frozen_{column}" for column in ("effect", "ci_low", "ci_high")]] = math.nan  # there are no scales
    removed_by_name = {show(heads): removed[heads] for heads in sets}
    curves = [row for name in classes for row in curve_rows(errors[name], name, removed_by_name)]
    lowest, joint = {}, pd.DataFrame()
    if planned.scores is not None and design == "remove":
        lowest = {show(heads): lowest_score(heads, planned.scores) for heads in sets}
        silent = silent_heads(table, sets, lowest)
        joint = joint_removals(checkpoint, classes, silent, planned.scores, planned.modes, protocol)
    return Ablation(
        checkpoint.name,
        checkpoint.step,
        table,
        null,
        pd.DataFrame(curves),
        protocol,
        design,
        errors,
        lowest,
        joint,
        failed,
    )


def leave_out_failures(
    sets: Sequence[HeadSet], controls: Controls, removed: Mapping[HeadSet, HeadSet], failures: Mapping[HeadSet, str]
) -> tuple[list[HeadSet], Controls, dict[str, str]]:
    """The sets and control sets whose self-checks passed; by name, the sets that are left out, with the reason.

    Raises:
        SetCheckError: no set is left.
    """
    failed = {show(heads): failures[removed[heads]] for heads in sets if removed[heads] in failures}
    passed = [heads for heads in sets if removed[heads] not in failures]
    if not passed:
        raise SetCheckError(next(iter(failed.values())))
    kept = {
        key: replace(drawn, sets=tuple(control for control in drawn.sets if removed[control] not in failures))
        for key, drawn in controls.items()
    }
    return passed, kept, failed


def ablate_or_reasons(
    checkpoint: Checkpoint, sets: Sequence[HeadSet], classes: Sequence[str] | None = None, **options: Any
) -> tuple[Ablation | None, list[str]]:
    """`ablate` for studies of the first set: without a result if a self-check fails for it.

    Args:
        checkpoint: a loaded run.
        sets: the sets; the first is the one that a study needs.
        classes: function classes; None takes those of the run.
        **options: of `ablate`.

    Returns:
        The result or None, and a sentence for each set that was left out.

    Raises:
        CheckError: a self-check failed for the empty set.
    """
    try:
        result = ablate(checkpoint, sets, classes, **options)
    except SetCheckError as failure:
        return None, [f"{checkpoint.name}: {show(sets[0])} left out, {failure}"]
    return None if show(sets[0]) in result.failed else result, result.failures


def lowest_score(heads: HeadSet, scores: Float[np.ndarray, "layer head"]) -> float:
    """The lowest score within a set; 0 for MLPs, which have none."""
    return min((float(scores[head]) for head in heads if head.number != MLP), default=0.0)


def silent_heads(table: pd.DataFrame, sets: Sequence[HeadSet], scores: Mapping[str, float]) -> list[HeadSet]:
    """The single heads that attend and whose removal alone costs nothing (`interp.ablation.size_classes.is_silent`)."""
    attending = [heads for heads in sets if len(heads) == 1 and scores[show(heads)] > ATTENDS]
    return [heads for heads in attending if is_silent(records(where(table, heads=show(heads))))]


def removed_components(heads: HeadSet, design: Design, checkpoint: Checkpoint) -> HeadSet:
    """The components that a design removes for a set.

    Raises:
        UserError: there is no such design, or it is `keep` and the set contains an MLP or every head.
    """
    if design not in get_args(Design):
        functions = {"cumulative": ": use interp.cumulative", "pairs": ": use interp.pairs"}
        raise UserError(f"{one_of('--design', design, get_args(Design))}{functions.get(design, '')}")
    if design == "remove":
        return heads
    if any(head.number == MLP for head in heads):
        raise UserError(f"--design keep takes heads only (given: {show(heads)}); MLPs are always kept")
    config = checkpoint.config.model
    removed = tuple(head for head in all_heads(config.n_layers, config.n_heads) if head not in heads)
    if not removed:
        raise UserError(f"--design keep with all {len(heads)} heads removes nothing: name fewer heads")
    return removed


def output_norms(checkpoint: Checkpoint, classes: Sequence[str], seed: int) -> dict[Head, float]:
    """Root mean square over reference prompts and tokens of what every head and MLP writes into the residual stream."""
    by_class = [
        written for name in classes if (written := reference_values(checkpoint, name, seed).written) is not None
    ]
    mean_squares = torch.stack(by_class).mean(0)
    numbers = [*range(checkpoint.config.model.n_heads), MLP]
    return {
        Head(layer, number): square**0.5
        for layer, squares in enumerate(mean_squares.tolist())
        for number, square in zip(numbers, squares, strict=True)
    }


def effect_tables(
    slices: Iterable[ErrorSlice],
    sets: Sequence[HeadSet],
    controls: Controls,
    removed: Mapping[HeadSet, HeadSet],
    design: Design,
    n_tests: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `table` and `null` of an `Ablation`, from errors of any model.

    Args:
        slices: the errors on every class, mode and range of pairs.
        sets: under test.
        controls: by set and matching.
        removed: by set under test or control set, the components that were removed.
        design: of the ablation.
        n_tests: function classes, over which p-values are adjusted.
    """
    rows, null_rows = [], []
    for errors in slices:
        new_rows, new_null_rows = effect_rows(errors, sets, controls, removed, design, n_tests)
        rows += new_rows
        null_rows += new_null_rows
    add_holm(rows)
    add_holm(rows, over="heads", names=("p_holm_heads", "p_two_sided_holm_heads"))
    order = {show(heads): rank for rank, heads in enumerate(sets)}
    table = pd.DataFrame(rows).sort_values("heads", key=lambda names: names.map(order), kind="stable")
    columns = ["heads", "function_class", "mode", "points", "match", "control", "effect", "disjoint"]
    return table.reset_index(drop=True), pd.DataFrame(null_rows, columns=columns)


def effect_rows(
    errors: ErrorSlice,
    sets: Sequence[HeadSet],
    controls: Controls,
    removed: Mapping[HeadSet, HeadSet],
    design: Design,
    n_tests: int,
) -> tuple[Rows, Rows]:
    """Effects and p-values of the sets under test on one slice of errors, and the control effects behind them."""
    effects = {
        prefix: errors.effects([removed[heads] for heads in sets], kind)
        for prefix, kind in (("", "total"), *((f"{kind}_", kind) for kind in FULL))
    }
    rows, null_rows = [], []
    for index, heads in enumerate(sets):
        labels = {"heads": show(heads)} | errors.labels
        total = effects[""][index]
        row = labels | {
            "nmse_before": errors.intact.mean(),
            "nmse_after": errors.ablated(removed[heads]).mean(),
            "nmse_no_context": errors.no_context.mean(),
            "note": errors.note(removed[heads], total),
        }
        for prefix, by_set in effects.items():
            effect = by_set[index]
            row |= {
                f"{prefix}effect": effect.value,
                f"{prefix}ci_low": effect.ci_low,
                f"{prefix}ci_high": effect.ci_high,
            }
        for match, prefix in PREFIXES.items():
            drawn = controls.get((heads, match), ControlSets((), exact=True))
            compared, control_effects = errors.effects_on_shared_prompts(
                total, removed[heads], [removed[control] for control in drawn.sets]
            )
            disjoint = np.array([not set(control) & set(heads) for control in drawn.sets], dtype=bool)
            columns = control_columns(total, compared, drawn, control_effects, disjoint, design, n_tests)
            row |= {f"{prefix}{name}": value for name, value in columns.items()}
            null_rows += [
                labels | {"match": match, "control": show(control), "effect": effect, "disjoint": is_disjoint}
                for control, effect, is_disjoint in zip(drawn.sets, control_effects, disjoint, strict=True)
            ]
        rows.append(row)
    return rows, null_rows


def control_columns(
    total: Effect,
    compared: Effect,
    controls: ControlSets,
    control_effects: Float[np.ndarray, " set"],
    disjoint: Bool[np.ndarray, " set"],
    design: Design,
    n_tests: int,
) -> dict[str, float | int | bool]:
    """One effect against its control sets under one matching.

    What is compared is the effect if sets are removed, and the share of the gain that is left, 1 - effect, if they are
    kept. Control sets whose effect differs by less than `LEAST_NAMED` count as as large.

    Args:
        total: the effect on all prompts.
        compared: the effect on the prompts of the control sets.
        controls: the control sets.
        control_effects: their effects.
        disjoint: which of them share no component with the set under test.
        design: of the ablation.
        n_tests: function classes, over which p-values are adjusted.
    """
    sign, offset = (1, 0) if design == "remove" else (-1, 1)
    null, disjoint_effects = offset + sign * control_effects, control_effects[disjoint]
    least = detectable_effect(total.standard_error, compared.standard_error, null, n_tests)
    return {
        "p_value": permutation_p(offset + sign * compared.value, null, LEAST_NAMED),
        "p_two_sided": two_sided_p(compared.value, control_effects, LEAST_NAMED),
        "compared_effect": compared.value,
        "n_controls": len(controls.sets),
        "smallest_p": controls.smallest_p,
        "exact": controls.exact,
        "n_disjoint": len(disjoint_effects),
        "control_effect": disjoint_effects.mean() if len(disjoint_effects) else np.nan,
        "control_min": disjoint_effects.min() if len(disjoint_effects) else np.nan,
        "control_max": disjoint_effects.max() if len(disjoint_effects) else np.nan,
        "detectable": offset + sign * least,
    }


def add_holm(
    rows: Rows,
    prefixes: Iterable[str] = tuple(PREFIXES.values()),
    *,
    over: Literal["function_class", "heads"] = "function_class",
    names: tuple[str, str] = ("p_holm", "p_two_sided_holm"),
) -> None:
    """Adjust p-values over function classes or over sets, with the rest of their labels in common.

    Args:
        rows: of a table.
        prefixes: of the columns of each matching.
        over: the label that differs within a family of tests.
        names: of the columns that rows get, for `p_value` and `p_two_sided`.
    """
    families: dict[tuple[str, ...], Rows] = {}
    labels = [name for name in ("heads", "function_class", "mode", "points") if name != over]
    for row in rows:
        families.setdefault(tuple(row[name] for name in labels), []).append(row)
    for family in families.values():
        for prefix in prefixes:
            for test, adjusted_test in zip(("p_value", "p_two_sided"), names, strict=True):
                adjusted = holm([row[f"{prefix}{test}"] for row in family])
                for row, p_value in zip(family, adjusted, strict=True):
                    row[f"{prefix}{adjusted_test}"] = p_value


def curve_rows(errors: ClassErrors, function_class: str, removed: Mapping[str, HeadSet]) -> Rows:
    """Error by number of in-context examples.

    Args:
        errors: on the class.
        function_class: its name.
        removed: by name of each set under test, the components that were removed.
    """
    curves = {("", "intact"): errors.intact.mean(0), ("", "no_context"): errors.no_context.mean(0)}
    for mode, by_set in errors.ablated.items():
        measured = {(name, mode): by_set[components].curve for name, components in removed.items()}
        curves |= {label: curve for label, curve in measured.items() if curve is not None}
    return [
        {"heads": heads, "function_class": function_class, "mode": mode, "examples": examples, "nmse": nmse}
        for (heads, mode), curve in curves.items()
        for examples, nmse in enumerate(curve)
    ]
