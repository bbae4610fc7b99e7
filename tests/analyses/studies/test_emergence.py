"""Arrivals of made-up courses, and a short run followed through its snapshots."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from analyses.studies.emergence.measures import (
    Course,
    arrival_table,
    check_snapshots,
    find_arrival,
    first_draw,
    order_of,
    order_table,
)
from analyses.studies.emergence.study import study
from analyses.studies.emergence.verdict import order_sentences
from interp.model.heads import Head, parse_heads
from interp.scores.score import score
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import UserError
from training.common.output import records
from training.config.config import Seeds
from training.config.parse import from_preset
from training.evaluation.evaluate import error_curves
from training.loop.trainer import train
from training.model.transformer import Transformer

STEPS = [0, 10, 20, 40, 80, 160]


def made_up(seed: int, score_at: int, gain_at: int, curriculum: str = "random") -> Course:
    """A run whose score and gain jump from 0 to 0.8 at these steps, on linear alone."""
    config = from_preset("tiny", curriculum, seed, ["recipe.steps=160", "data.classes=linear"])
    rows = [
        {
            "checkpoint": f"run-{seed}",
            "curriculum": curriculum,
            "heads": "0.1",
            "step": step,
            "function_class": "linear",
        }
        | {"score": 0.8 * (step >= score_at), "highest": 0.8, "gain": 0.8 * (step >= gain_at), "effect": 0.3}
        for step in STEPS
    ]
    checkpoint = Checkpoint(f"run-{seed}", Path(), config, 160, Transformer(config.model))
    return Course(checkpoint, (Head(0, 1),), pd.DataFrame(rows), ())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0, 0.9, 0.9], (40, 80)),
        ([0.0, 0.9, 0.0, 0.0, 0.9, 0.9], (40, 80)),  # what it lost again does not count
        ([0.9] * 6, (0, 0)),
        ([0.9, 0.9, 0.9, 0.9, 0.9, 0.4], None),
    ],
)
def test_a_quantity_arrives_when_it_passes_half_for_good(values, expected):
    assert find_arrival(STEPS, values, 0.5) == expected


def test_order_is_only_said_where_snapshots_lie_between():
    assert order_of((10, 20), (20, 40)) == "head first"
    assert order_of((40, 80), (10, 20)) == "gain first"
    assert order_of((10, 40), (20, 80)) == "between the same snapshots"


def test_ratios_are_pooled_over_independent_seeds():
    courses = [made_up(0, 20, 80), made_up(1, 20, 80), made_up(2, 40, 160)]
    arrivals = pd.concat([arrival_table(one) for one in courses], ignore_index=True)
    (row,) = records(order_table(courses, arrivals))
    ratios = [math.sqrt(11 * 21 / (41 * 81)), math.sqrt(11 * 21 / (41 * 81)), math.sqrt(21 * 41 / (81 * 161))]
    assert [one["ratio"] for one in records(arrivals)] == pytest.approx(ratios)
    assert row["ratio"] == pytest.approx(math.prod(ratios) ** (1 / 3))
    assert row["t_low"] < row["ratio"] < row["t_high"] < 1
    assert (row["n_seeds"], row["head first"], row["gain first"]) == (3, 3, 0)
    assert "the head came first in 3" in order_sentences(order_table(courses, arrivals))[0]


def test_runs_that_share_a_stream_are_one_seed():
    first, second = made_up(0, 20, 80), made_up(1, 80, 20)
    config = second.checkpoint.config
    shared = Seeds(first.checkpoint.config.seeds.init, config.seeds.data, config.seeds.task)
    object.__setattr__(config, "seeds", shared)
    arrivals = pd.concat([arrival_table(one) for one in (first, second)], ignore_index=True)
    (row,) = records(order_table([first, second], arrivals))
    assert (row["n_both"], row["n_seeds"]) == (2, 1)
    assert math.isnan(row["t_low"])
    assert row["ratio"] == pytest.approx(1)


def test_a_class_that_enters_late_is_said_to():
    one = made_up(0, 20, 80, "mixed")
    (row,) = records(arrival_table(one))
    assert row["enters"] == 0
    config = from_preset("tiny", "mixed", 0, ["recipe.steps=90"])
    assert first_draw(config.parsed_curriculum(), "cubic") == 61
    assert math.isnan(first_draw(config.parsed_curriculum(), "quartic"))


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "short"
    settings = ["recipe.steps=30", "recipe.warmup_steps=5", "record.snapshots=9", "record.eval_every=30"]
    train(from_preset("tiny", "mixed", 0, settings), directory)
    return load(directory)


@pytest.mark.slow
def test_a_course_is_what_score_and_error_curves_say_of_every_snapshot(short_run):
    found = study([short_run], n_prompts=32, seed=3)
    table = found.files["course"]
    assert sorted(set(table["step"])) == check_snapshots(short_run)
    step = check_snapshots(short_run)[-2]
    at = load(f"{short_run.directory}@{step}")
    values = score(at, ["linear"], n_prompts=32, seed=3).values["linear"]
    (row,) = [one for one in records(table) if one["step"] == step and one["function_class"] == "linear"]
    (heads,) = parse_heads(row["heads"], *values.shape)
    assert row["score"] == pytest.approx(np.mean([values[head] for head in heads]), rel=1e-6)
    curves = error_curves(at, ["linear"], n_prompts=32, seed=3)
    late = {
        name: curves[(curves["predictor"] == name) & (curves["examples"] >= 12)]["error"].mean()
        for name in ("model", "no_context")
    }
    assert row["gain"] == pytest.approx(1 - late["model"] / late["no_context"], rel=1e-5)
    found.figures["emergence"]()
    plt.close("all")


def test_runs_with_few_snapshots_are_refused():
    with pytest.raises(UserError, match="zoo:linear-0: 1 snapshot; at least 6"):
        study([load("zoo:linear-0")], n_prompts=16)
