"""What `interp ablate` does with its options: one design on one or several checkpoints, printed, drawn and written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.ablation.ablate import Ablation, Design, ablate, plan, removed_by
from interp.ablation.cumulative import CumulativeAblation, cumulative
from interp.ablation.modes import mode as intervention
from interp.ablation.pairs import PairAblation, check_several, pairs
from interp.ablation.pooled import pooled
from interp.ablation.reference_activations import partner_prompts
from interp.ablation.size_classes import VERDICTS
from interp.ablation.store import Store
from interp.ablation.tables import pooled_table
from interp.ablation.verdict import pooled_verdict
from interp.display.result import Axes
from interp.model.heads import MLP, Head, HeadSet, head_set, parse_heads, show
from interp.scores.score import selection_scores
from interp.statistics.seeds import independent_seeds
from training import options
from training.checkpoints.checkpoint import Checkpoint
from training.checkpoints.name_patterns import load_all
from training.commands import check_classes
from training.common import output
from training.common.errors import UserError, refuse_failures
from training.common.terminal import echo
from training.config.config import RunConfig

ORDERS = 20

Result = Ablation | CumulativeAblation | PairAblation


@dataclass(frozen=True)
class Request:
    """The options of `interp ablate`, checked as far as they can be without a checkpoint."""

    ckpts: tuple[str, ...]
    heads: str
    design: str
    modes: tuple[str, ...]
    site: str
    at: str
    points: str | None
    controls: int | None
    classes: str | None
    prompts: int
    null_prompts: int
    memory: int
    seed: int
    device: str

    @property
    def n_controls(self) -> int:
        default = ORDERS if self.design == "cumulative" else options.DEFAULT_CONTROLS
        return default if self.controls is None else self.controls


@dataclass(frozen=True)
class Subject:
    """One checkpoint with the sets that the request names in it.

    Attributes:
        checkpoint: the model.
        names: function classes to test on.
        sets: what to remove or keep.
        scores: mean retrospective scores on the selection prompts.
    """

    checkpoint: Checkpoint
    names: list[str]
    sets: list[HeadSet]
    scores: Float[np.ndarray, "layer head"]

    @property
    def by_score(self) -> list[Head]:
        """The heads of all sets, the highest score first."""
        return sorted({head for one in self.sets for head in one}, key=lambda head: (-self.scores[head], head))


def run(request: Request, *, json: bool, out: Path | None) -> None:
    """Carry the request out and show what came of it."""
    checkpoints = load_all(request.ckpts, request.device)
    subjects = [subject(request, checkpoint) for checkpoint in checkpoints]
    store = Store(output.prepare_directory(out)) if out else None
    places = [output.prepare_directory(one) for one in directories(checkpoints, out)] if out else []
    results = [carry_out(request, one, store) for one in subjects]
    several = None
    if len(subjects) > 1 and all(isinstance(one, Ablation) for one in results):
        if any(len(one.sets) != 1 for one in subjects):
            echo("interp: effects are pooled over checkpoints for single sets only", err=True)
        else:
            ablations = cast(list[Ablation], results)
            several = pooled(checkpoints, ablations, [one.sets[0] for one in subjects], request.heads)
    if out:
        write(subjects, results, several, places, out)
    if json:
        output.print_json(document(request, subjects, results, several))
    else:
        for result in results:
            show_result(result)
        if several is not None:
            output.print_table(*pooled_table(several, f"{request.heads} in {len(subjects)} models"))
            echo(pooled_verdict(several))
    refuse_failures(failure for result in results if isinstance(result, Ablation) for failure in result.failures)


def subject(request: Request, checkpoint: Checkpoint) -> Subject:
    names = check_classes(request.classes, checkpoint.config.evaluated_classes)
    seed, n_prompts = request.seed, request.prompts
    plan(checkpoint, request.modes, request.site, request.at, request.points, n_prompts, seed)  # refuses early
    scores = selection_scores(checkpoint, n_prompts, seed)
    sets = parse_heads(request.heads, *scores.shape, scores=scores.tolist)
    check_design(request.design, sets, checkpoint)
    check_partners(checkpoint.config, names, request.modes)
    return Subject(checkpoint, names, sets, scores)


def check_design(design: str, sets: Sequence[HeadSet], checkpoint: Checkpoint) -> None:
    """Refuse before anything is computed what a design cannot do with these sets.

    Raises:
        UserError: too few heads, or an MLP where only heads will do.
    """
    everything = head_set(head for one in sets for head in one)
    if design in ("cumulative", "pairs"):
        check_several(design, everything)
    if design == "cumulative" and any(head.number == MLP for head in everything):
        raise UserError("--design cumulative removes in the order of score, which MLPs do not have: name heads only")
    if design == "keep":
        for one in sets:
            removed_by(one, design, checkpoint)


def check_partners(config: RunConfig, names: Sequence[str], modes: Sequence[str]) -> None:
    """Refuse before anything is computed what `interp.ablation.reference_activations` has no prompts for.

    Raises:
        UserError: a mode needs another function class and there is none.
    """
    for mode in map(intervention, modes):
        if mode.partner is not None and mode.partner != "noise":
            for name in names:
                partner_prompts(config, name, mode.partner, n_prompts=1, seed=0)


def carry_out(request: Request, one: Subject, store: Store | None) -> Result:
    common: dict[str, Any] = {
        "modes": request.modes,
        "site": request.site,
        "at": request.at,
        "points": request.points,
        "n_prompts": request.prompts,
        "seed": request.seed,
        "memory": request.memory,
        "store": store,
    }
    everything = tuple(sorted({head for heads in one.sets for head in heads}))
    if request.design == "cumulative":
        return cumulative(one.checkpoint, one.by_score, one.names, n_orders=request.n_controls, **common)
    if request.design == "pairs":
        return pairs(one.checkpoint, everything, one.names, **common)
    design = cast(Design, request.design)
    own: dict[str, Any] = {
        "n_controls": request.n_controls,
        "n_null_prompts": request.null_prompts,
        "scores": one.scores,
    }
    return ablate(one.checkpoint, one.sets, one.names, design=design, **own, **common)


def directories(checkpoints: Sequence[Checkpoint], out: Path) -> list[Path]:
    """Where each checkpoint's tables go: with several ones each has a directory of its own."""
    if len(checkpoints) == 1:
        return [out]
    return [out / name for name in output.file_names([one.name for one in checkpoints])]


