"""`interp eval`. Heavy imports wait until the command runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from training import options
from training.commands import check_classes, check_device
from training.common.errors import one_of
from training.names import BASELINE_NAMES, SHIFT_NAMES

if TYPE_CHECKING:
    import pandas as pd

    from training.checkpoints.checkpoint import Checkpoint


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
