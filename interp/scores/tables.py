"""What `interp score` prints: heads ranked by their score, and the heads of several checkpoints side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from interp.display.heat_maps import head_map
from interp.display.result import displays
from interp.model.heads import Head, HeadSet, all_heads
from interp.model.positions import show_points
from interp.names import WEIGHTING_DEFINITIONS
from interp.scores.patterns import Patterns
from interp.scores.score import HeadScores
from training.common.output import Table, interval, number

TOP = 8


class Column(NamedTuple):
    """One class under one setting.

    Attributes:
        label: the class, and what else tells it from its neighbours.
        value: of every head.
        ci_low: lower end of the 95 % interval.
        ci_high: upper end.
        chance: of this column.
    """

    label: str
    value: Float[np.ndarray, "layer head"]
    ci_low: Float[np.ndarray, "layer head"]
    ci_high: Float[np.ndarray, "layer head"]
    chance: float

    def cell(self, head: Head) -> str:
        return interval(*(float(array[head]) for array in (self.value, self.ci_low, self.ci_high)))


def columns(results: Sequence[HeadScores]) -> list[Column]:
    """One per class and setting of one checkpoint's score; the labels name what differs."""
    settings = [(one.inputs, one.shift, show_points(one.points)) for one in results]
    differs = [len(set(values)) > 1 for values in zip(*settings, strict=True)]
    found = []
    for one, setting in zip(results, settings, strict=True):
        told = [text for text, differ in zip(setting, differs, strict=True) if differ]
        for name, value in one.values.items():
            label = ", ".join([name, *told])
            found.append(Column(label, value, one.ci_low[name], one.ci_high[name], one.chances[name]))
    return found


def mean_of(results: Sequence[HeadScores]) -> Float[np.ndarray, "layer head"]:
    """The average over columns, by which heads are ranked."""
    return np.mean([column.value for column in columns(results)], axis=0)


def ranked(merit: Float[np.ndarray, "layer head"]) -> HeadSet:
    """All heads, the highest first."""
    return tuple(sorted(all_heads(*merit.shape), key=lambda head: -merit[head]))


def score_tables(results: Sequence[HeadScores], caption: str, top: int = TOP) -> list[Table]:
    """A table per checkpoint and score, and one per score that compares the checkpoints if there are several.

    Several scores in one column each make a single table, head by score.

    Args:
        results: of any checkpoints, scores and settings, all with the same weighting.
        caption: about the prompts.
        top: how many heads to show.
    """
    checkpoints = list(dict.fromkeys(one.checkpoint for one in results))
    kinds = list(dict.fromkeys(one.kind.name for one in results))
    groups = {
        (checkpoint, kind): [one for one in results if (one.checkpoint, one.kind.name) == (checkpoint, kind)]
        for checkpoint in checkpoints
        for kind in kinds
    }
    found = []
    for checkpoint in checkpoints:
        of_checkpoint = [groups[checkpoint, kind] for kind in kinds]
        if len(kinds) > 1 and all(len(columns(group)) == 1 for group in of_checkpoint):
            found.append(table_of_kinds([one for (one,) in of_checkpoint], caption, top))
        else:
            found += [ranking(group, caption, top) for group in of_checkpoint]
    if len(checkpoints) > 1:
        found += [comparison([groups[checkpoint, kind] for checkpoint in checkpoints], caption, top) for kind in kinds]
    return found


def ranking(results: Sequence[HeadScores], caption: str, top: int) -> Table:
    """The heads with the highest mean over columns."""
    shown, first = columns(results), results[0]
    heads = ranked(mean_of(results))[:top]
    rows = [[str(head), *(column.cell(head) for column in shown)] for head in heads]
    if np.ptp([column.chance for column in shown]) < 1e-9:
        level = f"chance {first.chance:.3f}"
    else:
        level = "chance in the last row"
        rows.append(["chance", *(number(column.chance) for column in shown)])
    title = f"{first.checkpoint}, step {first.step}: {first.kind.name} score{weighting_of(first)}"
    header = ["head", *(column.label for column in shown)]
    return Table(f"{title} ({first.kind.definition})", header, rows, f"{level}; the {len(heads)} highest; {caption}")


