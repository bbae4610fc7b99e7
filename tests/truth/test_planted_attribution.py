"""Known paths are found by path patching and by gradients, and the circuit that they make is all there is.

Under `function` only y changes, so the answer goes one way, and each of its edges carries all of it:

    embed -> 0.mlp (as y_i) -> 1.2.v -> 1.mlp -> out

Under `prompt` x changes too, and the first MLP multiplies x_i, which head 0.1 has copied, by y_i. One factor alone
gives x_q mean(x_i y'_i), which is 0 on average: half-way between two predictions that know nothing of each other. So
the edges embed -> 0.1.v, 0.1 -> 0.mlp and embed -> 0.mlp carry 1/2 each. Every edge acts linearly while the others
stay, so that gradients are exact.
"""

import pytest

from interp.attribution.attribute import attribute, attribute_edges
from interp.attribution.circuits import circuits
from interp.attribution.figures import plot_attribution, plot_circuit, plot_circuit_curves, plot_validation
from interp.display.axes import save_figure
from training.common.output import records

ANSWER = {"0.mlp->1.2.v": 1.0, "1.2->1.mlp": 1.0, "1.mlp->out": 1.0}
KNOWN = {
    "function": ANSWER | {"embed->0.mlp": 1.0},
    "prompt": ANSWER | {"embed->0.mlp": 0.5, "embed->0.1.v": 0.5, "0.1->0.mlp": 0.5},
}
PROMPTS = 128


@pytest.fixture(scope="module", autouse=True)
def _quick_checks():
    """Path patching proves of twelve patches per sender that they act; one is enough here (tests/interp/patching)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("interp.patching.self_checks.PLAIN", 1)
        yield


@pytest.fixture(scope="module")
def found(planted, _quick_checks):
    """By corruption, the effects of all edges; path patching under `prompt` alone, to save time."""
    asked = {
        "prompt": {"methods": ["exact", "eap", "eap-ig"], "n_validate": PROMPTS},
        "function": {"methods": ["eap", "eap-ig"], "n_validate": 0},
    }
    return {
        corrupt: attribute_edges(planted, ["linear"], corrupt=corrupt, n_prompts=PROMPTS, n_steps=2, **options)
        for corrupt, options in asked.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corrupt", "method"),
    [("prompt", "exact"), ("prompt", "eap"), ("prompt", "eap-ig"), ("function", "eap"), ("function", "eap-ig")],
)
def test_the_known_edges_carry_the_known_shares_and_no_other_carries_anything(found, corrupt, method):
    result = found[corrupt]
    rows = {result.name(row): row for row in records(result.table) if row["method"] == method}
    for name, share in KNOWN[corrupt].items():
        row = rows.pop(name)
        assert row["effect"] == pytest.approx(share, abs=0.02 if share == 1 else 0.08), name
        half_width = (row["ci_high"] - row["ci_low"]) / 2
        assert abs(row["effect"] - share) < 2 * half_width + 0.02, name
    assert max(abs(row["effect"]) for row in rows.values()) < 0.02


@pytest.mark.slow
def test_the_validation_says_that_gradients_are_exact_here(found):
    for one in records(found["prompt"].validation):
        assert (one["n_prompts"], one["n_signs"], one["signs"]) == (PROMPTS, 6, 1)
        assert one["top_5"] >= 0.8  # of equal shares, which come first is a matter of digits
        assert abs(one["worst_exact"] - one["worst_approximate"]) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "corrupt", "direction"),
    [
        ("exact", "prompt", "noise"),
        ("eap", "prompt", "denoise"),
        ("eap", "function", "noise"),
        ("eap-ig", "prompt", "noise"),
        ("eap-ig", "function", "denoise"),
    ],
)
def test_the_circuit_is_these_edges_and_it_is_all_there_is(planted, method, corrupt, direction):
    n = len(KNOWN[corrupt])
    asked = {"corrupt": corrupt, "direction": direction, "sizes": [n - 1, n], "n_prompts": 64, "n_random": 19}
    found = circuits(planted, ["linear"], method=method, n_steps=2, **asked)
    assert {f"{row['sender']}->{row['receiver']}" for row in found.chosen("linear")} == set(KNOWN[corrupt])
    smallest = found.smallest["linear"]
    assert smallest is not None
    assert smallest["n_edges"] == n
    assert smallest["faithfulness"] == pytest.approx(1, abs=0.01)
    assert [smallest["completeness"], smallest["distance"]] == pytest.approx([0, 0], abs=0.01)
    assert smallest["random_high"] < 0.5
    assert smallest["p_value"] == 1 / 20


def test_of_the_nodes_only_the_path_matters(planted):
    """The copying head carries one factor of the product, the reader all of it, the decoy nothing."""
    found = attribute(
        planted, ["linear"], methods=["exact", "gradient", "atp"], corrupt="prompt", n_prompts=PROMPTS, n_validate=0
    )
    for row in records(found.table):
        wanted = {"0.1": 0.5, "1.2": 1.0}.get(row["heads"], 0.0)
        assert row["effect"] == pytest.approx(wanted, abs=0.08), row
        assert row["ci_low"] <= row["effect"] <= row["ci_high"]


@pytest.mark.slow
def test_graddrop_sees_what_the_eraser_takes_back(self_repairing):
    """The writer's 2 ŷ less the eraser's ŷ: dropping the eraser's layer doubles the gradient.

    Sizes are means over the drops of other layers. Of the writer (2.1): 1 without layer 0 or 1, 2 without layer 3. Of
    the eraser (3.1): 1 each. Of the reader (1.2): 1 without layer 0, nothing without layer 2, which holds the writer,
    and 2 without layer 3.
    """
    found = attribute(
        self_repairing, ["linear"], methods=["exact", "atp"], corrupt="function", n_prompts=64, n_validate=64
    )
    exact, atp = (
        {row["heads"]: row for row in records(found.table) if row["method"] == method} for method in ("exact", "atp")
    )
    for heads, effect, size in (("2.1", 1, 4 / 3), ("3.1", -1, 1), ("1.2", 1, 1)):
        assert exact[heads]["effect"] == pytest.approx(effect, abs=0.02)
        assert atp[heads]["effect"] == pytest.approx(effect, abs=0.02)
        assert atp[heads]["size"] == pytest.approx(size, abs=0.03)
    others = [row for heads, row in atp.items() if heads not in ("2.1", "3.1", "1.2")]
    assert max(row["size"] for row in others) < 0.02


@pytest.mark.slow
def test_everything_is_drawn_and_written(planted, found, tmp_path):
    edges = found["prompt"]
    nodes = attribute(planted, ["linear"], site="mlp_out", methods=["gradient"], n_prompts=32, n_validate=32)
    cut = circuits(planted, ["linear"], sizes=[3, 6, 20], method="eap", n_prompts=32, n_random=3)
    for name, axes in {
        "edges": plot_attribution(edges),
        "edge_validation": plot_validation(edges),
        "nodes": plot_attribution(nodes),
        "circuit": plot_circuit(cut),
        "curves": plot_circuit_curves(cut),
    }.items():
        save_figure(axes, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    for result in (edges, cut):
        result.write(tmp_path)
    files = {"attribution.csv", "validation.csv", "validation_pairs.csv", "circuit.csv", "circuit_edges.csv"}
    assert files <= {path.name for path in tmp_path.iterdir()}
    assert edges.validation_pairs.groupby("method").size().nunique() == 1
