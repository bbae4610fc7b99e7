"""The study of layers on circuits whose heads are known, its sentences, and the rule behind them."""

from dataclasses import replace

import circuits
import disguised
import pandas as pd
import pytest

from analyses.studies.layers.measures import layer_counts, need_table, seed_table
from analyses.studies.layers.study import study
from analyses.studies.layers.verdict import verdict
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import where


def trained_on_linear(checkpoint):
    return replace(checkpoint, config=replace(checkpoint.config, curriculum="single:linear"))


def test_two_halves_are_both_needed_and_the_reader_alone_is_enough(tmp_path):
    planted = disguised.disguised("two halves", 3, tmp_path)
    findings = study([trained_on_linear(planted.checkpoint)], n_prompts=64)
    first, second = records(findings.files["needs"])
    assert (first["n_needed"], second["n_needed"]) == (2, 1)
    curve = where(findings.files["curves"], layer=0)
    assert set(curve["order"].iloc[0].split(",")[:2]) == {str(planted.heads[role]) for role in ("half 0", "half 1")}
    assert second["best"] == str(planted.heads["reader"])
    assert (second["cost_best"], second["cost_all"]) == pytest.approx((0, 1), abs=0.05)
    text = findings.sentences()
    assert text[0].startswith(
        "To keep 90% of the in-context gain, the first layer needs 2.0 heads and a later layer 1.0"
    )
    assert text[1] == "One seed allows no test of the difference between the first layer and later ones (1.0)."
    assert text[2].startswith(
        "All heads of the first layer are needed in 0 of 1 case (model x class); in later layers at"
    )


def test_one_of_two_copies_is_enough(tmp_path):
    findings = study([trained_on_linear(circuits.redundant(tmp_path))], n_prompts=64)
    assert findings.files["needs"]["n_needed"].tolist() == [1, 1, 0]


def test_a_model_without_a_gain_is_not_judged(random_checkpoint):
    findings = study([random_checkpoint], n_prompts=32)
    assert findings.sentences() == [
        "No model has a clear in-context gain on a class, so nothing is said of its layers."
    ]


def test_seeds_are_the_unit(made_up):
    runs = [made_up("single:linear", seed, {"linear": [1.0]}) for seed in range(8)]
    needs = pd.DataFrame(
        [
            {"checkpoint": run.name, "curriculum": "single:linear", "function_class": "linear", "layer": layer}
            | {"n_heads": 8, "n_needed": needed, "cost_best": 0.1, "cost_all": 1.0}
            for i, run in enumerate(runs)
            for layer, needed in enumerate((6 + i % 2, 1, i % 2))
        ]
    )
    (row,) = records(seed_table(runs, needs))
    assert (row["first"], row["later"], row["difference"]) == (6.5, 0.75, 5.75)
    assert row["p_value"] == 2 / 2**8
    _, difference, cases = verdict(seed_table(runs, needs), layer_counts(needs))
    assert difference == (
        "The first layer needs more heads than a later one: 5.8 [5.5, 6.0] (p = 0.00781, random signs over seeds)."
    )
    assert cases == (
        "All heads of the first layer are needed in 0 of 8 cases (model x class); in later layers at most one head is "
        "needed in 16 of 16, none in 4."
    )
    swapped = needs.assign(layer=needs["layer"].replace({0: 2, 2: 0}))
    assert "fewer heads than a later one" in verdict(seed_table(runs, swapped), layer_counts(swapped))[1]


def test_a_single_layer_is_refused(random_checkpoint):
    config = replace(random_checkpoint.config, model=replace(random_checkpoint.config.model, n_layers=1))
    with pytest.raises(UserError, match="1 layers of 8 heads; this study needs two or more of both"):
        study([replace(random_checkpoint, config=config)], n_prompts=32)


def test_tables_without_rows_need_nothing():
    assert need_table(pd.DataFrame()).empty


def test_layers_that_need_as_many_heads_are_rarely_told_apart(made_up, rng):
    """Eight seeds whose layers need a random number each: one verdict in twenty at most names a difference."""
    runs = [made_up("single:linear", seed, {"linear": [1.0]}) for seed in range(8)]
    labels = [(run.name, layer) for run in runs for layer in range(3)]
    needs = pd.DataFrame(labels, columns=["checkpoint", "layer"])
    needs = needs.assign(curriculum="single:linear", function_class="linear", n_heads=8, cost_best=0.1, cost_all=1.0)
    wrong = 0
    for _ in range(200):
        drawn = needs.assign(n_needed=rng.integers(0, 9, len(needs)))
        sentence = verdict(seed_table(runs, drawn), layer_counts(drawn))[1]
        wrong += "more heads than" in sentence or "fewer heads than" in sentence
    assert wrong / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5
