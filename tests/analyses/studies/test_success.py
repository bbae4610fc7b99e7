"""What sets successful models apart: planted and untrained models, and error rates of the comparison under a null."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import circuits
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu

from analyses.comparison.paired_errors import measure
from analyses.studies.plateaus.measures import LEFT
from analyses.studies.success.measures.by_class import DEPTH, MEASURES, PROBES, PUBLISHED, probe_rows
from analyses.studies.success.measures.comparison import compare, compared_table, rank_p
from analyses.studies.success.study import study
from analyses.studies.success.tables import overview_tables
from analyses.studies.success.verdict import FAINT, verdict
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import where
from training.config.config import Seeds
from training.model.transformer import Transformer

STAGES = ("embed", "0.mid", "0.post")


def seeded(checkpoint: Checkpoint, name: str, seed: int, model: Transformer | None = None) -> Checkpoint:
    config = replace(checkpoint.config, seeds=Seeds(3 * seed, 3 * seed + 1, 3 * seed + 2))
    return replace(checkpoint, name=name, config=config, model=model or checkpoint.model)


def untrained(checkpoint: Checkpoint, n: int) -> list[Checkpoint]:
    models = [
        Transformer(checkpoint.config.model, torch.Generator().manual_seed(seed), checkpoint.config.layout)
        for seed in range(n)
    ]
    return [
        seeded(checkpoint, f"untrained-{seed}", 50 + seed, model.requires_grad_(False).eval())
        for seed, model in enumerate(models)
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Three models with the planted circuit, whose twins differ, and four that never trained."""
    planted = circuits.planted(tmp_path_factory.mktemp("planted"))
    copies = [seeded(planted, f"planted-{seed}", seed) for seed in range(3)]
    return study([*copies, *untrained(planted, 4)], n_prompts=128, seed=0)


def values(table: pd.DataFrame, column: str = "value", **cell: object) -> np.ndarray:
    return where(table, **cell)[column].to_numpy(dtype=float)


@pytest.mark.slow
def test_the_planted_circuit_is_seen_and_succeeds(found):
    """Head 0.1 looks at its own x and copies it; S is X'y / k at x tokens, and the last MLP multiplies it by x_q."""
    models = where(found.files["models"], succeeded=True)
    assert set(models["checkpoint"]) == {f"planted-{seed}" for seed in range(3)}
    assert values(models, measure="retrospective") == pytest.approx(1, abs=1e-3)
    assert values(models, "r2", measure="x at y") == pytest.approx(1, abs=1e-2)
    assert values(models, measure="x at y").min() > 0.4  # in one dimension the twins hold some
    assert values(models, "r2", measure="X'y at x") == pytest.approx(1, abs=0.05)
    assert values(models, measure="t at x").min() > 0.6
    depth = where(found.files["depth"], succeeded=True)
    assert values(depth, "error", stage="1.mid") == pytest.approx(1, abs=0.1)
    assert values(depth, "error", stage="1.post") == pytest.approx(circuits.SPREAD, rel=0.3)


@pytest.mark.slow
def test_untrained_models_fail_and_have_nothing_above_controls():
    found = study(untrained(load("zoo:linear-0"), 4), n_prompts=256, seed=0)
    models = found.files["models"]
    assert set(models["succeeded"].tolist()) == {False}
    for name in PROBES:
        assert values(models, measure=name).mean() < FAINT, name
    for score in ("retrospective", "lookup"):
        of_score = where(models, measure=score)
        assert values(of_score) == pytest.approx(values(of_score, "untrained"), abs=0.05)
    assert values(found.files["depth"], "error").min() > 0.95
    assert found.sentences()[0].startswith("ALL 4 models failed")
    (text,) = (sentence for sentence in found.sentences() if "ingredients of the failed" in sentence)
    assert "They hold" not in text


