"""The concept pages are tested, not trusted: their code runs from top to bottom and prints what they say."""

import builtins
import json
import re
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from symtable import symtable

import pytest
from documents import NUMBER, ROOT, blocks, broken_links, check_shell_lines, check_transcript, help_of, run

FOLDER = ROOT / "notebooks" / "concepts"
PAGES = sorted(FOLDER.glob("*.md"))
TRANSCRIPTS = [transcript for page in PAGES for transcript in blocks(page.read_text(), "console")]
NAME = re.compile(r"`((?:training|interp|analyses)(?:\.\w+)+)`")
FILE = re.compile(r"`((?:training|interp|analyses|tests|notebooks)/[\w/]+(?:\.\w+)?)`")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


UNTOUCHED = """
from interp.ablation.modes import MODES
from interp.names import MODE_NAMES, SCORE_NAMES
from interp.scores.kinds import SCORES
from interp.scores.measured import MEASURED
from training.tasks.function_classes import FAMILIES
from training.names import CLASS_NAMES
assert (tuple(FAMILIES), (*SCORES, *MEASURED), tuple(MODES)) == (CLASS_NAMES, SCORE_NAMES, MODE_NAMES)
"""


def execute(page: object, then: str = "") -> None:
    run(sys.executable, "-c", f"import documents; documents.execute({str(page)!r})\n{then}")


def test_there_are_pages():
    assert {page.stem for page in PAGES} == {
        "any_model", "checkpoints", "commands", "extending", "glossary", "install", "limits", "planted", "results",
        "statistics", "sweeps"
    }  # fmt: skip


@pytest.mark.sample(1)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text(), "python")], ids=lambda p: p.stem)
def test_a_page_runs_prints_what_it_says_and_leaves_the_registries_as_they_were(page):
    execute(page, UNTOUCHED)


@pytest.mark.sample(1)
@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda text: text.splitlines()[0][2:])
def test_transcripts_are_what_the_command_prints(transcript):
    check_transcript(transcript)


@each_page
def test_links_commands_and_names_exist(page):
    text = page.read_text()
    assert not broken_links(page)
    check_shell_lines(text)
    for name in NAME.findall(text):
        assert is_defined(name), name
    for file in FILE.findall(text):
        assert (ROOT / file).exists(), file


def is_defined(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one."""
    module, _, attribute = name.rpartition(".")
    parent = import_module(module)
    is_module = hasattr(parent, "__path__") and find_spec(name)  # not imported: interp.hooked takes ten seconds
    return bool(is_module) or hasattr(parent, attribute)


def test_a_page_that_says_something_else_is_caught(tmp_path):
    page = tmp_path / "page.md"
    for said, is_right in (("0.333 each", True), ("0.333 each\n# time", False), ("0.34 each", False), ("0.333", False)):
        page.write_text(
            f"# A page\n\n```python\nthird = 1 / 3\n```\n\n```python\nprint(third, 'each')  # {said}\n```\n"
        )
        if is_right:
            execute(page)
        else:
            with pytest.raises(AssertionError, match=r"page\.md:8 prints"):
                execute(page)


def test_a_script_that_ends_in_main_is_the_command_line_with_its_class(tmp_path):
    first = blocks((FOLDER / "extending.md").read_text(), "python")[0]
    (tmp_path / "mine.py").write_text(f"{first}\nfrom interp.cli import main\nmain()\n")
    assert "root" in run(sys.executable, str(tmp_path / "mine.py"), "classes").split()


def test_the_loader_has_ten_lines_and_needs_none_of_our_packages():
    """The page runs it and compares its predictions with ours; here, that it would run alone."""
    loader = next(block for block in blocks((FOLDER / "checkpoints.md").read_text(), "python") if "Hooked" in block)
    assert len(loader.partition("\nimport torch")[0].replace("\n\n", "\n").splitlines()) <= 10
    imported = re.findall(r"^(?:from|import) (\w+)", loader, re.MULTILINE)
    assert {*imported} == {"json", "pathlib", "safetensors", "torch", "transformer_lens"}
    names = symtable(loader, "loader", "exec").get_symbols()
    given = {one.get_name() for one in names if not one.is_assigned() and not one.is_imported()}
    assert given <= {*dir(builtins)}


@pytest.mark.slow
def test_the_table_of_errors_is_what_the_study_finds():
    lines = (
        (FOLDER / "results.md")
        .read_text()
        .partition("| error (seeds at most 0.5) |")[2]
        .partition("\n\n")[0]
        .splitlines()
    )
    classes, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]
    study = json.loads(run(sys.executable, "-m", "interp", "study", "curricula", "--ckpt", "zoo:*-*", "--json"))
    found = {(row["curriculum"], row["function_class"]): row for row in study["by_curriculum"]}
    assert [row[0] for row in rows] == ["mixed", "random", "sequential", "class alone"]
    for curriculum, *cells in rows:
        for name, cell in zip(classes, cells, strict=True):
            row = found[f"single:{name}" if curriculum == "class alone" else curriculum, name]
            ends = ("share_low", "share_high") if row["outcome"] == "all or nothing" else ("low", "high")
            errors = [row["ratio"], *(row[end] for end in ends)]
            assert [float(text) for text in NUMBER.findall(cell)] == pytest.approx(errors, abs=0.005)
            assert re.search(rf", {row['n_learned']} of {row['n_seeds']}\b", cell)


def test_the_table_of_commands_is_the_command_lines():
    rows = dict(re.findall(r"^\| `interp (\w+)` \| (.*) \|$", (FOLDER / "commands.md").read_text(), re.MULTILINE))
    assert set(rows) == {entry.name for entry in entry_points(group="interp.commands")}
    for name, sentence in rows.items():
        help_text = " ".join(help_of(name).split())
        assert sentence in help_text
