"""`interp score`. Heavy imports wait until the command runs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.model.attached import opens_files
from interp.names import SCORE_DEFINITIONS, WEIGHTING_DEFINITIONS, WEIGHTING_NAMES
from training import options
from training.commands import check_classes, open_data, run_command
from training.common.devices import check_device

if TYPE_CHECKING:
    from pathlib import Path

    from interp.scores.score import HeadScores


def list_definitions(definitions: dict[str, str]) -> str:
    """Names with their definitions, one line each, as a help page shows them."""
    return "\b\n" + "\n".join(f"      {name}: {definition}" for name, definition in definitions.items())


@opens_files("interp.any_model.command:score", "scores", "seed", "top")
def score(
    ckpt: options.AnyCkpts,
    scores: Annotated[
        str,
        typer.Option("--score", metavar="NAME,NAME|all", help="Scores, see below."),
    ] = "retrospective",
    by: Annotated[
        str,
        typer.Option(
            "--weighting", metavar="NAME", help=f"Weighting of keys: {', '.join(WEIGHTING_NAMES)}, see below."
        ),
    ] = "pattern",
    classes: options.Classes = None,
    data: options.Data = None,
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", metavar="NAME,NAME", help="Input distributions (default: the run's first)."),
    ] = None,
    shift: Annotated[
        str,
        typer.Option("--shift", metavar="NAME[:X],…", help="Shifts of the whole prompt (`interp classes`)."),
    ] = "none",
    points: Annotated[
        str | None,
        typer.Option(
            "--points", metavar="A-B,A-B", help="Only count queries in these pairs, numbered from 0 (default: all)."
        ),
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
    from training.checkpoints.provenance import Provenance

    weighting(by)
    ranges = None if points is None else parse_points(points)
    measures = measures_of(options.split_names("--score", scores), ranges)
    sources = [None] if inputs is None else options.split_names("--inputs", inputs)
    settings = [(source, change) for source in sources for change in options.split_names("--shift", shift)]
    checkpoints, prompts = open_data(load_all(ckpt, check_device(device)), data, classes, prompts, is_split=False)
    class_lists = [check_classes(classes, checkpoint.config.evaluated_classes) for checkpoint in checkpoints]
    for checkpoint, names in zip(checkpoints, class_lists, strict=True):
        for source, change in settings:
            check_scores(checkpoint.config, names, measures, by=by, inputs=source, shift=change)

    def compute() -> "list[HeadScores]":
        return [
            result
            for checkpoint, names in zip(checkpoints, class_lists, strict=True)
            for source, change in settings
            for result in score_all(
                checkpoint,
                names,
                measures=measures,
                by=by,
                inputs=source,
                shift=change,
                n_prompts=prompts,
                seed=seed,
            )
        ]

    options_given = {"inputs": inputs, "shift": None if shift == "none" else shift, "pairs": points}
    common = [f"{name} {value}" for name, value in options_given.items() if value and "," not in value]
    run_command(
        compute,
        write=write_scores,
        document=lambda results: document(results, {"seed": seed, "prompts": prompts}),
        show=lambda results: show(results, "; ".join([*common, f"{prompts} prompts, seed {seed}"]), top),
        provenance=Provenance.of(checkpoints, seed, prompts, data),
        json=json,
        out=out,
    )


score.__doc__ = f"""Score every head by what it attends to: its own x (retrospective), earlier pairs, itself, ...

    Heads are ranked by their mean over the function classes, with 95 % intervals over prompts and the value under
    uniform attention (chance). Several checkpoints are compared in a further table.

    \b
    Examples:
      interp score --ckpt zoo:mixed-0 --out results
      interp score --ckpt zoo:mixed-0 --score all --classes linear --weighting value
      interp score --ckpt zoo:mixed-0 --data mine.npz
      interp score --ckpt zoo:mixed-0 --ckpt zoo:linear-0 --score lookup --points 1-7,8-15 --shift none,scale_x:2

    Scores:

    {list_definitions(SCORE_DEFINITIONS)}
      all: all of these (without paper, which has a fixed range, if --points is given)

    Weightings (--weighting):

    {list_definitions(WEIGHTING_DEFINITIONS)}
    """


def write_scores(results: "list[HeadScores]", out: "Path") -> None:
    """One table of all rows, and one figure."""
    import pandas as pd

    from interp.display.axes import save_figure
    from interp.scores.figures import plot_scores
    from training.common import output

    output.write_table(pd.concat([result.table for result in results], ignore_index=True), out / "scores.csv")
    save_figure(plot_scores(*results), out / "scores.png")


def document(results: "list[HeadScores]", prompts: dict[str, int]) -> dict[str, Any]:
    """All rows as `results`; at the top level the first checkpoint, score and setting as `[layer][head]` by class."""
    from training.common import output

    first = results[0]
    rows = [row for result in results for row in output.records(result.table)]
    setting = {key: rows[0][key] for key in ("checkpoint", "step", "score", "by", "inputs", "shift", "points")}
    return setting | prompts | {"chance": first.chance, "scores": first.values, "results": rows}


def show(results: "list[HeadScores]", caption: str, top: int) -> None:
    """Print the tables."""
    from interp.scores.tables import score_tables
    from training.common import output

    for table in score_tables(results, caption, top):
        output.print_table(*table)
