"""One table from the tables of an analysis of many runs: all their rows, and in front of each where it is from."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from analyses.sweep.plan import Cell
from analyses.sweep.record import results
from training.common.output import write_table


def gather(cells: Sequence[Cell], directory: Path) -> list[Path]:
    """Write one table for every name of a table of an analysis: `DIRECTORY/ANALYSIS/NAME.csv`.

    Args:
        cells: those whose tables are to be put together.
        directory: of all gathered tables.
    """
    written: list[Path] = []
    for group in dict.fromkeys(cell.group for cell in cells):
        of_group = [cell for cell in cells if cell.group == group]
        for name in sorted({path.name for cell in of_group for path in tables_of(cell)}):
            path = directory / group / name
            write_table(joined(of_group, name), path)
            written.append(path)
    return written


def tables_of(cell: Cell) -> list[Path]:
    """The tables that the cell has written, not those that anyone else put beside them."""
    return [path for path in results(cell.directory) if path.parent == cell.directory and path.suffix == ".csv"]


def joined(cells: Iterable[Cell], name: str) -> pd.DataFrame:
    """The rows of all cells that have this table, every field as it was written; `run` and the axes come first."""
    tables = []
    for cell in cells:
        path = cell.directory / name
        if path in tables_of(cell):
            rows = pd.read_csv(path, dtype=str, keep_default_na=False)
            told = pd.DataFrame([{key: value for key, value in cell.point.items() if key not in rows}] * len(rows))
            tables.append(pd.concat([told, rows], axis=1))
    return pd.concat(tables, ignore_index=True).fillna("")
