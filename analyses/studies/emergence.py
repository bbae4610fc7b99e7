"""When do retrospective heads appear, when do they matter, and does the head come before the loss falls?

1. The heads: those above `ATTENDS` at the end of training, on selection prompts; without any, the highest one.
2. At every snapshot, on the same prompts: their score, the model's gain (1 - error / no-context error, over the last
   quarter of the points), and the share of that gain that goes when they are removed (mean ablation).
3. A quantity arrives between the two snapshots at which it passes half of its final value for good. Score and gain are
   compared within a run, where they share a clock, as a ratio of steps; ratios are pooled over independent seeds.

A head that arrives before the gain may still not be its cause: the effect at that snapshot says what it already does.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from tqdm import tqdm

from analyses.comparison.snapshots import earlier_steps, from_then_on
from analyses.findings import Findings
from interp.ablation.ablate import ablate
from interp.ablation.size_classes import ATTENDS, HALF
from interp.display.axes import GREY, INTACT, MODES, NULL, figure_of, grid_of_axes, legend_beside
from interp.display.text import counted
from interp.model.heads import HeadSet, heads_above, highest_head, show
from interp.scores.score import score, selection_scores
from interp.statistics.seeds import independent_seeds, seed_mean
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import UserError
from training.common.output import number, records
from training.common.progress import progress_bar
from training.common.table_rows import where
from training.config.curriculum import Curriculum

QUESTION = "When do retrospective heads appear, and does the head come before the loss falls?"
LEAST_SNAPSHOTS = 6
LEAST_GAIN = 0.2
"""A class counts as learned, and its effects as measurable, from this gain on."""


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


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study on runs that kept snapshots.

    Args:
        checkpoints: loaded runs.
        n_prompts: per class and stream.
        seed: of prompts and resampling.

    Raises:
        UserError: a run kept fewer than `LEAST_SNAPSHOTS`.
    """
    kept = [steps_of(checkpoint) for checkpoint in checkpoints]
    with progress_bar(total=sum(map(len, kept)), desc="emergence", unit="snapshot") as bar:
        courses = [
            course(checkpoint, steps, n_prompts, seed, bar) for checkpoint, steps in zip(checkpoints, kept, strict=True)
        ]
    table = pd.concat([one.table for one in courses], ignore_index=True)
    arrivals = pd.concat([arrivals_of(one) for one in courses], ignore_index=True)
    orders = pooled_order(courses, arrivals)
    return Findings(
        QUESTION,
        [*order_sentences(orders), *arrival_sentences(courses, arrivals)],
        {
            "checkpoints": [one.checkpoint.name for one in courses],
            "heads": [show(one.heads) for one in courses],
            "independent seeds": len(independent_seeds(checkpoints)),
            "prompts": n_prompts,
            "seed": seed,
            "arrived at": f"{HALF} of the final value",
        },
        {"course": table, "arrivals": arrivals, "order": orders},
        {"first snapshot at or above half of the final value": shown(arrivals)},
        {"emergence": partial(plot_courses, courses)},
    )


def steps_of(checkpoint: Checkpoint) -> list[int]:
    """The steps that a run kept, up to its own."""
    steps = [*earlier_steps(checkpoint), checkpoint.step]
    if len(steps) < LEAST_SNAPSHOTS:
        raise UserError(
            f"--ckpt {checkpoint.name}: {counted(len(steps), 'snapshot')}; at least {LEAST_SNAPSHOTS} are needed "
            "(interp train --set record.snapshots=48 keeps more)"
        )
    return steps


def course(checkpoint: Checkpoint, steps: Sequence[int], n_prompts: int, seed: int, bar: "tqdm[Any]") -> Course:
    """Follow the heads that a run ends with through its snapshots."""
    config, device = checkpoint.config, str(checkpoint.model.device)
    final = selection_scores(checkpoint, n_prompts, seed)
    heads = heads_above(ATTENDS, final) or (highest_head(final),)
    rows = []
    for step in steps:
        at = checkpoint if step == checkpoint.step else load(f"{checkpoint.directory}@{step}", device)
        rows += rows_at(at, heads, step, n_prompts, seed)
        bar.update()
    table = pd.DataFrame(rows)
    table.insert(0, "checkpoint", checkpoint.name)
    table.insert(1, "curriculum", config.curriculum)
    edges = config.parsed_curriculum().edges[:-1]
    return Course(checkpoint, heads, table, tuple(edge for edge in edges if edge < checkpoint.step))


