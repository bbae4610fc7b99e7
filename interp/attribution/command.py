"""The commands of attribution: attribute, circuit. Heavy imports wait until a command runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from interp.names import EDGE_METHOD_NAMES, NODE_METHOD_NAMES
from interp.patching.command import Corrupt, Direction, Examples, SiteName
from training import options
from training.commands import check_classes, check_device
from training.common.digits import whole
from training.common.errors import UserError

if TYPE_CHECKING:
    pass

Steps = Annotated[
    int,
    typer.Option("--steps", metavar="N", parser=options.whole_number(1), help="Points on the path of ig and eap-ig."),
]


def attribute(
    ckpt: options.Ckpt,
    site: SiteName = "z",
    edges: Annotated[
        bool, typer.Option("--edges", help="Edges between components instead of the nodes of a site.")
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME,NAME",
            help=f"{', '.join(NODE_METHOD_NAMES)}; of edges {', '.join(EDGE_METHOD_NAMES)}.",
        ),
    ] = "exact",
    corrupt: Corrupt = "function",
    direction: Direction = "denoise",
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TOKENS", help="As in interp patch (default: all for heads, else each)."),
    ] = None,
    examples: Examples = None,
    steps: Steps = 5,
    receipt: Annotated[
        int,
        typer.Option(
            "--receipt",
            metavar="N",
            parser=options.whole_number(2),
            help="Prompts on which gradients are compared with exact patching.",
        ),
    ] = 256,
    no_receipt: Annotated[
        bool, typer.Option("--no-receipt", help="Do not compare, where exact patching takes too long.")
    ] = False,
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
    """Estimate from gradients what patching would do, with a receipt: how well that agrees with exact patching.

    exact patches every node or edge. gradient and eap take (source - base) times the gradient in the run that is
    patched; ig and eap-ig the mean gradient on the path of the read-in between the two runs, ig-activations on that of
    the site itself; atp is AtP*, with the exact softmax of queries and keys and gradients that drop one layer each.

    \b
    Examples:
      interp attribute --ckpt zoo:mixed-0 --corrupt prompt --method gradient,ig,atp --out receipts
      interp attribute --ckpt zoo:mixed-0 --edges --method eap-ig --classes linear
    """
    from interp.attribution.attribute import attribute as of_nodes
    from interp.attribution.attribute import attribute_edges as of_edges
    from interp.attribution.attribute import plan_edges, plan_nodes
    from interp.patching.runner import Question, check_direction
    from training.checkpoints.checkpoint import load
    from training.common import output

    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    if edges and (site != "z" or at is not None):
        raise UserError("--edges has neither --site nor --at: edges go from component to component, at all tokens")
    methods = options.split_names("--method", method)
    question = Question(corrupt, check_direction(direction), examples, prompts, seed)
    if edges:  # refuses early
        plan_edges(checkpoint, names, question, methods=methods, n_steps=steps)
    else:
        plan_nodes(checkpoint, names, question, site=site, at=at, methods=methods, n_steps=steps)
    if out:
        output.prepare_directory(out)
    common = {
        "methods": methods,
        "corrupt": corrupt,
        "direction": direction,
        "examples": examples,
        "n_prompts": prompts,
        "seed": seed,
        "n_steps": steps,
        "n_receipt": 0 if no_receipt else receipt,
    }
    found = of_edges(checkpoint, names, **common) if edges else of_nodes(checkpoint, names, site=site, at=at, **common)
    if out:
        from interp.display.axes import save_figure

        found.write(out)
        save_figure(found.plot(), out / "attribution.png")
        if len(found.receipts):
            save_figure(found.plot_receipts(), out / "receipts.png")
    if json:
        about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "seed": seed, "prompts": prompts}
        about |= {"of": found.of, "corrupt": corrupt, "direction": direction}
        results = {"receipts": output.records(found.receipts), "results": output.records(found.table)}
        output.print_json(about | results)
        return
    for table in found.tables(top):
        output.print_table(*table)


def circuit(
    ckpt: options.Ckpt,
    sizes: Annotated[
        str, typer.Option("--sizes", metavar="N,N", help="How many of the best edges to take.")
    ] = "5,10,20,50,100,200,400",
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help=f"How edges are scored: {', '.join(EDGE_METHOD_NAMES)}.")
    ] = "exact",
    corrupt: Corrupt = "prompt",
    direction: Direction = "noise",
    examples: Examples = None,
    steps: Steps = 5,
    random: Annotated[
        int,
        typer.Option("--random", metavar="N", parser=options.whole_number(0), help="Random graphs of every size."),
    ] = 20,
    faithful: Annotated[
        float, typer.Option("--faithful", metavar="SHARE", help="What the smallest circuit has to reach.")
    ] = 0.9,
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Cut the model down to the edges that carry the answer, and test by intervention that they are enough.

    Edges are scored on prompts of their own. A circuit is the best of them that lie on a path from the read-in to the
    read-out. Faithfulness: how far the prediction comes from the corrupt to the clean run with clean information on the
    circuit alone. Completeness: the same for everything else. Random graphs have as many edges on paths.

    \b
    Examples:
      interp circuit --ckpt zoo:mixed-0 --classes linear --method eap-ig --out circuit
      interp circuit --ckpt zoo:linear-0 --corrupt function --sizes 10,30,100 --faithful 0.8
    """
    from interp.attribution.attribute import plan_edges
    from interp.attribution.circuits import check_asked, circuits
    from interp.patching.runner import Question, check_direction
    from training.checkpoints.checkpoint import load
    from training.common import output

    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    asked = [size_of(text, sizes) for text in options.split_names("--sizes", sizes)]
    question = Question(corrupt, check_direction(direction), examples, prompts, seed)
    target = plan_edges(checkpoint, names, question, methods=[method], n_steps=steps)  # refuses early
    check_asked(asked, faithful, int(target.graph.allowed.sum()))
    if out:
        output.prepare_directory(out)
    found = circuits(
        checkpoint,
        names,
        sizes=asked,
        method=method,
        corrupt=corrupt,
        direction=direction,
        examples=examples,
        n_prompts=prompts,
        seed=seed,
        n_steps=steps,
        n_random=random,
        faithful=faithful,
    )
    if out:
        from interp.display.axes import save_figure

        found.write(out)
        save_figure(found.plot(), out / "circuit.png")
        save_figure(found.plot_curves(), out / "circuit_curves.png")
    if json:
        about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "seed": seed, "prompts": prompts}
        about |= {"method": method, "corrupt": corrupt, "direction": direction, "faithful": faithful}
        about |= {"verdict": found.sentences(), "smallest": found.smallest}
        output.print_json(
            about | {"results": output.records(found.curve), "edges": {name: found.chosen(name) for name in names}}
        )
        return
    found.show()


def size_of(text: str, sizes: str) -> int:
    size = whole(text)
    if not size:
        raise UserError(f"--sizes {sizes}: '{text}' is not a number of edges from 1 upwards")
    return size
