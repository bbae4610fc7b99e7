"""The study of pools: planted predictors get the sentence that is true of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.comparison.groups import Groups
from analyses.studies.diversity.measures import (
    count_transients,
    distance_row,
    distance_rows,
    find_threshold,
    group_pools,
    head_table,
    leaning_table,
    references_on,
    seed_crossings,
)
from analyses.studies.diversity.study import study
from analyses.studies.diversity.verdict import SENTENCES, head_sentences, threshold_sentence
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import where
from training.config.parse import from_preset
from training.loop.trainer import train
from training.model.transformer import Transformer
from training.pools import pool_baselines
from training.tasks.baselines import Predictor
from training.tasks.prompts import Prompts

NAME = "noisy_linear:0.5"
SIZES = (2, 8, 32, 128)
Plant = Callable[[Checkpoint], Predictor]


def run(size: int, seed: int, *settings: str, directory: Path = Path()) -> Checkpoint:
    """An untrained run with a pool."""
    own = [f'data.classes=["{NAME}"]', "data.weights=standard", f"data.n_functions={size}", f"data.pool_seed={seed}"]
    config = from_preset("tiny", "mixed", seed, [*own, *settings])
    model = Transformer(config.model, torch.Generator().manual_seed(seed))
    return Checkpoint(f"{size}-{seed}", directory, config, 0, model)


def measured(plant: Plant, sizes: Sequence[int] = SIZES) -> tuple[Groups, pd.DataFrame]:
    """Three seeds of every size whose predictions are planted, and their distances."""
    runs = [run(size, seed) for size in sizes for seed in range(3)]
    rows = [row for each in runs for row in distance_rows(each, {0: lambda each=each: plant(each)}, 32, 0)]
    return group_pools(runs), pd.DataFrame(rows)


def sentences(plant: Plant) -> list[str]:
    """Of both sources."""
    groups, distances = measured(plant)
    return [sentence(groups, distances, source) for source in ("pool", "fresh")]


def sentence(groups: Groups, distances: pd.DataFrame, source: str) -> str:
    leanings = leaning_table(groups, distances)
    crossings = seed_crossings(groups, distances, source)
    threshold = find_threshold(where(leanings, functions=source), crossings)
    return threshold_sentence(source, leanings, threshold, "matched ridge")


def memory_up_to(size: int) -> Plant:
    """dMMSE up to a pool size, ridge beyond."""

    def plant(checkpoint: Checkpoint) -> Predictor:
        memory, regression = pool_baselines(checkpoint.config, NAME)
        return (memory if checkpoint.config.data.n_functions <= size else regression).predict

    return plant


def test_models_that_are_dmmse_below_and_ridge_above_a_size_have_a_threshold_between():
    for text in sentences(memory_up_to(8)):
        assert "up to 8 functions are nearer to dMMSE, and from 32 functions on nearer to matched ridge" in text
        assert "changes sign at 16 to 16 functions over 3 seeds" in text


def zero(checkpoint: Checkpoint) -> Predictor:
    del checkpoint
    return lambda prompts: torch.zeros_like(prompts.ys)


def average(checkpoint: Checkpoint) -> Predictor:
    """The mean of both predictors, and noise of its own."""
    memory, regression = (learner.predict for learner in pool_baselines(checkpoint.config, NAME))
    seed = checkpoint.config.data.n_functions * 10 + checkpoint.config.data.pool_seed

    def predict(prompts: Prompts) -> torch.Tensor:
        noise = torch.randn(prompts.ys.shape, generator=torch.Generator().manual_seed(seed))
        return (memory(prompts) + regression(prompts)) / 2 + noise

    return predict


@pytest.mark.parametrize("plant", [memory_up_to(1), memory_up_to(10**6), zero, average])
def test_models_that_are_the_same_at_every_pool_size_have_no_threshold(plant: Plant):
    for text in sentences(plant):
        assert "no threshold is shown between the pool sizes that were tested" in text
        assert "trained on up to" not in text


def test_distances_are_mean_squares_over_prompts_points_and_dimensions():
    checkpoint = run(2, 0)
    known = references_on(checkpoint.config, "fresh", 16, 0)
    assert known.memory is not None
    predicted = known.memory + 2.0
    row = distance_row(predicted, known, 4)
    assert row["to_memory"] == pytest.approx(1.0, rel=1e-5)  # 2² / 4 dimensions
    between = (known.memory - known.regression).double().square().mean().item() / 4
    assert row["between"] == pytest.approx(between)
    assert row["leaning"] == pytest.approx(
        (row["to_regression"] - row["to_memory"]) / (row["to_regression"] + row["to_memory"])
    )


def test_a_single_seed_is_on_no_side():
    runs = [run(size, 0) for size in (2, 8)]
    rows = [row for each in runs for row in distance_rows(each, {0: lambda each=each: memory_up_to(2)(each)}, 32, 0)]
    assert {*leaning_table(group_pools(runs), pd.DataFrame(rows))["side"]} == {"undecided"}


def test_heads_are_counted_on_both_sides():
    groups, distances = measured(memory_up_to(8))
    highest = {f"{size}-{seed}": 0.9 if size == 2 or seed == 0 else 0.2 for size in SIZES for seed in range(3)}
    heads = head_table(groups, highest, 0.07)
    assert heads["n_with"].tolist() == [3, 1, 1, 1]
    texts = head_sentences(heads, where(leaning_table(groups, distances), functions="fresh"), "matched ridge")
    assert texts == [
        "Pool sizes nearer to dMMSE on fresh functions (2 and 8): 4 of 6 runs have a head with a retrospective score "
        "above 0.5; the highest scores are 0.20 to 0.90 (uniform attention: 0.07).",
        "Pool sizes nearer to matched ridge on fresh functions (32 and 128): 2 of 6 runs have a head with a "
        "retrospective score above 0.5; the highest scores are 0.20 to 0.90 (uniform attention: 0.07).",
    ]


def test_a_run_that_was_ridge_before_it_remembered_is_transient_and_one_that_predicted_zero_is_not():
    first, second = run(2, 0), run(2, 1)
    memory, regression = (learner.predict for learner in pool_baselines(first.config, NAME))
    other, _ = (learner.predict for learner in pool_baselines(second.config, NAME))
    rows = distance_rows(first, {0: lambda: zero(first), 5: lambda: regression, 9: lambda: memory}, 64, 0)
    rows += distance_rows(second, {0: lambda: zero(second), 9: lambda: other}, 64, 0)
    (row,) = records(count_transients(pd.DataFrame(rows)))
    assert row == {"n_functions": 2, "n_memory": 2, "n_regression": 1}


def test_runs_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match=r"differ in recipe.lr: only pools .* and seeds may differ"):
        group_pools([run(2, 0), run(8, 1, "recipe.lr=0.1")])
    with pytest.raises(UserError, match="runs of several pool sizes"):
        group_pools([run(2, 0), run(2, 1)])
    two = run(2, 0)
    data = replace(two.config.data, classes=("linear", "cubic"))
    with pytest.raises(UserError, match="2-0 trains on linear, cubic: the study needs runs on one class"):
        group_pools([replace(two, config=replace(two.config, data=data)), run(8, 1)])


@pytest.mark.slow
def test_the_study_opens_trained_runs_and_their_snapshots(tmp_path: Path):
    short = ["recipe.steps=20", "recipe.batch_size=4", "record.eval_prompts=16", "record.snapshots=3"]
    runs = []
    for size in (0, 2):
        for seed in range(2):
            train(run(size, seed, *short).config, tmp_path / f"{size}-{seed}", progress=False)
            runs.append(load(str(tmp_path / f"{size}-{seed}")))
    findings = study(runs, n_prompts=64)
    assert {*findings.data["course"]["step"]} == {0, 4, 20}
    assert len(findings.data["effects"]) == 3  # both sources of the pool, fresh functions without
    assert any(text.startswith(("On prompts with fresh functions,",)) for text in findings.sentences())
    findings.write(tmp_path / "out")
    assert (tmp_path / "out" / "distances.png").exists()
    assert SENTENCES["shared pools"].partition("(")[0] not in " ".join(findings.sentences())


def test_runs_without_a_pool_have_no_side():
    groups, distances = measured(memory_up_to(8))
    heads = pd.DataFrame(
        [{"n_functions": 0, "n_seeds": 3, "n_with": 1, "highest_min": 0.2, "highest_max": 0.6, "chance": 0.07}]
    )
    assert head_sentences(heads, where(leaning_table(groups, distances), functions="fresh"), "matched ridge") == [
        "Runs without a pool: 1 of 3 runs have a head with a retrospective score above 0.5; the highest scores are "
        "0.20 to 0.60 (uniform attention: 0.07)."
    ]


def test_pools_that_are_near_to_neither_are_rarely_put_on_a_side(rng):
    """Three seeds whose leanings are symmetric about 0, a part of them shared by the runs of a seed."""
    runs = [run(size, seed) for size in SIZES for seed in range(3)]
    groups, n_draws, sides = group_pools(runs), 150, []
    for _ in range(n_draws):
        shared = dict(enumerate(0.2 * rng.normal(size=3)))
        rows = [
            {
                "checkpoint": each.name,
                "functions": source,
                "leaning": shared[int(each.name[-1])] + 0.2 * rng.normal(),
            }
            for source in ("pool", "fresh")
            for each in runs
        ]
        sides += [side != "undecided" for side in leaning_table(groups, pd.DataFrame(rows))["side"]]
    assert len(sides) == n_draws * 2 * len(SIZES)
    assert np.mean(sides) <= 0.05 + 3 * (0.05 * 0.95 / n_draws) ** 0.5
