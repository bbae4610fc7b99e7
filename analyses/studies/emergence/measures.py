"""Score, gain and effect of a run's final heads at its snapshots, when they arrive, and in which order over seeds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from analyses.comparison.snapshots import earlier_steps, from_then_on
from interp.ablation.ablate import ablate
from interp.ablation.size_classes import ATTENDS, HALF
from interp.display.text import counted
from interp.model.heads import HeadSet, heads_above, highest_head, show
from interp.scores.score import score, selection_scores
from interp.statistics.seeds import seed_mean
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import distinct, where
from training.config.curriculum import Curriculum

LEAST_SNAPSHOTS = 6
LEAST_GAIN = 0.2
"""A class counts as learned, and its effects as measurable, from this gain on."""
MISSING = (math.nan, math.nan)


@dataclass(frozen=True)
class Course:
    """One run over its snapshots.

    Attributes:
        checkpoint: its last state.
        heads: the heads that are followed.
        table: one row per step and class: `score` (mean over the heads), `highest` (of any head), `gain`, and `effect`
            with its interval.
        switches: steps at which the curriculum goes on to its next block.
    """

    checkpoint: Checkpoint
    heads: HeadSet
    table: pd.DataFrame
    switches: tuple[int, ...]

    @property
    def curriculum(self) -> str:
        return self.checkpoint.config.curriculum

    @property
    def classes(self) -> Sequence[str]:
        return self.checkpoint.config.evaluated_classes


def check_snapshots(checkpoint: Checkpoint) -> list[int]:
    """The steps that a run kept, up to its own.

    Raises:
        UserError: they are fewer than `LEAST_SNAPSHOTS`.
    """
    steps = [*earlier_steps(checkpoint), checkpoint.step]
    if len(steps) < LEAST_SNAPSHOTS:
        raise UserError(
            f"--ckpt {checkpoint.name}: {counted(len(steps), 'snapshot')}; at least {LEAST_SNAPSHOTS} are needed "
            "(interp train --set record.snapshots=48 keeps more)"
        )
    return steps


def follow_heads(checkpoint: Checkpoint, steps: Sequence[int], n_prompts: int, seed: int, bar: "tqdm[Any]") -> Course:
    """Follow the heads that a run ends with through its snapshots."""
    config, device = checkpoint.config, str(checkpoint.model.device)
    final = selection_scores(checkpoint, n_prompts, seed)
    heads = heads_above(ATTENDS, final) or (highest_head(final),)
    rows = []
    for step in steps:
        snapshot = checkpoint if step == checkpoint.step else load(f"{checkpoint.directory}@{step}", device)
        rows += snapshot_rows(snapshot, heads, step, n_prompts, seed)
        bar.update()
    table = pd.DataFrame(rows)
    table.insert(0, "checkpoint", checkpoint.name)
    table.insert(1, "curriculum", config.curriculum)
    edges = config.parsed_curriculum().edges[:-1]
    return Course(checkpoint, heads, table, tuple(edge for edge in edges if edge < checkpoint.step))


def snapshot_rows(
    snapshot: Checkpoint, heads: HeadSet, step: int, n_prompts: int, seed: int
) -> Iterator[dict[str, Any]]:
    """The measures of one snapshot, by class."""
    classes = snapshot.config.evaluated_classes
    scores = score(snapshot, classes, n_prompts=n_prompts, seed=seed).values
    removed = ablate(
        snapshot, [heads], classes, modes=["mean"], n_controls=0, n_prompts=n_prompts, seed=seed, total_only=True
    ).table
    for row in records(removed):
        gain = 1 - row["nmse_before"] / row["nmse_no_context"]
        class_scores = scores[row["function_class"]]
        yield {
            "heads": show(heads),
            "step": step,
            "function_class": row["function_class"],
            "score": float(np.mean([class_scores[head] for head in heads])),
            "highest": float(class_scores.max()),
            "gain": gain,
            **{key: row[key] if gain >= LEAST_GAIN else math.nan for key in ("effect", "ci_low", "ci_high")},
        }


def arrival_table(course: Course) -> pd.DataFrame:
    """By class, between which snapshots score and gain pass half of their final values for good.

    Columns `enters`, the step at which the curriculum may first draw the class (missing if it never does);
    `score_after`, `score_by`, `gain_after`, `gain_by`: the last step below and the first from which on no snapshot is
    below; missing where there is no score above `ATTENDS` or no gain above `LEAST_GAIN` at the end. `ratio` is the step
    of the score's arrival over that of the gain's, each the geometric mean of its two ends.
    `effect_first` is the effect at the gain's arrival.
    """
    rows, curriculum = [], course.checkpoint.config.parsed_curriculum()
    for function_class in course.classes:
        table = where(course.table, function_class=function_class)
        steps, effects = table["step"].tolist(), dict(zip(table["step"], table["effect"], strict=True))
        head = find_arrival(steps, table["score"].tolist(), ATTENDS)
        gain = find_arrival(steps, table["gain"].tolist(), LEAST_GAIN)
        rows.append(
            {
                "checkpoint": course.checkpoint.name,
                "curriculum": course.curriculum,
                "heads": show(course.heads),
                "function_class": function_class,
                "enters": first_draw(curriculum, function_class),
                **dict(zip(("score_after", "score_by"), head or MISSING, strict=True)),
                **dict(zip(("gain_after", "gain_by"), gain or MISSING, strict=True)),
                "ratio": geometric_middle(head) / geometric_middle(gain) if head and gain else math.nan,
                "order": order_of(head, gain),
                "effect_first": effects[gain[1]] if gain else math.nan,
            }
        )
    return pd.DataFrame(rows)


def first_draw(curriculum: Curriculum, function_class: str) -> float:
    """The first step at which a class can be drawn; NaN if it never can.

    >>> from training.config.curriculum import parse_curriculum
    >>> first_draw(parse_curriculum("mixed", ("linear", "quadratic"), 10), "quadratic")
    6.0
    """
    starts = (0, *(edge + 1 for edge in curriculum.edges))
    chances = (dict(zip(curriculum.names, block, strict=True)).get(function_class, 0) for block in curriculum.blocks)
    return next((float(start) for start, chance in zip(starts, chances, strict=False) if chance), math.nan)


def find_arrival(steps: Sequence[int], values: Sequence[float], least: float) -> tuple[int, int] | None:
    """The snapshots between which a quantity passes half of its final value for good; None if it ends below `least`.

    >>> find_arrival([0, 10, 20, 40], [0.0, 0.6, 0.1, 0.9], 0.5)
    (20, 40)
    """
    if values[-1] < least:
        return None
    first = from_then_on([value >= HALF * values[-1] for value in values])
    assert first is not None  # it holds at the end
    return steps[max(0, first - 1)], steps[first]


def geometric_middle(bracket: tuple[int, int]) -> float:
    """Geometric mean of the two steps, counted from 1."""
    return math.sqrt((1 + bracket[0]) * (1 + bracket[1]))


def order_of(head: tuple[int, int] | None, gain: tuple[int, int] | None) -> str:
    """Which arrived first, where the snapshots can tell.

    >>> order_of((10, 20), (20, 40)), order_of((10, 20), (10, 20))
    ('head first', 'between the same snapshots')
    """
    if head is None or gain is None:
        return ""
    if head[1] <= gain[0]:
        return "head first"
    return "gain first" if gain[1] <= head[0] else "between the same snapshots"


def order_table(courses: Sequence[Course], arrivals: pd.DataFrame) -> pd.DataFrame:
    """By curriculum and class: how many runs had the head first, and the ratio of steps over independent seeds."""
    rows = []
    for curriculum in distinct(arrivals, "curriculum"):
        runs = [course.checkpoint for course in courses if course.curriculum == curriculum]
        for function_class in distinct(arrivals, "function_class"):
            table = records(where(arrivals, curriculum=curriculum, function_class=function_class))
            by_run = {row["checkpoint"]: row for row in table if row["order"]}
            used = [checkpoint for checkpoint in runs if checkpoint.name in by_run]
            log = seed_mean(used, [math.log(by_run[checkpoint.name]["ratio"]) for checkpoint in used])
            orders = [row["order"] for row in by_run.values()]
            rows.append(
                {
                    "curriculum": curriculum,
                    "function_class": function_class,
                    "enters": max((row["enters"] for row in by_run.values()), default=math.nan),
                    "n_runs": len(runs),
                    "n_both": len(used),
                    "n_seeds": log.n_seeds,
                    **{order: orders.count(order) for order in ("head first", "gain first")},
                    "ratio": math.exp(log.value),
                    "t_low": math.exp(log.t_low),
                    "t_high": math.exp(log.t_high),
                }
            )
    return pd.DataFrame(rows)
