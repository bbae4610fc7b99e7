"""The commands import and export. Heavy imports wait until a command runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training import options
from training.common.terminal import echo

if TYPE_CHECKING:
    from training.checkpoints.checkpoint import Checkpoint

FORMATS = "garg, looped or hooked"


def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A run directory of another program, or one file with its weights."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The run directory to make.")],
    format: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help=f"{FORMATS} (default: as its configuration says).")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--step", metavar="N", help="The snapshot to take, or all (default: the last state)."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Its configuration, if that does not lie beside its weights."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="data.classes, data.inputs, data.n_points or data.weights, where the source does not state them.",
        ),
    ] = None,
    instructions: Annotated[
        Path | None,
        typer.Option(
            "--instructions",
            metavar="DIR",
            help="Files of its instruction vectors (default: instruction, beside its configuration).",
        ),
    ] = None,
    seed_label: Annotated[
        str,
        typer.Option("--seed-label", metavar="NAME", help="Runs with different labels count as independent seeds."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the run that is already there.")] = False,
    json: options.Json = False,
) -> None:
    """Convert a model that another program has trained into a run directory of `interp`.

    Formats: garg (config.yaml with state.pt or model_STEP.pt, of dtsip/in-context-learning and the programs that kept
    its layout), looped (Leiay/looped_transformer), hooked (a HookedTransformer's state dict with its configuration).
    The network has to have this program's architecture; any setting that differs is listed and the import refused. The
    source's own forward pass is recomputed on random prompts, and the largest relative difference between the two
    programs' predictions is printed and kept in the run.

    Pickles are read with weights_only=True: nothing in them is executed.

    \b
    Examples:
      interp import theirs/8f2c --out runs/theirs
      interp import theirs/8f2c --step all --out runs/theirs --seed-label theirs-1
      interp import model.pt --config cfg.json --set data.classes=linear --set data.n_points=41 --out runs/hooked
    """
    from training.checkpoints.checkpoint import read_source
    from training.common import output
    from training.config.parse import check_settings
    from training.importing.run import import_checkpoint

    check_settings(settings or [])
    checkpoint = import_checkpoint(
        source,
        out,
        format=format,
        config=config,
        step=step,
        settings=settings or (),
        instructions=instructions,
        seed_label=seed_label,
        force=force,
    )
    about = read_source(out) or {}
    if json:
        output.print_json({"run": str(out), "source": about, "classes": list(checkpoint.config.evaluated_classes)})
        return
    show(checkpoint, about)


def show(checkpoint: "Checkpoint", about: dict[str, Any]) -> None:
    """What was imported, and how well it is proved."""
    sizes, data = checkpoint.model.config, checkpoint.config.data
    steps = sorted(int(file["step"]) for file in about["files"])
    listed = str(steps[0]) if len(steps) == 1 else f"{len(steps)} from {steps[0]} to {steps[-1]}"
    largest = max(file["largest_relative_difference"] for file in about["files"])
    echo(
        f"imported {about['path']} ({about['format']}): {sizes.n_layers} layers of {sizes.n_heads} heads, width "
        f"{sizes.d_model}; {', '.join(data.classes)} in {sizes.n_dims} dimensions, {data.n_points} pairs; step {listed}"
    )
    echo(f"largest relative difference from its own forward pass, on random prompts: {largest:.2g}")
    label = checkpoint.config.seed_label
    echo(f"seeds: {checkpoint.config.seeds}{f' (label {label})' if label else ''}")
    for note in about["notes"]:
        echo(f"- {note}")
    echo(f"run: {checkpoint.name}")


def export(
    ckpt: options.Ckpt,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="PATH", help="The run directory to make (garg), or FILE.pt (hooked)."),
    ],
    format: Annotated[str, typer.Option("--format", metavar="NAME", help="garg or hooked.")] = "garg",
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is already there.")] = False,
) -> None:
    """Write a checkpoint as another program reads it.

    garg: a run directory with config.yaml and state.pt, for `get_model_from_run` of dtsip/in-context-learning (one
    class) or harmonbhasin/curriculum_learning_icl (several). hooked: FILE.pt with a HookedTransformer's state dict, and
    FILE.json with its configuration. To import what was exported gives the same weights, bit for bit.

    \b
    Examples:
      interp export --ckpt zoo:mixed-0 --format garg --out theirs/mixed-0
      interp export --ckpt zoo:mixed-0 --format hooked --out mixed-0.pt
    """
    from training.importing.export import export_checkpoint

    for path in export_checkpoint(ckpt, out, format, force=force):
        echo(path)
