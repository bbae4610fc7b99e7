"""The commands `interp patch` and `interp path`, and what they share with `interp attribute` and `interp circuit`.

Heavy imports wait until a command runs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from interp.model.attached import opens_files
from interp.names import CORRUPTION_NAMES, METRIC_NAMES, SITE_NAMES
from training import options
from training.commands import check_classes, open_data, run_command
from training.common.devices import check_device
from training.common.errors import one_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.display.result import Axes, Result
    from interp.patching.runner import Question
    from training.checkpoints.checkpoint import Checkpoint

ResultT = TypeVar("ResultT", bound="Result")
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
    data: options.Data = None,
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
      interp patch --ckpt zoo:mixed-0 --data mine.npz --corrupt permuted
    """
    from interp.patching.maps import PatchMap, patch_locations, plan_locations

    if metric not in METRIC_NAMES:
        raise one_of("--metric", metric, METRIC_NAMES)
    checkpoint, class_names, question = prepare(
        ckpt, classes, device, corrupt, direction, examples, prompts, seed, data
    )
    locations = plan_locations(checkpoint, class_names, question, site=site, heads=heads, tokens=tokens)

    def document(result: PatchMap) -> dict[str, Any]:
        ends = result.baseline_errors
        return {"site": site, "verdict": result.sentences(), "ends": ends, "results": result.table}

    deliver(
        checkpoint,
        question,
        lambda: patch_locations(checkpoint, class_names, question, site, locations),
        document=document,
        figures=lambda result: {"patching": lambda: result.plot(metric)},
        data=data,
        json=json,
        out=out,
    )


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
    from interp.patching.paths import PathEffects, bundle_paths, parse_senders, patch_paths
    from interp.patching.tables import path_tables

    checkpoint, class_names, question = prepare(ckpt, classes, device, corrupt, direction, examples, prompts, seed)
    question.check(checkpoint, class_names)
    model = checkpoint.config.model
    shape, has_mlps = (model.n_layers, model.n_heads), model.mlp_width > 0
    receiver_sets = parse_receivers(receivers, *shape, has_mlps=has_mlps)
    sender_sets = parse_senders(senders, *shape, lambda: question.scores(checkpoint), has_mlps=has_mlps)
    refuse_absent_mlps(sender_sets, model)
    bundles = bundle_paths(sender_sets, receiver_sets)
    senders_before_others = [
        head for head_set in sender_sets for head in head_set if head.number >= 0 and head.layer < model.n_layers - 1
    ]
    weights = composition(checkpoint, senders_before_others, seed=seed).table if senders_before_others else None

    def document(result: PathEffects) -> dict[str, Any]:
        compositions = [] if weights is None else weights
        return {
            "verdict": result.sentences(),
            "ends": result.baseline_errors,
            "composition": compositions,
            "results": result.table,
        }

    deliver(
        checkpoint,
        question,
        lambda: patch_paths(checkpoint, class_names, question, bundles),
        document=document,
        figures=lambda result: {"paths": result.plot},
        tables={} if weights is None else {"composition": weights},
        show=lambda result: result.show(path_tables(result, weights)),
        json=json,
        out=out,
    )


def prepare(
    ckpt: str,
    classes: str | None,
    device: str,
    corrupt: str,
    direction: str,
    examples: int | None,
    n_prompts: int,
    seed: int,
    data: Path | None = None,
) -> "tuple[Checkpoint, list[str], Question]":
    """The checkpoint, the function classes and the question of a command.

    Raises:
        UserError: there is no such checkpoint, device, class or direction.
    """
    from interp.patching.runner import Question, check_direction
    from training.checkpoints.checkpoint import load

    loaded = load(ckpt, check_device(device))
    (checkpoint,), n_prompts = open_data([loaded], data, classes, n_prompts, is_split=True)
    class_names = check_classes(classes, checkpoint.config.evaluated_classes)
    return checkpoint, class_names, Question(corrupt, check_direction(direction), examples, n_prompts, seed)


def deliver(
    checkpoint: "Checkpoint",
    question: "Question",
    compute: "Callable[[], ResultT]",
    *,
    document: "Callable[[ResultT], Mapping[str, Any]]",
    figures: "Callable[[ResultT], Mapping[str, Callable[[], list[Axes]]]]",
    tables: "Mapping[str, pd.DataFrame] | None" = None,
    show: "Callable[[ResultT], None] | None" = None,
    data: Path | None = None,
    json: bool,
    out: Path | None,
) -> None:
    """Compute a result, write its files and figures to `out`, and print it.

    Args:
        checkpoint: the model.
        question: prompts and direction.
        compute: the result.
        document: more keys of the JSON document; a table becomes its rows.
        figures: of the result, by the name of their files.
        tables: more tables to write, by the name of their files.
        show: prints the result; None: as the result does.
        data: the file of the prompts; None if they were drawn.
        json: whether to print the document.
        out: the directory; None writes nothing.
    """
    import pandas as pd

    from training.checkpoints.provenance import Provenance
    from training.common import output

    def write(result: Any, directory: Path) -> None:
        from interp.display.axes import save_figure

        result.write(directory)
        for name, table in (tables or {}).items():
            output.write_table(table, directory / f"{name}.csv")
        for name, draw in figures(result).items():
            save_figure(draw(), directory / f"{name}.png")

    def whole_document(result: Any) -> dict[str, Any]:
        about = {"checkpoint": result.checkpoint, "step": result.step, "seed": question.seed}
        about |= {"prompts": question.n_prompts, "corrupt": question.corrupt, "direction": question.direction}
        parts = document(result).items()
        return about | {key: output.records(part) if isinstance(part, pd.DataFrame) else part for key, part in parts}

    run_command(
        compute,
        write=write,
        document=whole_document,
        show=show or (lambda result: result.show()),
        provenance=Provenance.of([checkpoint], question.seed, question.n_prompts, data),
        verdict=lambda result: result.sentences(),
        json=json,
        out=out,
    )