def rows_at(at: Checkpoint, heads: HeadSet, step: int, n_prompts: int, seed: int) -> Iterator[dict[str, Any]]:
    """What one snapshot is like, by class."""
    names = at.config.evaluated_classes
    scores = score(at, names, n_prompts=n_prompts, seed=seed).values
    removed = ablate(at, [heads], names, modes=["mean"], n_controls=0, n_prompts=n_prompts, seed=seed).table
    for row in records(removed):
        gain = 1 - row["nmse_before"] / row["nmse_no_context"]
        of_heads = scores[row["function_class"]]
        yield {
            "heads": show(heads),
            "step": step,
            "function_class": row["function_class"],
            "score": float(np.mean([of_heads[head] for head in heads])),
            "highest": float(of_heads.max()),
            "gain": gain,
            **{key: row[key] if gain >= LEAST_GAIN else math.nan for key in ("effect", "ci_low", "ci_high")},
        }


def arrivals_of(one: Course) -> pd.DataFrame:
    """By class, between which snapshots score and gain pass half of their final values for good.

    Columns `enters`, the step at which the curriculum may first draw the class (missing if it never does);
    `score_after`, `score_by`, `gain_after`, `gain_by`: the last step below and the first from which on no snapshot is
    below; missing where there is no score above `ATTENDS` or no gain above `LEAST_GAIN` at the end. `ratio` is the step
    of the score's arrival over that of the gain's, each the geometric mean of its two ends.
    `effect_first` is the effect at the gain's arrival.
    """
    rows, curriculum = [], one.checkpoint.config.parsed_curriculum()
    for name in one.checkpoint.config.evaluated_classes:
        of_class = records(where(one.table, function_class=name))
        steps = [row["step"] for row in of_class]
        head = arrival(steps, [row["score"] for row in of_class], ATTENDS)
        gain = arrival(steps, [row["gain"] for row in of_class], LEAST_GAIN)
        rows.append(
            {
                "checkpoint": one.checkpoint.name,
                "curriculum": one.checkpoint.config.curriculum,
                "heads": show(one.heads),
                "function_class": name,
                "enters": enters(curriculum, name),
                **dict(zip(("score_after", "score_by"), head or (math.nan, math.nan), strict=True)),
                **dict(zip(("gain_after", "gain_by"), gain or (math.nan, math.nan), strict=True)),
                "ratio": middle(head) / middle(gain) if head is not None and gain is not None else math.nan,
                "order": order(head, gain),
                "effect_first": next((row["effect"] for row in of_class if gain and row["step"] == gain[1]), math.nan),
            }
        )
    return pd.DataFrame(rows)


def enters(curriculum: Curriculum, name: str) -> float:
    """The first step at which a class has a chance; NaN if it never has one.

    >>> from training.config.curriculum import parse_curriculum
    >>> enters(parse_curriculum("mixed", ("linear", "quadratic"), 10), "quadratic")
    6.0
    """
    starts = (0, *(edge + 1 for edge in curriculum.edges))
    chances = (dict(zip(curriculum.names, block, strict=True)).get(name, 0) for block in curriculum.blocks)
    return next((float(start) for start, chance in zip(starts, chances, strict=False) if chance), math.nan)


def arrival(steps: Sequence[int], values: Sequence[float], least: float) -> tuple[int, int] | None:
    """The snapshots between which a quantity passes half of its final value for good; None if it ends below `least`.

    >>> arrival([0, 10, 20, 40], [0.0, 0.6, 0.1, 0.9], 0.5)
    (20, 40)
    """
    if values[-1] < least:
        return None
    place = from_then_on([value >= HALF * values[-1] for value in values])
    assert place is not None  # it holds at the end
    return steps[max(0, place - 1)], steps[place]


def middle(bracket: tuple[int, int]) -> float:
    """Geometric mean of the two steps, counted from 1."""
    return math.sqrt((1 + bracket[0]) * (1 + bracket[1]))


def order(head: tuple[int, int] | None, gain: tuple[int, int] | None) -> str:
    """Which arrived first, as far as the snapshots tell.

    >>> order((10, 20), (20, 40)), order((10, 20), (10, 20))
    ('head first', 'between the same snapshots')
    """
    if head is None or gain is None:
        return ""
    if head[1] <= gain[0]:
        return "head first"
    return "gain first" if gain[1] <= head[0] else "between the same snapshots"


