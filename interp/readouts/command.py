"""The commands lens and probe. Heavy imports wait until a command runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training import options
from training.commands import check_classes, open_data, run_command
from training.common.devices import check_device
from training.common.digits import whole
from training.common.errors import UserError

if TYPE_CHECKING:
    from interp.readouts.head_decoding import HeadDecoding
    from interp.readouts.probes import Probes
    from interp.readouts.subspace_patching import Swaps

TARGETS = "w, w_ls (least squares), xty (X'y), t (w·x), class, x (x_i at y_i, and in the output of every head)"


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers in a list such as `--examples 3,7`, in ascending order.

    Raises:
        UserError: a number is not whole and above 0, or is named twice.

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
    data: options.Data = None,
    steps: Annotated[
        str, typer.Option("--steps", metavar="N,N", help="Numbers of gradient-descent steps to compare with.")
    ] = "1,2,4,8,16",
    token: Annotated[
        str, typer.Option("--token", metavar="x|y", help="Read the prediction at the x or at the y tokens.")
    ] = "x",
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Read the prediction that the residual stream implies at every depth, and compare it with known predictors.

    The plain lens applies the model's own final LayerNorm and read-out to the residual stream; the tuned lens is fitted
    at every stage to the model's final prediction on reference prompts. Both are compared with the target y, with the
    model's own prediction, least squares, ridge and gradient descent.

    \b
    Examples:
      interp lens --ckpt zoo:mixed-0 --classes linear
      interp lens --ckpt runs/mixed-0@200 --steps 1,2,3,4 --out results
      interp lens --ckpt zoo:mixed-0 --token y
    """
    from interp.readouts.lens import Lens
    from interp.readouts.lens import lens as read_lens
    from interp.readouts.stream import choose_tokens
    from training.checkpoints.checkpoint import load
    from training.checkpoints.provenance import Provenance
    from training.common import output

    numbers, (token_type,) = whole_numbers("--steps", steps), choose_tokens([token])
    loaded = load(ckpt, check_device(device))
    (checkpoint,), prompts = open_data([loaded], data, classes, prompts, is_split=True)
    names = check_classes(classes, checkpoint.config.evaluated_classes)

    def write(result: Lens, directory: Path) -> None:
        from interp.display.axes import save_figure

        result.write(directory)
        save_figure(result.plot(), directory / "lens.png")

    def document(result: Lens) -> dict[str, Any]:
        about = {"checkpoint": result.checkpoint, "step": result.step, "seed": seed, "prompts": prompts}
        about |= {"token": token_type, "fit_stream": "reference", "test_stream": "test", "verdict": result.sentences()}
        return about | {"depth": output.records(result.depth), "results": output.records(result.table)}

    run_command(
        lambda: read_lens(checkpoint, names, steps=numbers, token=token_type, n_prompts=prompts, seed=seed),
        write=write,
        document=document,
        show=Lens.show,
        provenance=Provenance.of([checkpoint], seed, prompts, data),
        verdict=Lens.sentences,
        json=json,
        out=out,
    )


