"""README is tested, not trusted: its code runs, its transcripts are real, its commands and targets exist."""

import itertools
import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from training.checkpoint import zoo_names

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


@pytest.mark.slow
def test_the_results_table_is_what_the_studies_find():
    results = README.partition("| head above 0.5 |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+-0)` \| (.*) \|$", results, re.MULTILINE))
    assert set(rows) == {name for name in zoo_names() if name.endswith("-0")}
    for name, row in rows.items():
        study = json.loads(
            run(sys.executable, "-m", "interp", "study", "retrospective", "--ckpt", f"zoo:{name}", "--json")
        )
        curves = json.loads(run(sys.executable, "-m", "interp", "eval", "--ckpt", f"zoo:{name}", "--json"))["curves"]
        errors = [r["error"] for r in curves if r["predictor"] == "model" and r["examples"] == 15]
        effects = [
            r[key]
            for r in study["results"]
            if r["mode"] == "mean" and r["effect"] is not None
            for key in ("effect", "ci_low", "ci_high")
        ]
        cells = [[float(text) for text in NUMBER.findall(cell)] for cell in row.split(" | ")]
        assert cells[0] == pytest.approx(errors, abs=0.002)
        assert cells[2] == pytest.approx(effects, abs=0.02)
        assert [f"{found} (" in row for found in study["found"]] == [True] * len(study["found"])
