"""The commands lens and probe. Heavy imports wait until a command runs."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training import options
from training.commands import check_classes, check_device
from training.common.digits import whole
from training.common.errors import UserError, one_of
from training.common.terminal import echo

if TYPE_CHECKING:
    from pathlib import Path

    from interp.model.heads import HeadSet
    from interp.readouts.head_decoding import HeadDecoding
    from interp.readouts.probes import Probes, Protocol
    from interp.readouts.stream import Token
    from interp.readouts.subspace_patching import Swaps
    from training.checkpoints.checkpoint import Checkpoint

TARGETS = "w, w_ls (least squares), xty (X'y), t (w·x), class, x (x_i at y_i, and what every head writes of it)"


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers in a list such as `--examples 3,7`.

    Raises:
        UserError: one is no whole number above 0, or is named twice.

    >>> whole_numbers("--examples", "7,15")
    (7, 15)
    """
    numbers = {part: whole(part) for part in options.split_names(option, text)}
    for part, number in numbers.items():
        if not number:
            raise UserError(f"{option} {text}: '{part}' is not a whole number above 0")
    return tuple(sorted({number for number in numbers.values() if number}))


def lens(
    ckpt: options.Ckpt,
    classes: options.Classes = None,
    steps: Annotated[
        str, typer.Option("--steps", metavar="N,N", help="Steps of gradient descent to compare with.")
    ] = "1,2,4,8,16",
    token: Annotated[str, typer.Option("--token", metavar="x|y", help="Read it at x_i, or one token later.")] = "x",
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Read the prediction that the model implies at every depth, beside the predictors it may be on its way to.

    The plain lens is the model's own final LayerNorm and read-out on the residual stream; the tuned lens is fitted, per
    stage, to the model's final prediction on reference prompts. Both are compared with the answer, the model, least
    squares, ridge and gradient descent.

    \b
    Examples:
      interp lens --ckpt zoo:mixed-0 --classes linear
      interp lens --ckpt runs/mixed-0@200 --steps 1,2,3,4 --out results
      interp lens --ckpt zoo:mixed-0 --token y
    """
    from interp.readouts.lens import lens as measure
    from training.checkpoints.checkpoint import load
    from training.common import output

    numbers = whole_numbers("--steps", steps)
    where = check_token(token)
    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    if out:
        output.prepare_directory(out)
    result = measure(checkpoint, names, steps=numbers, token=where, n_prompts=prompts, seed=seed)
    if out:
        from interp.display.axes import save_figure

        result.write(out)
        save_figure(result.plot(), out / "lens.png")
    if json:
        about = {"checkpoint": result.checkpoint, "step": result.step, "seed": seed, "prompts": prompts}
        about |= {"token": where, "fit_stream": "reference", "test_stream": "test", "verdict": result.sentences()}
        tables = {"depth": output.records(result.depth), "results": output.records(result.table)}
        output.print_json(about | tables)
        return
    result.show()


def probe(
    ckpt: options.Ckpt,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME,NAME", help=f"{TARGETS}; default: all but x.")
    ] = None,
    token: Annotated[str, typer.Option("--token", metavar="x|y|x,y", help="At which tokens.")] = "x,y",
    examples: Annotated[
        str | None,
        typer.Option("--examples", metavar="N,N", help="After so many examples (default: the end of each quarter)."),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(
            "--without", metavar="HEADS", help="Also with these heads mean-ablated: 0.1 | top:K | above:SCORE."
        ),
    ] = None,
    swap: Annotated[
        bool, typer.Option("--swap/--no-swap", help="Test whether the model uses it: swap the probed subspaces.")
    ] = False,
    controls: Annotated[
        int,
        typer.Option("--controls", metavar="N", parser=options.whole_number(1), help="Random subspaces per swap."),
    ] = 100,
    fit_prompts: Annotated[
        int,
        typer.Option(
            "--fit-prompts", metavar="N", parser=options.whole_number(2), help="Prompts per class to fit probes on."
        ),
    ] = 2048,
    classes: options.Classes = None,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Decode what the residual stream knows, with controls, and test whether the model uses it.

    Ridge probes per stage, token type and number of examples, fitted on other prompts than they are judged on, beside
    shuffled targets and an untrained model. With --swap the probed subspaces are exchanged between two functions and
    compared with random subspaces, at the place chosen on other prompts. With --target x every head is asked what it
    writes of its own x, and --without HEADS shows where x_i sits when these heads are gone.

    \b
    Examples:
      interp probe --ckpt zoo:mixed-0 --classes linear
      interp probe --ckpt zoo:mixed-0 --classes linear --target w,t --swap --out results
      interp probe --ckpt zoo:mixed-0 --target x --without above:0.5
    """
    from interp.readouts.probes import Protocol
    from training.checkpoints.checkpoint import load
    from training.common import output

    targets = None if target is None else options.split_names("--target", target)
    tokens: tuple[Token, ...] = tuple(check_token(one) for one in options.split_names("--token", token))
    numbers = () if examples is None else whole_numbers("--examples", examples)
    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    removed = () if without is None else heads_to_remove(checkpoint, without, prompts, seed)
    protocol = Protocol(tokens, numbers, removed, prompts, fit_prompts, seed)
    if out:
        output.prepare_directory(out)
    results = readouts(checkpoint, names, targets, protocol, controls if swap else None)
    if out:
        write(results, out)
    if json:
        output.print_json(document(results, protocol))
        return
    show(results)
    if not swap:
        echo("Decodable is not yet used: --swap tests that.")


def check_token(text: str) -> "Token":
    """A type of token.

    Raises:
        UserError: there is no such type.
    """
    from interp.readouts.stream import TOKENS

    for token in TOKENS:
        if text == token:
            return token
    raise one_of("--token", text, TOKENS)


def heads_to_remove(checkpoint: "Checkpoint", text: str, n_prompts: int, seed: int) -> "HeadSet":
    """The one set of heads that `--without` names; top:K and above:SCORE choose on prompts of their own."""
    from interp.model.heads import parse_heads
    from interp.scores.score import selection_scores

    model = checkpoint.config.model
    chosen_by = partial(selection_scores, checkpoint, n_prompts, seed)
    sets = parse_heads(text, model.n_layers, model.n_heads, chosen_by)
    if len(sets) != 1:
        raise UserError(f"--without {text}: one set of heads is needed, this names {len(sets)}")
    return sets[0]


def readouts(
    checkpoint: "Checkpoint",
    names: list[str],
    targets: list[str] | None,
    protocol: "Protocol",
    n_controls: int | None,
) -> "list[Probes | HeadDecoding | Swaps]":
    """The probes, what heads write if x is a target, and the swaps if there are to be random subspaces."""
    from interp.readouts.head_decoding import decode_heads
    from interp.readouts.probes import probe as fit_probes
    from interp.readouts.subspace_patching import swap as swap_subspaces

    results: list[Any] = [fit_probes(checkpoint, names, targets=targets, protocol=protocol)]
    if "x" in (targets or ()):
        results.append(decode_heads(checkpoint, names, protocol=protocol))
    if n_controls is not None:
        results.append(swap_subspaces(checkpoint, names, targets=targets, protocol=protocol, n_controls=n_controls))
    return results


def write(results: "list[Probes | HeadDecoding | Swaps]", out: "Path") -> None:
    """Tables and figures."""
    from interp.display.axes import save_figure
    from interp.readouts.head_decoding import HeadDecoding
    from interp.readouts.probes import Probes

    for one in results:
        one.write(out)
        name = "probes" if isinstance(one, Probes) else "heads" if isinstance(one, HeadDecoding) else "swaps"
        save_figure(one.plot(), out / f"{name}.png")
        if isinstance(one, Probes) and one.protocol.without:
            for target in one.table["target"].unique():
                save_figure(one.plot_without(str(target)), out / f"without_{target}.png")


def document(results: "list[Probes | HeadDecoding | Swaps]", protocol: "Protocol") -> dict[str, Any]:
    """What `--json` prints."""
    from interp.model.heads import show as show_heads
    from interp.readouts.head_decoding import HeadDecoding
    from interp.readouts.probes import Probes
    from training.common import output

    about: dict[str, Any] = {
        "checkpoint": results[0].checkpoint,
        "step": results[0].step,
        "seed": protocol.seed,
        "prompts": protocol.n_prompts,
        "fit_prompts": protocol.n_fit,
        "fit_stream": "reference",
        "test_stream": "test",
        "without": show_heads(protocol.without),
        "verdict": [line for one in results for line in one.sentences()],
    }
    for one in results:
        if isinstance(one, Probes):
            about["results"] = output.records(one.table)
        elif isinstance(one, HeadDecoding):
            about |= {"heads": output.records(one.table), "heads_agreement": output.records(one.agreement)}
        else:
            about["swaps"] = output.records(one.table)
    return about


def show(results: "list[Probes | HeadDecoding | Swaps]") -> None:
    """Tables and sentences on stdout."""
    from training.common.output import print_table

    for one in results:
        for table in one.tables():
            print_table(*table)
    for one in results:
        for sentence in one.sentences():
            echo(sentence)
