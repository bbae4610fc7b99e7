"""What `interp score|ablate|patch` do with `--ckpt FILE.py:NAME`, and `interp init`. Heavy imports wait."""

from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from training.commands import run_command
from training.common.errors import UserError
from training.options import DEFAULT_CONTROLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from interp.any_model.attach import Attached
    from interp.any_model.judge import LossAblation
    from interp.any_model.patch import LossPatchMap
    from interp.display.result import Result
    from training.checkpoints.provenance import Provenance

ResultT = TypeVar("ResultT", bound="Result")
TEMPLATE = "template.py"


def opened(ckpt: str) -> "Attached":
    """The attached model behind FILE.py:NAME."""
    from interp.any_model.attach import Attached
    from interp.model.attached import open_file

    model = open_file(ckpt)
    assert isinstance(model, Attached)
    return model


def score(
    ckpt: str, *, scores: str | None = None, seed: int = 0, top: int = 8, json: bool = False, out: Path | None = None
) -> None:
    """Score every head of an attached model."""
    from interp.any_model.token_roles import kind_called
    from interp.scores.command import document, show, write_scores
    from training.options import split_names

    model = opened(ckpt)
    n_examples = model.task.n_examples
    kinds = [model.task.kind] if scores is None else [kind_called(name) for name in split_names("--score", scores)]
    run_command(
        lambda: [model.score(kind=kind, seed=seed) for kind in kinds],
        write=write_scores,
        document=lambda results: document(results, {"seed": seed, "examples": n_examples}),
        show=lambda results: show(results, f"{n_examples} examples, seed {seed}", top),
        provenance=provenance(model, seed),
        json=json,
        out=out,
    )


def ablate(
    ckpt: str,
    *,
    heads: str,
    mode: str = "zero,mean,resample",
    controls: int = DEFAULT_CONTROLS,
    memory: float | None = None,
    seed: int = 0,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Remove heads of an attached model and compare the losses with those of random sets."""
    from training.options import split_names

    model = opened(ckpt)
    if memory is not None:
        model = model.with_memory(memory)
    modes = split_names("--mode", mode)

    def about(result: "LossAblation") -> dict[str, Any]:
        heads = list(dict.fromkeys(result.table["heads"]))
        return {"controls": controls, "unit": result.unit, "heads": heads, "seed": seed}

    compute = partial(model.ablate, heads, modes=modes, n_controls=controls, seed=seed)
    deliver(model, seed, compute, about, json=json, out=out)


def patch(
    ckpt: str,
    *,
    site: str = "z",
    direction: str = "denoise",
    heads: str = "each",
    tokens: str | None = None,
    seed: int = 0,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Patch activations of an attached model between clean and corrupt examples."""
    from training.common.output import records

    model = opened(ckpt)
    compute = partial(model.patch, site=site, direction=direction, heads=heads, tokens=tokens, seed=seed)

    def about(result: "LossPatchMap") -> dict[str, Any]:
        return {"site": site, "direction": direction, "seed": seed, "ends": records(result.ends)}

    deliver(model, seed, compute, about, json=json, out=out)


def deliver(
    model: "Attached",
    seed: int,
    compute: "Callable[[], ResultT]",
    about: "Callable[[ResultT], dict[str, Any]]",
    *,
    json: bool,
    out: Path | None,
) -> None:
    """Compute a result, write its tables and figure, and print it as one document or as tables and sentences."""
    from training.common.output import records

    def write(result: Any, directory: Path) -> None:
        from interp.display.axes import save_figure

        result.write(directory)
        save_figure(result.plot(), directory / f"{next(iter(result.files))}.png")

    def document(result: Any) -> dict[str, Any]:
        examples = {"checkpoint": model.name, "examples": model.task.n_examples, "reference": model.task.n_reference}
        rows = records(next(iter(result.files.values())))
        return examples | about(result) | {"verdict": result.sentences(), "results": rows}

    run_command(
        compute,
        write=write,
        document=document,
        show=lambda result: result.show(),
        provenance=provenance(model, seed),
        verdict=lambda result: result.sentences(),
        json=json,
        out=out,
    )


def provenance(model: "Attached", seed: int) -> "Provenance":
    """That of a command on an attached model, whose parameters and buffers are hashed: it has no file of weights."""
    from training.checkpoints.provenance import Provenance
    from training.checkpoints.tensor_files import digest

    weights = {name: tensor.cpu().contiguous() for name, tensor in model.network.module.state_dict().items()}
    about = {"name": model.name, "step": None, "sha256": digest(weights, {}), "seeds": None}
    return Provenance([about], seed, model.task.n_examples)


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="The file to write; it must not exist yet.")],
) -> None:
    """Write a commented file that opens a model of your own, and runs as it is.

    \b
    Examples:
      interp init lm.py
      interp score --ckpt lm.py:induction
      interp ablate --ckpt lm.py:induction --heads top:2
    """
    from training.common.atomic_files import write_text
    from training.common.terminal import echo

    if file.suffix != ".py":
        raise UserError(f"{file}: a name that ends in .py is needed")
    if file.exists():
        raise UserError(f"{file} exists already: another name is needed")
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no directory '{file.parent}'")
    write_text(resources.files("interp.any_model").joinpath(TEMPLATE).read_text(), file)
    echo(f"wrote {file}; next: interp score --ckpt {file}:induction")
