"""The commands of the interp package: eval, score, ablate. Heavy imports wait until a command runs."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from interp.names import DESIGN_NAMES, MODE_NAMES, SCORE_DEFINITIONS, WEIGHTING_DEFINITIONS, WEIGHTING_NAMES
from training import options
from training.commands import check_classes, check_device
from training.common.errors import UserError, one_of
from training.names import BASELINE_NAMES, SHIFT_NAMES

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from interp.scores.score import HeadScores
    from training.checkpoints.checkpoint import Checkpoint


def listed(definitions: dict[str, str]) -> str:
    """Names with their definitions, a line each, as a help page shows them."""
    return "\b\n" + "\n".join(f"      {name}: {definition}" for name, definition in definitions.items())


def evaluate(
    ckpt: options.Ckpts,
    classes: options.Classes = None,
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="NAME,NAME", help="Input distributions (default: those of the run)."),
    ] = None,
    shift: Annotated[
        str,
        typer.Option("--shift", metavar="NAME[:X]", help=f"A change of the data: {', '.join(SHIFT_NAMES)}."),
    ] = "none",
    baselines: Annotated[
        str,
        typer.Option(
            "--baselines",
            metavar="NAME,NAME",
            help=f"Predictors beside the model: {', '.join(BASELINE_NAMES)}; or none.",
        ),
    ] = "least_squares,ridge",
    own: Annotated[
        bool, typer.Option("--own/--no-own", help="Each class's own baseline, too (quadratic and cubic: a minute).")
    ] = True,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    units: Annotated[
        str, typer.Option("--units", help="nmse (MSE / E[y²], zero predictor = 1) or paper (MSE / n_dims).")
    ] = "nmse",
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Measure the error by number of in-context examples, beside the predictors that give it meaning.

    \b
    Examples:
      interp eval --ckpt zoo:mixed-0 --classes linear,quadratic --prompts 2048
      interp eval --ckpt zoo:mixed-0 --ckpt zoo:linear-0 --classes linear --shift scale_x:2 --out results
    """
    import pandas as pd

    from training.checkpoints.name_patterns import load_all
    from training.common import output
    from training.evaluation.evaluate import error_curves
    from training.tasks.baselines import baseline
    from training.tasks.inputs import input_distribution
    from training.tasks.shifts import check_shift

    if units not in ("nmse", "paper"):
        raise one_of("units", units, ("nmse", "paper"))
    chosen = [] if baselines == "none" else [name.strip() for name in baselines.split(",")]
    for name in chosen:
        baseline(name)
    sources = None if inputs is None else [name.strip() for name in inputs.split(",")]
    for source in sources or []:
        input_distribution(source)
    checkpoints = load_all(ckpt, check_device(device))
    names = [check_classes(classes, checkpoint.config.evaluated_classes) for checkpoint in checkpoints]
    for name in {name for of_checkpoint in names for name in of_checkpoint}:
        check_shift(shift, name)
    if out:
        output.prepare_directory(out)
    common = {"n_prompts": prompts, "seed": seed, "units": units, "inputs": sources, "shift": shift, "own": own}
    tables = [
        error_curves(checkpoint, of_checkpoint, **common, baselines=chosen)
        for checkpoint, of_checkpoint in zip(checkpoints, names, strict=True)
    ]
    curves = pd.concat(tables, ignore_index=True)
    if out:
        from interp.display.axes import save_figure
        from interp.display.error_curves import plot_error_curves

        output.write_table(curves, out / "error_curves.csv")
        save_figure(plot_error_curves(curves), out / "error_curves.png")
    if json:
        about = [{"checkpoint": one.name, "step": one.step} for one in checkpoints]
        document = {"checkpoints": about, "seed": seed, "prompts": prompts, "shift": shift}
        output.print_json(document | {"curves": output.records(curves)})
        return
    shifted = "" if shift == "none" else f", shift {shift}"
    titles = ", ".join(f"{one.name}, step {one.step}" for one in checkpoints)
    print_curves(curves, titles + shifted, f"{prompts} prompts, seed {seed}{heavy_tails(checkpoints, curves)}")


def heavy_tails(checkpoints: "list[Checkpoint]", curves: "pd.DataFrame") -> str:
    """A warning where E[y²] does not exist."""
    arms = curves[["function_class", "inputs"]].drop_duplicates().itertuples(index=False)
    robust = [
        f"{name} on {inputs}" for name, inputs in arms if checkpoints[0].config.scale(name, inputs).how == "robust"
    ]
    if not robust:
        return ""
    return f"; E[y²] is infinite for {', '.join(robust)}: the unit is a robust scale, means wander with the sample"


