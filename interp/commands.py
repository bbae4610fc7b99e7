"""The commands eval and history. Heavy imports wait until it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training import options
from training.commands import check_classes, open_data, run_command
from training.common.devices import check_device
from training.common.errors import UserError, one_of
from training.common.terminal import readable_name
from training.names import BASELINE_NAMES, SHIFT_NAMES

if TYPE_CHECKING:
    import pandas as pd

    from training.checkpoints.checkpoint import Checkpoint
    from training.common.output import Table


def evaluate(
    ckpt: options.Ckpts,
    classes: options.Classes = None,
    data: options.Data = None,
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="NAME,NAME", help="Input distributions (default: those of the run)."),
    ] = None,
    shift: Annotated[
        str,
        typer.Option("--shift", metavar="NAME[:X]", help=f"Distribution shift: {', '.join(SHIFT_NAMES)}."),
    ] = "none",
    functions: Annotated[
        str | None,
        typer.Option(
            "--functions",
            metavar="pool|fresh",
            help="Prompts with functions of the run's pool (data.n_functions), or fresh ones (default: both, if there "
            "is a pool).",
        ),
    ] = None,
    baselines: Annotated[
        str,
        typer.Option(
            "--baselines",
            metavar="NAME,NAME",
            help=f"Baseline predictors: {', '.join(BASELINE_NAMES)}; or none.",
        ),
    ] = "least_squares,ridge",
    no_class_baseline: Annotated[
        bool,
        typer.Option(
            "--no-class-baseline",
            help="Leave out the baseline of each class (quadratic and cubic: a minute), and those of a pool: dmmse, "
            "the posterior mean over it, and what knows the class and its noise.",
        ),
    ] = False,
    class_baseline: Annotated[bool, typer.Option("--class-baseline", hidden=True)] = False,  # of earlier versions
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    units: Annotated[
        str, typer.Option("--units", help="nmse (MSE / E[y²], so that predicting 0 gives 1) or paper (MSE / n_dims).")
    ] = "nmse",
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Measure the error by number of in-context examples, compared with baseline predictors.

    \b
    Examples:
      interp eval --ckpt zoo:mixed-0 --classes linear,quadratic --prompts 2048
      interp eval --ckpt zoo:mixed-0 --ckpt zoo:linear-0 --classes linear --shift scale_x:2 --out results
    """
    import pandas as pd

    from training.checkpoints.name_patterns import load_all
    from training.checkpoints.provenance import Provenance
    from training.common import output
    from training.evaluation.evaluate import error_curves
    from training.pools import draws_from
    from training.tasks.baselines import baseline
    from training.tasks.inputs import input_distribution
    from training.tasks.shifts import check_shift

    if units not in ("nmse", "paper"):
        raise one_of("units", units, ("nmse", "paper"))
    baseline_names = [] if baselines == "none" else [name.strip() for name in baselines.split(",")]
    for name in baseline_names:
        baseline(name)
    input_names = None if inputs is None else [name.strip() for name in inputs.split(",")]
    for name in input_names or []:
        input_distribution(name)
    checkpoints, prompts = open_data(load_all(ckpt, check_device(device)), data, classes, prompts, is_split=False)
    class_lists = [check_classes(classes, checkpoint.config.evaluated_classes) for checkpoint in checkpoints]
    for function_class in {name for names in class_lists for name in names}:
        check_shift(shift, function_class)
    if functions is not None:
        for checkpoint in checkpoints:
            draws_from(checkpoint.config, functions)
    common = {
        "n_prompts": prompts,
        "seed": seed,
        "units": units,
        "inputs": input_names,
        "shift": shift,
        "functions": functions,
        "class_baseline": class_baseline or not no_class_baseline,
    }

    def compute() -> "pd.DataFrame":
        tables = [
            error_curves(checkpoint, names, **common, baselines=baseline_names)
            for checkpoint, names in zip(checkpoints, class_lists, strict=True)
        ]
        return pd.concat(tables, ignore_index=True)

    def document(curves: "pd.DataFrame") -> dict[str, Any]:
        about = [{"checkpoint": checkpoint.name, "step": checkpoint.step} for checkpoint in checkpoints]
        setting = {"checkpoints": about, "seed": seed, "prompts": prompts, "shift": shift}
        return setting | {"curves": output.records(curves)}

    def show(curves: "pd.DataFrame") -> None:
        titles = ", ".join(f"{checkpoint.name}, step {checkpoint.step}" for checkpoint in checkpoints)
        title = titles if shift == "none" else f"{titles}, shift {shift}"
        warning = heavy_tail_warning(checkpoints, curves)
        caption = f"mean at one point over {prompts} test prompts per class, seed {seed}{warning}"
        output.print_table(*curve_table(curves, title, caption))

    run_command(
        compute,
        write=write_curves,
        document=document,
        show=show,
        provenance=Provenance.of(checkpoints, seed, prompts, data),
        json=json,
        out=out,
    )


def write_curves(curves: "pd.DataFrame", directory: Path) -> None:
    """The table and its figure."""
    from interp.display.axes import save_figure
    from interp.display.error_curves import plot_error_curves
    from training.common.output import write_table

    write_table(curves, directory / "error_curves.csv")
    save_figure(plot_error_curves(curves), directory / "error_curves.png")