def write(
    subjects: Sequence[Subject],
    results: Sequence[Result],
    several: pd.DataFrame | None,
    places: Sequence[Path],
    out: Path,
) -> None:
    """Tables and figures of each checkpoint in its place, and those of all together."""
    from interp.display.axes import save_figure

    for one, result, directory in zip(subjects, results, places, strict=True):
        result.write(directory)
        for figure, axes in figures(one, result):
            save_figure(axes, directory / figure)
    if several is not None:
        output.write_table(several, out / "pooled.csv")


def figures(one: Subject, result: Result) -> list[tuple[str, list[Axes]]]:
    """File names and matplotlib axes."""
    if isinstance(result, CumulativeAblation):
        return [("cumulative.png", result.plot())]
    if isinstance(result, PairAblation):
        return [("pairs.png", result.plot())]
    if len(one.sets) == 1 or len(one.sets) > VERDICTS:
        return [("ablation.png" if len(one.sets) == 1 else "effects.png", result.plot())]
    names = output.file_names([show(heads) for heads in one.sets])
    return [(f"ablation_{name}.png", result.plot(show(heads))) for name, heads in zip(names, one.sets, strict=True)]


def document(
    request: Request, subjects: Sequence[Subject], results: Sequence[Result], several: pd.DataFrame | None
) -> dict[str, Any]:
    """What `--json` prints."""
    first = subjects[0]
    tables = []
    for one, result in zip(subjects, results, strict=True):
        tables += [{"checkpoint": one.checkpoint.name, **row} for row in output.records(result.table)]
    about = {
        "checkpoint": first.checkpoint.name,
        "step": first.checkpoint.step,
        "checkpoints": [
            {"checkpoint": one.checkpoint.name, "step": one.checkpoint.step, "heads": [show(s) for s in one.sets]}
            for one in subjects
        ],
        "n_seeds": len(independent_seeds([one.checkpoint for one in subjects])),
        "seed": request.seed,
        "prompts": request.prompts,
        "null_prompts": min(request.null_prompts, request.prompts),
        "controls": request.n_controls,
        "design": request.design,
        "site": request.site,
        "at": request.at,
        "selection_stream": "selection",
        "test_stream": "test",
        "heads": [show(one) for one in first.sets],
        "results": tables,
    }
    if isinstance(results[0], Ablation):
        ablations = [one for one in results if isinstance(one, Ablation)]
        about["spot_check"] = max(one.spot_check for one in ablations)
        about["joint"] = [
            {"checkpoint": one.checkpoint} | row for one in ablations for row in output.records(one.joint)
        ]
        about["failed"] = [
            {"checkpoint": one.checkpoint, "heads": heads, "reason": reason}
            for one in ablations
            for heads, reason in one.failed.items()
        ]
    if isinstance(results[0], CumulativeAblation):
        about["area"] = [
            row for one in results if isinstance(one, CumulativeAblation) for row in output.records(one.area)
        ]
    if several is not None:
        about["pooled"] = output.records(several)
    return about


def show_result(result: Result) -> None:
    """One checkpoint's tables and verdict."""
    for table in result.tables():
        output.print_table(*table)
    for line in result.sentences() if isinstance(result, Ablation) else []:
        echo(line)
