"""Shows the doctests of docstrings, and the examples of commands, as code: Markdown would take them for prose."""

import re
import textwrap
from typing import Any

import griffe

DOCTEST = re.compile(r"(?:^>>> .*\n?)(?:^.+\n?)*", re.MULTILINE)
EXAMPLES = re.compile(r"^\x08\nExamples?:\n((?:^ +.+\n?)+)", re.MULTILINE)
"""The backspace tells typer to leave the line breaks alone."""


class CodeBlocks(griffe.Extension):
    """Rewrites every docstring of a package once it is read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        rewrite(pkg)


def rewrite(thing: griffe.Object) -> None:
    """Of one thing and of everything defined in it."""
    if thing.docstring:
        text = DOCTEST.sub(lambda found: fenced("pycon", found[0]), thing.docstring.value)
        thing.docstring.value = EXAMPLES.sub(lambda found: fenced("sh", found[1]), text)
    for member in thing.members.values():
        if not member.is_alias:
            rewrite(member)


def fenced(language: str, lines: str) -> str:
    return f"```{language}\n{textwrap.dedent(lines).rstrip()}\n```\n"