def heavy_tail_warning(checkpoints: "list[Checkpoint]", curves: "pd.DataFrame") -> str:
    """A warning if E[y²] does not exist for some class and input distribution; empty otherwise."""
    config = checkpoints[0].config
    combinations = curves[["function_class", "inputs"]].drop_duplicates().itertuples(index=False)
    robust = [
        f"{function_class} on {inputs}"
        for function_class, inputs in combinations
        if config.scale(function_class, inputs).how == "robust"
    ]
    if not robust:
        return ""
    return f"; E[y²] is infinite for {', '.join(robust)}: the unit is a robust scale, and means vary between samples"


def curve_table(curves: "pd.DataFrame", title: str, caption: str) -> "Table":
    """Every class's and predictor's error after five numbers of examples, with its interval after the last."""
    from training.common.output import Table, number, records

    varying = [name for name in ("inputs", "functions", "checkpoint") if len({*curves[name]}) > 1]
    last = max(curves["examples"].tolist())
    columns = sorted({round(share * last) for share in (0, 0.25, 0.5, 0.75, 1)} & {*curves["examples"]})
    row_keys = ["function_class", *varying, "predictor"]
    rows = []
    for _, curve in curves.groupby(row_keys, sort=False):
        points = {row["examples"]: row for row in records(curve)}
        names = [curve[key].iloc[0] for key in row_keys]
        cells = [number(points[k]["error"]) if k in points else "-" for k in columns]
        end = points.get(columns[-1])
        interval = f"[{number(end['ci_low'])}, {number(end['ci_high'])}]" if end else "-"
        rows.append([", ".join(names), *cells, interval])
    unit = {"nmse": "MSE / E[y²]", "paper": "MSE / n_dims, the paper's unit"}[curves["units"].iloc[0]]
    header = [", ".join(["class", *varying, "predictor"]), *(f"k = {k}" for k in columns), f"95 % at k = {columns[-1]}"]
    meanings = {header[-1]: "95 % interval over prompts"}
    middle = [f"k = {k}" for k in columns[1:-1]]
    caption = f"k: number of in-context examples; {caption}"
    return Table(f"{title}: error ({unit}) after k in-context examples", header, rows, caption, meanings, middle)


def history(
    ckpt: options.Ckpts,
    converged_below: Annotated[
        float,
        typer.Option(
            "--converged-below", metavar="F", help="Converged: an error of at most F times the no-context optimum."
        ),
    ] = options.DEFAULT_CONVERGED_BELOW,
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Show when each class of a run converged, with the data, compute and time until then.

    --out also draws the learning curves.

    \b
    Example:
      interp history --ckpt zoo:mixed-0 --ckpt zoo:random-0 --out results
    """
    import pandas as pd

    from training.checkpoints.checkpoint import locate, read_config
    from training.checkpoints.name_patterns import expand
    from training.checkpoints.provenance import Provenance, describe
    from training.common import output
    from training.evaluation.convergence import HELD, convergence, recorded_errors

    if not 0 < converged_below < 1:
        raise UserError(f"--converged-below {converged_below}: must be between 0 and 1")
    located = {name: locate(name) for name in expand(ckpt)}
    configs = {name: read_config(directory) for name, (directory, _) in located.items()}
    n_prompts = {config.record.eval_prompts for config in configs.values()}

    tables = [convergence(directory, converged_below, step=step) for directory, step in located.values()]
    labels = [readable_name(name) for name in located]
    table = pd.concat(tables, keys=labels, names=["checkpoint"]).reset_index("checkpoint")

    def write(table: "pd.DataFrame", target: Path) -> None:
        from interp.display.axes import save_figure
        from interp.display.learning_curves import plot_learning_curves

        errors = {readable_name(name): recorded_errors(*run) for name, run in located.items()}
        output.write_table(table, target / "history.csv")
        save_figure(plot_learning_curves(errors, converged_below), target / "history.png")

    run_command(
        lambda: table,
        write=write,
        document=lambda table: {"fraction": converged_below, "held": HELD, "runs": output.records(table)},
        show=lambda table: output.print_table(*history_table(table, converged_below, n_prompts)),
        provenance=Provenance([describe(readable_name(name), *run, configs[name]) for name, run in located.items()]),
        json=json,
        out=out,
    )


def history_table(table: "pd.DataFrame", converged_below: float, n_prompts: set[int]) -> "Table":
    """Error and convergence of every class.

    Args:
        table: see `training.evaluation.convergence.convergence`, with a column `checkpoint`.
        converged_below: the share of the no-context optimum.
        n_prompts: per class, of the runs' own evaluations.
    """
    from training.commands import held_out_error
    from training.common.output import Table, count, number, records
    from training.evaluation.convergence import HELD

    columns = ("step", "prompts_seen", "prompts_total", "flops", "seconds")
    rows = [
        [
            f"{row['checkpoint']} {row['function_class']}, {row['inputs']}",
            number(row["nmse_tail"]),
            number(row["no_context_tail"]),
            *(count(row[column]) for column in columns),
        ]
        for row in records(table)
    ]
    header = ["run, class, inputs", "NMSE", "no-context", "step", "prompts", "of all classes", "FLOPs", "seconds"]
    caption = (
        f"convergence: an error of at most {converged_below:g} of the no-context optimum for {HELD} evaluations; - if "
        "never reached or not recorded"
    )
    meanings = {
        "NMSE": held_out_error(n_prompts).removeprefix("NMSE: "),
        "no-context": "error of the no-context optimum there",
        "step": "of convergence",
        "prompts": "of the class until then",
        "of all classes": "prompts until then",
        "FLOPs": "operations until then",
        "seconds": "until then",
    }
    least = ["of all classes", "seconds", "no-context"]
    return Table("convergence: step, data, compute and time", header, rows, caption, meanings, least)
