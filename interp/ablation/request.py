"""What `interp ablate` does with its options: one design on one or several checkpoints, printed, drawn and written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from interp.ablation import ablate, cumulative, pairs
from interp.ablation.ablate import Ablation, Design, removed_by
from interp.ablation.cumulative import CumulativeAblation
from interp.ablation.pairs import PairAblation, check_several
from interp.ablation.plan import Plan, plan
from interp.ablation.pooled import pooled
from interp.ablation.reference_activations import partner_prompts
from interp.ablation.size_classes import VERDICTS
from interp.ablation.store import Store
from interp.ablation.tables import pooled_table
from interp.ablation.verdict import pooled_verdict
from interp.display.result import Axes
from interp.model.heads import MLP, show
from interp.scores.score import selection_scores
from interp.statistics.seeds import independent_seeds
from training import options
from training.checkpoints.checkpoint import Checkpoint
from training.checkpoints.name_patterns import load_all
from training.common import output
from training.common.errors import UserError, refuse_failures
from training.common.terminal import echo

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
        default = options.DEFAULT_ORDERS if self.design == "cumulative" else options.DEFAULT_CONTROLS
        return default if self.controls is None else self.controls


def run(request: Request, *, json: bool, out: Path | None) -> None:
    """Carry the request out and show what came of it."""
    checkpoints = load_all(request.ckpts, request.device)
    plans = [plan_for(request, checkpoint) for checkpoint in checkpoints]
    if out:
        store = Store(output.prepare_directory(out))
        plans = [replace(planned, protocol=replace(planned.protocol, store=store)) for planned in plans]
    places = [output.prepare_directory(directory) for directory in directories(checkpoints, out)] if out else []
    results = [carry_out(request, planned) for planned in plans]
    several = pool(request, plans, results)
    if out:
        write(plans, results, several, places, out)
    if json:
        output.print_json(document(request, plans, results, several))
    else:
        for result in results:
            show_result(result)
        if several is not None:
            output.print_table(*pooled_table(several, f"{request.heads} in {len(plans)} models"))
            echo(pooled_verdict(several))
    refuse_failures(failure for result in results if isinstance(result, Ablation) for failure in result.failures)


def plan_for(request: Request, checkpoint: Checkpoint) -> Plan:
    """The plan for one checkpoint; refuses before anything is written what cannot be done."""
    planned = plan(
        checkpoint,
        request.heads,
        request.classes,
        modes=request.modes,
        site=request.site,
        at=request.at,
        points=request.points,
        n_prompts=request.prompts,
        n_null_prompts=request.null_prompts,
        seed=request.seed,
        memory=request.memory,
        scores=selection_scores(checkpoint, request.prompts, request.seed),
    )
    check_design(request.design, planned)
    check_partners(planned)
    return planned


def check_design(design: str, planned: Plan) -> None:
    """Refuse what a design cannot do with these sets.

    Raises:
        UserError: too few heads, or an MLP where only heads will do.
    """
    if design in ("cumulative", "pairs"):
        check_several(design, planned.heads)
    if design == "cumulative" and any(head.number == MLP for head in planned.heads):
        raise UserError("--design cumulative removes in the order of score, which MLPs do not have: name heads only")
    if design == "keep":
        for heads in planned.sets:
            removed_by(heads, design, planned.checkpoint)


def check_partners(planned: Plan) -> None:
    """Refuse modes whose partner prompts this run cannot make.

    Raises:
        UserError: a mode needs another function class and there is none.
    """
    for mode in planned.modes:
        if mode.partner is not None and mode.partner != "noise":
            for function_class in planned.classes:
                partner_prompts(planned.checkpoint.config, function_class, mode.partner, n_prompts=1, seed=0)


def carry_out(request: Request, planned: Plan) -> Result:
    """Run the design that was asked for."""
    if request.design == "cumulative":
        assert planned.scores is not None
        scores = planned.scores
        by_score = sorted(planned.heads, key=lambda head: (-scores[head], head))
        return cumulative.run(planned, by_score, n_orders=request.n_controls)
    if request.design == "pairs":
        return pairs.run(planned)
    return ablate.run(planned, design=cast(Design, request.design), n_controls=request.n_controls)


def pool(request: Request, plans: Sequence[Plan], results: Sequence[Result]) -> pd.DataFrame | None:
    """The ablations of several models together, where each is of a single set."""
    ablations = [result for result in results if isinstance(result, Ablation)]
    if len(plans) == 1 or len(ablations) < len(results):
        return None
    if any(len(planned.sets) != 1 for planned in plans):
        echo("interp: effects are pooled over checkpoints for single sets only", err=True)
        return None
    return pooled([planned.checkpoint for planned in plans], ablations, [p.sets[0] for p in plans], request.heads)


def directories(checkpoints: Sequence[Checkpoint], out: Path) -> list[Path]:
    """Where each checkpoint's tables go: with several ones each has a directory of its own."""
    if len(checkpoints) == 1:
        return [out]
    return [out / name for name in output.file_names([one.name for one in checkpoints])]


def write(
    plans: Sequence[Plan],
    results: Sequence[Result],
    several: pd.DataFrame | None,
    places: Sequence[Path],
    out: Path,
) -> None:
    """Tables and figures of each checkpoint in its place, and those of all together."""
    from interp.display.axes import save_figure

    for planned, result, directory in zip(plans, results, places, strict=True):
        result.write(directory)
        for figure, axes in figures(planned, result):
            save_figure(axes, directory / figure)
    if several is not None:
        output.write_table(several, out / "pooled.csv")


def figures(planned: Plan, result: Result) -> list[tuple[str, list[Axes]]]:
    """File names and matplotlib axes."""
    if isinstance(result, CumulativeAblation):
        return [("cumulative.png", result.plot())]
    if isinstance(result, PairAblation):
        return [("pairs.png", result.plot())]
    if len(planned.sets) == 1 or len(planned.sets) > VERDICTS:
        return [("ablation.png" if len(planned.sets) == 1 else "effects.png", result.plot())]
    names = output.file_names([show(heads) for heads in planned.sets])
    return [(f"ablation_{name}.png", result.plot(show(heads))) for name, heads in zip(names, planned.sets, strict=True)]


def document(
    request: Request, plans: Sequence[Plan], results: Sequence[Result], several: pd.DataFrame | None
) -> dict[str, Any]:
    """What `--json` prints."""
    first = plans[0]
    tables = []
    for planned, result in zip(plans, results, strict=True):
        tables += [{"checkpoint": planned.checkpoint.name, **row} for row in output.records(result.table)]
    about = {
        "checkpoint": first.checkpoint.name,
        "step": first.checkpoint.step,
        "checkpoints": [
            {"checkpoint": p.checkpoint.name, "step": p.checkpoint.step, "heads": [show(heads) for heads in p.sets]}
            for p in plans
        ],
        "n_seeds": len(independent_seeds([planned.checkpoint for planned in plans])),
        "seed": request.seed,
        "prompts": request.prompts,
        "null_prompts": min(request.null_prompts, request.prompts),
        "controls": request.n_controls,
        "design": request.design,
        "site": request.site,
        "at": request.at,
        "selection_stream": "selection",
        "test_stream": "test",
        "heads": [show(heads) for heads in first.sets],
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
