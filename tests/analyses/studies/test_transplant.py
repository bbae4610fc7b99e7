"""The study of transplants against runs that are known to leave or to stay, and the error rate of its test."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from analyses.studies.plateaus.exit_times import compare_ranks
from analyses.studies.transplant import study as transplant
from analyses.studies.transplant.measures import heads_of_sources
from analyses.studies.transplant.study import study
from training.common.errors import UserError
from training.config.transplant import InitConfig

LEAVES = [1.0, 0.8, 0.5, 0.4, 0.3]
STAYS = [1.0] * 5
FROM = partial(InitConfig, "zoo:mixed-0")
ARMS = {
    "nothing": InitConfig(),
    "everything": FROM(),
    "reset": FROM(reset_heads=("0.1",)),
    "reset others": FROM(reset_heads=("0.6",)),
    "keep": FROM(keep_heads=("0.1",), only=("embed", "pos_embed")),
    "keep others": FROM(keep_heads=("0.6",), only=("embed", "pos_embed")),
}


@pytest.fixture
def planted(made_up, errors_of, monkeypatch):
    """Five runs of every arm, of which those in `leaving` leave at step 100."""

    def runs(leaving):
        made = []
        for number, (arm, init) in enumerate(ARMS.items()):
            for seed in range(5):
                course = LEAVES if arm in leaving else STAYS
                run = made_up("single:cubic", 10 * number + seed, {"cubic": course})
                made.append(replace(run, config=replace(run.config, init=init)))
        ratios = {(run.name, name): 1.0 for run in made for name in ("linear", "quadratic", "cubic")}
        monkeypatch.setattr(transplant, "heads_of_sources", lambda *_: {"zoo:mixed-0": ("0.1",)})
        monkeypatch.setattr(transplant, "measure", partial(errors_of, ratios))
        return study(made, n_prompts=64, seed=0)

    return runs


def test_heads_that_are_enough_and_needed_are_reported_so(planted):
    found = planted({"everything", "reset others", "keep"})
    times = found.files["times"].set_index("arm")
    keep = times.loc["the retrospective heads and embed,pos_embed"]
    assert (keep["n_left"], keep["n_seeds"], keep["median"], keep["n_censored"]) == (5, 5, 100, 0)
    assert keep["low"] == pytest.approx(0.025 ** (1 / 5))
    assert times.loc["nothing", ["n_left", "n_censored", "censored_at"]].tolist() == [0, 5, 400]
    tests = found.files["tests"].set_index(["arm", "reference"])
    row = tests.loc[("everything", "nothing")]
    assert (row["p_value"], row["p_holm"], row["smallest_p"]) == pytest.approx((2 / 252, 5 * 2 / 252, 2 / 252))
    text = "\n".join(found.sentences())
    assert (
        "A run that begins with the retrospective heads and embed,pos_embed of a trained model has a shorter plateau"
        in text
    )
    assert "A run that begins with a whole trained model needs its retrospective heads to leave early" in text
    assert "nothing: 0 of 5 runs left the plateau of cubic" in text
    assert "5 had not by step 400 (censored)" in text
    assert "No difference in when runs of other heads of their layers and embed,pos_embed and of nothing" in text
    assert found.protocol["heads of the sources"] == {"zoo:mixed-0": ["0.1"]}


@pytest.mark.parametrize("leaving", [set(), set(ARMS), {"everything", "reset", "reset others"}])
def test_nothing_is_claimed_of_heads_where_they_make_no_difference(planted, leaving):
    text = "\n".join(planted(leaving).sentences())
    assert "It is not shown that the retrospective heads and embed,pos_embed shorten the plateau" in text
    assert "It is not shown that a run that begins with a whole trained model needs its retrospective heads" in text


def test_heads_are_chosen_on_the_source(made_up):
    run = made_up("single:cubic", 0, {"cubic": STAYS})
    begun = replace(run, config=replace(run.config, init=FROM()))
    assert heads_of_sources([run, begun], 64, 0) == {"zoo:mixed-0": ("0.1",)}


def test_runs_without_twins_are_refused(made_up):
    run = made_up("single:cubic", 0, {"cubic": STAYS})
    with pytest.raises(UserError, match="name the untrained twins"):
        study([replace(run, config=replace(run.config, init=FROM()))], n_prompts=16, seed=0)


def test_the_test_of_ranks_is_exact_and_holds_its_level(rng):
    assert compare_ranks([1, 2, 3], [4, 5, 6])[1] == pytest.approx(2 / 20)
    assert compare_ranks([np.inf] * 5, [np.inf] * 5) == (0.0, 1.0)
    p_values = []
    for _ in range(400):
        steps = np.where(rng.random(10) < 0.4, np.inf, rng.integers(1, 6, 10) * 25.0)  # ties, and censored runs
        p_values.append(compare_ranks(list(steps[:5]), list(steps[5:]))[1])
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5


def test_many_runs_are_compared_by_the_normal_approximation():
    difference, p_value = compare_ranks(range(20), range(20, 40))
    assert difference == -20
    assert p_value < 1e-6