@pytest.mark.slow
def test_the_verdict_on_planted_and_untrained_follows(found):
    text = "\n".join(found.sentences())
    assert "3 of 7 models succeeded (error at most 0.9 of the no-context optimum's" in text
    assert "failed: single:linear 4 of 7." in text
    assert "They hold" not in text
    assert "CONFOUNDED" not in text  # one curriculum has both outcomes
    assert "retrospective 1.00 against 0.1" in text
    # 35 splits: no p below 2/35 after Holm over four stages
    assert "before the last stage no difference of at least 0.1 between the tuned predictions of the two kinds" in text
    assert "With so few models p cannot be below 0.057" in text
    assert "of our 4 failed models 0 have one on a class that they train on: this agrees." in text
    assert "3 of 3 successful models have one." in text
    assert set(where(found.files["compared"], measure="retrospective")["n_overlap"]) == {0}
    for draw in found.figures.values():
        assert draw()


@pytest.mark.slow
def test_groups_of_one_outcome_are_said_to_be_and_shown(found):
    for succeeded, said in ((True, "ALL 3 models succeeded"), (False, "ALL 4 models failed")):
        names = set(where(found.files["models"], succeeded=succeeded)["checkpoint"])
        parts = [found.files[name] for name in ("classes", "models", "depth")]
        classes, models, depth = (part.loc[part["checkpoint"].isin(names)] for part in parts)
        whole = pd.concat([models, depth.rename(columns={"stage": "measure", "error": "value"}).assign(kind=DEPTH)])
        compared = compared_table(whole, classes)
        text = verdict(whole, classes, compared)
        assert text[0].startswith(said)
        assert "no failed one" in text[0] or "no successful one" in text[0]
        assert np.isnan(compared["p_value"].to_numpy(dtype=float)).all()
        tables = overview_tables(whole, compared)
        assert all(len(table) for table in tables.values())


@pytest.mark.slow
def test_the_last_stage_is_the_models_own_error():
    """What is compared at depth is the number that success is judged by."""
    models = [load("zoo:linear-0"), load("zoo:cubic-0")]
    depth = study(models, n_prompts=64, seed=0).files["depth"]
    for one, name in zip(models, ("linear", "cubic"), strict=True):
        ratio = measure([one], [name], n_prompts=64, seed=0)[name].value(one.name)
        assert values(depth, "error", checkpoint=one.name, stage="2.post") == pytest.approx(ratio, rel=1e-3)
        assert (ratio <= LEFT) == where(depth, checkpoint=one.name)["succeeded"].iloc[0]


def test_what_a_class_does_not_have_is_skipped(random_checkpoint):
    """A general quadratic form has no w, and so no w·x."""
    rows = probe_rows(random_checkpoint, "general_quadratic", 32, 0)
    assert [row["measure"] for row in rows] == ["x at y", "X'y at y", "X'y at x"]


def test_p_values_are_exact():
    """Over all splits of any numbers, ties or not, the share of p <= an attained p is that p."""
    for pooled in (np.arange(8.0), np.array([0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 5.0])):
        places = range(len(pooled))
        splits = [np.isin(places, chosen) for chosen in combinations(places, 3)]
        found = np.array([rank_p(pooled[split], pooled[~split]) for split in splits])
        for attained in np.unique(found):
            assert np.mean(found <= attained) == pytest.approx(attained)


def test_p_values_are_those_of_mann_and_whitney(rng):
    for n, m in ((24, 6), (3, 9), (1, 5), (12, 12)):
        one, other = rng.normal(0.4, 1, n), rng.normal(0, 1, m)
        expected = mannwhitneyu(one, other, method="exact").pvalue
        assert rank_p(one, other) == pytest.approx(expected, rel=1e-9)


Sizes = Mapping[str, tuple[int, int]]


