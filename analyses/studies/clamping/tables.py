"""Small tables of the study of clamping for people."""

import pandas as pd

from training.common.output import interval, number, records

LABELS = ("arm", "function_class", "evaluated", "measure")


def overview_of_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Both means and the paired difference, of rows that have any."""
    return pd.DataFrame(
        [
            {label.replace("_", " "): row[label] for label in LABELS if label in row}
            | {
                "mean": number(row["arm_mean"]),
                "twins": number(row["twin_mean"]),
                "difference": interval(row["difference"], row["low"], row["high"]),
                "seeds": str(row["n_seeds"]),
            }
            for row in records(table)
            if row["n_seeds"]
        ]
    )
