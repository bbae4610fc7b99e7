"""`interp score`. Heavy imports wait until the command runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from interp.names import SCORE_DEFINITIONS, WEIGHTING_DEFINITIONS, WEIGHTING_NAMES
from training import options
from training.commands import check_classes, check_device

if TYPE_CHECKING:
    from pathlib import Path

    from interp.scores.score import HeadScores


def listed(definitions: dict[str, str]) -> str:
    """Names with their definitions, a line each, as a help page shows them."""
    return "\b\n" + "\n".join(f"      {name}: {definition}" for name, definition in definitions.items())


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
