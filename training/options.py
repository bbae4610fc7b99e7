"""The command-line options that several commands share: one spelling, one help text, one default each."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from training.common.digits import MOST_DIGITS, whole
from training.common.errors import UserError
from training.common.terminal import echo

DEFAULT_PROMPTS = 1024
DEFAULT_CONTROLS = 200
DEFAULT_NULL_PROMPTS = 256
DEFAULT_ORDERS = 20
DEFAULT_MEMORY = 2**30  # bytes of activations
DEFAULT_CONVERGED_BELOW = 0.5
DEFAULT_NODE_STEPS = 5
DEFAULT_EDGE_STEPS = 30  # of eap-ig: within 0.0001 of 100 steps on zoo:mixed-0, where 5 steps are 0.006 off (of 0.44)

T = TypeVar("T")
RENAMED = {
    "at": "tokens",
    "by": "weighting",
    "faithful": "min-faithfulness",
    "no-own": "no-class-baseline",
    "own": "class-baseline",
    "fraction": "converged-below",
    "receipt": "validate",
    "without": "ablate-heads",
}
"""Options by their former name; the former one is accepted for one release."""


@cache
def current_option_name(name: str) -> str:
    """The present name of an option, or of anything else on a command line; a former one is reported on stderr, once.

    >>> current_option_name("prompts")
    'prompts'
    """
    if name in RENAMED:
        echo(f"--{name} is now called --{RENAMED[name]}", err=True)
    return RENAMED.get(name, name)


def whole_number(at_least: int) -> Callable[[str | int], int]:
    """A parser for an option that takes a whole number from `at_least` upwards."""

    def parse(text: str | int) -> int:  # typer hands the default through as it is
        number = whole(str(text))
        if number is None or number < at_least:
            longest = f", of at most {MOST_DIGITS} digits" if number is None and str(text).isdecimal() else ""
            raise typer.BadParameter(f"{text} (a whole number of at least {at_least} is needed{longest})")
        return number

    return parse


def split_names(option: str, text: str) -> list[str]:
    """The names in a list such as `--inputs NAME,NAME`.

    Raises:
        UserError: one is named twice, or is empty.

    >>> split_names("--inputs", "gaussian, skewed")
    ['gaussian', 'skewed']
    """
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise UserError(f"{option} '{text}': a name is empty")
    if len(set(names)) < len(names):
        raise UserError(f"{option} {text}: {max(names, key=names.count)} is named twice")
    return names


def as_list(values: T | Sequence[T]) -> list[T]:
    """A value of its own as a list of one; text is a list of names as on the command line.

    >>> as_list(5), as_list("gradient"), as_list("mean, zero"), as_list([1, 2])
    ([5], ['gradient'], ['mean', 'zero'], [1, 2])
    """
    if isinstance(values, str):
        return [name.strip() for name in values.split(",")]  # type: ignore[misc]
    return list(values) if isinstance(values, Sequence) else [values]


def as_numbers(name: str, values: int | str | Sequence[int]) -> list[int]:
    """Whole numbers from one, from several, or from text as on the command line.

    Raises:
        UserError: something else is among them.

    >>> as_numbers("steps", 5), as_numbers("steps", "1,2"), as_numbers("steps", [1, 2])
    ([5], [1, 2], [1, 2])
    """
    numbers = [whole(str(value)) for value in as_list(values)]
    if None in numbers:
        raise UserError(f"{name}={values!r}: whole numbers are needed")
    return [number for number in numbers if number is not None]


def require_single_checkpoint(context: Any, name: str) -> str:
    """The checkpoint behind the `--ckpt` of a command that takes no second: a pattern may match a single name.

    Raises:
        UserError: it matches several, or none.
    """
    from training.checkpoints.name_patterns import expand

    names = expand([name])
    if len(names) > 1:
        first = f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        raise UserError(f"{context.info_name} takes one checkpoint; --ckpt {name} names {len(names)}: {first}")
    return names[0]


Ckpt = Annotated[
    str,
    typer.Option(
        "--ckpt",
        metavar="CKPT",
        callback=require_single_checkpoint,
        help="A run directory, DIR@STEP for a snapshot, or zoo:NAME for a shipped model.",
    ),
]
Ckpts = Annotated[
    list[str],
    typer.Option(
        "--ckpt",
        metavar="CKPT",
        help="A run directory, DIR@STEP for a snapshot, or zoo:NAME for a shipped model; '*' stands for "
        'several ("zoo:mixed-*"); may be repeated.',
    ),
]
AnyCkpt = Annotated[
    str,
    typer.Option(
        "--ckpt",
        metavar="CKPT",
        callback=require_single_checkpoint,
        help="A run directory, DIR@STEP for a snapshot, zoo:NAME for a shipped model, or FILE.py:NAME for a model of "
        "your own (`interp init`).",
    ),
]
AnyCkpts = Annotated[
    list[str],
    typer.Option(
        "--ckpt",
        metavar="CKPT",
        help="A run directory, DIR@STEP for a snapshot, zoo:NAME for a shipped model, or FILE.py:NAME for a model of "
        "your own (`interp init`); '*' stands for several (\"zoo:mixed-*\"); may be repeated.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAME,NAME",
        help="Function classes to test on (default: those of the run).",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="Prompts of your own instead of function classes: npz or safetensors with xs [batch point dim] and ys "
        "[batch point], or csv with columns prompt, point, x0, x1, …, y; further dimensions of the model are 0. "
        "Without a context y is predicted as 0, or as the number no_context in the file. A command that chooses "
        "heads, or needs means, partners or fits, keeps a random half (--seed) for that; at most --prompts others are "
        "tested on.",
    ),
]
Prompts = Annotated[
    int, typer.Option("--prompts", metavar="N", parser=whole_number(2), help="Prompts per function class.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", parser=whole_number(0), help="Seed of all random draws.")]
Controls = Annotated[
    int,
    typer.Option(
        "--controls",
        metavar="N",
        parser=whole_number(0),
        help="Random control sets per tested set and kind of matching (all possible sets if fewer exist).",
    ),
]
Independent = Annotated[
    bool,
    typer.Option(
        "--independent", help="Treat runs with unknown seeds (imported ones) as independent: your claim, not a check."
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write tables (CSV) and figures (PNG) to this directory."),
]
