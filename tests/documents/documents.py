"""Documents as programs: their code runs, prints what they say, their transcripts are real, their links lead somewhere.

    python -c "import documents; documents.execute(PAGE)"

runs a page's blocks of Python, one after the other in one namespace.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from itertools import takewhile
from pathlib import Path

import pytest

from interp.cli import main

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"-?\d+\.\d+")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(*command: str) -> str:
    """What a command prints in the repository's root."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def words(text: str) -> str:
    """The text without its numbers, which may differ in the last digits between machines."""
    return " ".join(NUMBER.sub("#", text).split())


def numbers(text: str) -> list[float]:
    return list(map(float, NUMBER.findall(text)))


def alike(shown: str, printed: str) -> bool:
    """Word by word, and number by number within a hundredth."""
    return words(shown) == words(printed) and numbers(shown) == pytest.approx(numbers(printed), rel=0.01, abs=0.003)


def check_transcript(transcript: str) -> None:
    """A command and what it prints; `...` stands for lines left out. Numbers count up to the first of these."""
    command, _, shown = transcript.partition("\n")
    printed = run(sys.executable, "-m", *command.removeprefix("$ ").split())
    position = 0
    for part in shown.split("...\n"):
        pattern = r"\s+".join(map(re.escape, words(part).split()))
        match = re.compile(pattern).search(NUMBER.sub("#", printed), position)
        assert match, f"not printed: {part}"
        position = match.end()
    ours, theirs = numbers(shown.partition("...")[0]), numbers(printed)
    assert ours == pytest.approx(theirs[: len(ours)], rel=0.01, abs=0.003)


@cache
def help_of(*command: str) -> str:
    """What `interp COMMAND --help` prints, in this process."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(sys, "argv", ["interp", *command, "--help"])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 0, command
    return printed.getvalue()


def check_shell_lines(text: str) -> None:
    """Every `interp …` in a block of shell is a command that has these options."""
    for line in (line.split() for block in blocks(text, "sh") for line in block.splitlines()):
        if line[:1] == ["interp"]:
            command = takewhile(lambda word: not word.startswith("-"), line[1:])
            options = help_of(*command)
            assert all(word in options for word in line if word.startswith("--")), line


def broken_links(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading in it; addresses on the web are not asked."""
    targets = [one for one in re.findall(r"\]\(([^)]+)\)", page.read_text()) if not one.startswith("https://")]
    return [one for one in targets if not leads_somewhere(page, *one.partition("#")[::2])]


def leads_somewhere(page: Path, file: str, heading: str) -> bool:
    target = page.parent / file if file else page
    return target.exists() and (not heading or heading in anchors(target.read_text()))


def anchors(text: str) -> list[str]:
    """What headings are called in an address.

    >>> anchors("## What do p-values *mean*?")
    ['what-do-p-values-mean']
    """
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def program(text: str) -> str:
    """The page's blocks of Python in their places: every other line is empty, so that line numbers are the page's."""
    return "\n".join(line if is_code else "" for line, is_code in marked(text.splitlines()))


def marked(lines: list[str]) -> Iterator[tuple[str, bool]]:
    """Every line, and whether it is inside a block of Python."""
    inside = False
    for line in lines:
        inside = inside and line != "```"
        yield line, inside
        inside = inside or line == "```python"


def execute(page: str) -> None:
    """Run a page; whatever it prints has to stand in the comment beside or below.

    Raises:
        AssertionError: something printed is not what the page says.
    """
    text = Path(page).read_text()
    lines = text.splitlines()

    def said(*values: object) -> None:
        number = sys._getframe(1).f_lineno  # pyright: ignore[reportPrivateUsage]
        below = takewhile(lambda line: line.startswith("# "), lines[number:])
        shown = " ".join([lines[number - 1].partition("  # ")[2], *(line[2:] for line in below)])
        printed = " ".join(map(str, values))
        assert alike(shown, printed), f"{page}:{number} prints\n{printed}\nand says\n{shown}"

    exec(compile(program(text), page, "exec"), {"__name__": "__main__", "print": said})
