"""The tables of an analysis of many runs as one table: all their rows, the run and the axes in front."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from analyses.sweep.plan import Cell
from analyses.sweep.record import results
from training.common.output import write_table


def gather(cells: Sequence[Cell], directory: Path) -> list[Path]:
    """Write a table for every name of a table of an analysis: `DIRECTORY/ANALYSIS/NAME.csv`.

    Args:
        cells: those whose tables are to be put together.
        directory: of all gathered tables.
    """
    written: list[Path] = []
    for group in dict.fromkeys(cell.group for cell in cells):
        members = [cell for cell in cells if cell.group == group]
        for name in sorted({path.name for cell in members for path in tables_of(cell)}):
            path = directory / group / name
            write_table(concatenate(members, name), path)
            written.append(path)
    return written


def tables_of(cell: Cell) -> list[Path]:
    """The tables that the cell has written; other files in its directory are ignored."""
    return [path for path in results(cell.directory) if path.parent == cell.directory and path.suffix == ".csv"]


def concatenate(cells: Iterable[Cell], name: str) -> pd.DataFrame:
    """The rows of all cells that have this table, every field as it was written; `run` and the axes come first."""
    tables = []
    for cell in cells:
        path = cell.directory / name
        if path in tables_of(cell):
            rows = pd.read_csv(path, dtype=str, keep_default_na=False)
            point = pd.DataFrame([{key: value for key, value in cell.point.items() if key not in rows}] * len(rows))
            tables.append(pd.concat([point, rows], axis=1))
    return pd.concat(tables, ignore_index=True).fillna("")
