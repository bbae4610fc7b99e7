"""The commands of the training package: train, zoo. Heavy imports wait until a command runs."""

from pathlib import Path
from typing import Annotated

import typer

from training import options
from training.errors import UserError


def train(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's directory.")],
    curriculum: Annotated[
        str, typer.Option("--curriculum", help="mixed, sequential, random, or single:CLASS.")
    ] = "mixed",
    preset: Annotated[str, typer.Option("--preset", help="tiny, small or paper.")] = "tiny",
    seed: options.Seed = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace one value of the preset; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last save, if it has one.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the run that is already there.")] = False,
    device: options.Device = "cpu",
) -> None:
    """Train one model under a curriculum of function classes.

    The seed gives initialisation, data and task choice a stream each, different ones for every curriculum.

    \b
    Examples:
      interp train --preset tiny --curriculum mixed --seed 0 --out runs/mixed-0
      interp train --curriculum single:linear --set recipe.lr=1e-3 --out runs/linear-0
    """
    from training import rundir
    from training.checkpoint import delete_run
    from training.output import prepare_directory
    from training.settings import from_preset
    from training.trainer import train as train_run

    config, device = from_preset(preset, curriculum, seed, settings or []), check_device(device)
    rundir.check(config, out, resume=resume, force=force)
    if rundir.is_finished(config, out) and resume:
        typer.echo(f"{out} is finished: {config.recipe.steps} steps", err=True)
        return
    prepare_directory(out)
    if force and not resume:
        delete_run(out)
    started_at = train_run(config, out, device=device, resume=resume)
    resumed = f", resumed at step {started_at}" if started_at else ""
    typer.echo(f"trained {curriculum} for {config.recipe.steps} steps{resumed}: {out}", err=True)


zoo = typer.Typer(help="The trained checkpoints that ship with the package.", no_args_is_help=True)


@zoo.command("list")
def zoo_list(json: options.Json = False) -> None:
    """List the shipped checkpoints with their final errors.

    \b
    Example:
      interp zoo list
    """
    from training import output
    from training.checkpoint import read_config, read_history, zoo_names, zoo_path

    entries = []
    for name in zoo_names():
        config, history = read_config(zoo_path(name)), read_history(zoo_path(name))
        final = {row["function_class"]: row["nmse_last"] for row in history if row["step"] == config.recipe.steps}
        entries.append({"name": name, "curriculum": config.curriculum, "steps": config.recipe.steps, "nmse": final})
    if json:
        output.print_json({"zoo": entries})
        return
    header = ["name", "curriculum", "steps", "error at the last point (NMSE)"]
    rows = [
        [
            f"zoo:{e['name']}",
            e["curriculum"],
            str(e["steps"]),
            ", ".join(f"{k} {v:.3f}" for k, v in e["nmse"].items()),
        ]
        for e in entries
    ]
    caption = "on each run's own few held-out prompts, so noisy where y is heavy-tailed; `interp eval` has intervals"
    output.print_table("shipped checkpoints", header, rows, caption)


@zoo.command("path")
def zoo_where(name: Annotated[str, typer.Argument(help="As in `interp zoo list`, without zoo:.")]) -> None:
    """Print the directory of a shipped checkpoint.

    \b
    Example:
      interp zoo path mixed-0
    """
    from training.checkpoint import zoo_path

    typer.echo(zoo_path(name))


def check_classes(classes: str | None, default: tuple[str, ...]) -> list[str]:
    """The function classes named on the command line, or the default ones.

    Raises:
        UserError: unknown or repeated class.
    """
    from training.function_classes import function_class

    names = list(default) if classes is None else [name.strip() for name in classes.split(",")]
    if len(set(names)) < len(names):
        raise UserError(f"--classes {classes}: a class is named twice")
    return [function_class(name).name for name in names]


def check_device(device: str) -> str:
    """The device, if this machine has it.

    Raises:
        UserError: it has not, or there is no such device.
    """
    import torch

    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device not in available:
        raise UserError(f"--device {device}: not available here (valid: {', '.join(available)})")
    return device