def print_curves(curves: "pd.DataFrame", title: str, caption: str) -> None:
    """Every class and predictor at five numbers of examples, with the interval at the last."""
    from training.common.output import number, print_table, records

    several = [name for name in ("inputs", "checkpoint") if len({*curves[name]}) > 1]
    last = max(curves["examples"].tolist())
    shown = sorted({round(share * last) for share in (0, 0.25, 0.5, 0.75, 1)} & {*curves["examples"]})
    last = shown[-1]
    rows: dict[str, dict[int, str]] = {}
    for point in records(curves):
        who = [point["function_class"], *(point[column] for column in several), point["predictor"]]
        cells = rows.setdefault(", ".join(who), {})
        if point["examples"] in shown:
            cells[point["examples"]] = number(point["error"])
        if point["examples"] == last:
            cells[last + 1] = f"[{number(point['ci_low'])}, {number(point['ci_high'])}]"
    unit = {"nmse": "MSE / E[y²]", "paper": "MSE / n_dims, the paper's unit"}[curves["units"].iloc[0]]
    header = [", ".join(["class", *several, "predictor"]), *(f"k = {k}" for k in shown), f"95 % at k = {last}"]
    table = [[name, *(cells.get(k, "-") for k in [*shown, last + 1])] for name, cells in rows.items()]
    print_table(f"{title}: error ({unit}) after k in-context examples", header, table, caption)


def score(
    ckpt: options.Ckpts,
    scores: Annotated[
        str,
        typer.Option("--score", metavar="NAME,NAME|all", help="What heads are scored by, see below."),
    ] = "retrospective",
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help=f"{', '.join(WEIGHTING_NAMES)}: how a key counts, see below.")
    ] = "pattern",
    classes: options.Classes = None,
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="NAME,NAME", help="Input distributions (default: the run's first)."),
    ] = None,
    shift: Annotated[
        str,
        typer.Option("--shift", metavar="NAME[:X],…", help="Changes of the whole prompt (`interp classes`)."),
    ] = "none",
    points: Annotated[
        str | None,
        typer.Option("--points", metavar="A-B,A-B", help="Pairs, from 0, whose tokens look (default: all of them)."),
    ] = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    top: Annotated[int, typer.Option("--top", metavar="N", parser=options.whole_number(1), help="Heads to print.")] = 8,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    from interp.model.positions import parse_points
    from interp.scores.score import check_scores, measures_of, score_all
    from interp.scores.weightings import weighting
    from training.checkpoints.name_patterns import load_all
    from training.common import output

    weighting(by)
    ranges = None if points is None else parse_points(points)
    measures = measures_of(options.split_names("--score", scores), ranges)
    sources = [None] if inputs is None else options.split_names("--inputs", inputs)
    settings = [(source, change) for source in sources for change in options.split_names("--shift", shift)]
    checkpoints = load_all(ckpt, check_device(device))
    names = [check_classes(classes, checkpoint.config.evaluated_classes) for checkpoint in checkpoints]
    for checkpoint, of_checkpoint in zip(checkpoints, names, strict=True):
        for source, change in settings:
            check_scores(checkpoint.config, of_checkpoint, measures, by=by, inputs=source, shift=change)
    if out:
        output.prepare_directory(out)
    results = [
        result
        for checkpoint, of_checkpoint in zip(checkpoints, names, strict=True)
        for source, change in settings
        for result in score_all(
            checkpoint,
            of_checkpoint,
            measures=measures,
            by=by,
            inputs=source,
            shift=change,
            n_prompts=prompts,
            seed=seed,
        )
    ]
    if out:
        write_scores(results, out)
    if json:
        print_score_json(results, {"seed": seed, "prompts": prompts})
        return
    from interp.scores.tables import score_tables

    asked = [("inputs", inputs), ("shift", None if shift == "none" else shift), ("pairs", points)]
    about = [f"{what} {given}" for what, given in asked if given and "," not in given]
    for table in score_tables(results, "; ".join([*about, f"{prompts} prompts, seed {seed}"]), top):
        output.print_table(*table)


score.__doc__ = f"""Score every head by where it looks: at its own x (retrospective), at earlier pairs, at itself, ...

    Heads are ranked by their mean over the columns, beside the value under uniform attention (chance) and with 95 %
    intervals over prompts. Several checkpoints are compared in one more table.

    \b
    Examples:
      interp score --ckpt zoo:mixed-0 --out results
      interp score --ckpt zoo:mixed-0 --score all --classes linear --by value
      interp score --ckpt zoo:mixed-0 --ckpt zoo:linear-0 --score lookup --points 1-7,8-15 --shift none,scale_x:2

    Scores:

    {listed(SCORE_DEFINITIONS)}
      all: every one of them; with --points without paper, which has a range of its own

    Weightings (--by):

    {listed(WEIGHTING_DEFINITIONS)}
    """


