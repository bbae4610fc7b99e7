"""What `interp score|ablate|patch` do with `--ckpt FILE.py:NAME`, and `interp init`. Heavy imports wait."""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.common.errors import UserError
from training.options import DEFAULT_CONTROLS

if TYPE_CHECKING:
    from interp.any_model.attach import Attached
    from interp.display.result import Result

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
    from interp.scores.command import print_score_json, write_scores
    from interp.scores.tables import score_tables
    from training.common import output
    from training.options import split_names

    model = opened(ckpt)
    kinds = [model.task.kind] if scores is None else [kind_called(name) for name in split_names("--score", scores)]
    if out:
        output.prepare_directory(out)
    results = [model.score(kind=kind, seed=seed) for kind in kinds]
    if out:
        write_scores(results, out)
    if json:
        print_score_json(results, {"seed": seed, "examples": model.task.n_examples})
        return
    for table in score_tables(results, f"{model.task.n_examples} examples, seed {seed}", top):
        output.print_table(*table)


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
    prepare(out)
    result = model.ablate(heads, modes=split_names("--mode", mode), n_controls=controls, seed=seed)
    about = {"controls": controls, "unit": result.unit, "heads": list(dict.fromkeys(result.table["heads"]))}
    deliver(model, result, about | {"seed": seed}, json=json, out=out)


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
    prepare(out)
    result = model.patch(site=site, direction=direction, heads=heads, tokens=tokens, seed=seed)
    about = {"site": site, "direction": direction, "seed": seed, "ends": records(result.ends)}
    deliver(model, result, about, json=json, out=out)


def prepare(out: Path | None) -> None:
    """Make the directory before anything is computed."""
    from training.common.output import prepare_directory

    if out:
        prepare_directory(out)


def deliver(model: "Attached", result: "Result", about: dict[str, Any], *, json: bool, out: Path | None) -> None:
    """Write tables and the figure, and print the result as one document or as tables and sentences."""
    from interp.display.axes import save_figure
    from training.common.output import print_json, records

    (name, table), *_ = result.files.items()
    if out:
        result.write(out)
        save_figure(result.plot(), out / f"{name}.png")
    if json:
        document = {"checkpoint": model.name, "examples": model.task.n_examples, "reference": model.task.n_reference}
        print_json(document | about | {"verdict": result.sentences(), "results": records(table)})
        return
    result.show()


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
