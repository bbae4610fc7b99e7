"""A report on shipped models, for the tests of its content and of its look."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analyses.report import files, page
from analyses.report.evidence import Evidence, Settings, gather
from analyses.report.protocol import as_json, protocol_of
from analyses.report.tables import tables
from training.checkpoint import load

Written = Callable[[Evidence, Path], tuple[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def quick() -> Settings:
    return Settings(n_prompts=48, n_controls=12, classes=("linear",))


@pytest.fixture(scope="session")
def shipped(quick) -> Evidence:
    """A model that learned and one that did not, on two classes, one of which the second never saw."""
    return gather([load("zoo:mixed-0"), load("zoo:cubic-0")], replace(quick, classes=("linear", "cubic")))


@pytest.fixture(scope="session")
def written() -> Written:
    """Writes everything that the command writes; gives the page, and report.json read back."""

    def write(evidence: Evidence, page_file: Path) -> tuple[str, dict[str, Any]]:
        said, protocol = page.account(evidence), protocol_of(evidence, ["report", "--ckpt", "a b"])
        whole = tables(evidence)
        html = page.render(evidence, said, protocol, files.data_names(whole, page_file))
        files.write(page_file, html, page.document(evidence, said, as_json(protocol)), whole)
        return html, json.loads((files.data_directory(page_file) / "report.json").read_text())

    return write


@pytest.fixture(scope="session")
def report(shipped, written, tmp_path_factory) -> tuple[str, dict[str, Any], Path]:
    """HTML, JSON and place of the report on both shipped models."""
    target = tmp_path_factory.mktemp("report") / "heads.html"
    return (*written(shipped, target), target)
