"""The commands of patching: patch, path. Heavy imports wait until a command runs."""

from typing import Annotated

import typer

from interp.names import CORRUPTION_NAMES, METRIC_NAMES, SITE_NAMES
from training import options
from training.commands import check_classes, check_device
from training.common.errors import one_of

SiteName = Annotated[str, typer.Option("--site", metavar="NAME", help=f"What is patched: {', '.join(SITE_NAMES)}.")]
Corrupt = Annotated[
    str,
    typer.Option(
        "--corrupt", metavar="NAME", help=f"How clean and corrupt prompts differ: {', '.join(CORRUPTION_NAMES)}."
    ),
]
Direction = Annotated[
    str,
    typer.Option(
        "--direction",
        metavar="NAME",
        help="denoise patches the clean run into the corrupt one (what is enough?), noise the other way (what is "
        "needed?).",
    ),
]
Examples = Annotated[
    int | None,
    typer.Option(
        "--examples",
        metavar="K",
        parser=options.whole_number(1),
        help="Pairs before the query (default: all there are).",
    ),
]


def patch(
    ckpt: options.Ckpt,
    site: SiteName = "z",
    corrupt: Corrupt = "function",
    direction: Direction = "denoise",
    heads: Annotated[
        str,
        typer.Option(
            "--heads", metavar="HEADS", help="each alone, or heads together: 0.3,1.2 | top:K | layer:L | all."
        ),
    ] = "each",
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TOKENS",
            help="all together, each alone, query, x, y, or pairs A-B, x:A-B, y:A-B (default: all for heads, or each).",
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help=f"What the figure shows: {', '.join(METRIC_NAMES)}.")
    ] = "effect",
    examples: Examples = None,
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Patch activations of one run into another, place by place: what carries the answer, and where?

    The prediction is read at the last x, the query, which both prompts share. Effect: 0 nothing happened, 1 as if
    everything had been patched.

    \b
    Examples:
      interp patch --ckpt zoo:mixed-0 --site resid_pre --out map
      interp patch --ckpt zoo:mixed-0 --corrupt prompt --direction noise --classes linear
      interp patch --ckpt zoo:mixed-0 --site v --heads 0.1 --at each --corrupt inputs --direction noise
    """
    from interp.patching.maps import patch as run
    from interp.patching.maps import plan, sets_of
    from interp.patching.runner import Question, check_direction
    from training.checkpoints.checkpoint import load
    from training.common import output

    if metric not in METRIC_NAMES:
        raise one_of("--metric", metric, METRIC_NAMES)
    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    question = Question(corrupt, check_direction(direction), examples, prompts, seed)
    sets = sets_of(checkpoint, site, heads, question) or "each"
    plan(checkpoint, names, question, site=site, heads=sets, at=at)  # refuses early
    if out:
        output.prepare_directory(out)
    found = run(
        checkpoint,
        names,
        site=site,
        corrupt=corrupt,
        direction=direction,
        heads=sets,
        at=at,
        examples=examples,
        n_prompts=prompts,
        seed=seed,
    )
    if out:
        from interp.display.axes import save_figure

        found.write(out)
        save_figure(found.plot(metric), out / "patching.png")
    if json:
        about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "seed": seed, "prompts": prompts, "site": site}
        about |= {"corrupt": corrupt, "direction": direction, "verdict": found.sentences()}
        output.print_json(about | {"ends": output.records(found.ends), "results": output.records(found.table)})
        return
    found.show()


def path(
    ckpt: options.Ckpt,
    senders: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="HEADS",
            help="Heads that write together: 0.3,1.2 | 0.mlp | top:K | above:SCORE | embed; or each alone.",
        ),
    ] = "top:1",
    receivers: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="INPUTS",
            help="Inputs that see it together: 1.2.q,1.2 (q, k and v),1.mlp,out; or each alone.",
        ),
    ] = "each",
    corrupt: Corrupt = "prompt",
    direction: Direction = "noise",
    examples: Examples = None,
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Patch the paths from some components to the inputs of later ones: who reads what they write?

    What lies between stays as it was, what comes after reacts. top:K and above:SCORE choose by retrospective score on
    prompts of their own. Beside the effects stand composition scores, which know only the weights.

    \b
    Examples:
      interp path --ckpt zoo:mixed-0 --from 0.1 --out paths
      interp path --ckpt zoo:mixed-0 --from 0.1,0.mlp --classes linear
      interp path --ckpt zoo:mixed-0 --from embed --to 1.2.k,1.2.v --corrupt function --direction denoise
    """
    from interp.patching.composition import composition
    from interp.patching.path_receivers import parse_receivers
    from interp.patching.paths import bundles_of, parse_senders, path_effects
    from interp.patching.runner import Question, check_direction
    from training.checkpoints.checkpoint import load
    from training.common import output

    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    shape = checkpoint.config.model.n_layers, checkpoint.config.model.n_heads
    question = Question(corrupt, check_direction(direction), examples, prompts, seed)
    question.check(checkpoint, names)
    ends = parse_receivers(receivers, *shape)
    starts = parse_senders(senders, *shape, lambda: question.scores(checkpoint))
    bundles_of(starts, ends)  # refuses early
    if out:
        output.prepare_directory(out)
    found = path_effects(
        checkpoint,
        starts,
        ends,
        names,
        corrupt=corrupt,
        direction=direction,
        examples=examples,
        n_prompts=prompts,
        seed=seed,
    )
    heads = tuple(head for one in starts for head in one if head.number >= 0)
    weights = composition(checkpoint, heads, seed=seed) if heads else None
    if out:
        from interp.display.axes import save_figure

        found.write(out)
        if weights is not None:
            output.write_table(weights, out / "composition.csv")
        save_figure(found.plot(), out / "paths.png")
    if json:
        about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "seed": seed, "prompts": prompts}
        about |= {"corrupt": corrupt, "direction": direction, "ends": output.records(found.ends)}
        about |= {"composition": [] if weights is None else output.records(weights)}
        output.print_json(about | {"results": output.records(found.table)})
        return
    from interp.patching.tables import path_table

    output.print_table(*path_table(found, weights))