def table_of_kinds(results: Sequence[HeadScores], caption: str, top: int) -> Table:
    """Head by score, for the heads that come closest to the maximum of any of them."""
    shown, first = [columns([one])[0] for one in results], results[0]
    ways = [
        (column.value - column.chance) / (one.kind.best - column.chance)
        for one, column in zip(results, shown, strict=True)
    ]
    heads = ranked(np.max(ways, axis=0))[:top]
    rows = [[str(head), *(number(float(column.value[head])) for column in shown)] for head in heads]
    rows.append(["chance", *(number(column.chance) for column in shown)])
    title = f"{first.checkpoint}, step {first.step}: scores{weighting_of(first)} on {shown[0].label}"
    about = f"the {len(heads)} that come closest, from chance, to the maximum of any score; {caption}"
    return Table(title, ["head", *(one.kind.name.replace("_", " ") for one in results)], rows, about)


def comparison(of_checkpoints: Sequence[Sequence[HeadScores]], caption: str, top: int) -> Table:
    """Checkpoints side by side: head by head for snapshots of one run, rank by rank for independent runs."""
    first = of_checkpoints[0][0]
    names = [f"{group[0].checkpoint}, step {group[0].step}" for group in of_checkpoints]
    means = [mean_of(group) for group in of_checkpoints]
    over = " and ".join(["classes", *(["settings"] if len(of_checkpoints[0]) > 1 else [])])
    if len({run_of(group[0].checkpoint) for group in of_checkpoints}) == 1:
        heads = ranked(np.mean(means, axis=0))[:top]
        rows = [[str(head), *(number(float(mean[head])) for mean in means)] for head in heads]
        about, corner = "snapshots of one run, head by head", "head"
    else:
        best = [[f"{head}  {number(float(mean[head]))}" for head in ranked(mean)[:top]] for mean in means]
        depth = max(map(len, best))
        rows = [
            [str(place + 1), *(heads[place] if place < len(heads) else "-" for heads in best)] for place in range(depth)
        ]
        about, corner = "rank by rank: heads of independent runs do not correspond by their numbers", "rank"
    levels = sorted({number(float(np.mean([column.chance for column in columns(group)]))) for group in of_checkpoints})
    title = f"{first.kind.name} score{weighting_of(first)}, mean over {over}; {about}"
    return Table(title, [corner, *names], rows, f"chance {', '.join(levels)}; {caption}")


def weighting_of(one: HeadScores) -> str:
    return "" if one.by == "pattern" else f" by {one.by} ({WEIGHTING_DEFINITIONS[one.by]})"


def run_of(checkpoint: str) -> str:
    """The run to which a checkpoint belongs.

    >>> run_of("runs/mixed-0@200"), run_of("runs/mixed-0")
    ('runs/mixed-0', 'runs/mixed-0')
    """
    return checkpoint.rpartition("@")[0] or checkpoint


@displays(HeadScores, "tables")
def tables_of_scores(result: HeadScores) -> list[Table]:
    return score_tables([result], f"{result.n_prompts} prompts, seed {result.seed}")


@displays(HeadScores, "maps")
def maps_of_scores(result: HeadScores) -> list[str]:
    """A heat map [layer x head] for every class."""
    what = f"{result.kind.name} score"
    return [head_map(values, name, what, best=result.kind.best) for name, values in result.values.items()]


@displays(Patterns, "tables")
def pattern_tables(result: Patterns) -> list[Table]:
    """The scores of the heads on these prompts, chance last."""
    rows = [
        [name, *(number(float(of_kind[row])) for of_kind in result.scores.values())]
        for row, name in enumerate([*map(str, result.heads), "chance"])
    ]
    prompts = "one prompt" if result.n_prompts == 1 else f"{result.n_prompts} prompts"
    title = f"{result.title}: attention on {result.function_class}"
    header = ["head", *(name.replace("_", " ") for name in result.scores)]
    return [Table(title, header, rows, f"scores over {prompts}, seed {result.seed}")]


@displays(Patterns, "maps")
def maps_of_patterns(result: Patterns) -> list[str]:
    """The figure itself: attention has more cells than a small heat map shows."""
    from interp.display.axes import image

    return [image(result.plot(), f"attention of {', '.join(map(str, result.heads))}")]