def probe(
    ckpt: options.Ckpt,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME,NAME", help=f"{TARGETS}; default: all but x.")
    ] = None,
    token: Annotated[str, typer.Option("--token", metavar="x|y|x,y", help="Token types to probe.")] = "x,y",
    examples: Annotated[
        str | None,
        typer.Option(
            "--examples",
            metavar="N,N",
            help="Numbers of examples seen (default: at the end of each quarter of the prompt).",
        ),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(
            "--ablate-heads",
            metavar="HEADS",
            help="Repeat the probes with these heads mean-ablated: 0.1 | top:K | above:SCORE.",
        ),
    ] = None,
    swap: Annotated[
        bool,
        typer.Option(
            "--swap/--no-swap", help="Test whether the model uses what is decoded: swap the probed subspaces."
        ),
    ] = False,
    controls: Annotated[
        int | None,
        typer.Option(
            "--controls",
            metavar="N",
            parser=options.whole_number(1),
            help="Random control subspaces per swap, uniform and of the stream's variance (default: 100, or as many as "
            "Holm over targets and classes needs).",
        ),
    ] = None,
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
    """Decode targets from the residual stream, with controls, and test whether the model uses them.

    Ridge probes per stage, token type and number of examples are fitted and tested on different prompts, and compared
    with shuffled targets and an untrained model. With --swap prompts of two functions exchange the part of their
    activations that lies in the probed subspace, at the position chosen on other prompts, beside random subspaces. With
    --target x, x_i is also decoded from the output of every head at y_i, and --ablate-heads HEADS shows what is
    decodable without these heads.

    \b
    Examples:
      interp probe --ckpt zoo:mixed-0 --classes linear
      interp probe --ckpt zoo:mixed-0 --classes linear --target w,t --swap --out results
      interp probe --ckpt zoo:mixed-0 --target x --ablate-heads above:0.5
    """
    from interp.readouts.head_decoding import decode_heads
    from interp.readouts.probes import choose_one_set
    from interp.readouts.probes import probe as fit_probes
    from interp.readouts.stream import choose_tokens
    from interp.readouts.subspace_patching import swap as swap_subspaces
    from training.checkpoints.checkpoint import load
    from training.checkpoints.provenance import Provenance

    if controls is not None and not swap:
        raise UserError("--controls applies to --swap only, whose control subspaces it counts")
    targets = None if target is None else options.split_names("--target", target)
    tokens = choose_tokens(options.split_names("--token", token))
    numbers = () if examples is None else whole_numbers("--examples", examples)
    checkpoint = load(ckpt, check_device(device))
    names = check_classes(classes, checkpoint.config.evaluated_classes)
    heads = choose_one_set(checkpoint, without or (), prompts, seed)
    common: dict[str, Any] = {"n_prompts": prompts, "n_fit": fit_prompts, "seed": seed}
    probed: dict[str, Any] = {"targets": targets, "tokens": tokens} | common

    def compute() -> "list[Probes | HeadDecoding | Swaps]":
        results: list[Any] = [fit_probes(checkpoint, names, examples=numbers, without=heads, **probed)]
        if "x" in (targets or ()):
            results.append(decode_heads(checkpoint, names, **common))
        if swap:
            last = max(numbers, default=None)
            results.append(swap_subspaces(checkpoint, names, examples=last, n_controls=controls, **probed))
        return results

    run_command(
        compute,
        write=write,
        document=document,
        show=lambda results: show(results, swap=swap),
        provenance=Provenance.of([checkpoint], seed, prompts),
        verdict=lambda results: [sentence for result in results for sentence in result.sentences()],
        json=json,
        out=out,
    )


def write(results: "list[Probes | HeadDecoding | Swaps]", out: Path) -> None:
    """Write tables and figures."""
    from interp.display.axes import save_figure
    from interp.readouts.probes import Probes

    for result in results:
        result.write(out)
        save_figure(result.plot(), out / f"{next(iter(result.files))}.png")
        if isinstance(result, Probes) and result.protocol.without:
            for target in result.table["target"].unique():
                save_figure(result.plot_without(str(target)), out / f"without_{target}.png")


def document(results: "list[Probes | HeadDecoding | Swaps]") -> dict[str, Any]:
    """The document that `--json` prints."""
    from interp.model.heads import show as show_heads
    from training.common.output import records

    first, protocol = results[0], results[0].protocol
    files = {name: table for result in results for name, table in result.files.items()}
    keys = {"probes": "results", "heads": "heads", "heads_agreement": "heads_agreement", "swaps": "swaps"}
    return {
        "checkpoint": first.checkpoint,
        "step": first.step,
        "seed": protocol.seed,
        "prompts": protocol.n_prompts,
        "fit_prompts": protocol.n_fit,
        "fit_stream": "reference",
        "test_stream": "test",
        "without": show_heads(protocol.without),
        "verdict": [sentence for result in results for sentence in result.sentences()],
        **{key: records(files[name]) for name, key in keys.items() if name in files},
    }


def show(results: "list[Probes | HeadDecoding | Swaps]", *, swap: bool) -> None:
    """Print all tables, then all sentences; without `swap` also what they do not show."""
    from training.common.output import print_table
    from training.common.screen import print_text

    for result in results:
        for table in result.tables():
            print_table(*table)
    for result in results:
        for sentence in result.sentences():
            print_text(sentence)
    if not swap:
        print_text("That a target is decodable does not mean that the model uses it: --swap tests that.")
