"""The commands of the interp package: eval, score, ablate. Heavy imports wait until a command runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from training import options
from training.commands import check_classes, check_device
from training.errors import one_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.ablation import Ablation
    from interp.scores import HeadScores

VERDICTS = 3  # sets; beyond that a table is easier to read than sentences


def evaluate(
    ckpt: options.Ckpt,
    classes: options.Classes = None,
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
    Example:
      interp eval --ckpt zoo:mixed-0 --classes linear,quadratic --prompts 2048
    """
    from training import output
    from training.checkpoint import load
    from training.evaluate import error_curves

    if units not in ("nmse", "paper"):
        raise one_of("units", units, ("nmse", "paper"))
    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    if out:
        output.prepare_directory(out)
    curves = error_curves(checkpoint, names, n_prompts=prompts, seed=seed, units=units)
    if out:
        from interp.plots import plot_error_curves, save_figure

        output.write_table(curves, out / "error_curves.csv")
        save_figure(plot_error_curves(curves), out / "error_curves.png")
    if json:
        document = {"checkpoint": ckpt, "step": checkpoint.step, "seed": seed, "prompts": prompts}
        output.print_json(document | {"curves": output.records(curves)})
        return
    print_curves(curves, f"{ckpt}, step {checkpoint.step}", f"{prompts} prompts, seed {seed}")


def print_curves(curves: "pd.DataFrame", title: str, caption: str) -> None:
    """Every class and predictor at five numbers of examples, with the interval at the last."""
    from training.output import number, print_table, records

    points = records(curves)
    last = max(point["examples"] for point in points)
    shown = sorted({round(share * last) for share in (0, 0.25, 0.5, 0.75, 1)})
    rows: dict[str, list[str]] = {}
    for point in points:
        cells = rows.setdefault(f"{point['function_class']}, {point['predictor']}", [])
        if point["examples"] in shown:
            cells.append(number(point["error"]))
        if point["examples"] == last:
            cells.append(f"[{number(point['ci_low'])}, {number(point['ci_high'])}]")
    unit = {"nmse": "MSE / E[y²]", "paper": "MSE / n_dims, the paper's unit"}[points[0]["units"]]
    header = ["class, predictor", *(f"k = {k}" for k in shown), f"95 % at k = {last}"]
    table = [[name, *cells] for name, cells in rows.items()]
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
