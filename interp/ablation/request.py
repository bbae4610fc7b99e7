"""Carries out a request of `interp ablate`: one design on one or several checkpoints; prints, draws and writes it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd

from interp.ablation import ablate, cumulative, pairs
from interp.ablation.ablate import Ablation, Design, removed_components
from interp.ablation.cumulative import CumulativeAblation
from interp.ablation.pairs import PairAblation, check_several
from interp.ablation.plan import Plan, plan
from interp.ablation.pooled import pooled
from interp.ablation.reference_activations import partner_prompts
from interp.ablation.size_classes import VERDICTS
from interp.ablation.store import Store
from interp.ablation.tables import ablation_tables, pooled_table
from interp.ablation.verdict import pooled_verdict
from interp.display.result import Axes
from interp.model.heads import show
from interp.scores.score import selection_scores
from interp.statistics.seeds import as_independent, independent_seeds, unknown_seeds
from training import options
from training.checkpoints.checkpoint import Checkpoint
from training.checkpoints.name_patterns import load_all
from training.checkpoints.provenance import Provenance
from training.commands import open_data, run_command
from training.common import output
from training.common.errors import UserError, refuse_failures
from training.common.screen import print_text
from training.common.terminal import echo

Result = Ablation | CumulativeAblation | PairAblation
PAIRED_DESIGNS = ("cumulative", "pairs")


@dataclass(frozen=True)
class Request:
    """The options of `interp ablate`, checked as far as they can be without a checkpoint."""

    ckpts: tuple[str, ...]
    heads: str
    design: str
    modes: tuple[str, ...] | None
    site: str
    tokens: str
    points: str | None
    controls: int | None
    classes: str | None
    prompts: int
    null_prompts: int | None
    memory: int
    seed: int
    device: str
    independent: bool = False
    match: str = "layer"
    data: Path | None = None

    @property
    def n_controls(self) -> int:
        default = options.DEFAULT_ORDERS if self.design == "cumulative" else options.DEFAULT_CONTROLS
        return default if self.controls is None else self.controls

    @property
    def n_null_prompts(self) -> int | None:
        """On how many prompts control sets are measured; None in designs that compare sets of the same prompts."""
        if self.design in PAIRED_DESIGNS:
            return None
        return options.DEFAULT_NULL_PROMPTS if self.null_prompts is None else self.null_prompts

    def refuse_unused(self) -> None:
        """
        Raises:
            UserError: an option has no use in this design.
        """
        if self.design in PAIRED_DESIGNS and self.null_prompts is not None:
            raise UserError(f"--null-prompts does not apply to --design {self.design}: all sets have the same prompts")
        if self.design == "pairs" and self.controls is not None:
            raise UserError("--controls does not apply to --design pairs, which draws no control sets")


class Results(NamedTuple):
    """The results of every checkpoint.

    Attributes:
        plans: one per checkpoint.
        each: their results.
        pooled: effects over models, where they can be pooled.
        store: the finished pieces, while files are written; None without `--out`.
    """

    plans: Sequence[Plan]
    each: Sequence[Result]
    pooled: pd.DataFrame | None
    store: Store | None

    @property
    def ablations(self) -> list[Ablation]:
        return [result for result in self.each if isinstance(result, Ablation)]


def run(request: Request, *, json: bool, out: Path | None) -> None:
    """Carry out the request, then write, print or show the results."""
    request.refuse_unused()
    loaded = load_all(request.ckpts, request.device)
    checkpoints, n_prompts = open_data(loaded, request.data, request.classes, request.prompts, is_split=True)
    request = replace(request, prompts=n_prompts)
    if request.independent:
        checkpoints = as_independent(checkpoints)
    independent_seeds(checkpoints)  # refuses unknown seeds before anything is computed
    plans = [plan_for(request, checkpoint) for checkpoint in checkpoints]
    directories = output_paths(checkpoints, out) if out else []

    def compute() -> Results:
        for directory in directories:
            output.prepare_directory(directory)
        store = Store(out) if out else None
        stored = [replace(planned, protocol=replace(planned.protocol, store=store)) for planned in plans]
        results = [run_design(request, planned) for planned in stored]
        return Results(plans, results, pool(request, plans, results), store)

    results = run_command(
        compute,
        write=lambda results, out: write(results, directories, out),
        document=lambda results: document(request, results),
        show=lambda results: show_all(request, results),
        provenance=Provenance.of(checkpoints, request.seed, request.prompts, request.data),
        verdict=sentences,
        json=json,
        out=out,
    )
    if results.store:
        results.store.delete()  # everything is written: nothing is left to resume
    refuse_failures(failure for result in results.ablations for failure in result.failures)


def plan_for(request: Request, checkpoint: Checkpoint) -> Plan:
    """The plan for one checkpoint, made before anything is written.

    Raises:
        UserError: see `interp.ablation.plan.plan`.
    """
    planned = plan(
        checkpoint,
        request.heads,
        request.classes,
        modes=request.modes,
        site=request.site,
        tokens=request.tokens,
        points=request.points,
        n_prompts=request.prompts,
        n_null_prompts=request.n_null_prompts,
        seed=request.seed,
        memory=request.memory,
        scores=selection_scores(checkpoint, request.prompts, request.seed),
    )
    check_design(request.design, planned)
    check_partners(planned)
    return planned


def check_design(design: str, planned: Plan) -> None:
    """Refuse sets that a design cannot use.

    Raises:
        UserError: too few heads, or an MLP where only heads are possible.
    """
    if design in ("cumulative", "pairs"):
        check_several(design, planned.heads)
    if design == "cumulative" and planned.scores is not None:
        cumulative.sort_by_score(planned.heads, planned.scores)
    if design == "keep":
        for heads in planned.sets:
            removed_components(heads, design, planned.checkpoint)


def check_partners(planned: Plan) -> None:
    """Refuse modes whose partner prompts this run cannot make.

    Raises:
        UserError: a mode needs another function class and there is none.
    """
    for mode in planned.modes:
        if mode.partner is not None and mode.partner != "noise":
            for function_class in planned.classes:
                partner_prompts(planned.checkpoint.config, function_class, mode.partner, n_prompts=1, seed=0)


def run_design(request: Request, planned: Plan) -> Result:
    if request.design == "cumulative":
        assert planned.scores is not None
        by_score = cumulative.sort_by_score(planned.heads, planned.scores)
        return cumulative.run(planned, by_score, n_orders=request.n_controls)
    if request.design == "pairs":
        return pairs.run(planned)
    return ablate.run(planned, design=cast(Design, request.design), n_controls=request.n_controls)


def pool(request: Request, plans: Sequence[Plan], results: Sequence[Result]) -> pd.DataFrame | None:
    """Effects pooled over models, where each ablation is of a single set; None otherwise."""
    ablations = [result for result in results if isinstance(result, Ablation)]
    if len(plans) == 1 or len(ablations) < len(results):
        return None
    if any(len(planned.sets) != 1 for planned in plans):
        echo("interp: effects are pooled over checkpoints for single sets only", err=True)
        return None
    checkpoints, sets = [planned.checkpoint for planned in plans], [planned.sets[0] for planned in plans]
    return pooled(checkpoints, ablations, sets, request.heads)


def output_paths(checkpoints: Sequence[Checkpoint], out: Path) -> list[Path]:
    """The directory of each checkpoint's tables: its own one if there are several."""
    if len(checkpoints) == 1:
        return [out]
    return [out / name for name in output.file_names([checkpoint.name for checkpoint in checkpoints])]


