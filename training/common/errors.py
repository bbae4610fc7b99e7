"""The two ways in which a command stops on purpose; the command line turns them into exit codes."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from training.common.terminal import one_line

ARGUMENTS = {
    **{name: name for name in ("classes", "corrupt", "design", "direction", "edges", "examples", "heads", "points")},
    **{name: name for name in ("site", "sizes", "tokens", "token", "min-faithfulness")},
    **{name: f"{name}s" for name in ("mode", "method", "target")},
    **{name: f"n_{name}" for name in ("controls", "prompts", "steps", "random")},
    "ablate-heads": "without",
    "to": "receivers",
}
"""The arguments of functions, by the options of commands that stand for them."""
OPTION = re.compile(rf"--({'|'.join(sorted(ARGUMENTS, key=len, reverse=True))})(?![\w-])")


class UserError(ValueError):
    """The input is wrong: the message is one line that names what was given and what is valid (exit 2).

    A command prints `message`, with its options; a notebook shows the arguments of the function instead.

    >>> error = UserError("--mode kill: not a mode (valid: mean)")
    >>> print(error.message, str(error), sep=chr(10))
    --mode kill: not a mode (valid: mean)
    modes kill: not a mode (valid: mean)
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))

    @property
    def message(self) -> str:
        return self.args[0]

    def __str__(self) -> str:
        parts = self.message.split("`")  # every other part is a command in backticks, which stays as it is
        parts[::2] = [OPTION.sub(lambda option: ARGUMENTS[option[1]].replace("-", "_"), part) for part in parts[::2]]
        return "`".join(parts)


class CheckError(RuntimeError):
    """The program or the run is not to be trusted: a self-check failed or training diverged (exit 1)."""


def refuse_failures(failures: Iterable[str]) -> None:
    """End with exit code 1 where a part of the results was left out, after the rest has been shown.

    Raises:
        CheckError: something was left out.
    """
    if text := "; ".join(failures):
        raise CheckError(text)


def one_of(what: str, given: str, valid: Iterable[object], names: Iterable[str] | None = None) -> UserError:
    """The error for a name that is not among the valid ones; it names the one that was probably meant.

    Args:
        what: the name is of.
        given: the name.
        valid: the valid ones, as the message lists them.
        names: the valid ones, where the message abbreviates them.

    >>> print(one_of("function class", "linaer", ["linear", "cubic"]))
    unknown function class 'linaer': did you mean 'linear'? (valid: linear, cubic)
    """
    listed = [str(name) for name in valid]
    close = get_close_matches(str(given), listed if names is None else names, 1, cutoff=0.75)
    hint = f": did you mean '{close[0]}'?" if close else ""
    return UserError(f"unknown {what} '{given}'{hint} (valid: {', '.join(listed)})")


def require(
    what: str,
    value: int | float,
    *,
    at_least: int | float | None = None,
    above: int | float | None = None,
    at_most: int | float | None = None,
) -> None:
    """Refuse a parameter that is out of range.

    Raises:
        UserError: it is.
    """
    if at_least is not None and value < at_least:
        raise UserError(f"{what}:{value}: must be at least {at_least}")
    if above is not None and value <= above:
        raise UserError(f"{what}:{value}: must be above {above}")
    if at_most is not None and value > at_most:
        raise UserError(f"{what}:{value}: must be at most {at_most}")
