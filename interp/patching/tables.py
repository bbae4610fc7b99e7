"""What `interp patch` and `interp path` print, as tables for people, and small maps for notebooks."""

from typing import Any

import numpy as np
import pandas as pd

from interp.display.heat_maps import grid_map
from interp.display.result import displays
from interp.model.heads import head_grid
from interp.patching.maps import PatchMap, place_name, strongest
from interp.patching.paths import PathEffects
from interp.patching.runner import Question
from interp.statistics.effects import rank_by_evidence
from training.common.output import Table, interval, number, records
from training.common.table_rows import distinct, where


@displays(PatchMap, "maps")
def effect_maps(found: PatchMap) -> list[str]:
    """A map per class: layers by heads where all heads were patched, else by tokens."""
    grids = {
        name: grid_of(where(found.table, function_class=name), "effect")
        for name in distinct(found.table, "function_class")
    }
    return [
        grid_map(
            grid.to_numpy(),
            [f"{grid.index.name} {one}" for one in grid.index],
            [str(one) for one in grid.columns],
            name,
            "effect",
            diverging=True,
        )
        for name, grid in grids.items()
    ]


def grid_of(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The map of one class: rows and columns by what varies."""
    rows = records(table)
    tokens = list(dict.fromkeys(row["tokens"] for row in rows))
    names = list(dict.fromkeys(row["heads"] or str(row["layer"]) for row in rows))
    kind = "head" if rows[0]["heads"] else "layer"
    values = np.array([row[metric] for row in rows]).reshape(len(names), len(tokens))
    shape = head_grid(names)
    if len(tokens) == 1 and shape is not None:
        layers, heads = (pd.Index(range(n), name=name) for n, name in zip(shape, ("layer", "head"), strict=True))
        return pd.DataFrame(values.reshape(shape), index=layers, columns=heads)
    return pd.DataFrame(values, index=pd.Index(names, name=kind), columns=pd.Index(tokens, name="token"))


def map_table(found: PatchMap, most: int = 8) -> Table:
    """The places that matter most, by class."""
    names = distinct(found.table, "function_class")
    rows = [
        [
            f"{name}: {place_name(found.site, row)}",
            interval(row["effect"], row["ci_low"], row["ci_high"]),
            interval(row["nmse"], row["nmse_low"], row["nmse_high"]),
            number(row["distance"]),
            number(row["excess"]),
        ]
        for name in names
        for row in strongest(found, name, most)
    ]
    question, n_places = found.question, len(found.table) // len(names)
    caption = (
        f"{question.direction}, {question.corrupt}; effect: share of the way from the {question.base} run to the "
        f"other; {ends_phrase(found.ends)}; distance: to the clean prediction; excess: over the no-context optimum; "
        f"the {min(most, n_places)} strongest of {n_places}; {drawn(question)}"
    )
    header = ["class: patched", "effect", "nmse", "distance", "excess"]
    return Table(f"{found.title}: {found.site} patched", header, rows, caption)


def path_table(found: PathEffects, weights: pd.DataFrame | None = None, most: int = 10) -> Table:
    """The senders' whole effect and the strongest paths, by class and sender.

    Args:
        found: the effects.
        weights: composition scores to put beside them (`interp.patching.composition`).
        most: how many paths of every class and sender.
    """
    known = {} if weights is None else {(row["sender"], row["receiver"]): row for row in records(weights)}
    by_start: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(found.table):
        by_start.setdefault((row["function_class"], row["sender"]), []).append(row)
    rows = []
    for (name, sender), (whole, *paths) in by_start.items():
        ranked = sorted(paths, key=lambda path: rank_by_evidence(path["effect"], path["ci_low"], path["ci_high"]))
        for row in [whole, *ranked[:most]]:
            weight = known.get((sender, row["receiver"]), {})
            composed = [] if weights is None else [number(weight.get("score")), number(weight.get("chance"))]
            rows.append(
                [
                    f"{name}: {sender} to {row['receiver']}",
                    interval(row["effect"], row["ci_low"], row["ci_high"]),
                    interval(row["share"], row["share_low"], row["share_high"]),
                    number(row["nmse"]),
                    *composed,
                ]
            )
    question = found.question
    told = "" if weights is None else "composition: by weights alone, and its chance level; "
    caption = (
        f"{question.direction}, {question.corrupt}; share: of the senders' effect through everything; paths need not "
        f"add up; {ends_phrase(found.ends)}; {told}"
        f"the {most} strongest; {drawn(question)}"
    )
    header = ["class: path", "effect", "share", "nmse", *([] if weights is None else ["composition", "chance"])]
    return Table(f"{found.title}: paths", header, rows, caption)


def drawn(question: Question) -> str:
    return f"{question.n_prompts} prompts, seed {question.seed}"


def ends_phrase(ends: pd.DataFrame) -> str:
    """NMSE of the unpatched runs."""
    parts = (f"{row['function_class']} {row['nmse_clean']:.2f}, {row['nmse_corrupt']:.2f}" for row in records(ends))
    return f"nmse of the clean and the corrupt run: {'; '.join(parts)}"


@displays(PatchMap, "tables")
def map_tables(result: PatchMap) -> list[Table]:
    return [map_table(result)]


@displays(PathEffects, "tables")
def path_tables(result: PathEffects) -> list[Table]:
    return [path_table(result)]