def simulated(rng: np.random.Generator, sizes: Sizes, shift: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Models by curriculum, so many successful and failed, on one class; successful ones have `shift` more of all."""
    rows: list[dict[str, Any]] = []
    for curriculum, (n_successful, n_failed) in sizes.items():
        for place in range(n_successful + n_failed):
            left = place < n_successful
            about = {"checkpoint": f"{curriculum}-{place}", "curriculum": curriculum, "function_class": "linear"}
            about |= {"left": left, "succeeded": left, "seed_group": len({row["checkpoint"] for row in rows})}
            kinds = {**dict.fromkeys(MEASURES, "probe"), PUBLISHED: "attention", **dict.fromkeys(STAGES, DEPTH)}
            for name, kind in kinds.items():
                value = {"kind": kind, "measure": name, "value": rng.normal() + shift * left}
                rows.append(about | value | dict.fromkeys(("r2", "chance", "untrained"), 0.0))
    classes = pd.DataFrame(rows)
    return classes, classes


@pytest.mark.slow
def test_without_a_difference_the_family_is_seldom_wrong(rng):
    """Holm over eight measures, and Welch's interval of each; 100 studies of 9 successful and 5 failed models."""
    wrong, covered, p_values = [], [], []
    for _ in range(100):
        rows = records(compared_table(*simulated(rng, {"mixed": (9, 5)})))
        measures = [row for row in rows if row["kind"] != DEPTH]
        assert len(measures) == len(MEASURES)
        assert len(rows) == len(MEASURES) + len(STAGES) - 1
        wrong.append(min(row["p_holm"] for row in measures) <= 0.05)
        covered += [row["ci_low"] <= 0 <= row["ci_high"] for row in measures]
        p_values += [row["p_value"] for row in measures]
    assert np.mean(wrong) <= 0.05 + 2 * (0.05 * 0.95 / 100) ** 0.5
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)
    for level in (0.1, 0.25, 0.5, 0.75):
        assert level - 0.1 < np.mean(np.array(p_values) <= level) < level + 0.04  # sums of ranks are whole numbers


def test_more_of_a_measure_in_successful_models_is_a_positive_difference(rng):
    models, classes = simulated(rng, {"mixed": (12, 8)}, shift=10)
    row = records(where(compared_table(models, classes), measure="lookup"))[0]
    assert 8 < row["ci_low"] < row["difference"] < row["ci_high"] < 12
    assert (row["higher"], row["n_overlap"]) == (1, 0)
    assert row["p_value"] == pytest.approx(row["smallest_p"])
    text = verdict(models, classes, compared_table(models, classes))
    assert "12 successful against 8 failed - without overlap: retrospective" in text[1]


def test_a_parting_is_of_some_size(rng):
    """A difference of a hundredth of the no-context optimum's error, however certain, parts nothing."""
    for shift, said in ((0.01, "before the last stage no difference"), (-0.3, "0.1 that is shown is embed, where")):
        models, classes = simulated(rng, {"mixed": (9, 6)})
        tiny = 1 + 0.001 * models["value"] + shift * models["succeeded"]
        models = models.assign(value=np.where(models["kind"] == DEPTH, tiny, models["value"]))
        assert said in "\n".join(verdict(models, classes, compared_table(models, classes)))


def test_overlap_counts_the_models_within_the_range_of_the_other_kind():
    def overlap(successful: list[float], failed: list[float]) -> float:
        sides = {True: successful, False: failed}
        flat = [(kind, value) for kind, side in sides.items() for value in side]
        rows = [{"succeeded": k, "value": v, "seed_group": place} for place, (k, v) in enumerate(flat)]
        return compare(rows)["n_overlap"]

    assert overlap([1, 2, 3], [-1, 0]) == 0
    assert overlap([1, 2, 3], [0, 1.5]) == 2  # 1, and 1.5
    assert overlap([1, 3], [2]) == 1


def test_models_that_share_a_seed_count_once_or_are_not_tested():
    rows = [
        {"succeeded": succeeded, "value": value, "seed_group": seed}
        for succeeded, value, seed in ((True, 1.0, 0), (True, 3.0, 0), (True, 4.0, 1), (False, 0.0, 2), (False, 1.0, 3))
    ]
    row = compare(rows)
    assert (row["n_successful"], row["n_failed"], row["successful"], row["failed"]) == (2, 2, 3, 0.5)
    related = compare([*rows, {"succeeded": False, "value": 0.2, "seed_group": 1}])
    assert related["difference"] == pytest.approx(3 - 0.4)
    assert np.isnan([related[key] for key in ("ci_low", "p_value", "smallest_p")]).all()