def write(results: Results, directories: Sequence[Path], out: Path) -> None:
    """Tables and figures of each checkpoint, in its directory, and the pooled effects."""
    from interp.display.axes import save_figure

    for planned, result, directory in zip(results.plans, results.each, directories, strict=True):
        result.write(directory)
        for figure, axes in figures(planned, result):
            save_figure(axes, directory / figure)
    if results.pooled is not None:
        output.write_table(results.pooled, out / "pooled.csv")


def show_all(request: Request, results: Results) -> None:
    """Print every result, then the pooled effects."""
    for result in results.each:
        result.show(ablation_tables(result, request.match) if isinstance(result, Ablation) else None)
    if results.pooled is not None:
        output.print_table(*pooled_table(results.pooled, f"{request.heads} in {len(results.plans)} models"))
        print_text(pooled_verdict(results.pooled))


def sentences(results: Results) -> list[str]:
    """The verdict on every checkpoint, and on all together."""
    pooled_sentences = [] if results.pooled is None else [pooled_verdict(results.pooled)]
    return [sentence for result in results.each for sentence in result.sentences()] + pooled_sentences


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


def document(request: Request, results: Results) -> dict[str, Any]:
    """What `--json` prints, beside `run`."""
    plans, ablations = results.plans, results.ablations
    checkpoints = [planned.checkpoint for planned in plans]
    sets = [[show(heads) for heads in planned.sets] for planned in plans]
    parts = {
        "checkpoint": checkpoints[0].name,
        "step": checkpoints[0].step,
        "checkpoints": [
            {"checkpoint": checkpoint.name, "step": checkpoint.step, "heads": names}
            for checkpoint, names in zip(checkpoints, sets, strict=True)
        ],
        "n_seeds": len(independent_seeds(checkpoints)),
        "n_unknown_seeds": len(unknown_seeds(checkpoints)),
        "seed": request.seed,
        "prompts": request.prompts,
        "null_prompts": min(request.n_null_prompts or request.prompts, request.prompts),
        "controls": request.n_controls,
        "design": request.design,
        "site": request.site,
        "at": request.tokens,
        "selection_stream": "selection",
        "test_stream": "test",
        "heads": sets[0],
        "results": [
            {"checkpoint": result.checkpoint} | row for result in results.each for row in output.records(result.table)
        ],
    }
    if ablations:
        parts["spot_check"] = max(result.spot_check for result in ablations)
        parts["joint"] = [
            {"checkpoint": result.checkpoint} | row for result in ablations for row in output.records(result.joint)
        ]
        parts["failed"] = [
            {"checkpoint": result.checkpoint, "heads": heads, "reason": reason}
            for result in ablations
            for heads, reason in result.failed.items()
        ]
    if request.design == "cumulative":
        areas = [result.area for result in results.each if isinstance(result, CumulativeAblation)]
        parts["area"] = [row for area in areas for row in output.records(area)]
    if results.pooled is not None:
        parts["pooled"] = output.records(results.pooled)
    return parts
