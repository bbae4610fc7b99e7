"""The files of a report: one page, and a directory beside it with the same numbers for programs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.report.tables import NAMES
from analyses.studies.registry import STUDIES
from training.checkpoints.provenance import write as write_run
from training.common.errors import UserError
from training.common.output import plain, prepare_directory, write_table, write_text
from training.common.terminal import echo

PAGE, DOCUMENT = "report.html", "report.json"


def page_path(out: Path) -> Path:
    """The page that `--out` names: a file that ends in .html, or `report.html` in a directory.

    Raises:
        UserError: it has another ending, is a directory, or cannot be written.

    >>> str(page_path(Path("results/mixed.html")))
    'results/mixed.html'
    """
    if out.suffix.lower() in (".html", ".htm") and not out.is_dir():
        return out
    if out.is_dir() or not out.suffix:
        return out / PAGE
    raise UserError(f"--out {out}: a report is one HTML page (valid: a name that ends in .html, or a directory)")


def check_writable(page: Path) -> None:
    """Refuse a page that could not be written at the end, without leaving anything behind.

    Raises:
        UserError: the page is a directory, its data directory is a file, or their directory cannot be written to.
    """
    if page.is_dir():
        raise UserError(f"--out {page}: that is a directory")
    if data_directory(page).exists() and not data_directory(page).is_dir():
        raise UserError(f"--out {page}: the data go to {data_directory(page)}/, which is a file")
    missing = [directory for directory in page.parents if not directory.exists()]
    prepare_directory(page.parent)
    for directory in missing:
        directory.rmdir()


def data_directory(page: Path) -> Path:
    """
    >>> str(data_directory(Path("results/mixed.html")))
    'results/mixed'
    """
    return page.with_suffix("")


def data_names(tables: Mapping[str, pd.DataFrame], page: Path) -> list[str]:
    """The files that are written beside the page."""
    directory = data_directory(page).name
    return [f"{directory}/{DOCUMENT}", *(f"{directory}/{name}.csv" for name in tables)]


def write(page: Path, html: str, document: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write every file whole or not at all, the page last; remove tables of an older report that this one lacks."""
    directory = data_directory(page)
    for name, table in tables.items():
        write_table(table, directory / f"{name}.csv")
    for path in directory.glob("*.csv"):
        if path.stem not in tables and (
            path.stem in NAMES or path.stem.startswith(tuple(f"{name}_" for name in STUDIES))
        ):
            path.unlink()
    write_text(json.dumps(plain(dict(document)), indent=1) + "\n", directory / DOCUMENT)
    write_text(html, page)


def write_origin(run: Mapping[str, Any], page: Path) -> None:
    """Write `run.json` beside the numbers of a page, and print where everything is on stderr."""
    write_run(run, data_directory(page))
    echo(f"wrote {page}, and its numbers to {data_directory(page)}/", err=True)