def verdict_of(rng: np.random.Generator, sizes: Sizes) -> str:
    models, classes = simulated(rng, sizes)
    return "\n".join(verdict(models, classes, compared_table(models, classes)))


def test_curricula_that_decide_success_are_warned_of(rng):
    text = verdict_of(rng, {"mixed": (5, 0), "single:cubic": (0, 5)})
    assert "CONFOUNDED: no curriculum has both outcomes (all 5 failed models are single:cubic)" in text
    text = verdict_of(rng, {"mixed": (5, 0), "single:cubic": (0, 5), "single:quadratic": (4, 3)})
    assert "CONFOUNDED in part: 5 of 8 failed models are of single:cubic, where all failed" in text
    assert "both outcomes occur in single:quadratic (4 succeeded, 3 failed) alone" in text
    assert "single:quadratic, 4 successful against 3 failed" in text
    assert "With so few models p cannot be below 0.057" in text
    assert "CONFOUNDED" not in verdict_of(rng, {"mixed": (5, 2), "random": (3, 2)})


def test_a_class_that_some_models_left_is_compared_by_itself(rng):
    models, classes = simulated(rng, {"mixed": (6, 2)})
    cubic = classes.assign(function_class="cubic", left=[int(name[-1]) < 3 for name in classes["checkpoint"]])
    compared = compared_table(models, pd.concat([classes, cubic]))
    row = records(where(compared, among="on cubic"))[0]
    assert (row["n_successful"], row["n_failed"]) == (3, 5)
    text = "\n".join(verdict(models, classes, compared))
    assert "on cubic, 3 that left its plateau against 5 that stayed - " in text


@pytest.mark.parametrize(
    ("level", "said"),
    [(0.4, "They hold x at y, X'y at y and X'y at x and do not use them"), (0.0, "They LACK the ingredients")],
)
def test_ingredients_of_failed_models_are_held_or_lacking(rng, level, said):
    models, classes = simulated(rng, {"mixed": (5, 5)})
    models = models.assign(value=level + 0.01 * models["value"])
    assert said in "\n".join(verdict(models, classes, compared_table(models, classes)))


def test_a_failed_model_with_a_head_contradicts_the_paper(rng):
    models, classes = simulated(rng, {"mixed": (3, 2)})
    named = classes["measure"] == PUBLISHED
    has = named & classes["checkpoint"].isin(["mixed-0", "mixed-1", "mixed-4"])
    classes = classes.assign(value=np.where(has, 0.45, np.where(named, 0.2, classes["value"])))
    text = verdict(models, classes, compared_table(models, classes))[-1]
    assert "of our 2 failed models 1 have one on a class that they train on: DIFFERENT (mixed-4)." in text
    assert "2 of 3 successful models have one; mixed-2 (error" in text


def test_nonsense_is_refused_in_one_line():
    linear = load("zoo:linear-0")
    with pytest.raises(UserError, match="n_prompts 8: at least 16"):
        study([linear], n_prompts=8)
    config = linear.config
    short = replace(linear, config=replace(config, data=replace(config.data, n_points=1)))
    with pytest.raises(UserError, match="zoo:linear-0: its prompts have 1 pair"):
        study([short])
    wide = replace(linear, name="wide", config=replace(config, model=replace(config.model, d_model=128)))
    with pytest.raises(UserError, match=r"differ in model\.d_model"):
        study([linear, wide])


@pytest.mark.slow
def test_the_command_prints_one_document(interp, tmp_path):
    arguments = ("--ckpt", "zoo:cubic-0", "--prompts", "16", "--json", "--out", tmp_path)
    run = interp("study", "success", *arguments, stdout=-1)
    printed, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    given = json.loads(printed)
    assert given["verdict"][0].startswith("ALL 1 model failed")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *(f"{name}.csv" for name in ("models", "depth", "compared", "classes")),
        "measures.png",
        "depth.png",
        "summary.md",
    }
