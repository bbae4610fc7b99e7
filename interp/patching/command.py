"""The commands `interp patch` and `interp path`, and what they share with `interp attribute` and `interp circuit`.

Heavy imports wait until a command runs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.model.attached import opens_files
from interp.names import CORRUPTION_NAMES, METRIC_NAMES, SITE_NAMES
from training import options
from training.commands import check_classes
from training.common.devices import check_device
from training.common.errors import one_of

if TYPE_CHECKING:
    from interp.display.result import Axes, Result
    from interp.patching.runner import Question
    from training.checkpoints.checkpoint import Checkpoint

SiteName = Annotated[str, typer.Option("--site", metavar="NAME", help=f"What is patched: {', '.join(SITE_NAMES)}.")]
Corrupt = Annotated[
    str,
    typer.Option("--corrupt", metavar="NAME", help=f"What differs in corrupt prompts: {', '.join(CORRUPTION_NAMES)}."),
]
Direction = Annotated[
    str,
    typer.Option(
        "--direction",
        metavar="NAME",
        help="denoise: patch the clean run into the corrupt one (what is sufficient?); noise: the other way (what is "
        "necessary?).",
    ),
]
Examples = Annotated[
    int | None,
    typer.Option(
        "--examples",
        metavar="K",
        parser=options.whole_number(1),
        help="(x, y) pairs before the query (default: all there are).",
    ),
]
Tokens = Annotated[
    str | None,
    typer.Option(
        "--tokens",
        metavar="TOKENS",
        help="all (together), each (one by one), query, x, y, or pairs A-B, x:A-B, y:A-B (default: all for heads, "
        "else each).",
    ),
]


@opens_files("interp.any_model.command:patch", "site", "direction", "heads", "tokens", "seed")
def patch(
    ckpt: options.AnyCkpt,
    site: SiteName = "z",
    corrupt: Corrupt = "function",
    direction: Direction = "denoise",
    heads: Annotated[
        str,
        typer.Option(
            "--heads",
            metavar="HEADS",
            help="each (one by one), or a set patched together: 0.3,1.2 | top:K | layer:L | all.",
        ),
    ] = "each",
    tokens: Tokens = None,
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
    """Patch activations of one run into another: which heads, layers and tokens carry the answer?

    The prediction is read at the last x, the query, which both prompts share. Effect: 0 the prediction is unchanged, 1
    it is that of the run patched from. By default (denoise, another function of the same inputs) patch asks what is
    sufficient to restore the answer; interp path and interp circuit ask what is necessary (noise, another prompt).

    \b
    Examples:
      interp patch --ckpt zoo:mixed-0 --site resid_pre --out map
      interp patch --ckpt zoo:mixed-0 --corrupt prompt --direction noise --classes linear
      interp patch --ckpt zoo:mixed-0 --site v --heads 0.1 --tokens each --corrupt inputs --direction noise
    """
    from interp.patching.maps import patch_locations, plan_locations
    from training.common import output

    if metric not in METRIC_NAMES:
        raise one_of("--metric", metric, METRIC_NAMES)
    checkpoint, class_names, question = prepare(ckpt, classes, device, corrupt, direction, examples, prompts, seed)
    locations = plan_locations(checkpoint, class_names, question, site=site, heads=heads, tokens=tokens)
    if out:
        output.prepare_directory(out)
    result = patch_locations(checkpoint, class_names, question, site, locations)
    document = {"site": site, "verdict": result.sentences(), "ends": result.baseline_errors, "results": result.table}
    if not deliver(result, question, document, {"patching": lambda: result.plot(metric)}, json=json, out=out):
        result.show()


def path(
    ckpt: options.Ckpt,
    senders: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="HEADS",
            help="Senders, patched jointly: 0.3,1.2 | 0.mlp | top:K | above:SCORE | embed. each patches every "
            "component separately.",
        ),
    ] = "top:1",
    receivers: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="INPUTS",
            help="Receivers, patched jointly: 1.2.q | 1.2 (its q, k and v) | 1.mlp | out. each patches every receiver "
            "separately.",
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
    """Patch the paths from some components to inputs of later ones: which of them read what the components write?

    Components between sender and receiver keep their outputs, everything after the receiver is recomputed. By default
    (noise, another prompt's examples) path asks which paths are necessary; interp patch and interp attribute ask what
    is sufficient (denoise, another function). top:K and above:SCORE choose senders by retrospective score on separate
    prompts. Composition scores, from the weights alone, are shown beside the effects.

    \b
    Examples:
      interp path --ckpt zoo:mixed-0 --from 0.1 --out paths
      interp path --ckpt zoo:mixed-0 --from 0.1,0.mlp --classes linear
      interp path --ckpt zoo:mixed-0 --from embed --to 1.2.k,1.2.v --corrupt function --direction denoise
    """
    from interp.model.heads import refuse_absent_mlps
    from interp.patching.composition import composition
    from interp.patching.path_receivers import parse_receivers
    from interp.patching.paths import bundle_paths, parse_senders, patch_paths
    from training.common import output

    checkpoint, class_names, question = prepare(ckpt, classes, device, corrupt, direction, examples, prompts, seed)
    question.check(checkpoint, class_names)
    model = checkpoint.config.model
    shape, has_mlps = (model.n_layers, model.n_heads), model.mlp_width > 0
    receiver_sets = parse_receivers(receivers, *shape, has_mlps=has_mlps)
    sender_sets = parse_senders(senders, *shape, lambda: question.scores(checkpoint), has_mlps=has_mlps)
    refuse_absent_mlps(sender_sets, model)
    bundles = bundle_paths(sender_sets, receiver_sets)
    if out:
        output.prepare_directory(out)
    result = patch_paths(checkpoint, class_names, question, bundles)
    heads = tuple(head for head_set in sender_sets for head in head_set if head.number >= 0)
    weights = composition(checkpoint, heads, seed=seed) if heads else None
    if out and weights is not None:
        output.write_table(weights, out / "composition.csv")
    document = {"ends": result.baseline_errors, "composition": [] if weights is None else weights}
    document["results"] = result.table
    if not deliver(result, question, document, {"paths": result.plot}, json=json, out=out):
        from interp.patching.tables import path_tables

        for table in path_tables(result, weights):
            output.print_table(*table)


def prepare(
    ckpt: str,
    classes: str | None,
    device: str,
    corrupt: str,
    direction: str,
    examples: int | None,
    n_prompts: int,
    seed: int,
) -> "tuple[Checkpoint, list[str], Question]":
    """The checkpoint, the function classes and the question of a command.

    Raises:
        UserError: there is no such checkpoint, device, class or direction.
    """
    from interp.patching.runner import Question, check_direction
    from training.checkpoints.checkpoint import load

    checkpoint = load(ckpt, check_device(device))
    class_names = check_classes(classes, checkpoint.config.evaluated_classes)
    return checkpoint, class_names, Question(corrupt, check_direction(direction), examples, n_prompts, seed)


def deliver(
    result: "Result",
    question: "Question",
    document: Mapping[str, Any],
    figures: "Mapping[str, Callable[[], list[Axes]]]",
    *,
    json: bool,
    out: Path | None,
) -> bool:
    """Write files and figures to `out`, and print the JSON document; whether anything was printed.

    Args:
        result: of the command.
        question: prompts and direction.
        document: more keys of the JSON document; a table becomes its rows.
        figures: by the name of their files.
        json: whether to print the document.
        out: the directory, which exists; None writes nothing.
    """
    import pandas as pd

    from training.common import output

    if out:
        from interp.display.axes import save_figure

        result.write(out)
        for name, draw in figures.items():
            save_figure(draw(), out / f"{name}.png")
    if json:
        about = {"checkpoint": result.checkpoint, "step": result.step, "seed": question.seed}
        about |= {"prompts": question.n_prompts, "corrupt": question.corrupt, "direction": question.direction}
        rows = {key: output.records(part) if isinstance(part, pd.DataFrame) else part for key, part in document.items()}
        output.print_json(about | rows)
    return json
