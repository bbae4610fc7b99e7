"""Runs of unknown seeds: neither equal to any other nor independent of it, unless the user says so."""

from dataclasses import replace
from pathlib import Path

import pytest

from interp.statistics.seeds import as_independent, independent_seeds, seed_mean, unknown_seeds, unknown_seeds_note
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import UserError
from training.config.config import Seeds


@pytest.fixture(scope="module")
def known() -> Checkpoint:
    return load("zoo:mixed-0")


def foreign(known: Checkpoint, name: str, label: str = "", step: int = 3000) -> Checkpoint:
    """A snapshot of an imported run."""
    config = replace(known.config, seeds=Seeds(), seed_label=label)
    return replace(known, name=f"{name}@{step}", directory=Path("runs") / name, config=config, step=step)


def test_one_run_is_one_seed_whatever_is_known_of_it(known: Checkpoint):
    assert independent_seeds([foreign(known, "a")]) == [[0]]
    assert independent_seeds([foreign(known, "a", step=1), foreign(known, "a", step=2)]) == [[0, 1]]


@pytest.mark.parametrize("other", ["known", "foreign"])
def test_unknown_seeds_are_neither_pooled_nor_independent(known: Checkpoint, other: str):
    pair = [foreign(known, "a"), known if other == "known" else foreign(known, "b")]
    for order in (pair, pair[::-1]):
        with pytest.raises(UserError, match=r"a@3000 has unknown seeds|b@3000 has unknown seeds"):
            independent_seeds(order)
        with pytest.raises(UserError, match=r"--independent, or `interp import --seed-label NAME`"):
            seed_mean(order, [0.0, 1.0])


def test_the_user_may_state_that_they_are_independent(known: Checkpoint):
    pair = [foreign(known, "a"), foreign(known, "a", step=5), known, foreign(known, "b")]
    stated = as_independent(pair)
    assert independent_seeds(stated) == [[0, 1], [2], [3]]  # snapshots of one run stay one seed
    assert stated[2] is known
    assert unknown_seeds(stated) == ["a@3000", "a@5", "b@3000"]
    assert "The seeds of 3 of the 4 models are unknown" in unknown_seeds_note(stated)
    assert unknown_seeds_note([known, known]) == ""


def test_labels_say_which_runs_are_independent(known: Checkpoint):
    runs = [foreign(known, "a", "1"), foreign(known, "b", "2"), foreign(known, "c", "1"), known]
    assert independent_seeds(runs) == [[0, 2], [1], [3]]
    assert as_independent(runs)[0].config.seed_label == "1"
    with pytest.raises(UserError, match="d@3000 has unknown seeds"):
        independent_seeds([*runs, foreign(known, "d")])


def test_a_known_seed_is_used_where_another_is_not(known: Checkpoint):
    partly = replace(known, config=replace(known.config, seeds=Seeds(init=known.config.seeds.init), seed_label="x"))
    assert independent_seeds([partly, known]) == [[0, 1]]
