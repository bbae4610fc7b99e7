"""README is tested, not trusted: its code runs, its transcripts are real, its commands and targets exist."""

import re
import sys
from importlib.metadata import entry_points

import pytest
from documents import ROOT, blocks, broken_links, check_shell_lines, check_transcript, run

PAGE = ROOT / "README.md"
README = PAGE.read_text()


@pytest.mark.parametrize("code", blocks(README, "python"))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_python_blocks_run(code):
    run(sys.executable, "-c", code)


@pytest.mark.slow
@pytest.mark.parametrize("transcript", blocks(README, "console"), ids=lambda text: text.splitlines()[0][2:])
def test_transcripts_are_what_the_command_prints(transcript):
    check_transcript(transcript)


def test_readme_names_every_command():
    paragraph = README.partition("## Commands")[2].partition("[What each")[0]
    named = {name for group in re.findall(r"`([a-z ]+)`", paragraph) for name in group.split()}
    assert named == {entry.name for entry in entry_points(group="interp.commands")}


def test_shell_lines_name_commands_and_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make (?:-j2 )?([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    check_shell_lines(README)


def test_links_lead_somewhere():
    assert not broken_links(PAGE)
