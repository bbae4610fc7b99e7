"""The commands of the interp package: eval, score, ablate. Heavy imports wait until a command runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from interp.names import SCORE_DEFINITIONS, WEIGHTING_DEFINITIONS, WEIGHTING_NAMES
from training import options
from training.commands import check_classes, check_device
from training.errors import UserError, one_of
from training.names import BASELINE_NAMES, SHIFT_NAMES

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from interp.ablation import Ablation
    from interp.scores import HeadScores
    from training.checkpoint import Checkpoint

VERDICTS = 3  # sets; beyond that a table is easier to read than sentences


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
            help=f"Predictors beside each class's own: {', '.join(BASELINE_NAMES)}; or none.",
        ),
    ] = "least_squares,ridge",
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

    from training import output
    from training.baselines import baseline
    from training.checkpoint import load
    from training.evaluate import error_curves
    from training.inputs import input_distribution
    from training.shifts import check_shift

    if units not in ("nmse", "paper"):
        raise one_of("units", units, ("nmse", "paper"))
    chosen = [] if baselines == "none" else [name.strip() for name in baselines.split(",")]
    for name in chosen:
        baseline(name)
    sources = None if inputs is None else [name.strip() for name in inputs.split(",")]
    for source in sources or []:
        input_distribution(source)
    checkpoints = [load(name, check_device(device)) for name in ckpt]
    names = [check_classes(classes, checkpoint.config.evaluated_classes) for checkpoint in checkpoints]
    for name in {name for of_checkpoint in names for name in of_checkpoint}:
        check_shift(shift, name)
    if out:
        output.prepare_directory(out)
    common = {"n_prompts": prompts, "seed": seed, "units": units, "inputs": sources, "shift": shift}
    tables = [
        error_curves(checkpoint, of_checkpoint, **common, baselines=chosen)
        for checkpoint, of_checkpoint in zip(checkpoints, names, strict=True)
    ]
    curves = pd.concat(tables, ignore_index=True)
    if out:
        from interp.plots import plot_error_curves, save_figure

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
    from training.output import number, print_table, records

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
    from interp.score_kinds import parse_points
    from interp.scores import check_scores, measures_of, score_all
    from interp.weightings import weighting
    from training import output
    from training.checkpoint import load

    weighting(by)
    ranges = None if points is None else parse_points(points)
    measures = measures_of(options.split_names("--score", scores), ranges)
    sources = [None] if inputs is None else options.split_names("--inputs", inputs)
    settings = [(source, change) for source in sources for change in options.split_names("--shift", shift)]
    if len(set(ckpt)) < len(ckpt):
        raise UserError(f"--ckpt {max(ckpt, key=ckpt.count)} is named twice")
    checkpoints = [load(name, check_device(device)) for name in ckpt]
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
    from interp.score_tables import print_scores

    asked = [("inputs", inputs), ("shift", None if shift == "none" else shift), ("pairs", points)]
    about = [f"{what} {given}" for what, given in asked if given and "," not in given]
    print_scores(results, "; ".join([*about, f"{prompts} prompts, seed {seed}"]), top)


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

    from interp.plots import plot_scores, save_figure
    from training import output

    output.write_table(pd.concat([one.table() for one in results], ignore_index=True), out / "scores.csv")
    save_figure(plot_scores(*results), out / "scores.png")


def print_score_json(results: "list[HeadScores]", drawn: dict[str, int]) -> None:
    """All rows under `results`; at the top the first checkpoint, score and setting as [layer][head] by class."""
    from training import output

    first = results[0]
    rows = [row for one in results for row in output.records(one.table())]
    setting = {key: rows[0][key] for key in ("checkpoint", "step", "score", "by", "inputs", "shift", "points")}
    output.print_json(setting | drawn | {"chance": first.chance, "scores": first.values, "results": rows})


def ablate(
    ckpt: options.Ckpt,
    heads: Annotated[
        str,
        typer.Option("--heads", metavar="HEADS", help="0.3,1.2 | top:K | above:SCORE | layer:L | all | each."),
    ],
    mode: Annotated[
        str,
        typer.Option("--mode", metavar="NAME,NAME", help="What removed heads write: zero, mean, resample."),
    ] = "zero,mean,resample",
    controls: options.Controls = options.DEFAULT_CONTROLS,
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Remove heads and compare the damage with that of random sets from the same layers.

    top:K and above:SCORE choose by retrospective score (mean over the trained classes) on prompts of their own.

    \b
    Examples:
      interp ablate --ckpt zoo:mixed-0 --heads above:0.5
      interp ablate --ckpt runs/mixed-0@200 --heads 0.3,1.2 --mode mean --controls 50
    """
    from interp.ablation import ablate as ablate_heads
    from interp.heads import parse_heads, show
    from interp.interventions import mode as intervention
    from interp.scores import score as score_heads
    from interp.verdict import verdict
    from training import output
    from training.checkpoint import load

    modes = [name.strip() for name in mode.split(",")]
    for name in modes:
        intervention(name)  # refuses an unknown one before anything is computed
    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    trained = checkpoint.config.trained_classes
    scores = score_heads(checkpoint, trained, n_prompts=prompts, seed=seed, stream="selection").mean(trained)
    sets = parse_heads(heads, *scores.shape, scores=scores.tolist)
    if out:
        output.prepare_directory(out)
    result = ablate_heads(checkpoint, sets, names, modes=modes, n_prompts=prompts, n_controls=controls, seed=seed)
    if out:
        from interp.plots import plot_ablation, save_figure

        result.write(out)
        for one in sets:
            figure = "ablation.png" if len(sets) == 1 else f"ablation_{show(one)}.png"
            save_figure(plot_ablation(result, show(one)), out / figure)
    if json:
        about = {
            "checkpoint": ckpt,
            "step": checkpoint.step,
            "seed": seed,
            "prompts": prompts,
            "controls": controls,
        }
        about |= {
            "selection_stream": "selection",
            "test_stream": "test",
            "heads": [show(one) for one in sets],
        }
        output.print_json(about | {"results": output.records(result.table)})
        return
    lowest = {show(one): min(float(scores[head]) for head in one) for one in sets}
    print_ablation(result, f"{ckpt}, step {checkpoint.step}")
    if len(sets) <= VERDICTS:
        for line in verdict(result.table, lowest):
            typer.echo(line)


def print_ablation(result: "Ablation", title: str) -> None:
    """One row per set, class and mode."""
    from training.output import interval, number, print_table, records

    rows = [
        [
            f"{row['heads']} {row['function_class']} {row['mode']}",
            f"{row['nmse_before']:.3f} -> {row['nmse_after']:.3f}",
            interval(row["effect"], row["ci_low"], row["ci_high"]),
            number(row["control_effect"]),
            f"{row['n_controls']}{' (all)' if row['exact'] else ''}",
            *(number(row[column]) for column in ("p_value", "p_holm", "size_p_value")),
        ]
        for row in records(result.table)
    ]
    header = ["heads, class, mode", "NMSE", "effect", "null", "sets", "p", "p Holm", "p any layer"]
    caption = (
        "effect: share of the way from the intact model to the no-context optimum, last quarter of the points; "
        f"null: mean effect of layer-matched sets; {result.n_prompts} prompts, seed {result.seed}"
    )
    print_table(title, header, rows, caption)
