"""The commands of the training package. Heavy imports wait until a command runs."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from training import options
from training.common.devices import check_device
from training.common.errors import UserError
from training.common.terminal import echo
from training.names import CLASS_NAMES, INPUT_NAMES

if TYPE_CHECKING:
    from training.checkpoints.checkpoint import Checkpoint
    from training.checkpoints.provenance import Provenance
    from training.config.config import RunConfig
    from training.processes.processes import Processes
    from training.processes.run_sets import Job

Result = TypeVar("Result")


def print_keys(is_requested: bool) -> bool:
    """Print the settings of a run, and exit."""
    if is_requested:
        from training.common import output
        from training.config.parse import preset_names
        from training.config.setting_table import list_settings

        presets = " / ".join(preset_names())
        rows = [[setting.key, setting.values, setting.meaning] for setting in list_settings()]
        caption = f"value: in the presets {presets}, once where they agree; --recipe replaces some of them"
        output.print_table(
            "settings of a run, for --set KEY=VALUE", ["key", "value", "meaning"], rows, caption, align="left"
        )
        raise typer.Exit
    return is_requested


def train(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory of the run, or of all runs of a set.")],
    curriculum: Annotated[
        str,
        typer.Option(
            "--curriculum",
            metavar="NAME,NAME",
            help="mixed, sequential, random, custom or single:CLASS; several make a set of runs.",
        ),
    ] = "mixed",
    preset: Annotated[str, typer.Option("--preset", help="tiny, small or paper.")] = "tiny",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Initialisation and optimiser: fast (Muon) or authors (those of arXiv 2404.03558). Default: set by "
            "the preset. With --preset small, fast also shortens training.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", parser=options.whole_number(0), help="Seed of all random draws (default: 0)."
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="0-4", help="Train a set: OUT/mixed-0 … OUT/mixed-4.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            parser=options.whole_number(1),
            help="Runs of a set at a time (default: cores divided by recipe.threads).",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace one value of the preset (--keys lists them); may be repeated."
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="CKPT",
            help="Begin with the weights of this checkpoint: DIR, DIR@STEP or zoo:NAME. The model has to be the same. "
            "As --set init.source=CKPT; the next three are init.keep_heads, init.reset_heads and init.only.",
        ),
    ] = None,
    keep_heads: Annotated[
        str | None,
        typer.Option("--keep-heads", metavar="HEADS", help="Of --init-from copy these heads alone: 0.1,1.2."),
    ] = None,
    reset_heads: Annotated[
        str | None,
        typer.Option("--reset-heads", metavar="HEADS", help="Of --init-from copy everything but these heads."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="PARTS",
            help="Of --init-from copy these parts alone, and the heads of --keep-heads: embed, pos_embed, unembed, "
            "ln_final, blocks.L (a layer), or its blocks.L.ln1, .attn, .ln2 and .mlp.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last save, if there is one.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the run that is already there.")] = False,
    keys: Annotated[  # noqa: ARG001 - its callback prints them
        bool,
        typer.Option("--keys", help="List the keys of --set and exit.", callback=print_keys, is_eager=True),
    ] = False,
    device: options.Device = "cpu",
) -> None:
    from training.config.parse import check_settings, from_preset

    chosen = {"source": init_from, "keep_heads": keep_heads, "reset_heads": reset_heads, "only": only}
    settings = [*(settings or []), *(f"init.{name}={text}" for name, text in chosen.items() if text is not None)]
    check_settings(settings)
    device = check_device(device)
    curricula = options.split_names("--curriculum", curriculum)
    if seed is not None and seeds is not None:
        raise UserError("--seed and --seeds exclude each other: name the seeds of a set with --seeds alone")
    if seeds is None and len(curricula) == 1:
        if jobs is not None:
            raise UserError("--jobs applies to a set of runs only (--seeds, or several curricula)")
        config = from_preset(preset, curriculum, seed or 0, settings, recipe)
        train_one(config, out, device, resume=resume, force=force)
        return
    from training.processes.run_sets import Job, parse_seeds, run_name, workers_here

    flags = [word for word, given in (("--resume", resume), ("--force", force)) if given]
    flags += ["--recipe", recipe] if recipe else []
    common = ["--preset", preset, "--device", device, *flags, *(f"--set={setting}" for setting in settings)]
    runs = [
        Job(
            from_preset(preset, name, number, settings, recipe),
            out / run_name(name, number),
            ("--curriculum", name, "--seed", str(number), *common),
            on_gpu=device == "cuda",
        )
        for name in curricula
        for number in (parse_seeds(seeds) if seeds is not None else [seed or 0])
    ]
    threads = runs[0].config.recipe.threads
    train_set(runs, workers_here({device}, threads, jobs), resume=resume, force=force)


train.__doc__ = f"""Train one model, or a set of them, under a curriculum of function classes.

    Initialisation, data and task choice each have their own random stream, derived from the seed and the curriculum.

    \b
    Examples:
      interp train --preset tiny --curriculum mixed --seed 0 --out runs/mixed-0
      interp train --curriculum single:linear --set recipe.lr=1e-3 --out runs/linear-0
      interp train --recipe fast --curriculum mixed,random --seeds 0-4 --out runs
      interp train --curriculum single:cubic --init-from zoo:mixed-0 --reset-heads 0.1 --out runs/cubic
      interp train --set clamping.action=clamp --set clamping.heads=0.1 --set clamping.until=500 --out runs/clamped
      interp train --set data.classes=linear,sinusoid:2 --set data.inputs=gaussian,student_t:4 --out runs/two

    Function classes (`interp classes` describes them): {", ".join(CLASS_NAMES)}.

    Input distributions: {", ".join(INPUT_NAMES)}.
    """


def train_one(config: "RunConfig", out: Path, device: str, *, resume: bool, force: bool) -> None:
    """Train a run in this process."""
    from training.checkpoints import run_directory as rundir
    from training.checkpoints.checkpoint import delete_run
    from training.checkpoints.source_weights import with_recorded_source
    from training.common.output import prepare_directory
    from training.loop.trainer import train as train_run

    config = with_recorded_source(config, out, resume=resume)
    rundir.check(config, out, resume=resume, force=force)
    if resume and rundir.is_finished(config, out):
        echo(f"{out} is finished: {config.recipe.steps} steps", err=True)
        return
    prepare_directory(out)
    if force and not resume:
        with rundir.locked(out):
            delete_run(out)
    started_at = train_run(config, out, device=device, resume=resume)
    resumed = f", resumed at step {started_at}" if started_at else ""
    echo(f"trained {config.curriculum} for {config.recipe.steps} steps{resumed}: {out}", err=True)
    print_next_commands(str(out), "retrospective")


def train_set(runs: "list[Job]", workers: "Processes", *, resume: bool, force: bool) -> None:
    """Several runs, each in a process of its own; every directory is checked before the first one starts.

    Raises:
        CheckError: some of them failed.
    """
    from training.checkpoints import run_directory as rundir
    from training.checkpoints.source_weights import with_recorded_source
    from training.common.errors import CheckError
    from training.common.output import prepare_directory
    from training.processes.run_sets import train_many

    for run in runs:
        config = with_recorded_source(run.config, run.directory, resume=resume)
        rundir.check(config, run.directory, resume=resume, force=force)
        prepare_directory(run.directory.parent)
    failed = train_many(runs, workers)
    if failed:
        words = "; ".join(f"{name}: {message}" for name, message in failed.items())
        raise CheckError(f"{len(failed)} of {len(runs)} runs failed: {words}")
    echo(f"trained {len(runs)} runs, {workers.n_at_once} at a time: {runs[0].directory.parent}", err=True)
    print_next_commands(f"{runs[0].directory.parent}/*", "cause")


def print_next_commands(ckpt: str, study: str) -> None:
    """Name two commands that open what was trained."""
    ckpt = shlex.quote(ckpt)
    echo(f"next: interp history --ckpt {ckpt} or interp study {study} --ckpt {ckpt} --out results", err=True)


def held_out_error(n_prompts: set[int]) -> str:
    """What the error is that a run keeps in its history.

    >>> held_out_error({256})[:54]
    'NMSE: MSE / E[y²], mean over the last quarter of the p'
    """
    counts = " or ".join(map(str, sorted(n_prompts)))
    return (
        "NMSE: MSE / E[y²], mean over the last quarter of the points, at the last evaluation in training, on the "
        f"{counts} prompts per class that the run held out (its own seed)"
    )


def classes(json: options.Json = False) -> None:
    """Describe the function classes, input distributions and shifts that a run or an evaluation can name.

    \b
    Example:
      interp classes
    """
    from training.common import output
    from training.tasks.function_classes import FAMILIES
    from training.tasks.inputs import INPUTS
    from training.tasks.registry import describe
    from training.tasks.shifts import SHIFTS

    kinds = {"function class": FAMILIES, "input distribution": INPUTS, "shift": SHIFTS}
    entries = [
        {"kind": kind, "name": name, "parameter": parameter, "definition": definition}
        for kind, families in kinds.items()
        for name, parameter, definition in describe(families)
    ]
    if json:
        output.print_json({"names": entries})
        return
    rows = [[f"{e['name']}{e['parameter']}", e["kind"], e["definition"]] for e in entries]
    output.print_table("NAME or NAME:PARAMETER", ["name", "kind", "definition"], rows, align="left")


def upgrade(
    ckpt: Annotated[Path, typer.Option("--ckpt", metavar="DIR", help="A run directory of an older format version.")],
) -> None:
    """Convert a finished run of an older format version, in place.

    \b
    Example:
      interp upgrade --ckpt runs/mixed-0
    """
    from training.checkpoints.upgrade import upgrade_run

    before, after = upgrade_run(ckpt)
    echo(f"{ckpt}: format version {before} is now {after}", err=True)


zoo = typer.Typer(help="The trained checkpoints that ship with the package.", no_args_is_help=True)


@zoo.command("list")
def zoo_list(json: options.Json = False) -> None:
    """List the shipped checkpoints with their final errors, and the planted ones with what is known of their heads.

    \b
    Example:
      interp zoo list
    """
    from training.checkpoints.checkpoint import read_config, read_history, zoo_names, zoo_path, zoo_truth
    from training.common import output

    entries = []
    for name in zoo_names():
        config, history = read_config(zoo_path(name)), read_history(zoo_path(name))
        steps = history[-1]["step"]
        final = {row["function_class"]: row["nmse_tail"] for row in history if row["step"] == steps}
        entry = {"name": name, "curriculum": config.curriculum, "steps": steps, "nmse": final}
        entries.append(entry | {"prompts": config.record.eval_prompts, "truth": zoo_truth(name)})
    if json:
        output.print_json({"zoo": entries})
        return
    class_names = list(dict.fromkeys(name for entry in entries for name in entry["nmse"]))
    rows = [
        [
            f"zoo:{entry['name']}",
            "planted" if entry["truth"] else entry["curriculum"],
            str(entry["steps"]),
            *(output.number(entry["nmse"].get(name)) for name in class_names),
        ]
        for entry in entries
    ]
    caption = (
        f"columns of classes: {held_out_error({entry['prompts'] for entry in entries})}, as in `interp history`: noisy "
        "where y is heavy-tailed; `interp eval` has intervals"
    )
    meanings = {"curriculum": "the function classes and their order in training", "steps": "of training"}
    header = ["name", "curriculum", "steps", *class_names]
    output.print_table("shipped checkpoints", header, rows, caption, meanings, ["steps"])
    echo("")
    output.print_text("Planted models were written by hand, so that their circuits are known:")
    for entry in entries:
        if entry["truth"]:
            output.print_text(f"zoo:{entry['name']}: {entry['truth']}", bullet="- ")


@zoo.command("path")
def zoo_where(name: Annotated[str, typer.Argument(help="As in `interp zoo list`, without zoo:.")]) -> None:
    """Print the directory of a shipped checkpoint.

    \b
    Example:
      interp zoo path mixed-0
    """
    from training.checkpoints.checkpoint import zoo_path

    echo(zoo_path(name))


def run_command(
    compute: Callable[[], Result],
    *,
    write: Callable[[Result, Path], None],
    document: Callable[[Result], dict[str, Any]],
    show: Callable[[Result], None],
    provenance: "Provenance",
    verdict: Callable[[Result], Sequence[str]] = lambda _: (),
    json: bool,
    out: Path | None,
) -> Result:
    """Compute the result of a command, write its files with `run.json`, and print it as text or as one JSON document.

    Args:
        compute: called when `out` is known to be writable.
        write: writes the files into a directory.
        document: what `--json` prints, beside `run`.
        show: prints the result as text.
        provenance: checkpoints, seed and prompts, for `run`.
        verdict: its sentences, for `run`.
        json: whether to print JSON instead of text.
        out: the directory of the files; None writes none.

    Raises:
        UserError: the directory cannot be written.
    """
    from training.checkpoints.provenance import write as write_run
    from training.common import output

    if out:
        output.prepare_directory(out)
    result = compute()
    run = provenance.document(verdict(result)) if json or out else {}
    if out:
        write(result, out)
        write_run(run, out)
    if json:
        output.print_json(document(result) | {"run": run})
    else:
        show(result)
    if out:
        echo(f"wrote {out}/", err=True)
    return result


def open_data(
    checkpoints: "Sequence[Checkpoint]", data: Path | None, classes: str | None, n_prompts: int, *, is_split: bool
) -> "tuple[list[Checkpoint], int]":
    """The checkpoints on the prompts in the file of `--data`, and how many of them are tested on.

    Args:
        checkpoints: loaded runs.
        data: the file; None: prompts are drawn.
        classes: what `--classes` says.
        n_prompts: what `--prompts` says.
        is_split: whether a half is kept for what must not be tested on.

    Raises:
        UserError: the file cannot be read or does not fit, or `--classes` is given too.
    """
    if data is None:
        return list(checkpoints), n_prompts
    if classes is not None:
        raise UserError(f"--data {data} and --classes {classes}: give one of the two")
    from training.evaluation.own_files import read_prompts
    from training.evaluation.own_run import open_own

    own = read_prompts(data)
    opened = [open_own(checkpoint, own, None, n_prompts, is_split=is_split) for checkpoint in checkpoints]
    return [checkpoint for checkpoint, _ in opened], min(n for _, n in opened)


def check_classes(classes: str | None, default: tuple[str, ...]) -> list[str]:
    """The function classes named on the command line, or the default ones.

    Raises:
        UserError: unknown or repeated class.
    """
    from training.tasks.function_classes import choose_classes

    return choose_classes(classes, default)
