"""The commands `interp attribute` and `interp circuit`. Heavy imports wait until a command runs."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from interp.names import EDGE_METHOD_NAMES, NODE_METHOD_NAMES
from interp.patching.command import Corrupt, Direction, Examples, SiteName, Tokens, deliver, prepare
from training import options
from training.common.digits import whole
from training.common.errors import UserError
from training.common.terminal import echo

STEP_METHODS = ("ig", "ig-activations", "eap-ig")
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        parser=options.whole_number(1),
        help=f"Points on the path of ig (default: {options.DEFAULT_NODE_STEPS}) and eap-ig (default: "
        f"{options.DEFAULT_EDGE_STEPS}).",
    ),
]


def zero_or_several(text: str | int) -> int:
    """0, or a number of prompts that allows an interval."""
    number = whole(str(text))
    if number is None or number == 1:
        raise typer.BadParameter(f"{text} (0 or a whole number of at least 2 is needed)")
    return number


def attribute(
    ckpt: options.Ckpt,
    site: SiteName = "z",
    edges: Annotated[
        bool, typer.Option("--edges", help="Patch edges between components instead of the nodes of a site.")
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME,NAME",
            help=f"{', '.join(NODE_METHOD_NAMES)}; with --edges {', '.join(EDGE_METHOD_NAMES)}.",
        ),
    ] = "exact",
    corrupt: Corrupt = "function",
    direction: Direction = "denoise",
    tokens: Tokens = None,
    examples: Examples = None,
    steps: Steps = None,
    validate: Annotated[
        int,
        typer.Option(
            "--validate",
            metavar="N",
            parser=zero_or_several,
            help="Compare estimates with exact patching on N prompts; 0 skips this where exact patching is too slow.",
        ),
    ] = 256,
    no_receipt: Annotated[bool, typer.Option("--no-receipt", hidden=True)] = False,
    top: Annotated[
        int, typer.Option("--top", metavar="N", parser=options.whole_number(1), help="Nodes or edges to print.")
    ] = 8,
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Estimate from gradients what patching would do, and validate the estimates by exact patching.

    By default (denoise, another function) attribute asks what is sufficient, as interp patch does; interp path and
    interp circuit ask what is necessary (noise, another prompt).

    \b
    Methods, which all but exact multiply (source - base) by a gradient:
      exact: patch every node or edge
      gradient, eap: the gradient in the patched run
      ig, eap-ig: the mean gradient on the straight line between the two runs' input embeddings
      ig-activations: the mean gradient on the straight line between the two runs' activations at the site
      atp: AtP*, with exact softmax for queries and keys, and GradDrop

    \b
    Examples:
      interp attribute --ckpt zoo:mixed-0 --corrupt prompt --method gradient,ig,atp --out estimates
      interp attribute --ckpt zoo:mixed-0 --edges --method eap-ig --classes linear
    """
    from interp.attribution.attribute import Attribution, measure_effects, plan_edges, plan_nodes
    from training.common import output

    checkpoint, class_names, question = prepare(ckpt, classes, device, corrupt, direction, examples, prompts, seed)
    if edges and (site != "z" or tokens is not None):
        raise UserError("--edges has neither --site nor --tokens: edges go from component to component, at all tokens")
    if no_receipt:
        echo("--no-receipt is now called --validate 0", err=True)
    methods = options.split_names("--method", method)
    refuse_unused_steps(steps, methods)
    n_steps = steps or (options.DEFAULT_EDGE_STEPS if edges else options.DEFAULT_NODE_STEPS)
    if edges:
        target = plan_edges(checkpoint, class_names, question, methods=methods, n_steps=n_steps)
    else:
        target = plan_nodes(
            checkpoint, class_names, question, site=site, tokens=tokens, methods=methods, n_steps=n_steps
        )

    def figures(result: Attribution) -> dict[str, Any]:
        return {"attribution": result.plot} | ({"validation": result.plot_validation} if len(result.validation) else {})

    def show(result: Attribution) -> None:
        for table in result.tables(top):
            output.print_table(*table)

    deliver(
        checkpoint,
        question,
        lambda: measure_effects(target, class_names, methods, question, 0 if no_receipt else validate),
        document=lambda result: {"of": result.of, "receipts": result.validation, "results": result.table},
        figures=figures,
        show=show,
        json=json,
        out=out,
    )


def circuit(
    ckpt: options.Ckpt,
    sizes: Annotated[
        str, typer.Option("--sizes", metavar="N,N", help="Numbers of highest-scored edges to take.")
    ] = "5,10,20,50,100,200,400",
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help=f"How edges are scored: {', '.join(EDGE_METHOD_NAMES)}.")
    ] = "exact",
    corrupt: Corrupt = "prompt",
    direction: Direction = "noise",
    examples: Examples = None,
    steps: Steps = None,
    random: Annotated[
        int,
        typer.Option(
            "--random",
            metavar="N",
            parser=options.whole_number(0),
            help="Random circuits per size.",
        ),
    ] = 20,
    min_faithfulness: Annotated[
        float,
        typer.Option(
            "--min-faithfulness", metavar="SHARE", help="Report the smallest circuit with at least this faithfulness."
        ),
    ] = 0.9,
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Reduce a model to its strongest edges, and test by intervention how well they reproduce the prediction.

    Edges are scored on separate prompts; a circuit is those with the highest scores that lie on a path from input to
    output. Faithfulness: how far the prediction moves from the corrupt to the clean run if only the circuit's edges
    carry activations of the clean run. Completeness: the same for all other edges. Random circuits have as many edges.
    By default (noise, another prompt) edges are scored by whether they are necessary, as in interp path; interp patch
    and interp attribute ask what is sufficient (denoise, another function).

    \b
    Examples:
      interp circuit --ckpt zoo:mixed-0 --classes linear --method eap-ig --out circuit
      interp circuit --ckpt zoo:linear-0 --corrupt function --sizes 10,30,100 --min-faithfulness 0.8
    """
    from interp.attribution.attribute import plan_edges
    from interp.attribution.circuits import Circuits, check_sizes, run_circuits

    checkpoint, class_names, question = prepare(ckpt, classes, device, corrupt, direction, examples, prompts, seed)
    refuse_unused_steps(steps, [method])
    numbers = [parse_size(text, sizes) for text in options.split_names("--sizes", sizes)]
    target = plan_edges(
        checkpoint, class_names, question, methods=[method], n_steps=steps or options.DEFAULT_EDGE_STEPS
    )
    check_sizes(numbers, min_faithfulness, target.n_edges)

    def document(result: Circuits) -> dict[str, Any]:
        parts = {"method": method, "faithful": min_faithfulness, "verdict": result.sentences()}
        edges = {name: result.chosen(name) for name in class_names}
        return parts | {"smallest": result.smallest, "results": result.curve, "edges": edges}

    deliver(
        checkpoint,
        question,
        lambda: run_circuits(target, class_names, method, question, numbers, random, min_faithfulness),
        document=document,
        figures=lambda result: {"circuit": result.plot, "circuit_curves": result.plot_curves},
        json=json,
        out=out,
    )


def refuse_unused_steps(steps: int | None, methods: Sequence[str]) -> None:
    """
    Raises:
        UserError: `--steps` is given, and no method takes steps.
    """
    if steps is not None and not {*methods} & {*STEP_METHODS}:
        raise UserError(f"--steps applies to {', '.join(STEP_METHODS)} only, not to --method {','.join(methods)}")


def parse_size(text: str, sizes: str) -> int:
    size = whole(text)
    if not size:
        raise UserError(f"--sizes {sizes}: '{text}' is not a number of edges from 1 upwards")
    return size
