"""`interp ablate`: its options. Heavy imports wait until the command runs."""

import math
from typing import Annotated

import typer

from interp.model.attached import opens_files
from interp.names import DEFAULT_MODES, DESIGN_NAMES, MODE_NAMES
from training import options
from training.common.devices import check_device
from training.common.errors import UserError, one_of


@opens_files("interp.any_model.command:ablate", "heads", "mode", "controls", "memory", "seed")
def ablate(
    ckpt: options.AnyCkpts,
    heads: Annotated[
        str,
        typer.Option(
            "--heads",
            metavar="HEADS",
            help="0.3,1.2 | 0.mlp | top:K | above:SCORE | layer:L | all | each | layers | mlps.",
        ),
    ],
    design: Annotated[
        str,
        typer.Option(
            "--design",
            metavar="NAME",
            help="remove the set | keep only the set | cumulative | pairs.",
        ),
    ] = "remove",
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            metavar="NAME,NAME",
            help=f"Replacement values: {', '.join(MODE_NAMES)} (default: {','.join(DEFAULT_MODES)}; with --site "
            "pattern uniform attention only).",
        ),
    ] = None,
    site: Annotated[
        str, typer.Option("--site", metavar="NAME", help="Of a head: z (its output), pattern (attention) or value.")
    ] = "z",
    tokens: Annotated[
        str,
        typer.Option("--tokens", metavar="TOKENS", help="Where to remove: all, x, y, or pairs A-B, x:A-B, y:A-B."),
    ] = "all",
    points: Annotated[
        str | None,
        typer.Option("--points", metavar="A-B,A-B", help="Pairs to measure, counted from 0 (default: last quarter)."),
    ] = None,
    controls: Annotated[
        int | None,
        typer.Option(
            "--controls",
            metavar="N",
            parser=options.whole_number(0),
            help=f"Control sets per tested set (default {options.DEFAULT_CONTROLS}; all possible sets if fewer exist); "
            f"with --design cumulative, random orders ({options.DEFAULT_ORDERS}).",
        ),
    ] = None,
    match: Annotated[
        str,
        typer.Option(
            "--match",
            metavar="NAME",
            help="p-values to print: layer (control sets from the same layers) or all (also from any layer, of like "
            "norm).",
        ),
    ] = "layer",
    classes: options.Classes = None,
    data: options.Data = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    null_prompts: Annotated[
        int | None,
        typer.Option(
            "--null-prompts",
            metavar="N",
            parser=options.whole_number(2),
            help=f"Prompts on which control sets are measured, the first N (default: {options.DEFAULT_NULL_PROMPTS}).",
        ),
    ] = None,
    memory: Annotated[float, typer.Option("--memory", metavar="GIB", help="Memory that activations may take.")] = (
        options.DEFAULT_MEMORY / 2**30
    ),
    seed: options.Seed = 0,
    independent: options.Independent = False,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Remove heads and compare the cost with that of random sets.

    top:K and above:SCORE choose heads by retrospective score (mean over the trained classes) on separate prompts,
    separately for each checkpoint. --design remove removes the set; keep removes all heads but the set; cumulative
    removes one head after another in the order of that score; pairs removes every two heads of the set together. With
    --out an interrupted run resumes.

    p ranks a set among layer-matched control sets. Control sets from any layer (--match all; in --json and --out
    always) cannot tell whether the heads matter or only their layer. Where one model has too few control sets,
    several seeds (--ckpt 'zoo:mixed-*') allow a smaller p.

    \b
    Examples:
      interp ablate --ckpt zoo:mixed-0 --heads above:0.5
      interp ablate --ckpt zoo:mixed-0@196 --heads each --mode mean --out effects
      interp ablate --ckpt zoo:mixed-0 --ckpt zoo:random-0 --heads top:1
      interp ablate --ckpt zoo:mixed-0 --heads layer:0 --design cumulative --mode mean
      interp ablate --ckpt zoo:mixed-0 --heads top:1 --data mine.npz
    """
    from interp.ablation.request import Request, run

    modes = None if mode is None else tuple(options.split_names("--mode", mode))
    if design not in DESIGN_NAMES:
        raise one_of("--design", design, DESIGN_NAMES)
    if match not in ("layer", "all"):
        raise one_of("--match", match, ("layer", "all"))
    if match == "all" and design in ("cumulative", "pairs"):
        raise UserError(f"--match all: --design {design} has no control sets")
    if not 0 < memory < math.inf:
        raise UserError(f"--memory {memory}: a number above 0 is needed")
    run(
        Request(
            ckpts=tuple(ckpt),
            heads=heads,
            design=design,
            modes=modes,
            site=site,
            tokens=tokens,
            points=points,
            controls=controls,
            classes=classes,
            data=data,
            prompts=prompts,
            null_prompts=null_prompts,
            memory=int(memory * 2**30),
            seed=seed,
            device=check_device(device),
            independent=independent,
            match=match,
        ),
        json=json,
        out=out,
    )
