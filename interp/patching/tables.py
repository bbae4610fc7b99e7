"""Tables and small maps of `interp patch` and `interp path`."""

from typing import Any

import numpy as np
import pandas as pd

from interp.display.heat_maps import grid_map
from interp.display.result import displays
from interp.model.heads import head_grid
from interp.patching.composition import Composition
from interp.patching.maps import PatchMap, name_location
from interp.patching.paths import PathEffects
from interp.patching.runner import Question
from interp.patching.verdict import strongest
from interp.statistics.effects import rank_by_evidence
from interp.statistics.p_values import p_number
from training.common.output import Table, interval, number, records
from training.common.table_rows import distinct, where

MOST_LOCATIONS, MOST_PATHS = 8, 10


@displays(PatchMap, "maps")
def effect_maps(result: PatchMap) -> list[str]:
    """A map per class: layers by heads where all heads were patched, else by tokens."""
    maps = []
    for function_class in distinct(result.table, "function_class"):
        grid = grid_of(where(result.table, function_class=function_class), "effect")
        rows, columns = [f"{grid.index.name} {label}" for label in grid.index], list(map(str, grid.columns))
        maps.append(grid_map(grid.to_numpy(), rows, columns, function_class, "effect", diverging=True))
    return maps


def grid_of(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The map of one class: layers by heads if all heads were patched, else heads or layers by tokens."""
    rows = records(table)
    tokens = list(dict.fromkeys(row["tokens"] for row in rows))
    names = list(dict.fromkeys(row["heads"] or str(row["layer"]) for row in rows))
    values = np.array([row[metric] for row in rows]).reshape(len(names), len(tokens))
    shape = head_grid(names)
    if len(tokens) == 1 and shape is not None:
        layers, heads = (pd.Index(range(n), name=name) for n, name in zip(shape, ("layer", "head"), strict=True))
        return pd.DataFrame(values.reshape(shape), index=layers, columns=heads)
    kind = "head" if rows[0]["heads"] else "layer"
    return pd.DataFrame(values, index=pd.Index(names, name=kind), columns=pd.Index(tokens, name="token"))


@displays(PatchMap, "tables")
def map_tables(result: PatchMap) -> list[Table]:
    """The locations of every class with the best evidence."""
    classes = distinct(result.table, "function_class")
    rows = [
        [
            f"{function_class}: {name_location(result.site, row)}",
            interval(row["effect"], row["ci_low"], row["ci_high"]),
            interval(row["nmse"], row["nmse_low"], row["nmse_high"]),
            number(row["distance_to_clean"]),
            number(row["nmse_above_no_context"]),
        ]
        for function_class in classes
        for row in strongest(result, function_class, MOST_LOCATIONS)
    ]
    question, n_locations = result.question, len(result.table) // len(classes)
    caption = (
        f"{question.direction}, {question.corrupt}; {describe_runs(result.baseline_errors)}; the "
        f"{min(MOST_LOCATIONS, n_locations)} strongest of {n_locations}; {describe_prompts(question)}"
    )
    header = ["class: patched", "effect", "nmse", "distance to clean", "nmse above no context"]
    meanings = {
        "effect": f"share of the way from the {question.base} run to the other",
        "nmse": "error of the patched run",
        "distance to clean": "mean squared distance of its predictions from the clean run's, over E[y²]",
        "nmse above no context": "its error minus the no-context optimum's",
    }
    least = ["nmse above no context", "distance to clean"]
    return [Table(f"{result.title}: {result.site} patched", header, rows, caption, meanings, least)]


@displays(PathEffects, "tables")
def path_tables(result: PathEffects, weights: pd.DataFrame | None = None) -> list[Table]:
    """The senders' total effect and the strongest paths, by class and sender.

    Args:
        result: the effects.
        weights: composition scores to put beside them (`interp.patching.composition`).
    """
    composition = {} if weights is None else {(row["sender"], row["receiver"]): row for row in records(weights)}
    by_sender: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(result.table):
        by_sender.setdefault((row["function_class"], row["sender"]), []).append(row)
    rows = []
    for (function_class, sender), (total, *paths) in by_sender.items():
        paths.sort(key=lambda path: rank_by_evidence(path["effect"], path["ci_low"], path["ci_high"]))
        for row in [total, *paths[:MOST_PATHS]]:
            score = composition.get((sender, row["receiver"]), {})
            rows.append(
                [
                    f"{function_class}: {sender} to {row['receiver']}",
                    interval(row["effect"], row["ci_low"], row["ci_high"]),
                    interval(row["share"], row["share_low"], row["share_high"]),
                    number(row["nmse"]),
                    *([] if weights is None else [number(score.get("score")), number(score.get("chance"))]),
                ]
            )
    question = result.question
    caption = (
        f"{question.direction}, {question.corrupt}; paths need not add up; "
        f"{describe_runs(result.baseline_errors)}; "
        f"the {MOST_PATHS} strongest; {describe_prompts(question)}"
    )
    header = ["class: path", "effect", "share", "nmse", *([] if weights is None else ["composition", "chance"])]
    meanings = {
        "effect": f"share of the way from the {question.base} run to the other",
        "share": "of the senders' total effect",
        "nmse": "error of the patched run",
        "composition": "score from the weights alone",
        "chance": "the same after random rotations",
    }
    return [Table(f"{result.title}: paths", header, rows, caption, meanings, ["nmse", "chance", "composition"])]


@displays(Composition, "tables")
def composition_tables(result: Composition) -> list[Table]:
    """The inputs that score highest above chance."""
    excess = result.table["score"] - result.table["chance"]
    highest = result.table.assign(excess=excess).nlargest(MOST_PATHS, "excess")
    rows = [
        [
            f"{row['sender']} to {row['receiver']}",
            *(number(row[column]) for column in ("score", "chance", "excess")),
            p_number(row["p_value"], result.n_rotations),
        ]
        for row in records(highest)
    ]
    caption = (
        f"the {len(rows)} of {len(result.table)} inputs furthest above chance; {result.n_rotations} rotations, seed "
        f"{result.seed}"
    )
    meanings = {
        "score": "composition, from 0 to 1, by the weights alone",
        "chance": "its mean over random rotations of what the sender writes",
        "above chance": "their difference",
        "p": "share of rotations that score as high, of this input alone",
    }
    header = ["sender to input", "score", "chance", "above chance", "p"]
    return [Table(f"{result.title}: composition", header, rows, caption, meanings, ["above chance"])]


@displays(Composition, "maps")
def composition_maps(result: Composition) -> list[str]:
    """The figure itself: a map of all heads has more cells than a small heat map can hold."""
    from interp.display.axes import image

    return [image(result.plot(), "composition of senders with the q, k and v of receivers, above chance")]


def describe_prompts(question: Question) -> str:
    return f"{question.n_prompts} prompts, seed {question.seed}"


def describe_runs(errors: pd.DataFrame) -> str:
    """NMSE of the unpatched runs."""
    parts = (f"{row['function_class']} {row['nmse_clean']:.2f}, {row['nmse_corrupt']:.2f}" for row in records(errors))
    return f"nmse of the clean and the corrupt run: {'; '.join(parts)}"
