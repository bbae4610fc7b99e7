"""Architectures: who may be compared, and what chance alone does to comparisons of counts."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyses.studies.architectures.measures import HEADS, compare_counts, group_architectures
from analyses.studies.plateaus.measures import LEFT
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.output import records
from training.config.parse import from_preset

COURSE = {"linear": [1.0, 0.2]}
Make = Callable[..., Checkpoint]


@pytest.fixture
def make(made_up: Make) -> Make:
    """A made-up run with settings."""

    def run(name: str, seed: int, *settings: str) -> Checkpoint:
        checkpoint = made_up("mixed", seed, COURSE)
        return replace(checkpoint, name=name, config=from_preset("tiny", "mixed", seed, settings))

    return run


def test_runs_are_grouped_by_what_their_architecture_changes(make: Make):
    runs = [make("a", 0), make("b", 1), make("c", 2, "model.norm=none", "model.d_mlp=0")]
    groups = group_architectures([*runs, make("d", 3, "model.act=relu"), make("e", 4, "model.norm=rms")])
    assert {name: [run.name for run in same] for name, same in groups.by_curriculum.items()} == {
        "reference": ["a", "b"],
        "model.act=relu": ["d"],
        "model.d_mlp=0 model.norm=none": ["c"],
        "model.norm=rms": ["e"],
    }


@pytest.mark.parametrize("setting", ["model.n_layers=2", "recipe.lr=0.1", "data.weights=standard"])
def test_what_differs_beyond_the_architecture_is_refused(make: Make, setting: str):
    message = f"differ in {setting.partition('=')[0]}: only model.norm, .* and seeds may differ"
    with pytest.raises(UserError, match=message):
        group_architectures([make("a", 0), make("b", 1, setting)])


def count_tables(numbers: dict[str, int], n_seeds: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seeds that left the plateau on one class, by architecture, all of them with heads."""
    counts = [
        {"curriculum": name, "function_class": "linear", "threshold": LEFT, "n_left": n, "n_seeds": n_seeds}
        for name, n in numbers.items()
    ]
    heads = [{"variant": name, "n_with": n, "n_learned": n} for name, n in numbers.items()]
    return pd.DataFrame(counts), pd.DataFrame(heads)


def test_counts_are_compared_with_the_reference():
    tests = compare_counts(*count_tables({"reference": 5, "a": 0, "b": 5}, 5))
    rows = {(row["variant"], row["count"]): row for row in records(tests)}
    assert set(rows) == {("a", "linear"), ("b", "linear"), ("b", HEADS)}  # no seed of a could have had a head
    assert rows["a", "linear"]["p_value"] == rows["a", "linear"]["smallest_p"] == pytest.approx(1 / 126)
    assert rows["a", "linear"]["p_holm"] == pytest.approx(2 / 126)
    assert rows["b", "linear"]["p_holm"] == rows["b", HEADS]["p_holm"] == 1


def test_a_reference_alone_is_compared_with_nothing():
    assert compare_counts(*count_tables({"reference": 5}, 5)).empty


@pytest.mark.slow
def test_comparisons_of_counts_reject_a_true_null_at_most_at_their_level(rng: np.random.Generator):
    """Six architectures that learn as often as the reference, in five seeds each."""
    rejected = []
    for _ in range(200):
        share = rng.uniform(0.2, 0.8)
        numbers = {name: int(rng.binomial(5, share)) for name in ("reference", *"abcdef")}
        counts, heads = count_tables(numbers, 5)
        tests = compare_counts(counts, heads.assign(n_learned=0))
        rejected.append((tests["p_holm"] <= 0.05).any())
    assert np.mean(rejected) <= 0.05
