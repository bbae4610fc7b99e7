"""What runs needed to reach an error, ratios over pairs of seeds, and errors at matched compute.

Ratios of needs: a seed that never reached its goal is censored, it needs more than it was given. So each pair of seeds
(ours, theirs) has a ratio that is known exactly, only bounded from above (theirs never reached it), only from below
(ours never did), or not at all (neither). The estimate is the median over all pairs (Hodges and Lehmann 1963, on a log
scale); where the median pair is not known exactly, only its bounds are. No pair is dropped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.comparison.groups import Groups, single
from analyses.comparison.histories import MEASURES, needed, tidy
from interp.statistics.seed_intervals import welch
from interp.statistics.seeds import all_or_nothing
from training.common.bootstrap import COVERAGE, N_RESAMPLES
from training.common.output import records
from training.common.table_rows import distinct, where
from training.config.config import stream_seed

SEVERAL = ("mixed", "random")
THRESHOLDS = (0.9, 0.75, 0.5, 0.25, 0.1)
BUDGETS = (0.25, 0.5, 1.0)
Pairs = Float[np.ndarray, "ours theirs"]


@dataclass(frozen=True)
class Need:
    """What one seed needed, or how much it was given without reaching the error."""

    amount: float
    reached: bool


@dataclass(frozen=True)
class DataRatio:
    """Our needs over theirs.

    Attributes:
        value: median over pairs; NaN where only bounds are known.
        at_least: lower bound of the median pair, equal to `value` where that is known.
        at_most: upper bound of the median pair.
        rank_low: exact 95 % interval for a constant ratio, from ranks (Mann-Whitney): valid for few seeds.
        rank_high: infinite, and `rank_low` 0, where so few seeds allow no such interval.
        ci_low: 95 % bootstrap interval over seeds, too narrow where seeds are few.
        ci_high: of the same.
        n_unknown: pairs of which neither seed reached the error.
    """

    value: float
    at_least: float
    at_most: float
    rank_low: float
    rank_high: float
    ci_low: float
    ci_high: float
    n_unknown: int


def trained_history(groups: Groups, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The histories in one, on the classes that each run trains on (`analyses.comparison.histories.tidy`)."""
    trained = {}
    for checkpoint in groups.checkpoints:
        table = tables[checkpoint.name]
        trained[checkpoint.name] = table.loc[table["function_class"].isin(list(checkpoint.config.trained_classes))]
    return tidy(trained, groups.curriculum_of)


def need_table(history: pd.DataFrame) -> pd.DataFrame:
    """One row per run, class that it trains on, measure and threshold: whether the error was `reached`, and the
    `amount` that it took, or that was spent without reaching it."""
    rows = []
    for names, run in history.groupby(["curriculum", "checkpoint", "function_class"], sort=False):
        columns = dict(zip(("curriculum", "checkpoint", "function_class"), names, strict=True))  # pyright: ignore
        ordered = run.sort_values("step")
        for measure, threshold in product(MEASURES, THRESHOLDS):
            need = find_need(ordered, threshold, measure)
            rows.append(columns | {"measure": measure, "threshold": threshold} | asdict(need))
    return pd.DataFrame(rows)


def find_need(run: pd.DataFrame, threshold: float, measure: str) -> Need:
    amount = needed(run, threshold, measure)
    return Need(amount, True) if math.isfinite(amount) else Need(float(run[measure].tolist()[-1]), False)


