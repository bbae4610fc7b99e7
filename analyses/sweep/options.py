"""Whether a command line is one that `interp` would take, without running it."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from typer.exceptions import TyperException
from typer.main import get_command

from interp.cli import build
from training.common.errors import UserError, one_of
from training.options import current_option_name


@cache
def commands() -> dict[str, Any]:
    """The commands of `interp` that take `--ckpt` and `--out`, which a sweep can run, by their one or two words."""
    every_command: dict[str, Any] = {}
    for name, command in vars(get_command(build()))["commands"].items():
        below = vars(command).get("commands")
        every_command |= {f"{name} {inner}": below[inner] for inner in below} if below else {name: command}
    return {name: command for name, command in every_command.items() if {"--ckpt", "--out"} <= {*options(command)}}


def options(command: Any) -> dict[str, Any]:
    """The parameters of a command, by the options that set them."""
    return {option: parameter for parameter in command.params for option in parameter.opts}


def check_command(words: Sequence[str], *, several: bool = False) -> None:
    """Refuse a command line that `interp` would refuse before it reads a checkpoint.

    Args:
        words: the command line without `--ckpt` and `--out`, which the sweep gives.
        several: whether the command has to take several checkpoints.

    Raises:
        UserError: no such command or option, or a value of the wrong kind.
    """
    quoted = f"'{' '.join(words)}'"
    if reserved := [word for word in words if word in ("--ckpt", "--out", "--help")]:
        raise UserError(f"{quoted}: {reserved[0]} cannot be set in the file; the sweep adds checkpoints and --out")
    name = next((name for name in commands() if [*words[: name.count(" ") + 1]] == name.split()), None)
    if name is None:
        raise one_of("command for a sweep", " ".join(words[:2]), commands())
    command = commands()[name]
    if several and not options(command)["--ckpt"].multiple:
        raise UserError(f"{quoted}: `interp {name}` takes one checkpoint; under [[analyse]] it runs on each of them")
    try:
        arguments = [*words[name.count(" ") + 1 :], "--ckpt", "CKPT", "--out", "OUT"]
        command.make_context(name, arguments, token_normalize_func=current_option_name)
    except TyperException as error:
        raise UserError(f"{quoted}: {error.format_message()}") from None
