"""Figures of patching: what is drawn is what was measured, where it belongs, also where there is nothing to measure."""

import matplotlib as mpl
import numpy as np
import pytest

from interp.model.heads import Head
from interp.patching.effects import METRICS
from interp.patching.figures import grid_of, plot_map, plot_paths
from interp.patching.maps import patch
from interp.patching.path_receivers import Receiver
from interp.patching.paths import path_effects
from training.checkpoints.checkpoint import load
from training.common.output import records


@pytest.fixture(scope="module", autouse=True)
def _no_window():
    mpl.use("Agg")


@pytest.fixture(scope="module")
def trained():
    return load("zoo:mixed-0")


COMMON = {"corrupt": "prompt", "examples": 2, "n_prompts": 12}
WHERE = [
    ({"site": "z"}, ("layer", 3), ("head", 8)),
    ({"site": "attn_out"}, ("layer", 3), ("token", 5)),
    ({"site": "k", "heads": "layer:1", "tokens": "each"}, ("head", 1), ("token", 5)),
    ({"site": "v", "heads": "layers"}, ("head", 3), ("token", 1)),
]


@pytest.mark.sample(2)
@pytest.mark.parametrize(("where", "rows", "columns"), WHERE, ids=lambda one: str(one))
def test_a_map_has_its_numbers_in_their_places(trained, where, rows, columns):
    found = patch(trained, ["linear"], **where, **COMMON)
    grid = grid_of(found.table, "effect")
    assert ((grid.index.name, len(grid)), (grid.columns.name, grid.shape[1])) == (rows, columns)
    for place, row in enumerate(records(found.table)):
        assert grid.to_numpy().flat[place] == row["effect"]
    (ax,) = plot_map(found)
    np.testing.assert_array_equal(ax.images[0].get_array(), grid)
    assert len(ax.texts) == grid.size  # every number is written out


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("effect", "noise"),
        ("nmse", "denoise"),
        ("distance_to_clean", "noise"),
        ("distance_to_clean", "denoise"),
        ("nmse_above_no_context", "noise"),
    ],
)
def test_dots_mark_what_differs_from_the_unpatched_run(trained, metric, direction):
    """At the query before the last layer everything differs or nothing; a dot is where the interval leaves it out."""
    found = patch(trained, ["linear", "cubic"], site="resid_post", direction=direction, **COMMON)
    axes = plot_map(found, metric)
    low, high = ("ci_low", "ci_high") if metric == "effect" else (f"{metric}_low", f"{metric}_high")
    for ax, name in zip(axes, ("linear", "cubic"), strict=True):
        (end,) = [row for row in records(found.baseline_errors) if row["function_class"] == name]
        base = "corrupt" if direction == "denoise" else "clean"
        rest = {
            "effect": 0,
            "nmse": end[f"nmse_{base}"],
            "distance_to_clean": end["gap"] if base == "corrupt" else 0,
            "nmse_above_no_context": end[f"nmse_{base}"] - end["nmse_no_context"],
        }[metric]
        rows = [row for row in records(found.table) if row["function_class"] == name]
        marked = sum(not row[low] <= rest <= row[high] for row in rows)
        assert len(ax.lines) == marked, name


def test_a_map_without_effects_is_drawn_all_the_same():
    blind = load("zoo:mixed-0")
    blind.model.unembed.W_U.zero_()
    found = patch(blind, ["linear"], site="resid_pre", **COMMON)
    for metric in METRICS:
        plot_map(found, metric)


@pytest.mark.parametrize("n_paths", [1, 30])
def test_paths_are_bars_below_their_whole(trained, n_paths):
    receivers = [(Receiver(3, 0, "out"),), *((Receiver(1, head, kind),) for head in range(8) for kind in "qkvqkv"[:3])]
    found = path_effects(trained, [(Head(0, 1),)], receivers[:n_paths], ["linear"], **COMMON)
    (ax,) = plot_paths(found)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    rows = {row["receiver"]: row["effect"] for row in records(found.table)}
    assert labels[0] == "total"
    strongest = sorted((name for name in rows if name != "all"), key=lambda name: -abs(rows[name]))[:16]
    assert labels[1:] == strongest
    widths = [bar.get_width() for bar in ax.patches]  # type: ignore[attr-defined]  # all of them are bars
    assert widths == pytest.approx([rows["all"], *(rows[name] for name in strongest)])
