"""The commands of the interp package: eval, score, ablate. Heavy imports wait until a command runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from training import options
from training.commands import check_classes, check_device
from training.errors import one_of
from training.names import BASELINE_NAMES, SHIFT_NAMES

if TYPE_CHECKING:
    import pandas as pd

    from interp.ablation import Ablation
    from interp.scores import HeadScores
    from training.checkpoint import Checkpoint

VERDICTS = 3  # sets; beyond that a table is easier to read than sentences


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
    ckpt: options.Ckpt,
    kind: Annotated[
        str,
        typer.Option("--score", help="retrospective (all pairs) or paper (the published six-pair number)."),
    ] = "retrospective",
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Score every head by how much y_i attends to its own x_i.

    \b
    Example:
      interp score --ckpt zoo:mixed-0 --out results
    """
    from interp.scores import score as score_heads
    from interp.scores import score_kind
    from training import output
    from training.checkpoint import load

    score_kind(kind)  # refuses an unknown one before anything is computed
    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    if out:
        output.prepare_directory(out)
    scores = score_heads(checkpoint, names, kind=kind, n_prompts=prompts, seed=seed)
    if out:
        from interp.plots import plot_scores, save_figure

        output.write_table(scores.table(), out / "scores.csv")
        save_figure(plot_scores(scores), out / "scores.png")
    if json:
        about = {"checkpoint": ckpt, "step": checkpoint.step, "seed": seed, "prompts": prompts, "score": kind}
        output.print_json(about | {"chance": scores.chance, "scores": scores.values})
        return
    print_scores(scores, f"{ckpt}, step {checkpoint.step}", f"{prompts} prompts, seed {seed}")


def print_scores(scores: "HeadScores", title: str, caption: str) -> None:
    """The eight heads with the highest mean score."""
    from interp.heads import all_heads
    from training.output import interval, print_table

    names = list(scores.values)
    mean = scores.mean(names)
    ranked = sorted(all_heads(*mean.shape), key=lambda head: -mean[head])[:8]
    rows = []
    for head in ranked:
        cells = (interval(scores.values[n][head], scores.ci_low[n][head], scores.ci_high[n][head]) for n in names)
        rows.append([str(head), *cells])
    about = f"{title}: {scores.kind.name} score ({scores.kind.definition})"
    print_table(about, ["head", *names], rows, f"chance {scores.chance:.3f}; the {len(rows)} highest; {caption}")


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
