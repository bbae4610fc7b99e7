"""README is tested, not trusted: its code runs, its transcripts are real, its commands and targets exist."""

import itertools
import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"-?\d+\.\d+")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.mark.parametrize("code", blocks("python"))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_python_blocks_run(code):
    run(sys.executable, "-c", code)


@pytest.mark.parametrize("transcript", blocks("console"), ids=lambda text: text.splitlines()[0][2:])
def test_transcripts_are_what_the_command_prints(transcript):
    """Word by word; numbers may differ in the last digits between machines, and `...` stands for lines left out."""
    command, _, shown = transcript.partition("\n")
    printed = run(sys.executable, "-m", *command.removeprefix("$ ").split())
    position = 0
    for part in shown.split("...\n"):
        pattern = r"\s+".join(re.escape(word) for word in NUMBER.sub("#", part).split())
        match = re.compile(pattern).search(NUMBER.sub("#", printed), position)
        assert match, f"not printed: {part}"
        position = match.end()
    ours, theirs = (list(map(float, NUMBER.findall(text))) for text in (shown.partition("...")[0], printed))
    assert ours == pytest.approx(theirs[: len(ours)], rel=0.01, abs=0.003)


def test_the_table_of_commands_is_the_command_lines():
    rows = dict(re.findall(r"^\| `interp (\w+)` \| (.*) \|$", README, re.MULTILINE))
    assert set(rows) == {entry.name for entry in entry_points(group="interp.commands")}
    for name, sentence in rows.items():
        help_text = " ".join(run(sys.executable, "-m", "interp", name, "--help").split())
        assert sentence in help_text


def test_shell_lines_name_commands_and_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make (?:-j2 )?([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for words in (line.split() for block in blocks("sh") for line in block.splitlines()):
        if words[0] == "interp":
            command = itertools.takewhile(lambda word: not word.startswith("-"), words[1:])
            options = run(sys.executable, "-m", "interp", *command, "--help")
            assert all(word in options for word in words if word.startswith("--"))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_table_of_errors_is_what_the_study_finds():
    lines = README.partition("| error (seeds at most 0.5) |")[2].partition("\n\n")[0].splitlines()
    classes, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]
    study = json.loads(run(sys.executable, "-m", "interp", "study", "curricula", "--ckpt", "zoo:*-*", "--json"))
    found = {(row["curriculum"], row["function_class"]): row for row in study["by_curriculum"]}
    assert [row[0] for row in rows] == ["mixed", "random", "sequential", "class alone"]
    for curriculum, *cells in rows:
        for name, cell in zip(classes, cells, strict=True):
            row = found[f"single:{name}" if curriculum == "class alone" else curriculum, name]
            errors = [row["ratio"], row["low"], row["high"]]
            assert [float(text) for text in NUMBER.findall(cell)] == pytest.approx(errors, abs=0.002)
            assert cell.endswith(f", {row['n_learned']} of {row['n_seeds']}")
