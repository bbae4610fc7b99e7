"""Curricula over input distributions, on runs whose errors are known."""

from dataclasses import replace

import numpy as np
import pytest

from analyses.comparison.groups import INPUTS, group
from analyses.studies import inputs
from analyses.studies.inputs import head_sentence, history_by_inputs, study
from training.checkpoints.checkpoint import Checkpoint, load, read_history
from training.checkpoints.history import append_rows
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import where
from training.config.config import ScheduleConfig, Seeds
from training.evaluation.evaluate import error_curves
from training.tasks.prompts import last_quarter

ALL = ("gaussian", "skewed", "student_t:4")


@pytest.fixture
def trained_on():
    """The weights of zoo:linear-0, as if they had been trained on these inputs under this curriculum."""
    shipped = load("zoo:linear-0")

    def run(name: str, seed: int, sources: tuple[str, ...], schedule: str = "random") -> Checkpoint:
        config = replace(
            shipped.config,
            seeds=Seeds(3 * seed, 3 * seed + 1, 3 * seed + 2),
            data=replace(shipped.config.data, inputs=sources),
            schedule=ScheduleConfig(inputs=schedule),  # pyright: ignore[reportArgumentType]
        )
        return replace(shipped, name=name, config=config)

    return run


def test_curricula_are_those_over_inputs(trained_on):
    runs = [trained_on("both", 0, ALL, "mixed"), trained_on("one", 1, ("skewed",)), trained_on("any", 2, ALL)]
    groups = group(runs, INPUTS)
    assert groups.curriculum_of == {"both": "mixed", "any": "random", "one": "single:skewed"}
    assert groups.conditions == list(ALL)


def test_runs_on_several_classes_or_of_other_inputs_are_refused(trained_on):
    with pytest.raises(UserError, match="zoo:mixed-0 is trained on 3 function classes"):
        group([load("zoo:mixed-0")], INPUTS)
    with pytest.raises(UserError, match=r"one and two differ in data.inputs: only curricula and seeds"):
        group([trained_on("one", 0, ALL, "mixed"), trained_on("two", 1, ALL[:2], "mixed")], INPUTS)


def test_errors_are_those_of_interp_eval_on_each_distribution(trained_on):
    run = trained_on("both", 0, ALL, "mixed")
    found = study([run], n_prompts=64, seed=2)
    curves = error_curves(run, ["linear"], n_prompts=64, seed=2, inputs=ALL, baselines=())
    for source in ALL:
        rows = {
            name: where(curves, inputs=source, predictor=name)["error"].to_numpy() for name in ("model", "no_context")
        }
        tail = last_quarter(len(rows["model"]))
        row = records(where(found.files["by_curriculum"], inputs=source))[0]
        assert row["ratio"] == pytest.approx(rows["model"][tail].mean() / rows["no_context"][tail].mean(), rel=1e-4)
    assert set(found.files["paper"]["inputs"]) == set(ALL)
    assert "function_class" not in found.files["ends"]


def test_a_model_is_worse_where_it_was_not_trained(trained_on):
    """The shipped model knows Gaussian inputs only, whatever its run is said to have seen."""
    table = study([trained_on("both", 0, ALL, "mixed")], n_prompts=128, seed=0).files["by_curriculum"]
    ratios = {row["inputs"]: row["ratio"] for row in records(table)}
    assert 1.5 * ratios["gaussian"] < min(ratios["skewed"], ratios["student_t:4"])


def test_figures_are_drawn_where_a_run_has_no_history_on_some_distributions(trained_on, made_up):
    """A run on Gaussian inputs alone is evaluated on no others while it trains."""
    histories = [made_up("single:linear", seed, {"linear": [1.0, 0.5, 0.2]}) for seed in (0, 1)]
    whole, gaussian = trained_on("both", 0, ALL[:2], "mixed"), trained_on("one", 1, ALL[:1])
    runs = [replace(run, directory=of.directory) for run, of in zip((whole, gaussian), histories, strict=True)]
    directory = histories[0].directory
    append_rows(directory, [{**row, "inputs": "skewed"} for row in read_history(directory)])
    found = study([replace(run, step=200) for run in runs], n_prompts=32, seed=0)
    assert set(found.files["training"]["inputs"]) == {"gaussian", "skewed"}
    assert all(draw() for draw in found.figures.values())


def test_a_history_is_read_by_distribution(made_up):
    run = made_up("single:linear", 0, {"linear": [1.0, 0.5, 0.2]})
    (table,) = inputs.histories([run])[0].values()
    assert list(history_by_inputs(table, "linear")["function_class"]) == ["gaussian"] * 3
    np.testing.assert_allclose(history_by_inputs(table, "linear")["ratio"], [1.0, 0.5, 0.2])


def test_heads_are_compared_across_distributions(trained_on):
    heads = study([trained_on("both", 0, ALL, "mixed")], n_prompts=64, seed=0).files["heads"]
    assert list(heads["heads"]) == ["0.1"] * 3
    assert head_sentence(heads) == (
        "1 of 1 model have a head above 0.5 on some distribution; in 1 of these 1 the heads are the same on all."
    )
    apart = heads.assign(heads=["0.1", "", "0.1"])
    assert head_sentence(apart).endswith("in 0 of these 1 the heads are the same on all.")
    assert head_sentence(heads.assign(heads="")) == "0 of 1 model have a head above 0.5 on some distribution."
