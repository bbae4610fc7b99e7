"""Plateaus against runs that are known to leave or to stay, and error rates of what is decided."""

from functools import partial

import numpy as np
import pytest

from analyses.comparison.paired_errors import ClassErrors, Interval
from analyses.studies.plateaus import study as plateaus
from analyses.studies.plateaus.measures import AT, BELOW, LEFT, MARGIN, fisher, state
from analyses.studies.plateaus.study import study
from interp.statistics.seeds import exact_interval
from training.checkpoints.checkpoint import load, read_history

LEAVES = [1.0, 1.0, 0.85, 0.5, 0.4, 0.3, 0.3]
STAYS = [1.0] * 7


@pytest.fixture
def planted(made_up, errors_of, monkeypatch):
    """Quadratic: 5 of 5 mixed runs leave (4 converge), 0 of 5 single ones."""
    runs, ratios = [], {}
    for seed in range(5):
        runs += [made_up("mixed", seed, {"quadratic": LEAVES}, {"quadratic": 0.25})]
        runs += [made_up("single:quadratic", seed, {"quadratic": STAYS})]
        ratios |= {(f"mixed-{seed}", name): 0.3 if seed else 0.7 for name in ("linear", "quadratic", "cubic")}
        ratios |= {(f"single-quadratic-{seed}", name): 1.01 for name in ("linear", "quadratic", "cubic")}
    monkeypatch.setattr(plateaus, "measure", partial(errors_of, ratios, noise=0.2))
    return runs


def cell(table, **values):
    for column, value in values.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_counts_tests_and_exits_are_those_planted(planted):
    tables = study(planted, n_prompts=128, seed=0).files
    mixed = cell(tables["counts"], curriculum="mixed", function_class="quadratic", threshold=LEFT)
    assert (mixed["n_left"], mixed["n_seeds"], mixed["n_ever"]) == (5, 5, 5)
    assert mixed["low"] == pytest.approx(0.025 ** (1 / 5))
    assert cell(tables["counts"], curriculum="mixed", function_class="quadratic", threshold=0.5)["n_left"] == 4
    stayed = cell(tables["counts"], curriculum="single:quadratic", function_class="quadratic", threshold=LEFT)
    assert (stayed["n_left"], stayed["n_ever"]) == (0, 0)
    assert cell(tables["tests"], threshold=LEFT)["p_value"] == pytest.approx(2 / 252)
    assert set(tables["runs"].loc[tables["runs"]["curriculum"] == "single:quadratic", "state"]) == {AT}
    left = cell(tables["exits"], checkpoint="mixed-1", function_class="quadratic", threshold=LEFT)
    assert (left["step_before"], left["step"], left["prompts_seen"]) == (100, 200, 200 * 64 * 0.25)
    paper = tables["paper"].set_index("curriculum")
    assert (paper["p_value"]["single:quadratic"], paper["p_value"]["mixed"]) == pytest.approx((1, 1))


def test_the_verdict_follows(planted):
    text = "\n".join(study(planted, n_prompts=128, seed=0).sentences())
    assert "quadratic: at the end of training 5 of 5 mixed seeds [0.48, 1.00]; 0 of 5 single:quadratic seeds" in text
    assert (
        "quadratic 5 of 5 against 0 of 5, a difference (p = 0.00794, Holm 0.00794, smallest possible 0.00794)" in text
    )
    assert "single:quadratic on quadratic, 5 runs that did not leave: 5 at the no-context optimum" in text
    assert "On quadratic the plateau was left by mixed at step 200, 3200 prompts of the class" in text
    assert "mixed on quadratic (0 at 0.25, 4 at 0.5, 5 at 0.75, 5 at 0.9)" in text


def test_a_run_that_came_back_is_told_from_one_that_stayed(made_up, errors_of, monkeypatch):
    run = made_up("single:linear", 0, {"linear": [1.0, 0.3, 0.3, 0.3, 1.0, 1.0, 1.0]})
    monkeypatch.setattr(
        plateaus, "measure", partial(errors_of, {(run.name, n): 1.0 for n in ("linear", "quadratic", "cubic")})
    )
    found = study([run], n_prompts=64, seed=0)
    assert "On linear 1 single:linear seeds had left it at some time and 0 have at the end" in found.sentences()[1]


def test_exact_intervals_are_the_known_ones():
    """Clopper and Pearson (1934), as R's binom.test gives them."""
    for (k, n), limits in {
        (0, 5): (0, 0.5218238),
        (3, 5): (0.1466328, 0.9472550),
        (5, 5): (0.4781762, 1),
        (7, 20): (0.1539092, 0.5921885),
    }.items():
        assert exact_interval(k, n) == pytest.approx(limits, abs=1e-6)
    assert fisher((3, 5), (0, 5)) == pytest.approx(1 / 6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ratio", "said", "at_most"), [(1.0, BELOW, 0.05), (1 + MARGIN, AT, 0.05), (1 - MARGIN, AT, 0.05)]
)
def test_decisions_about_the_no_context_optimum_are_seldom_wrong(rng, ratio, said, at_most):
    """No use of context is found in a predictor that makes none; no equivalence in one that lies on the margin."""
    wrong = []
    for seed in range(200):
        without = rng.chisquare(1, size=(128, 4))
        model = without * ratio * (1 + 0.9 * rng.uniform(-1, 1, size=(128, 1)))
        wrong.append(state(ClassErrors("linear", without, {"model": model}, seed).ratio("model")) == said)
    assert np.mean(wrong) <= at_most + 2 * (at_most * (1 - at_most) / 200) ** 0.5


def test_a_no_context_predictor_is_found_to_be_one(rng):
    without = rng.chisquare(1, size=(1024, 4))
    model = without * (1 + 0.3 * rng.uniform(-1, 1, size=(1024, 4)))
    assert state(ClassErrors("linear", without, {"model": model}, 0).ratio("model")) == AT
    assert state(ClassErrors("linear", without, {"model": without}, 0).ratio("model")) == AT
    assert state(Interval(1.0, 0.5, 1.5)) == "undecided"  # an interval that merely includes 1


def test_shipped_models_of_the_old_format_are_counted_but_not_timed():
    found = study([load("zoo:cubic-0")], n_prompts=64, seed=0)
    assert found.files["counts"]["n_seeds"].unique().tolist() == [1]
    if "nmse_tail" not in read_history(load("zoo:cubic-0").directory)[0]:
        assert found.sentences()[-1].startswith("It cannot be determined when zoo:cubic-0 left")
        assert found.files["exits"].empty
