"""Removes heads from any model: replaces their part of the input of the output projection, and judges the losses.

1. Replacement values from the reference examples (`interp.ablation.modes`).
2. Self-checks on a few examples (`interp.any_model.self_checks`).
3. The examples under test go through in chunks; each chunk is recorded once. Sets with the same first layer share a
   pass, which starts at that layer.
4. The losses are judged (`interp.any_model.judge`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.ablation.control_sets import Match
from interp.ablation.modes import DEFAULT_MODES, MODES, Mode, Reference
from interp.ablation.reference_activations import standard_normal_like
from interp.ablation.runner import group_by_first_layer
from interp.any_model.judge import (
    MATCHES,
    LossAblation,
    Measured,
    check_losses,
    check_matches,
    draw_controls,
    judge_losses,
    removals,
)
from interp.any_model.network import Edit, Location
from interp.any_model.self_checks import check_removals
from interp.any_model.task import Task
from interp.model.heads import HeadSet, Scores, show
from interp.scores.head_choice import HeadChoice, resolve_sets
from training.common.errors import UserError, one_of
from training.common.progress import progress_bar
from training.options import DEFAULT_CONTROLS, as_list
from training.tasks.prompts import PLAIN

MODE_NAMES = ("zero", "mean", "mean:global", "resample", "noise")
Losses = Float[np.ndarray, " example"]


def ablate(
    task: Task,
    heads: HeadChoice,
    *,
    modes: str | Mode | Sequence[str | Mode] = DEFAULT_MODES,
    n_controls: int = DEFAULT_CONTROLS,
    matches: Sequence[Match] = MATCHES,
    seed: int = 0,
    scores: Scores | None = None,
) -> LossAblation:
    """Remove sets of heads and compare the losses with those of random sets.

    Args:
        task: the model and its examples.
        heads: the sets, as of `interp.ablate`; `top:K` and `above:SCORE` choose on the reference examples.
        modes: what a removed head gives: names in `MODE_NAMES`, or modes of your own that read no other prompts.
        n_controls: control sets per set and matching; all there are when there are no more.
        matches: how control sets are matched: `layer`, `size`.
        seed: of control sets and resampling.
        scores: `[layer][head]`, for `top:K` and `above:SCORE`.

    Raises:
        CheckError: a removal did not act, or acted where it should not.
        UserError: no such heads, mode or matching, or losses that are not one finite number per example.
    """
    network = task.network
    chosen_modes = modes_called(modes)
    sets = resolve_sets(heads, network.n_layers, network.n_heads, None if scores is None else lambda: scores)
    matches = check_matches(matches)
    controls = draw_controls(sets, network.n_layers, network.n_heads, n_controls=n_controls, match=matches, seed=seed)
    replacements = Replacements(task, chosen_modes, seed)
    few = range(min(8, task.n_examples))
    unvarying = check_removals(task, few, {mode.name: replacements.of(mode, few) for mode in chosen_modes}, sets)
    measured = measure(task, removals(sets, controls), replacements)
    measured = measured._replace(unvarying=unvarying)
    about = f"replacement values from {task.n_reference} reference examples"
    return judge_losses(
        measured, sets, controls, conditions=task.conditions, match=matches, seed=seed, name=task.name, about=about
    )


def modes_called(given: str | Mode | Sequence[str | Mode]) -> tuple[Mode, ...]:
    """The modes behind their names.

    Raises:
        UserError: there is none, it needs prompts of this project's, or it is named twice.
    """
    names = as_list(given)
    modes = []
    for name in names:
        if isinstance(name, str) and name not in MODE_NAMES:
            raise one_of("--mode", name, MODE_NAMES)
        modes.append(name if isinstance(name, Mode) else MODES[name])
    called = [mode.name for mode in modes]
    if len(set(called)) < len(called):
        raise UserError(f"--mode {','.join(called)}: {max(called, key=called.count)} is named twice")
    return tuple(modes)


class Replacements:
    """What removed heads give under every mode."""

    def __init__(self, task: Task, modes: Sequence[Mode], seed: int) -> None:
        self.task, self.modes, self.seed = task, modes, seed
        self.partners = task.partners()

    def of(self, mode: Mode, rows: range) -> list[Float[Tensor, "#example pos head d_head"]]:
        """By layer, for these examples."""
        mean, std = self.task.moments
        partner = self.partner_of(mode, rows)
        return [
            mode.replacement(Reference(mean[i], std[i], None if partner is None else partner[i], PLAIN))
            for i in range(len(mean))
        ]

    def partner_of(self, mode: Mode, rows: range) -> list[Tensor] | None:
        """What a mode reads of other examples, for each of these."""
        if mode.partner is None:
            return None
        if mode.partner == "noise":
            return standard_normal_like(self.task.moments.mean, rows, self.seed)
        return self.task.read_z(self.task.rows(self.task.reference, self.partners[rows.start : rows.stop]))


def measure(task: Task, sets: Sequence[HeadSet], replacements: Replacements) -> Measured:
    """The losses of every example, intact and without every set under every mode."""
    intact, ignoring = [], []
    parts: dict[str, dict[HeadSet, list[Losses]]] = {mode.name: {} for mode in replacements.modes}
    with progress_bar(total=len(sets) * len(replacements.modes), desc="ablate", unit="set") as bar:
        for rows in task.chunks(task.n_examples):
            examples = task.rows(task.examples, rows)
            output, recorded = task.network.record(examples)
            intact.append(task.losses(output, examples, "of the intact model"))
            if callable(task.no_context):
                ignoring.append(check_losses(task.no_context(output, examples), "of no_context", len(rows)))
            del output
            for mode in replacements.modes:
                given = replacements.of(mode, rows)
                for group in group_by_first_layer(sets, task.sizes.copies):
                    first = min((head.layer for heads in group for head in heads), default=0)
                    losses = task.run(
                        examples,
                        removal_edits(group, given, task.network.n_heads),
                        recorded=recorded if recorded.outputs else None,
                        first=first,
                        times=len(group),
                        what=f"without {' or '.join(map(show, group[:3]))} ({mode.name})",
                    )
                    for heads, own in zip(group, losses.reshape(len(group), -1), strict=True):
                        parts[mode.name].setdefault(heads, []).append(own)
                    bar.update(len(group) * len(rows) / task.n_examples)
    without = {mode: {heads: np.concatenate(own) for heads, own in by_set.items()} for mode, by_set in parts.items()}
    return Measured(np.concatenate(intact), without, no_context_losses(task, ignoring))


def no_context_losses(task: Task, measured: Sequence[Losses]) -> Losses | None:
    """The losses of a predictor that ignores the context: measured, or given, or not known."""
    if task.no_context is None:
        return None
    return np.concatenate(measured) if measured else check_losses(task.no_context, "of no_context", task.n_examples)


def removal_edits(
    group: Sequence[HeadSet], given: Sequence[Float[Tensor, "#example pos head d_head"]], n_heads: int
) -> Mapping[Location, Edit]:
    """The edits that remove one set in each copy of the examples."""
    layers = sorted({head.layer for heads in group for head in heads})
    edits: dict[Location, Edit] = {}
    for layer in layers:
        removed = torch.zeros(len(group), n_heads, dtype=torch.bool)
        for location, heads in enumerate(group):
            removed[location, [head.number for head in heads if head.layer == layer]] = True
        edits[Location("z", layer)] = replacing(removed, given[layer])
    return edits


def replacing(removed: Tensor, values: Tensor) -> Edit:
    """An edit that puts values in place of the removed heads of each copy."""
    where = removed[:, None, None, :, None]

    def edit(z: Any) -> Any:
        several = z.unflatten(0, (len(removed), -1))
        return torch.where(where.to(z.device), values.to(z)[None], several).flatten(0, 1)

    return edit
