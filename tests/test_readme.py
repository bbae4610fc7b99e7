"""README is tested, not trusted: its code runs, its transcripts are real, its commands and targets exist."""

import json
import re
import sys
from importlib.metadata import entry_points

import pytest
from documents import NUMBER, ROOT, blocks, broken_links, check_shell_lines, check_transcript, run

PAGE = ROOT / "README.md"
README = PAGE.read_text()


@pytest.mark.parametrize("code", blocks(README, "python"))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_python_blocks_run(code):
    run(sys.executable, "-c", code)


@pytest.mark.parametrize("transcript", blocks(README, "console"), ids=lambda text: text.splitlines()[0][2:])
def test_transcripts_are_what_the_command_prints(transcript):
    check_transcript(transcript)


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
    check_shell_lines(README)


def test_links_lead_somewhere():
    assert not broken_links(PAGE)


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
