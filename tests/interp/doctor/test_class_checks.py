"""Right classes pass the checks, and whatever is wrong in a class is named as that and as nothing else."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from interp.doctor import class_checks
from interp.doctor.class_checks import KINDS, check_class, check_no_context, check_scale, draw, mean_bounds, open_class
from training.common.errors import UserError
from training.tasks.baselines.lasso import best_lasso
from training.tasks.baselines.plain import least_squares
from training.tasks.function_classes import FAMILIES
from training.tasks.function_classes.base import Baseline, FunctionClass, SingleIndex
from training.tasks.function_classes.hermite import Hermite

FEW = 4096


@dataclass(frozen=True)
class Doubled(SingleIndex):
    """y = factor w·x, and says so."""

    factor: float = 2.0
    growth = 1

    def link(self, t):
        return self.factor * t

    def second_moment(self, n_dims, kind):
        return 4.0 * (n_dims if kind == "standard" else 1)


@dataclass(frozen=True)
class WrongScale(Doubled):
    """y = 2 w·x, of which the unit is 15 % too large."""

    def second_moment(self, n_dims, kind):
        return 1.15 * super().second_moment(n_dims, kind)


@dataclass(frozen=True)
class LargeFirst(Doubled):
    """Right for unit weights alone."""

    def second_moment(self, n_dims, kind):
        del n_dims, kind
        return 4.0


@dataclass(frozen=True)
class WrongOptimum(Hermite):
    """A quadratic whose mean given x is forgotten."""

    degree: int = 2

    def no_context(self, xs, kind):
        del kind
        return torch.zeros_like(xs[..., 0])


@dataclass(frozen=True)
class InventedOptimum(Doubled):
    """Predicts something where nothing can be predicted."""

    def no_context(self, xs, kind):
        del kind
        return 0.5 * torch.sin(3 * xs[..., 0])


@dataclass(frozen=True)
class NotFinite(Doubled):
    """y = 2 w·x, or its logarithm where that is negative."""

    def link(self, t):
        return torch.where(t > 2, t.neg().log(), super().link(t))


@dataclass(frozen=True)
class WrongShape(Doubled):
    """One y too many dimensions."""

    def pairs(self, xs, weights, generator):
        xs, ys = super().pairs(xs, weights, generator)
        return xs, ys[..., None]


@dataclass(frozen=True)
class OtherGenerator(Doubled):
    """Noise that no state repeats."""

    def pairs(self, xs, weights, generator):
        xs, ys = super().pairs(xs, weights, generator)
        return xs, ys + 1e-3 * torch.randn(ys.shape)


@dataclass(frozen=True)
class Peeking(Doubled):
    """A baseline that has the answer."""

    def baseline(self, kind):
        del kind
        return Baseline("peeking", lambda prompts: prompts.ys)


@dataclass(frozen=True)
class Smoothing(Doubled):
    """A baseline that looks at the next y."""

    def baseline(self, kind):
        del kind
        return Baseline("smoothing", lambda prompts: least_squares(prompts) + 0.1 * prompts.ys.roll(-1, 1))


@dataclass(frozen=True)
class TunedOnAll(Doubled):
    """The shrinkage that does best on these very prompts, as in our own ridge and lasso: optimistic, and no mistake."""

    def baseline(self, kind):
        del kind
        return Baseline("tuned", best_lasso)


@dataclass(frozen=True)
class Useless(Doubled):
    """A baseline that learns nothing."""

    def baseline(self, kind):
        del kind
        return Baseline("noise", lambda prompts: -least_squares(prompts))


def failed(result):
    return {check for check, agrees in zip(result.table["check"], result.table["agrees"], strict=True) if not agrees}


@pytest.mark.sample(5)
@pytest.mark.parametrize("spec", FAMILIES)
def test_every_class_of_ours_does_what_it_declares(spec):
    result = check_class(spec)
    assert result.problems == []
    assert len(result.table) == 7 * len(KINDS)


@pytest.mark.parametrize(
    ("wrong", "checks", "words"),
    [
        (WrongScale, {"E[y²]"}, "unit weights: second_moment says 4.600, and E[y²] is 3.980 ["),
        (LargeFirst, {"E[y²]"}, "standard weights: second_moment says 4.000, and E[y²] is 1"),
        (WrongOptimum, {"no-context optimum"}, "a regression of y on x alone"),
        (InventedOptimum, {"no-context optimum"}, "not E[y given x]"),
        (NotFinite, {"finite"}, "are not finite"),
        (WrongShape, {"shapes"}, "[4096, 8, 1]"),
        (OtherGenerator, {"repeats"}, "draw from `generator` alone"),
        (Peeking, {"baseline causal"}, "the baseline peeking predicts y_i from y_i or from later pairs"),
        (Smoothing, {"baseline causal"}, "the baseline smoothing predicts y_i from y_i or from later pairs"),
        (TunedOnAll, set(), ""),
        (
            Useless,
            {"baseline learns"},
            "the baseline noise is not seen to beat the no-context optimum after 48 examples",
        ),
    ],
)
def test_what_is_wrong_in_a_class_is_named_and_nothing_else(wrong, checks, words):
    result = check_class(wrong, n_prompts=FEW)
    assert failed(result) == checks
    assert words in " ".join(result.problems)
    assert result.sentences() == (
        result.problems or [f"{wrong.__name__}: no check contradicts what the class declares."]
    )


def test_a_class_that_is_right_for_one_kind_of_weights_is_named_for_the_other():
    result = check_class(LargeFirst, n_prompts=FEW)
    assert [problem.partition(" ")[0] for problem in result.problems] == ["standard"]


def test_a_right_class_is_named_as_often_as_stated(monkeypatch):
    """At a rate of 0.4 for both kinds, each interval leaves out what is right in one of ten samples."""
    monkeypatch.setattr(class_checks, "FALSE_ALARMS", 0.4)
    n, alarms = 300, {"scale": 0, "optimum": 0}
    for seed in range(n):
        sample = draw(Doubled(), "unit", 256, class_checks.POINTS, 4, seed)
        alarms["scale"] += not check_scale(sample, 4.0).agrees
        alarms["optimum"] += not check_no_context(sample).agrees
    error = 3.5 * (0.1 * 0.9 / n) ** 0.5
    assert alarms["scale"] / n == pytest.approx(0.1, abs=error)
    assert alarms["optimum"] / n <= 0.05 + error  # one of its two sides, and a fitted regression is below 0 on average


def test_the_interval_of_a_skewed_mean_leaves_it_out_on_both_sides_alike():
    """Of y² of a normal y: without the correction almost all misses are too low."""
    rng, below, above = np.random.default_rng(0), 0, 0
    for values in np.square(rng.standard_normal((4000, 60))):
        low, high = mean_bounds(values, 1.96)
        below, above = below + (high < 1), above + (low > 1)
    assert (below + above) / 4000 == pytest.approx(0.05, abs=0.022)
    assert below < 3 * above


def test_classes_are_named_in_every_way(monkeypatch):
    monkeypatch.setitem(FAMILIES, "doubled", Doubled)
    tables = [check_class(given, n_prompts=256).table for given in ("doubled", Doubled, Doubled())]
    assert [table["function_class"][0] for table in tables] == ["doubled", "Doubled", "Doubled(factor=2.0)"]
    assert all(
        table.drop(columns="function_class").equals(tables[0].drop(columns="function_class")) for table in tables
    )


class Unfinished(FunctionClass):
    """Nothing of what a class needs."""

    growth = 1


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("lineer", {}, "unknown function class 'lineer': did you mean 'linear'?"),
        (Unfinished, {}, "Unfinished cannot be made: Can't instantiate abstract class"),
        ("linear", {"n_prompts": 100}, "n_prompts=100: a number of at least 256"),
        ("linear", {"n_dims": 0}, "n_dims=0: a number of at least 1"),
        ("linear", {"seed": -1}, "seed=-1: a number of at least 0"),
        ("sparse_linear:9", {}, "sparse_linear:9 needs n_dims >= 9 (given: 4)"),
        ("data", {}, "cannot be drawn"),
    ],
)
def test_what_cannot_be_checked_is_one_line(given, options, message):
    with pytest.raises(UserError) as error:
        check_class(given, **options)
    assert message in str(error.value)


@pytest.mark.parametrize(("given", "name"), [(3, "3"), (int, "int"), (None, "None")])
def test_what_is_no_class_is_refused(given, name):
    with pytest.raises(UserError, match=f"function_class={name}: the name of a function class is needed"):
        open_class(given)


def test_equal_seeds_give_equal_results_and_the_figure_has_them(tmp_path):
    first, again, other = (check_class(WrongScale, n_prompts=FEW, seed=seed) for seed in (0, 0, 1))
    assert first.table.equals(again.table)
    assert not first.table.equals(other.table)
    axes = first.plot()
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == ["E[y²]", "no-context optimum"]
    drawn = axes[0].lines[1].get_xdata()[0]
    row = first.table.query("weights == 'standard' and check == 'E[y²]'").iloc[0]
    assert drawn == row["measured"] / row["declared"]
    assert math.isclose(row["declared"], 1.15 * 16)
    first.write(tmp_path)
    assert len(pd.read_csv(tmp_path / "class_check.csv")) == len(first.table)
