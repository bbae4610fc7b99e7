import numpy as np
import pytest

from interp.ablation.ablate import ablate
from interp.ablation.cumulative import cumulative
from interp.ablation.pairs import bootstrap_p, pairs
from interp.model.heads import Head
from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.common.output import records

ORDER = [Head(1, 3), Head(0, 1), Head(2, 5)]
COMMON = {"modes": ["mean"], "n_prompts": 128}


@pytest.fixture(scope="module")
def trained():
    return load("zoo:mixed-0")


def effect(trained, heads):
    (row,) = records(ablate(trained, [tuple(sorted(heads))], ["linear"], **COMMON, n_controls=0).table)
    return row["effect"]


def test_each_step_is_the_ablation_of_the_heads_so_far(trained):
    result = cumulative(trained, ORDER, ["linear"], **COMMON, n_orders=3)
    wanted = [effect(trained, ORDER[: k + 1]) for k in range(3)]
    np.testing.assert_allclose(result.table["effect"], wanted, rtol=1e-4, atol=1e-6)
    assert result.table["added"].tolist() == [str(head) for head in ORDER]
    (area,) = records(result.area)
    assert area["area"] == pytest.approx(np.mean(wanted), rel=1e-4)
    assert area["ci_low"] < area["area"] < area["ci_high"]


@pytest.mark.slow
def test_the_best_order_beats_random_ones_and_the_worst_does_not(trained):
    heads = [Head(0, 1), Head(1, 3), Head(1, 4), Head(2, 6)]
    best, worst = (
        records(cumulative(trained, order, ["linear"], **COMMON, n_orders=12).area)[0] for order in (heads, heads[::-1])
    )
    assert best["p_value"] < 0.7 < worst["p_value"]
    assert best["area"] > worst["area"] + 0.4


def test_interaction_is_both_less_the_sum(trained):
    heads = (Head(0, 1), Head(1, 1))
    (row,) = records(pairs(trained, heads, ["linear"], **COMMON).table)
    alone = [effect(trained, [head]) for head in heads]
    assert (row["effect_first"], row["effect_second"]) == pytest.approx(tuple(alone), rel=1e-4)
    assert row["interaction"] == pytest.approx(effect(trained, heads) - sum(alone), rel=1e-3)
    assert row["ci_low"] < row["interaction"] < row["ci_high"]


@pytest.mark.parametrize("design", [pairs, cumulative])
def test_one_head_is_not_enough(trained, design):
    with pytest.raises(UserError, match=r"needs at least two heads \(given: 0\.1\)"):
        design(trained, (Head(0, 1),), ["linear"], **COMMON)


def test_bootstrap_p_is_uniform_under_no_difference(rng):
    p_values = np.array([bootstrap_p(rng.normal() + rng.normal(size=999)) for _ in range(1500)])
    for level in (0.05, 0.2, 0.5):
        assert abs((p_values <= level).mean() - level) < 0.04


def test_models_that_use_no_context_have_no_effects(random_checkpoint):
    ladder = cumulative(random_checkpoint, ORDER, ["linear"], **COMMON, n_orders=2)
    assert ladder.area["area"].isna().to_numpy().all()
    both = pairs(random_checkpoint, tuple(sorted(ORDER)), ["linear"], **COMMON)
    assert both.table["interaction"].isna().to_numpy().all()
