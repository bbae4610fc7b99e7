"""Tables of scores: heads ranked by their score, and the heads of several checkpoints side by side."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from interp.display.heat_maps import head_map
from interp.display.result import displays
from interp.model.heads import Head, HeadSet, all_heads
from interp.model.positions import show_points
from interp.names import SCORE_DEFINITIONS, WEIGHTING_DEFINITIONS
from interp.scores.patterns import Patterns
from interp.scores.score import HeadScores
from training.common.output import Table, interval, number

TOP = 8


class Column(NamedTuple):
    """One function class under one setting.

    Attributes:
        label: the class, and the settings in which it differs from the other columns.
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
    """One per class and setting of one checkpoint's score; labels name the settings that differ."""
    labels = differing([(result.inputs, result.shift, show_points(result.points)) for result in results])
    return [
        Column(
            ", ".join([function_class, *label]),
            value,
            result.ci_low[function_class],
            result.ci_high[function_class],
            result.chances[function_class],
        )
        for result, label in zip(results, labels, strict=True)
        for function_class, value in result.values.items()
    ]


def differing(rows: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """Of each row, the entries of the columns that are not the same in all rows.

    >>> differing([("gaussian", "none"), ("gaussian", "scale_x:2")])
    [['none'], ['scale_x:2']]
    """
    differs = [len(set(column)) > 1 for column in zip(*rows, strict=True)]
    return [[entry for entry, differ in zip(row, differs, strict=True) if differ] for row in rows]


def mean_of(results: Sequence[HeadScores]) -> Float[np.ndarray, "layer head"]:
    """The average over columns, by which heads are ranked."""
    return np.mean([column.value for column in columns(results)], axis=0)


def rank_heads(values: Float[np.ndarray, "layer head"]) -> HeadSet:
    """All heads, the highest first."""
    return tuple(sorted(all_heads(*values.shape), key=lambda head: -values[head]))


def score_tables(results: Sequence[HeadScores], caption: str, top: int = TOP) -> list[Table]:
    """A table per checkpoint and score, and one per score that compares the checkpoints if there are several.

    Several scores in one column each make a single table, head by score.

    Args:
        results: of any checkpoints, scores and settings, all with the same weighting.
        caption: about the prompts.
        top: how many heads to list.
    """
    checkpoints = list(dict.fromkeys(result.checkpoint for result in results))
    kinds = list(dict.fromkeys(result.kind.name for result in results))
    groups: dict[tuple[str, str], list[HeadScores]] = {}
    for result in results:
        groups.setdefault((result.checkpoint, result.kind.name), []).append(result)
    tables = []
    for checkpoint in checkpoints:
        by_kind = [groups[checkpoint, kind] for kind in kinds]
        if len(kinds) > 1 and all(len(columns(group)) == 1 for group in by_kind):
            tables.append(kinds_table([result for (result,) in by_kind], caption, top))
        else:
            tables += [ranking_table(group, caption, top) for group in by_kind]
    if len(checkpoints) > 1:
        for kind in kinds:
            tables.append(comparison_table([groups[checkpoint, kind] for checkpoint in checkpoints], caption, top))
    return tables


def ranking_table(results: Sequence[HeadScores], caption: str, top: int) -> Table:
    """The heads with the highest mean over columns."""
    by_class, first = columns(results), results[0]
    heads = rank_heads(mean_of(results))[:top]
    rows = [[str(head), *(column.cell(head) for column in by_class)] for head in heads]
    if np.ptp([column.chance for column in by_class]) < 1e-9:
        level = f"chance {first.chance:.3f}"
    else:
        level = "chance in the last row"
        rows.append(["chance", *(number(column.chance) for column in by_class)])
    title = f"{first.title}: {first.kind.name} score{describe_weighting(first)} ({first.kind.definition})"
    header = ["head", *(column.label for column in by_class)]
    cells = "score [95 % interval over prompts]"
    return Table(title, header, rows, f"{cells}; {level}; the {len(heads)} highest; {caption}")


def kinds_table(results: Sequence[HeadScores], caption: str, top: int) -> Table:
    """Head by score, for the heads that come closest to the maximum of any of the scores."""
    by_kind, first = [columns([result])[0] for result in results], results[0]
    shares = [
        (column.value - column.chance) / (result.kind.best - column.chance)
        for result, column in zip(results, by_kind, strict=True)
    ]
    heads = rank_heads(np.max(shares, axis=0))[:top]
    rows = [[str(head), *(number(float(column.value[head])) for column in by_kind)] for head in heads]
    rows.append(["chance", *(number(column.chance) for column in by_kind)])
    title = f"{first.title}: scores{describe_weighting(first)} on {by_kind[0].label}"
    caption = f"the {len(heads)} that come closest, from chance, to the maximum of any score; {caption}"
    header = ["head", *(result.kind.name.replace("_", " ") for result in results)]
    meanings = {name: result.kind.definition for name, result in zip(header[1:], results, strict=True)}
    return Table(title, header, rows, caption, meanings)


def comparison_table(by_checkpoint: Sequence[Sequence[HeadScores]], caption: str, top: int) -> Table:
    """Checkpoints side by side: head by head for snapshots of one run, rank by rank for independent runs."""
    first = by_checkpoint[0][0]
    means = [mean_of(results) for results in by_checkpoint]
    if len({run_of(results[0].checkpoint) for results in by_checkpoint}) == 1:
        heads = rank_heads(np.mean(means, axis=0))[:top]
        rows = [[str(head), *(number(float(mean[head])) for mean in means)] for head in heads]
        order, corner = "snapshots of one run, head by head", "head"
    else:
        ranked = [[f"{head}  {number(float(mean[head]))}" for head in rank_heads(mean)[:top]] for mean in means]
        rows = [[str(rank), *cells] for rank, cells in enumerate(zip_longest(*ranked, fillvalue="-"), 1)]
        order, corner = "rank by rank: heads of independent runs do not correspond by their numbers", "rank"
    chances = [np.mean([column.chance for column in columns(results)]) for results in by_checkpoint]
    levels = ", ".join(sorted({number(float(chance)) for chance in chances}))
    over = "classes and settings" if len(by_checkpoint[0]) > 1 else "classes"
    title = f"{first.kind.name} score{describe_weighting(first)}, mean over {over}; {order}"
    header = [corner, *(results[0].title for results in by_checkpoint)]
    cells = "score" if corner == "head" else "the head at this rank and its score"
    return Table(title, header, rows, f"columns: models; cells: {cells}; chance {levels}; {caption}")


def describe_weighting(result: HeadScores) -> str:
    return "" if result.by == "pattern" else f" by {result.by} ({WEIGHTING_DEFINITIONS[result.by]})"


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
    title = f"{result.kind.name} score"
    return [head_map(values, name, title, best=result.kind.best) for name, values in result.values.items()]


@displays(Patterns, "tables")
def pattern_tables(result: Patterns) -> list[Table]:
    """The scores of the heads on these prompts, chance last."""
    rows = [
        [name, *(number(float(values[row])) for values in result.scores.values())]
        for row, name in enumerate([*map(str, result.heads), "chance"])
    ]
    prompts = "one prompt" if result.n_prompts == 1 else f"{result.n_prompts} prompts"
    title = f"{result.title}: attention on {result.function_class}"
    header = ["head", *(name.replace("_", " ") for name in result.scores)]
    meanings = {name.replace("_", " "): SCORE_DEFINITIONS[name] for name in result.scores if name in SCORE_DEFINITIONS}
    return [Table(title, header, rows, f"scores over {prompts}, seed {result.seed}", meanings)]


@displays(Patterns, "maps")
def maps_of_patterns(result: Patterns) -> list[str]:
    """The figure itself: attention has more cells than a small heat map can hold."""
    from interp.display.axes import image

    return [image(result.plot(), f"attention of {', '.join(map(str, result.heads))}")]
