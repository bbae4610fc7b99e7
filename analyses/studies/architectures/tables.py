"""Small tables of the study of architectures for people."""

import pandas as pd

from analyses.comparison.comparison import grid
from analyses.studies.plateaus.measures import LEFT
from analyses.studies.plateaus.tables import format_share
from analyses.studies.variants import tables
from training.common.table_rows import where


def overview_tables(counts: pd.DataFrame, compared: pd.DataFrame, errors: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Counts of seeds that learned, then the means of the study of variants."""
    optimum = f"error <= {LEFT:g} of the no-context optimum"
    title = f"seeds that left the plateau ({optimum}) [exact 95 % interval of the share]"
    left = grid(where(counts, threshold=LEFT), lambda row: f"{row['n_left']} of {row['n_seeds']} {format_share(row)}")
    return {title: left.rename(columns={"curriculum": "architecture"})} | tables.overview_tables(compared, errors)
