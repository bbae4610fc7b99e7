"""Small tables of the study of guides for people."""

import pandas as pd

from analyses.studies.cause.tables import effect_table
from interp.statistics.p_values import p_number
from training.common.output import interval, number, records
from training.common.table_rows import distinct, where


def overview_tables(guides: pd.DataFrame, exclusion: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Guides over all models, the best first, and the removal of what one kind of score finds, where there are any."""
    tables = {"guides to the exact effect of a head, over independent seeds": ranked_guides(guides)}
    if len(exclusion):
        for kind in distinct(exclusion, "heads"):
            title = f"{kind} heads removed: share of the in-context gain lost"
            tables[title] = effect_table(where(exclusion, heads=kind))
    return {title: table for title, table in tables.items() if len(table)}


def ranked_guides(guides: pd.DataFrame) -> pd.DataFrame:
    """The guides of the last group, all models or the only curriculum."""
    if not len(guides):
        return guides
    last = where(guides, curriculum=guides["curriculum"].iloc[-1]).sort_values("spearman", ascending=False)
    return pd.DataFrame(
        [
            {
                "guide": row["guide"].replace("_", " "),
                "rank correlation": interval(row["spearman"], row["t_low"], row["t_high"]),
                "share found": number(row["share_found"], 2),
                "by chance": number(row["by_chance"], 2),
                "p vs retrospective": p_number(row["p_holm"], row["n_draws"], unadjusted=row["p_value"]),
            }
            for row in records(last)
        ]
    )
