"""Does a mixed curriculum need a ninth of the data? (paper.md, section 8)

The paper counts cubic steps only: its mixed run saw 1/9 of the cubic prompts of the single run, and ended at a
comparable error; prompts in all and compute were the same. So three measures stand side by side - prompts of the class,
prompts in all, operations - and two questions:

1. To reach an error (a fraction of the no-context optimum, over the last quarter of the points, kept for three
   evaluations), how much does a curriculum need as a share of what training on the class alone needs? Medians over
   pairs of seeds; seeds that never get there are censored, not dropped (`analyses.studies.efficiency.measures`).
2. At the same compute, which error is lower? That is the paper's comparison, and shows by how much less of the class.

Errors come from the histories: 256 held-out prompts, other ones for every seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from analyses.comparison.groups import Groups, group, single
from analyses.comparison.histories import MEASURES, NEEDED, class_history, histories, needed, tidy
from analyses.comparison.seed_figures import plot_spending
from analyses.findings import Findings
from analyses.studies.efficiency.measures import Need, data_ratio
from analyses.studies.efficiency.verdict import shown, verdict
from interp.display.text import listed
from interp.statistics.seed_intervals import welch
from interp.statistics.seeds import all_or_nothing
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.output import records
from training.config.config import stream_seed
from training.evaluation.convergence import HELD

QUESTION = "Does a mixed curriculum need a ninth of the data?"
SEVERAL = ("mixed", "random")
THRESHOLDS = (0.9, 0.75, 0.5, 0.25, 0.1)
BUDGETS = (0.25, 0.5, 1.0)
Runs = Mapping[str, Mapping[str, pd.DataFrame]]
"""Histories by curriculum and checkpoint."""


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int, seed: int) -> Findings:  # noqa: ARG001 - as all studies
    """What each run needed to reach each error, ratios over pairs of seeds, and errors at matched compute.

    Args:
        checkpoints: runs that differ in curriculum and seeds only.
        n_prompts: not used; the errors are those of the histories.
        seed: of the resampling.

    Raises:
        UserError: the runs cannot be compared, or none kept what is needed.
    """
    found, without = histories(checkpoints)
    if not found:
        raise UserError(
            f"{listed(without)}: the history has no {', '.join(NEEDED)} (format version 1, or none); data efficiency "
            "cannot be computed from it"
        )
    groups = group([one for one in checkpoints if one.name in found])
    runs = by_curriculum(groups, found)
    needs = need_table(runs)
    ratios = ratio_table(needs, seed)
    matched = matched_table(runs)
    training = tidy({one.name: found[one.name] for one in groups.checkpoints}, groups.curriculum_of)
    sentences = [*verdict(ratios, matched, needs), *groups.notes()]
    if without:
        sentences.append(f"Not counted, for want of a history of the error over the last points: {listed(without)}.")
    spent = trained_rows(training, runs)
    return Findings(
        QUESTION,
        sentences,
        groups.protocol | {"seed": seed, "evaluations held": HELD, "errors": "of the histories, held-out prompts"},
        {"ratios": ratios, "matched": matched, "needs": needs, "training": training},
        shown(ratios, matched),
        {"spending": lambda: plot_spending(spent, MEASURES)},
    )


def by_curriculum(groups: Groups, found: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, pd.DataFrame]]:
    """The histories of the classes that each run trains on."""
    runs: dict[str, dict[str, pd.DataFrame]] = {}
    for one in groups.checkpoints:
        table = found[one.name]
        trained = table.loc[table["function_class"].isin(list(one.config.trained_classes))]
        runs.setdefault(one.config.curriculum, {})[one.name] = pd.DataFrame(trained)
    return runs


def trained_rows(training: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    """The rows of classes that the run trains on."""
    trained = {
        (name, of) for same in runs.values() for name, table in same.items() for of in table["function_class"].unique()
    }
    return pd.DataFrame([row for row in records(training) if (row["checkpoint"], row["function_class"]) in trained])


def need_table(runs: Runs) -> pd.DataFrame:
    """One row per run, class that it trains on, measure and threshold: whether the error was `reached`, and the
    `amount` that it took, or that was spent without reaching it."""
    rows = []
    for curriculum, same in runs.items():
        for name, table in same.items():
            for function_class in table["function_class"].unique():
                arm = class_history(table, function_class)
                about = {"curriculum": curriculum, "checkpoint": name, "function_class": function_class}
                rows += [
                    about | {"measure": measure, "threshold": threshold} | asdict(need(arm, threshold, measure))
                    for measure in MEASURES
                    for threshold in THRESHOLDS
                ]
    return pd.DataFrame(rows)


def need(arm: pd.DataFrame, threshold: float, measure: str) -> Need:
    amount = needed(arm, threshold, measure)
    return Need(amount, True) if math.isfinite(amount) else Need(float(arm[measure].tolist()[-1]), False)


def ratio_table(needs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row per curriculum of several classes, class with single runs, measure and threshold: the fields of
    `data_ratios.DataRatio`, and how many seeds of each reached it."""
    cells: dict[tuple[str, ...], list[Need]] = {}
    for row in records(needs):
        key = (row["curriculum"], row["function_class"], row["measure"], row["threshold"])
        cells.setdefault(key, []).append(Need(row["amount"], row["reached"]))
    rows: list[dict[str, Any]] = []
    for (curriculum, name, measure, threshold), ours in cells.items():
        theirs = cells.get((single(name), name, measure, threshold))
        if curriculum not in SEVERAL or not theirs:
            continue
        about = {"curriculum": curriculum, "function_class": name, "measure": measure, "threshold": threshold}
        reached = {"n_reached": sum(one.reached for one in ours), "n_seeds": len(ours)}
        reached |= {"single_reached": sum(one.reached for one in theirs), "single_seeds": len(theirs)}
        rng = np.random.default_rng(stream_seed("data ratio", seed, curriculum, name, measure, threshold))
        rows.append(about | reached | asdict(data_ratio(ours, theirs, rng)))
    return pd.DataFrame(rows)


