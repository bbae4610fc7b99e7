"""Variants whose heads are known: the planted circuit, the same with its copying head faded, and a deeper one."""

from copy import deepcopy
from dataclasses import replace
from itertools import count

import circuits
import pytest

from analyses.studies.variants.study import study
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records
from training.common.table_rows import where
from training.config.config import Seeds

numbers = count(1)


def another(checkpoint: Checkpoint, name: str, **changed: object) -> Checkpoint:
    """The same weights under another name and independent seeds, with other settings of the recipe."""
    config = checkpoint.config
    seeds = Seeds(*(next(numbers) for _ in range(3)))
    recipe = replace(config.recipe, **changed)  # pyright: ignore[reportArgumentType]
    return Checkpoint(name, checkpoint.directory, replace(config, seeds=seeds, recipe=recipe), 0, checkpoint.model)


def silenced(checkpoint: Checkpoint, name: str, **changed: object) -> Checkpoint:
    """Head 0.1 attends as before and writes next to nothing, so that the model stays near the no-context optimum."""
    twin = another(checkpoint, name, **changed)
    weights = {key: value.clone() for key, value in checkpoint.model.state_dict().items()}
    weights["blocks.0.attn.W_O"][1] *= 0.04
    model = deepcopy(checkpoint.model)
    model.load_state_dict(weights)
    return replace(twin, model=model)


@pytest.fixture(scope="module")
def found(planted, redundant):
    models = [planted, another(planted, "planted-1")]
    models += [silenced(planted, f"silent-{seed}", lr=0.5) for seed in (0, 1)]
    models += [another(redundant, f"deeper-{seed}") for seed in (0, 1)]
    return study(models, n_prompts=128, seed=0)


@pytest.mark.slow
def test_variants_are_told_by_what_they_change_and_measured_as_planted(found, redundant):
    models = found.files["models"]
    names = list(models["variant"].unique())
    assert names[0] == "reference"
    assert names[1:] == [f"model.n_layers={redundant.config.model.n_layers}", "recipe.lr=0.5"]
    row = records(where(models, checkpoint="planted"))[0]
    assert row["found"] == "0.1,0.3"
    assert (row["learned"], row["n_found"], row["depth"], row["n_matter"]) == (True, 2, 0, 2)
    assert row["effect"] == pytest.approx(1, abs=0.05)
    assert row["ratio"] == pytest.approx(float((2 / circuits.EXAMPLES).mean()), rel=0.25)  # variance of mean(x²)
    silent = records(where(models, variant="recipe.lr=0.5"))
    assert [(row["learned"], row["found"], row["n_found"]) for row in silent] == [(False, "0.1,0.3", 2)] * 2


@pytest.mark.slow
def test_a_pattern_without_its_use_is_counted_apart(found):
    text = "\n".join(found.sentences())
    assert "Of 4 models that left the plateau on a class, 4 have a head with a score above 0.5." in text
    assert "Of 2 models that stayed on it, 2 have one." in text
    silent = records(where(found.files["variants"], variant="recipe.lr=0.5", measure="ratio"))[0]
    assert silent["difference"] > 0.5
    same = records(where(found.files["variants"], variant="recipe.lr=0.5", measure="n_found"))[0]
    assert same["difference"] == 0
