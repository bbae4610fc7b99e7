"""The small table of the study of emergence for people."""

import pandas as pd

from training.common.output import count, number, records


def arrivals_overview(arrivals: pd.DataFrame) -> pd.DataFrame:
    """A row per run and class."""
    rows = [
        {
            "model, class": f"{row['checkpoint']}, {row['function_class']}",
            "heads": row["heads"],
            "score": count(row["score_by"]),
            "gain": count(row["gain_by"]),
            "effect then": number(row["effect_first"], 2),
            "order": row["order"] or "-",
        }
        for row in records(arrivals)
    ]
    return pd.DataFrame(rows)
