"""Notebooks are programs: the percent source and the executed pair hold the same code, and it runs."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
IN_CI = ("09_any_model",)
"""Executed by every `make test`: the one that needs nothing of ours but the statistics. All take minutes of a core, and
what the others call is tested elsewhere; `make test-slow` executes them."""
EACH = [pytest.param(path, id=path.stem, marks=() if path.stem in IN_CI else pytest.mark.slow) for path in SOURCES]


def test_there_are_notebooks_and_every_one_is_a_pair():
    assert SOURCES
    assert {path.stem for path in SOURCES} == {path.stem for path in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_executed_notebook_is_its_source_with_outputs(source):
    executed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    written = jupytext.read(source)
    cells = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (executed, written)]
    assert cells[0] == cells[1], "run `make notebooks`"
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) >= len(code) / 2
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert "widgets" not in executed.metadata  # progress bars: TQDM_DISABLE=1, as in `make notebooks`


@pytest.mark.parametrize("source", EACH)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's plumbing
def test_the_notebook_runs_and_its_assertions_hold(source):
    NotebookClient(jupytext.read(source), timeout=300, kernel_name="python3").execute(cwd=FOLDER)
