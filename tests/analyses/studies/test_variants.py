"""Variants: who is compared with whom, and what chance alone does."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyses.studies.variants.measures.by_model import MEASURES
from analyses.studies.variants.measures.comparison import compare_measures, rank_correlation, trend_table, varied_alone
from analyses.studies.variants.measures.grouping import changed_settings, group_variants
from analyses.studies.variants.verdict import compare_with_paper, instruction_sentences
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records
from training.common.table_rows import where
from training.config.parse import from_preset

COURSE = {"linear": [1.0, 0.2]}


@pytest.fixture
def of(made_up):
    """A made-up run with settings."""

    def run(name: str, seed: int, *settings: str, curriculum: str = "mixed") -> Checkpoint:
        one = made_up(curriculum, seed, COURSE)
        config = from_preset("tiny", curriculum, seed, settings)
        return Checkpoint(name, one.directory, config, one.step, one.model)

    return run


@pytest.fixture
def sizes(of):
    """Three models of the reference, of 4 and of 16 heads, and one of another class."""
    runs = [of(f"tiny-{seed}", seed) for seed in range(3)]
    runs += [of(f"few-{seed}", 10 + seed, "model.n_heads=4") for seed in range(3)]
    runs += [of(f"many-{seed}", 20 + seed, "model.n_heads=16") for seed in range(3)]
    return group_variants([*runs, of("tree", 30, curriculum="single:decision_tree")])


def made_up_models(groups, values) -> pd.DataFrame:
    """One row per model; every measure is what `values` gives for its variant and place."""
    rows = [
        {"variant": variant, "checkpoint": one.name} | dict.fromkeys(MEASURES, values(variant, place))
        for variant, same in groups.by_curriculum.items()
        for place, one in enumerate(same)
    ]
    return pd.DataFrame(rows)


def test_variants_are_called_by_what_they_change(sizes):
    assert list(sizes.by_curriculum) == [
        "reference",
        "curriculum=single:decision_tree",
        "model.n_heads=4",
        "model.n_heads=16",
    ]
    assert {name: len(same) for name, same in sizes.by_curriculum.items()}["model.n_heads=4"] == 3


def test_what_follows_from_the_prompt_and_what_changes_no_weights_names_no_variant(of):
    reference = of("tiny", 0).config
    longer = of("long", 1, "data.n_points=32", "model.n_ctx=64", "record.snapshots=3", "recipe.threads=2").config
    assert changed_settings(reference, longer) == {"data.n_points": 32}


def test_runs_that_share_a_seed_or_stopped_early_do_not_count(of):
    one = of("one", 0)
    twin, early = replace_name(one, "twin"), replace_step(of("early", 1), 10)
    groups = group_variants([one, twin, early])
    assert [run.name for run in groups.checkpoints] == ["one"]
    assert list(groups.left_out) == ["early (step 10, others 100)", "twin (shares a seed with one)"]


def test_runs_of_other_lengths_are_variants_and_not_behind(of):
    short = replace_step(of("short", 1, "recipe.steps=50"), 50)
    groups = group_variants([of("one", 0), short])
    assert list(groups.by_curriculum) == ["reference", "recipe.steps=50"]
    assert not groups.left_out


def replace_name(run: Checkpoint, name: str) -> Checkpoint:
    return replace(run, name=name)


def replace_step(run: Checkpoint, step: int) -> Checkpoint:
    return replace(run, step=step)


def test_differences_point_from_the_reference_to_the_variant(sizes):
    levels = {"model.n_heads=4": 0.1, "reference": 0.2, "model.n_heads=16": 0.5, "curriculum=single:decision_tree": 0.2}
    table = compare_measures(made_up_models(sizes, lambda variant, place: levels[variant] + 0.01 * place), sizes)
    rows = {row["variant"]: row for row in records(where(table, measure="ratio"))}
    assert rows["model.n_heads=16"]["difference"] == pytest.approx(0.3)
    assert 0.25 < rows["model.n_heads=16"]["low"] < 0.3 < rows["model.n_heads=16"]["high"] < 0.35
    assert rows["model.n_heads=4"]["difference"] == pytest.approx(-0.1)
    assert rows["model.n_heads=4"]["p_holm"] >= rows["model.n_heads=4"]["p_value"]
    assert np.isnan(rows["curriculum=single:decision_tree"]["low"])  # one seed is no interval
    assert rows["reference"]["n_seeds"] == 3


def test_only_what_varies_alone_has_a_trend(sizes):
    places = varied_alone(sizes)
    assert list(places) == ["model.n_heads"]
    assert places["model.n_heads"] == {
        **{f"tiny-{seed}": 8 for seed in range(3)},
        **{f"few-{seed}": 4 for seed in range(3)},
        **{f"many-{seed}": 16 for seed in range(3)},
    }
    rising = {"model.n_heads=4": 1.0, "reference": 2.0, "model.n_heads=16": 3.0, "curriculum=single:decision_tree": 9.0}
    table = trend_table(made_up_models(sizes, lambda variant, place: rising[variant] + 0.1 * place), sizes, seed=0)
    row = records(where(table, measure="n_found"))[0]
    assert row["n_models"] == 9
    assert row["spearman"] > 0.9
    assert row["p_value"] < 0.01


@pytest.mark.slow
def test_trends_reject_a_true_null_at_their_level(rng):
    """Numbers that have nothing to do with the setting, with the ties that counts of heads have."""
    xs = np.repeat([4.0, 8.0, 16.0], 4)
    draws = [rng.integers(0, 4, size=12).astype(float) for _ in range(400)]
    p_values = np.array([rank_correlation(xs, ys, rng)["p_value"] for ys in draws])
    p_values = p_values[~np.isnan(p_values)]
    for level in (0.05, 0.2, 0.5):
        assert (p_values <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(p_values))
    assert (p_values <= 0.2).mean() > 0.1


def test_what_does_not_vary_has_no_trend(rng):
    assert np.isnan(rank_correlation(np.repeat([4.0, 8.0], 3), np.ones(6), rng)["p_value"])
    assert np.isnan(rank_correlation(np.arange(4.0), np.arange(4.0), rng)["p_value"])


@pytest.mark.parametrize(
    ("kind", "lows", "said"),
    [
        ("vector", (0.1, 0.1, 0.1), "agrees, worse on linear, quadratic and cubic here"),
        ("vector", (-0.1, -0.1, 0.1), "DISAGREES, worse on cubic here"),
        ("vector", (-0.1, -0.1, -0.1), "not shown, no class differs beyond chance"),
        ("one_hot", (-0.1, -0.1, -0.1), "not contradicted, no class differs beyond chance"),
        ("one_hot", (-0.3, -0.1, -0.1), "DISAGREES, better on linear here"),
    ],
)
def test_instructions_beside_the_paper(kind, lows, said):
    classes = ("linear", "quadratic", "cubic")
    rows = [{"function_class": name, "low": low, "high": low + 0.2} for name, low in zip(classes, lows, strict=True)]
    assert compare_with_paper(kind, rows) == said


def test_only_an_instruction_alone_is_compared_with_the_paper(of):
    told = [of(f"told-{seed}", 10 + seed, "instruction.kind=vector", "model.n_ctx=33") for seed in range(2)]
    other = of("wide", 20, "instruction.kind=vector", "model.n_ctx=33", "model.d_model=128")
    groups = group_variants([of("tiny", 0), *told, other])
    table = pd.DataFrame(
        [
            {"variant": variant, "function_class": "cubic", "difference": 0.2, "low": 0.1, "high": 0.3}
            for variant in groups.by_curriculum
        ]
    )
    (sentence,) = instruction_sentences(table, groups)
    assert sentence.startswith("instruction.kind=vector: error against the reference")
    assert "cubic 0.200 [0.100, 0.300]" in sentence