def ratio_table(needs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row per curriculum of several classes, class with single runs, measure and threshold: the fields of
    `DataRatio`, and how many seeds of each reached the error."""
    cells: dict[tuple[str, ...], list[Need]] = {}
    for row in records(needs):
        key = (row["curriculum"], row["function_class"], row["measure"], row["threshold"])
        cells.setdefault(key, []).append(Need(row["amount"], row["reached"]))
    rows: list[dict[str, Any]] = []
    for (curriculum, function_class, measure, threshold), ours in cells.items():
        theirs = cells.get((single(function_class), function_class, measure, threshold))
        if curriculum not in SEVERAL or not theirs:
            continue
        rng = np.random.default_rng(stream_seed("data ratio", seed, curriculum, function_class, measure, threshold))
        rows.append(
            {
                "curriculum": curriculum,
                "function_class": function_class,
                "measure": measure,
                "threshold": threshold,
                "n_reached": sum(need.reached for need in ours),
                "n_seeds": len(ours),
                "single_reached": sum(need.reached for need in theirs),
                "single_seeds": len(theirs),
            }
            | asdict(data_ratio(ours, theirs, rng))
        )
    return pd.DataFrame(rows)


def matched_table(history: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum of several classes, class with single runs and share of the compute of a whole run: the
    mean error in units of the no-context optimum of both, their `difference` (below 0 = better than the class alone)
    with its Welch interval over seeds (none where seeds are all or nothing), and the `data_share`: prompts of the class
    seen by then, over the single run's.
    """
    budget = pd.Series(history.groupby("checkpoint")["flops"].max()).min()
    curricula = distinct(history, "curriculum")
    rows = []
    for curriculum in (name for name in SEVERAL if name in curricula):
        classes = distinct(where(history, curriculum=curriculum), "function_class")
        for function_class in (name for name in classes if single(name) in curricula):
            for share in BUDGETS:
                ours, theirs = (
                    points_at(where(history, curriculum=name, function_class=function_class), share * budget)
                    for name in (curriculum, single(function_class))
                )
                value, low, high, _ = welch(ours[:, 0], theirs[:, 0])
                if any(map(all_or_nothing, (ours[:, 0], theirs[:, 0]))):
                    low = high = math.nan
                rows.append(
                    {
                        "curriculum": curriculum,
                        "function_class": function_class,
                        "compute_share": share,
                        "flops": share * budget,
                        "ratio": ours[:, 0].mean(),
                        "single": theirs[:, 0].mean(),
                        "difference": value,
                        "low": low,
                        "high": high,
                        "data_share": ours[:, 1].mean() / theirs[:, 1].mean(),
                        "n_seeds": len(ours),
                        "n_single": len(theirs),
                    }
                )
    return pd.DataFrame(rows)


def points_at(history: pd.DataFrame, flops: float) -> Float[np.ndarray, "seed ratio_and_prompts"]:
    """Error ratio and prompts of the class at the last evaluation of every run within a budget."""
    spent = history.loc[history["flops"] <= flops].sort_values("step")
    return spent.groupby("checkpoint").tail(1)[["ratio", "prompts_seen"]].to_numpy(dtype=float)


def data_ratio(ours: Sequence[Need], theirs: Sequence[Need], rng: np.random.Generator) -> DataRatio:
    """
    >>> ratio = data_ratio([Need(1.0, True)], [Need(9.0, True)], np.random.default_rng(0))
    >>> round(ratio.value, 3), ratio.rank_low, ratio.rank_high
    (0.111, 0.0, inf)
    """
    low, high = pair_bounds(ours, theirs)
    at_least, at_most = geometric_median(low.ravel()), geometric_median(high.ravel())
    rank_low, rank_high = rank_interval(low, high)
    drawn = [rng.integers(n, size=(N_RESAMPLES, n)) for n in low.shape]
    resampled = [
        geometric_median(bound[drawn[0][:, :, None], drawn[1][:, None, :]].reshape(N_RESAMPLES, -1))
        for bound in (low, high)
    ]
    tail = int((1 - COVERAGE) / 2 * (N_RESAMPLES - 1))  # to the next resample: infinite ones cannot be interpolated
    return DataRatio(
        value=float(at_least) if at_least == at_most else math.nan,
        at_least=float(at_least),
        at_most=float(at_most),
        rank_low=rank_low,
        rank_high=rank_high,
        ci_low=float(np.sort(resampled[0])[tail]),
        ci_high=float(np.sort(resampled[1])[-1 - tail]),
        n_unknown=int(np.sum((low == 0) & np.isinf(high))),
    )


def pair_bounds(ours: Sequence[Need], theirs: Sequence[Need]) -> tuple[Pairs, Pairs]:
    """Lower and upper bound of every pair's ratio; equal where both seeds reached the error."""
    low = np.array([[a.amount / b.amount if b.reached else 0.0 for b in theirs] for a in ours])
    high = np.array([[a.amount / b.amount if a.reached else math.inf for b in theirs] for a in ours])
    return low, high


def geometric_median(values: Float[np.ndarray, "*row pair"]) -> Float[np.ndarray, "*row"]:
    """Median of values that may be infinite; of an even number the geometric mean of the middle two (0 if one is 0).

    >>> geometric_median(np.array([1.0, 4.0, 16.0, np.inf])).item(), geometric_median(np.array([1.0, np.inf])).item()
    (8.0, inf)
    """
    ordered, n = np.sort(values, axis=-1), values.shape[-1]
    lower, upper = ordered[..., (n - 1) // 2], ordered[..., n // 2]
    exact = lower == upper
    both = np.sqrt(np.where(exact | (lower == 0), 0, lower)) * np.sqrt(np.where(exact | (lower == 0), 0, upper))
    return np.where(exact, lower, both)


def rank_interval(low: Pairs, high: Pairs) -> tuple[float, float]:
    """The sorted pairs between which a constant ratio lies with at least 95 %."""
    k = critical_rank(*low.shape)
    return (float(np.sort(low.ravel())[k - 1]), float(np.sort(high.ravel())[-k])) if k else (0.0, math.inf)


def critical_rank(n: int, m: int) -> int:
    """The largest k with P(U < k) <= 2.5 % for Mann-Whitney's U of n and m values; 0 where there is none.

    >>> critical_rank(5, 5), critical_rank(4, 4), critical_rank(3, 3)
    (3, 1, 0)
    """
    counts = u_counts(n, m)
    below = np.cumsum([float(count) for count in counts]) / float(sum(counts))
    return int(np.sum(below <= (1 - COVERAGE) / 2))


@cache
def u_counts(n: int, m: int) -> tuple[int, ...]:
    """In how many orders of n and m values U takes each of its values 0 ... nm.

    >>> u_counts(2, 2)
    (1, 1, 2, 1, 1)
    """
    if n == 0 or m == 0:
        return (1,)
    first, second = u_counts(n - 1, m), u_counts(n, m - 1)
    return tuple(
        (first[u - m] if 0 <= u - m < len(first) else 0) + (second[u] if u < len(second) else 0)
        for u in range(n * m + 1)
    )
