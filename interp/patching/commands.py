"""The commands of patching: patch, path. Heavy imports wait until a command runs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.names import CORRUPTION_NAMES, METRIC_NAMES, SITE_NAMES
from training import options
from training.commands import check_classes, check_device
from training.errors import one_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.patching.maps import PatchMap
    from interp.patching.paths import PathEffects
    from interp.patching.sweep import Question

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
    from interp.patching.maps import plan, sentence, sets_of
    from interp.patching.sweep import Question, check_direction
    from training import output
    from training.checkpoint import load

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
        from interp.patching.plots import plot_map
        from interp.plots import save_figure

        found.write(out)
        save_figure(plot_map(found, metric), out / "patching.png")
    sentences = [sentence(found, name) for name in names]
    if json:
        about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "seed": seed, "prompts": prompts, "site": site}
        about |= {"corrupt": corrupt, "direction": direction, "verdict": sentences, "ends": output.records(found.ends)}
        output.print_json(about | {"results": output.records(found.table)})
        return
    print_map(found, names, f"{checkpoint.name}, step {checkpoint.step}")
    for line in sentences:
        typer.echo(line)


def print_map(found: "PatchMap", names: list[str], title: str, most: int = 8) -> None:
    """The places that matter most, by class."""
    from interp.patching.maps import place_name, strongest
    from training.output import interval, number, print_table, records

    rows = [
        [
            f"{name}: {place_name(found.site, row)}",
            interval(row["effect"], row["ci_low"], row["ci_high"]),
            interval(row["nmse"], row["nmse_low"], row["nmse_high"]),
            number(row["distance"]),
            number(row["excess"]),
        ]
        for name in names
        for row in strongest(found, name, most)
    ]
    question, n_places = found.question, len(found.table) // len(names)
    caption = (
        f"{question.direction}, {question.corrupt}; effect: share of the way from the {question.base} run to the "
        f"other; {ends_phrase(found.ends)}; distance: to the clean prediction; excess: over the no-context optimum; "
        f"the {min(most, n_places)} strongest of {n_places}; {drawn(question)}"
    )
    header = ["class: patched", "effect", "nmse", "distance", "excess"]
    print_table(f"{title}: {found.site} patched", header, rows, caption)
    if not all(row["differs"] for row in records(found.table)):
        typer.echo("Some places hold the same in both runs, so that patching them cannot act (column differs).")


def drawn(question: "Question") -> str:
    return f"{question.n_prompts} prompts, seed {question.seed}"


def ends_phrase(ends: "pd.DataFrame") -> str:
    """NMSE of the unpatched runs."""
    from training.output import records

    parts = (f"{row['function_class']} {row['nmse_clean']:.2f}, {row['nmse_corrupt']:.2f}" for row in records(ends))
    return f"nmse of the clean and the corrupt run: {'; '.join(parts)}"


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
    from interp.patching.paths import bundles_of, parse_senders, path_effects
    from interp.patching.receivers import parse_receivers
    from interp.patching.sweep import Question, check_direction
    from training import output
    from training.checkpoint import load

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
        from interp.patching.plots import plot_paths
        from interp.plots import save_figure

        found.write(out)
        if weights is not None:
            output.write_table(weights, out / "composition.csv")
        save_figure(plot_paths(found), out / "paths.png")
    if json:
        about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "seed": seed, "prompts": prompts}
        about |= {"corrupt": corrupt, "direction": direction, "ends": output.records(found.ends)}
        about |= {"composition": [] if weights is None else output.records(weights)}
        output.print_json(about | {"results": output.records(found.table)})
        return
    print_paths(found, weights, f"{checkpoint.name}, step {checkpoint.step}")


def print_paths(found: "PathEffects", weights: "pd.DataFrame | None", title: str, most: int = 10) -> None:
    """The senders' whole effect and the strongest paths, by class and sender."""
    from training.output import interval, number, print_table, records

    known = {} if weights is None else {(row["sender"], row["receiver"]): row for row in records(weights)}
    by_start: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(found.table):
        by_start.setdefault((row["function_class"], row["sender"]), []).append(row)
    rows = []
    for (name, sender), (whole, *paths) in by_start.items():
        for row in [whole, *sorted(paths, key=lambda path: -abs(path["effect"]))[:most]]:
            weight = known.get((sender, row["receiver"]), {})
            rows.append(
                [
                    f"{name}: {sender} to {row['receiver']}",
                    interval(row["effect"], row["ci_low"], row["ci_high"]),
                    interval(row["share"], row["share_low"], row["share_high"]),
                    number(row["nmse"]),
                    number(weight.get("score")),
                    number(weight.get("chance")),
                ]
            )
    question = found.question
    caption = (
        f"{question.direction}, {question.corrupt}; share: of the senders' effect through everything; paths need not "
        f"add up; {ends_phrase(found.ends)}; composition: by weights alone, and its chance level; "
        f"the {most} strongest; {drawn(question)}"
    )
    header = ["class: path", "effect", "share", "nmse", "composition", "chance"]
    print_table(f"{title}: paths", header, rows, caption)
