"""What ablations and patches of any model print, as tables for people, and small maps for notebooks."""

import numpy as np

from interp.ablation.errors import merge_notes
from interp.ablation.tables import p_cells
from interp.any_model.judge import UNITS, LossAblation
from interp.any_model.patch import LossPatchMap, name_cell, strongest
from interp.display.heat_maps import grid_map, head_map
from interp.display.result import displays
from interp.model.heads import head_grid
from interp.patching.tables import grid_of
from training.common.output import Table, interval, number, records
from training.common.table_rows import distinct, where


@displays(LossAblation, "tables")
def loss_tables(result: LossAblation) -> list[Table]:
    """One row per set, condition and mode."""
    rows = [
        [
            f"{row['heads']} {row['condition']} {row['mode']}",
            number(row["loss_before"]),
            number(row["loss_after"]),
            interval(row["effect"], row["ci_low"], row["ci_high"]),
            number(row["control_effect"]),
            f"{row['n_controls']}{' (all)' if row['exact'] else ''}",
            *p_cells(row),
        ]
        for row in records(result.table)
    ]
    header = ["heads, condition, mode", "loss", "loss without", "effect", "control mean", "controls", "p", "p Holm"]
    notes = merge_notes(result.table["note"])
    caption = (
        f"{result.n_prompts} examples, seed "
        f"{result.seed}{''.join(f'; {note}' for note in (result.about, *notes) if note)}"
    )
    meanings = {
        "loss": "of the intact model",
        "loss without": "without the heads",
        "effect": UNITS[result.unit],
        "control mean": "mean effect of layer-matched control sets without these heads",
        "controls": "number of layer-matched control sets",
        "p": "against layer-matched control sets",
        "p Holm": "p adjusted over conditions (Holm)",
    }
    return [Table(result.title, header, rows, caption, meanings, ["controls", "loss", "loss without"])]


@displays(LossAblation, "maps")
def effect_maps(result: LossAblation) -> list[str]:
    """Where every head of the model was a set of its own, its effect, a map per condition and mode."""
    shape = head_grid(distinct(result.table, "heads"))
    if shape is None:
        return []
    return [
        head_map(
            np.reshape(effects, shape),
            f"{condition}, {mode}",
            "effect",
            best=1.0 if result.unit == "gain" else max(float(np.abs(effects).max()), 1e-9),
            diverging=True,
        )
        for condition in distinct(result.table, "condition")
        for mode in distinct(result.table, "mode")
        for effects in [where(result.table, condition=condition, mode=mode)["effect"].to_numpy()]
    ]


@displays(LossPatchMap, "tables")
def patch_tables(result: LossPatchMap, most: int = 8) -> list[Table]:
    """The locations that matter most, by condition."""
    conditions = distinct(result.table, "condition")
    rows = [
        [
            f"{condition}: {name_cell(result.site, row)}",
            interval(row["effect"], row["ci_low"], row["ci_high"]),
            interval(row["loss"], row["loss_low"], row["loss_high"]),
        ]
        for condition in conditions
        for row in strongest(result, condition, most)
    ]
    ends = "; ".join(
        f"{row['condition']} {number(row['loss_clean'])}, {number(row['loss_corrupt'])}" for row in records(result.ends)
    )
    n_locations = len(result.table) // len(conditions)
    caption = (
        f"{result.direction}; loss of the clean and the corrupt run: {ends}; the {min(most, n_locations)} strongest of "
        f"{n_locations}; {result.n_examples} examples, seed {result.seed}"
    )
    meanings = {
        "effect": f"share of the way from the {result.base} run to the other",
        "loss": "of the patched run",
    }
    header = ["condition: patched", "effect", "loss"]
    return [Table(f"{result.title}: {result.site} patched", header, rows, caption, meanings)]


@displays(LossPatchMap, "maps")
def patch_maps(result: LossPatchMap) -> list[str]:
    """A map per condition: layers by heads where all heads were patched, else by tokens."""
    grids = {
        name: grid_of(where(result.table, condition=name), "effect") for name in distinct(result.table, "condition")
    }
    return [
        grid_map(
            grid.to_numpy(),
            [f"{grid.index.name} {label}" for label in grid.index],
            [str(label) for label in grid.columns],
            name,
            "effect",
            diverging=True,
        )
        for name, grid in grids.items()
    ]
