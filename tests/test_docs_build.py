"""The documentation site: built with warnings as errors, complete, and in need of nothing from elsewhere."""

import html
import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import griffe
import pytest

import interp
from interp.scores.score import weigh

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "notebooks"
PACKAGES = ("training", "interp", "analyses")


def directives(page: Path) -> list[str]:
    """The names that a page documents."""
    return re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)


def text_of(page: Path) -> str:
    """What a page says, without its mark-up."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.read_text())).split())


def public(thing) -> list[str]:
    """The documented functions and classes that a module or class defines, by their full names."""
    own = [one for one in thing.members.values() if not one.is_alias and not one.name.startswith("_")]
    documented = [one.path for one in own if one.docstring and (one.is_function or one.is_class)]
    return documented + [path for one in own if one.is_module or one.is_class for path in public(one)]


FUNCTIONS = {*interp.__all__} - {"Checkpoint", "Head", "OwnPrompts", "UserError"}


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    before = sorted(ROOT.glob("*")) + sorted(DOCS.rglob("*"))
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(ROOT.glob("*")) + sorted(DOCS.rglob("*")) == before
    return directory


def test_every_module_is_on_one_page():
    files = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    shown = Counter(name for page in DOCS.glob("reference/**/*.md") for name in directives(page))
    assert modules - {*shown} == {"interp.__main__"}
    assert [name for name in modules if shown[name] > 1] == []


def test_what_import_interp_gives_is_on_its_page_with_what_it_returns():
    shown = {name.rpartition(".")[2] for name in directives(DOCS / "reference" / "index.md")}
    returned = {inspect.signature(getattr(interp, name)).return_annotation for name in FUNCTIONS}
    ours = {one.__name__ for one in returned if inspect.isclass(one) and one.__module__.startswith(PACKAGES)}
    assert len(ours) > 10
    assert {*interp.__all__} | ours <= shown


def test_the_table_of_arguments_is_that_of_the_signatures():
    table = runpy.run_path(str(DOCS / "reference" / "arguments.py"))["argument_table"]()
    assert table in (DOCS / "reference" / "index.md").read_text(), "run `python notebooks/reference/arguments.py`"
    assert {*re.findall(r"^\| \[`(\w+)`\]", table, re.MULTILINE)} == FUNCTIONS
    (row,) = [line for line in table.splitlines() if "interp.lens]" in line]
    assert "| `1024` |" in row
    assert "`token` `x`" in row


def test_the_home_page_leads_to_every_notebook_and_page():
    links = re.findall(r"\]\(([\w/]+\.(?:ipynb|md))\)", (DOCS / "index.md").read_text())
    pages = {str(page.relative_to(DOCS)) for ending in ("ipynb", "md") for page in DOCS.rglob(f"*.{ending}")}
    assert {*links} == pages - {"index.md"}
    navigation = re.findall(r"^ +- (?:(.+): )?(\S+\.(?:ipynb|md))$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert [page for _, page in navigation] == ["index.md", *links], "another order than on the home page"
    titles = [title for title, page in navigation if page.endswith(".ipynb")]
    assert [title.partition(" ")[0] for title in titles] == [str(number + 1) for number in range(len(titles))]


@pytest.mark.slow
def test_a_page_has_the_signature_with_its_shapes_and_the_words_of_the_docstring(site):
    page = text_of(site / "reference" / "interp" / "scores.html")
    signature = (
        'weigh( attention: Float[Tensor, "batch head query_pos key_pos"], '
        'weights: Float[Tensor, "#batch query_pos key_pos"], ) -> Float[Tensor, "batch head"]'
    )
    assert f"{signature} {str(inspect.getdoc(weigh)).splitlines()[0]}" in page
    assert ">>> attention = torch.tensor" in page


@pytest.mark.slow
def test_every_documented_function_and_class_has_an_entry(site):
    pages = "".join(page.read_text() for page in site.glob("reference/*/*.html"))
    entries = {*re.findall(r'id="([\w.]+)"', pages)}
    names = {name for package in PACKAGES for name in public(griffe.load(package, search_paths=[ROOT]))}
    assert len(names) > 500
    assert names - entries == set()


@pytest.mark.slow
def test_formulas_are_drawn_and_code_is_left_alone(site):
    notebook = (site / "01_quickstart.html").read_text()
    assert "<msub><mi>x</mi><mi>i</mi></msub>" in notebook
    assert "$x_i$" not in notebook
    draw = runpy.run_path(str(DOCS / "reference" / "mathml.py"))["on_page_content"]
    assert draw("<p>$x$ costs $5 or <code>$y$</code></p>").count("<math") == 1


@pytest.mark.slow
def test_a_reader_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)|<link[^>]* href="([^"]+)', page.read_text())
        assert not [url for pair in loaded for url in pair if url.startswith(("http", "//"))], page


def pages_of(site: Path) -> list[Path]:
    """All but 404.html, which only a server shows, from wherever it was asked."""
    return [page for page in site.rglob("*.html") if page != site / "404.html"]


@pytest.mark.slow
def test_links_lead_somewhere_when_pages_are_opened_as_files(site):
    for page in pages_of(site):
        links = {html.unescape(link) for link in re.findall(r'\s(?:href|src)="([^"#]+)', page.read_text())}
        inner = {link for link in links if not re.match(r"https?:|data:|mailto:|javascript:", link)}
        assert inner, page
        assert not [link for link in inner if link.startswith(("/", "file:"))], page
        assert not [link for link in inner if not (page.parent / link.partition("?")[0]).is_file()], page


@pytest.mark.slow
def test_the_search_loads_its_index_as_a_script_and_needs_no_worker(site):
    """A page that was opened as a file may load scripts, but fetch nothing and start no worker."""
    script = (site / "search" / "search_index.js").read_text()
    index = json.loads(script.removeprefix("var __index = "))
    assert index == json.loads((site / "search" / "search_index.json").read_text())
    addresses = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"index.html", "01_quickstart.html", "concepts/install.html"} <= addresses
    for page in pages_of(site):
        (worker,) = re.findall(r'src="([^"]*iframe-worker\.js)"', page.read_text())
        assert (page.parent / worker).resolve() == site.resolve() / "reference" / "iframe-worker.js"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser here (apt-get install chromium)")
@pytest.mark.parametrize("page", ["index.html", "reference/interp/scores.html"])
def test_a_browser_finds_words_on_a_page_opened_as_a_file(site, page, tmp_path):
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=20000",
    ]
    address = f"file://{site / page}?q=resample"
    done = subprocess.run([str(BROWSER), *flags, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert re.search(r'md-search-result__meta">\d+ matching documents<', done.stdout)
    assert f'href="{(site / "concepts" / "glossary.html").as_uri()}' in done.stdout