def write_scores(results: "list[HeadScores]", out: "Path") -> None:
    """All rows and one figure."""
    import pandas as pd

    from interp.display.axes import save_figure
    from interp.scores.figures import plot_scores
    from training.common import output

    output.write_table(pd.concat([one.table for one in results], ignore_index=True), out / "scores.csv")
    save_figure(plot_scores(*results), out / "scores.png")


def print_score_json(results: "list[HeadScores]", drawn: dict[str, int]) -> None:
    """All rows under `results`; at the top the first checkpoint, score and setting as `[layer][head]` by class."""
    from training.common import output

    first = results[0]
    rows = [row for one in results for row in output.records(one.table)]
    setting = {key: rows[0][key] for key in ("checkpoint", "step", "score", "by", "inputs", "shift", "points")}
    output.print_json(setting | drawn | {"chance": first.chance, "scores": first.values, "results": rows})


def ablate(
    ckpt: options.Ckpts,
    heads: Annotated[
        str,
        typer.Option(
            "--heads",
            metavar="HEADS",
            help="0.3,1.2 | 0.mlp | top:K | above:SCORE | layer:L | all | each | layers | mlps.",
        ),
    ],
    design: Annotated[
        str,
        typer.Option("--design", metavar="NAME", help="remove the set | keep only the set | cumulative | pairs."),
    ] = "remove",
    mode: Annotated[
        str,
        typer.Option("--mode", metavar="NAME,NAME", help=f"What removed components give: {', '.join(MODE_NAMES)}."),
    ] = "zero,mean,resample",
    site: Annotated[
        str, typer.Option("--site", metavar="NAME", help="Of a head: z (its output), pattern (attention) or value.")
    ] = "z",
    at: Annotated[
        str,
        typer.Option("--at", metavar="TOKENS", help="Where to remove: all, x, y, or pairs A-B, x:A-B, y:A-B."),
    ] = "all",
    points: Annotated[
        str | None,
        typer.Option("--points", metavar="A-B,A-B", help="Pairs to measure, counted from 0 (default: last quarter)."),
    ] = None,
    controls: Annotated[
        int | None,
        typer.Option(
            "--controls",
            metavar="N",
            parser=options.whole_number(0),
            help="Random sets per set and matching, all if there are no more (default 200); cumulative: orders (20).",
        ),
    ] = None,
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    null_prompts: Annotated[
        int,
        typer.Option(
            "--null-prompts",
            metavar="N",
            parser=options.whole_number(2),
            help="On how many of the prompts random sets are measured and compared.",
        ),
    ] = options.DEFAULT_NULL_PROMPTS,
    memory: Annotated[float, typer.Option("--memory", metavar="GIB", help="Memory that activations may take.")] = 1.0,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Remove heads and compare the damage with that of random sets.

    top:K and above:SCORE choose by retrospective score (mean over the trained classes) on prompts of their own, in
    every checkpoint for itself; cumulative removes in the order of that score. With --out an interrupted sweep goes on.

    \b
    Examples:
      interp ablate --ckpt zoo:mixed-0 --heads above:0.5
      interp ablate --ckpt zoo:mixed-0 --heads each --mode mean --out effects
      interp ablate --ckpt zoo:mixed-0 --ckpt zoo:random-0 --heads top:1
      interp ablate --ckpt runs/mixed-0@200 --heads all --design cumulative --mode mean,optimal
    """
    from interp.ablation.command import Request, run
    from interp.ablation.modes import mode as intervention

    modes = tuple(options.split_names("--mode", mode))
    for name in modes:
        intervention(name)  # refuses an unknown one before anything is computed
    if design not in DESIGN_NAMES:
        raise one_of("--design", design, DESIGN_NAMES)
    if not 0 < memory < math.inf:
        raise UserError(f"--memory {memory}: a number above 0 is needed")
    run(
        Request(
            ckpts=tuple(ckpt),
            heads=heads,
            design=design,
            modes=modes,
            site=site,
            at=at,
            points=points,
            controls=controls,
            classes=classes,
            prompts=prompts,
            null_prompts=null_prompts,
            memory=int(memory * 2**30),
            seed=seed,
            device=check_device(device),
        ),
        json=json,
        out=out,
    )
