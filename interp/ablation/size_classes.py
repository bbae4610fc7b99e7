"""Size classes of effects, and the thresholds behind them: what verdicts and studies mean by most, part and none."""

import math
from collections.abc import Sequence
from typing import Any

from interp.statistics.seeds import HALF as HALF

Row = dict[str, Any]

VERDICTS = 3  # head sets; for more of them a table is easier to read than sentences
HARMLESS = 0.05
ATTENDS = 0.5


def is_silent(rows: Sequence[Row]) -> bool:
    """Whether total and direct effects are none in every row with a defined effect, and there is at least one."""
    defined = [row for row in rows if size_of(row) != "undefined"]
    return bool(defined) and all(size_of(row) == size_of(row, "direct_") == "none" for row in defined)


def size_of(row: Row, prefix: str = "") -> str:
    """Rule 1 of `interp.ablation.verdict`; `undefined` where the intact model has no clear in-context gain.

    Args:
        row: of an ablation's table.
        prefix: of the effect's columns: none for the total effect, `direct_`, `frozen_` or `moved_`.
    """
    effect, low, high = (row[prefix + name] for name in ("effect", "ci_low", "ci_high"))
    if math.isnan(effect):
        return "undefined"
    if row.get("unit") == "loss":  # where the in-context gain is not known, no difference is called most or none
        return "negative" if high < 0 else "part" if low > 0 else "unclear"
    if effect >= HALF:
        return "most"
    if low >= -HARMLESS and high <= HARMLESS:
        return "none"
    if high < 0:
        return "negative"
    return "part" if low > 0 else "unclear"