def matched_table(runs: Runs) -> pd.DataFrame:
    """One row per curriculum of several classes, class with single runs and share of the compute of a whole run: the
    mean error in units of the no-context optimum of both, their `difference` (below 0 = better than the class alone)
    with its Welch interval over seeds (none where seeds are all or nothing), and the `data_share`: prompts of the class
    seen by then, over the single run's.
    """
    everything = [table for same in runs.values() for table in same.values()]
    budget = min(max(table["flops"].tolist()) for table in everything)
    rows = []
    for curriculum in (name for name in SEVERAL if name in runs):
        names = dict.fromkeys(of for table in runs[curriculum].values() for of in table["function_class"].unique())
        for name in (of for of in names if single(of) in runs):
            for share in BUDGETS:
                ours, theirs = (points_at(runs[of], name, share * budget) for of in (curriculum, single(name)))
                value, low, high, _ = welch(ours[:, 0], theirs[:, 0])
                if any(map(all_or_nothing, (ours[:, 0], theirs[:, 0]))):
                    low = high = math.nan
                about = {"curriculum": curriculum, "function_class": name, "compute_share": share}
                about |= {"flops": share * budget, "ratio": ours[:, 0].mean(), "single": theirs[:, 0].mean()}
                about |= {"difference": value, "low": low, "high": high}
                counts = {"n_seeds": len(ours), "n_single": len(theirs)}
                rows.append(about | {"data_share": ours[:, 1].mean() / theirs[:, 1].mean()} | counts)
    return pd.DataFrame(rows)


def points_at(same: Mapping[str, pd.DataFrame], name: str, flops: float) -> np.ndarray:
    """[seed, (ratio, prompts of the class)] at the last evaluation within a budget."""
    arms = [class_history(table, name) for table in same.values()]
    return np.array(
        [arm.loc[arm["flops"] <= flops, ["ratio", "prompts_seen"]].to_numpy(dtype=float)[-1] for arm in arms]
    )
