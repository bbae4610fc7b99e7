"""The commands of attribution: attribute, circuit. Heavy imports wait until a command runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from interp.names import EDGE_METHOD_NAMES, NODE_METHOD_NAMES
from interp.patching.commands import Corrupt, Direction, Examples, SiteName
from training import options
from training.commands import check_classes, check_device
from training.errors import UserError

if TYPE_CHECKING:
    from interp.attribution.attribute import Attribution
    from interp.attribution.circuits import Circuits

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
    from interp.patching.sweep import Question, check_direction
    from training import output
    from training.checkpoint import load

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
        from interp.attribution.plots import plot_attribution, plot_receipts
        from interp.plots import save_figure

        found.write(out)
        save_figure(plot_attribution(found), out / "attribution.png")
        if len(found.receipts):
            save_figure(plot_receipts(found), out / "receipts.png")
    if json:
        about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "seed": seed, "prompts": prompts}
        about |= {"of": found.of, "corrupt": corrupt, "direction": direction}
        results = {"receipts": output.records(found.receipts), "results": output.records(found.table)}
        output.print_json(about | results)
        return
    print_attribution(found, f"{checkpoint.name}, step {checkpoint.step}", top)


def print_attribution(found: "Attribution", title: str, top: int) -> None:
    """The strongest nodes or edges by every method, then the receipts."""
    from training.output import interval, print_table, records

    everything = records(found.table)
    names, methods = ([*dict.fromkeys(row[key] for row in everything)] for key in ("function_class", "method"))
    rows = []
    for name in names:
        tables = [
            [row for row in everything if (row["function_class"], row["method"]) == (name, method)]
            for method in methods
        ]
        order = sorted(range(len(tables[0])), key=lambda place, first=tables[0]: -first[place]["size"])
        rows += [
            [f"{name}: {found.name(tables[0][place])}"]
            + [interval(*(table[place][key] for key in ("effect", "ci_low", "ci_high"))) for table in tables]
            for place in order[:top]
        ]
    question = found.question
    caption = (
        f"{question.direction}, {question.corrupt}; effect: share of the way from the {question.base} run to the "
        f"other; the {top} strongest by {methods[0]}; {question.n_prompts} prompts, seed {question.seed}"
    )
    print_table(f"{title}: effects of patching {found.of}", [f"class: {found.of}", *methods], rows, caption)
    if len(found.receipts):
        print_receipts(found)


def print_receipts(found: "Attribution") -> None:
    """One row per class and approximate method."""
    from training.output import number, print_table, records

    receipts = records(found.receipts)
    tops = [key[4:] for key in receipts[0] if key.startswith("top_")]
    rows = [
        [
            f"{one['function_class']}: {one['method']}",
            number(one["spearman"], 2),
            number(one["spearman_size"], 2),
            *(f"{one[f'top_{k}']:.0%} ({one[f'chance_{k}']:.0%})" for k in tops),
            f"{one['signs']:.0%}",
            f"{one['worst']}: {number(one['worst_approximate'], 2)}, exact {number(one['worst_exact'], 2)}",
        ]
        for one in receipts
    ]
    header = ["class: method", "Spearman", "of sizes", *(f"top {k}" for k in tops), "signs", "worst miss"]
    caption = (
        f"{receipts[0]['n']} compared on {receipts[0]['n_prompts']} prompts; top k: share of the k largest exact "
        "effects that are among the k largest approximate ones (chance); signs: where the exact effect is at least 1 % "
        "of the largest"
    )
    print_table("receipt: approximate against exact effects", header, rows, caption)


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
    from interp.patching.sweep import Question, check_direction
    from training import output
    from training.checkpoint import load

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
        from interp.attribution.plots import plot_circuit, plot_circuit_curves
        from interp.plots import save_figure

        found.write(out)
        save_figure(plot_circuit(found), out / "circuit.png")
        save_figure(plot_circuit_curves(found), out / "circuit_curves.png")
    sentences = [found.sentence(name) for name in names]
    if json:
        about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "seed": seed, "prompts": prompts}
        about |= {"method": method, "corrupt": corrupt, "direction": direction, "faithful": faithful}
        about |= {"verdict": sentences, "smallest": found.smallest}
        output.print_json(
            about | {"results": output.records(found.curve), "edges": {name: found.chosen(name) for name in names}}
        )
        return
    print_circuits(found, f"{checkpoint.name}, step {checkpoint.step}")
    for line in sentences:
        typer.echo(line)


def size_of(text: str, sizes: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--sizes {sizes}: '{text}' is not a number of edges from 1 upwards")
    return int(text)


def print_circuits(found: "Circuits", title: str) -> None:
    """Every size of every class."""
    from training.output import interval, number, print_table, records

    rows = [
        [
            f"{row['function_class']}: {row['n_best']}",
            str(row["n_edges"]),
            interval(row["faithfulness"], row["faithfulness_low"], row["faithfulness_high"]),
            interval(row["completeness"], row["completeness_low"], row["completeness_high"]),
            number(row["distance"]),
            interval(row["random"], row["random_low"], row["random_high"]),
            number(row["p_value"]),
        ]
        for row in records(found.curve)
    ]
    question = found.question
    n_random = max(row["n_random"] for row in records(found.curve))
    header = ["class: best edges", "on paths", "faithfulness", "everything else", "distance", "random [range]", "p"]
    caption = (
        f"{found.method} scores, {question.corrupt}, {question.direction}; 0: the corrupt run, 1: the clean run; "
        f"distance: squared, to the clean prediction, over that of the corrupt run; {n_random} random graphs with as "
        f"many edges on paths; {question.n_prompts} prompts, seed {question.seed}"
    )
    print_table(f"{title}: circuits of the best edges", header, rows, caption)