def pooled_order(courses: Sequence[Course], arrivals: pd.DataFrame) -> pd.DataFrame:
    """By curriculum and class: how many runs had the head first, and the ratio of steps over independent seeds."""
    rows = []
    for curriculum in dict.fromkeys(one.checkpoint.config.curriculum for one in courses):
        group = [one.checkpoint for one in courses if one.checkpoint.config.curriculum == curriculum]
        for name in dict.fromkeys(map(str, arrivals["function_class"])):
            of_class = {
                row["checkpoint"]: row
                for row in records(where(arrivals, curriculum=curriculum, function_class=name))
                if row["order"]
            }
            used = [checkpoint for checkpoint in group if checkpoint.name in of_class]
            found = [of_class[checkpoint.name] for checkpoint in used]
            log = seed_mean(used, [math.log(row["ratio"]) for row in found])
            rows.append(
                {
                    "curriculum": curriculum,
                    "function_class": name,
                    "enters": max((row["enters"] for row in found), default=math.nan),
                    "n_runs": len(group),
                    "n_both": len(used),
                    "n_seeds": log.n_seeds,
                    **{kind: sum(row["order"] == kind for row in found) for kind in ("head first", "gain first")},
                    "ratio": math.exp(log.value),
                    "t_low": math.exp(log.t_low),
                    "t_high": math.exp(log.t_high),
                }
            )
    return pd.DataFrame(rows)


def order_sentences(orders: pd.DataFrame) -> list[str]:
    """Which comes first, by curriculum and class."""
    found = []
    for row in records(orders):
        which = f"{row['curriculum']}, {row['function_class']}"
        if not row["n_both"]:
            found.append(f"{which}: no run has both such heads and a gain of at least {LEAST_GAIN} at its end.")
            continue
        text = f"{which}: in {row['n_both']} of {row['n_runs']} runs with head and gain the head came first in "
        text += f"{row['head first']} and the gain in {row['gain first']}, else between the same snapshots; the head's "
        text += f"score was halfway at {row['ratio']:.2f} of the steps of the gain's"
        if row["n_seeds"] > 1:
            text += f" (t-interval over {row['n_seeds']} seeds [{row['t_low']:.2f}, {row['t_high']:.2f}])"
            text += "" if row["t_low"] > 1 or row["t_high"] < 1 else ": no order is shown"
        if row["enters"] > 0:
            text += (
                f"; the class enters at step {row['enters']:.0f}, and a head that earlier classes grew has to be first"
            )
        elif math.isnan(row["enters"]):
            text += "; the class is never trained on"
        found.append(text + ".")
    return found


def arrival_sentences(courses: Sequence[Course], arrivals: pd.DataFrame) -> list[str]:
    """When the heads of every run arrived, and what they did when the gain did."""
    found = []
    for one in courses:
        rows = [row for row in records(where(arrivals, checkpoint=one.checkpoint.name)) if row["order"]]
        if rows:
            parts = [
                f"{row['function_class']} step {row['score_by']:.0f} (gain {row['gain_by']:.0f}, effect then "
                f"{number(row['effect_first'], 2)})"
                for row in rows
            ]
            found.append(f"{one.checkpoint.name}, {show(one.heads)}: {'; '.join(parts)}.")
    return found


def shown(arrivals: pd.DataFrame) -> pd.DataFrame:
    """The arrivals for people."""
    rows = [
        {
            "model, class": f"{row['checkpoint']}, {row['function_class']}",
            "heads": row["heads"],
            "score": number(row["score_by"], 0),
            "gain": number(row["gain_by"], 0),
            "effect then": number(row["effect_first"], 2),
            "order": row["order"] or "-",
        }
        for row in records(arrivals)
    ]
    return pd.DataFrame(rows)


def plot_courses(courses: Sequence[Course]) -> list[Axes]:
    """A row per run, a column per class: score, gain and effect by step; task switches dotted."""
    n_columns = max(len(one.checkpoint.config.evaluated_classes) for one in courses)
    grid = grid_of_axes(len(courses), n_columns, width=2.7, height=1.8)
    for row, one in zip(grid, courses, strict=True):
        for ax, name in zip(row, one.checkpoint.config.evaluated_classes, strict=False):
            of_class = records(where(one.table, function_class=name))
            steps = [row["step"] + 1 for row in of_class]
            for column, colour in (("score", INTACT), ("gain", GREY), ("effect", MODES["mean"])):
                ax.plot(steps, [row[column] for row in of_class], color=colour, lw=1.3, label=LABELS[column])
            for switch in one.switches:
                ax.axvline(switch + 1, color=NULL, ls=":", lw=1)
            ax.set(xscale="log", ylim=(-0.25, 2))
            ax.set_title(f"{one.checkpoint.name.rsplit('/', 1)[-1]}, {name}", fontsize=8)
    for ax in grid[-1]:
        ax.set_xlabel("step + 1")
    axes = [ax for row in grid for ax in row]
    legend_beside(axes)
    figure_of(axes).suptitle("heads that end as retrospective ones: score and effect beside the gain", fontsize=10)
    return axes


LABELS = {"score": "score of the heads", "gain": "gain of the model", "effect": "effect of removal"}
