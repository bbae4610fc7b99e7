"""Does a function class do what it declares? Its closed forms and its baseline against many draws.

Checks, each with both kinds of weights and x ~ N(0, I), for which E[y²] is declared:

1. shapes: x as it was given, y and the no-context optimum one number per point.
2. finite: no y and no value of the no-context optimum is NaN or infinite.
3. repeats: equal states of the generator give equal prompts; training resumes and conditions are paired by that.
4. E[y²]: the declared second moment lies in the interval of the mean of y².
5. no-context optimum: no regression of y on x alone has a smaller error. It is fitted on one half of the functions
   (polynomials, lengths, random ReLUs and the declared optimum itself) and tested on the other. Of a class that is no
   function of x it reads the first points alone: where a chain is later on says something about the chain.
6. baseline causal: its prediction of y_i changes with no later pair and not with y_i.
7. baseline learns: its error at the last quarter of 64 points is below that of the no-context optimum, by the mean over
   prompts of their difference over their sum.

The intervals of 4 and 5 hold together: of right classes with finite moments at most `FALSE_ALARMS` are named, for any
number of their checks. They are for means of skewed values (Hall 1992, "On the removal of skewness by transformation");
where y² is very heavy-tailed (a polynomial of degree 4 and more) they are somewhat short of it. Checks 1 to 3 and 6
compare numbers that are equal unless something is wrong. Check 7 asks for evidence (95 %): no promise on its alarms.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display.result import Result
from interp.model.arguments import check_arguments
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.common.output import number, records
from training.config.config import stream_seed
from training.tasks.function_classes import Baseline, FunctionClass, FunctionOfX, WeightKind
from training.tasks.function_classes import function_class as class_called
from training.tasks.prompts import Prompts, last_quarter

KINDS: tuple[WeightKind, ...] = get_args(WeightKind)
FALSE_ALARMS = 0.001
"""Of right classes, at most this share is named by the intervals of a call."""
N_INTERVALS = 2 * len(KINDS)  # E[y²] and the no-context optimum
POINTS = 8  # of the prompts of all checks but the baseline's
BASELINE_PROMPTS, BASELINE_POINTS = 64, 64  # baselines that know the class take a second or more
N_CHANGED = 2  # prompts for each change: so few that a penalty tuned on all prompts, as in `ridge`, stays
LEAST_PROMPTS = 256
ROUNDING = 1e-4  # relative, of float32
N_RELUS, PENALTY = 48, 1e-3


class Check(NamedTuple):
    """One line of the result.

    Attributes:
        check: its subject.
        declared: what the class says, or what a right class has.
        measured: on the draws.
        ci_low: of its interval; NaN where there is none.
        ci_high: its other end.
        agrees: whether they agree.
        problem: what is wrong where they do not.
    """

    check: str
    declared: float
    measured: float
    ci_low: float
    ci_high: float
    agrees: bool
    problem: str


@dataclass(frozen=True, repr=False, eq=False)
class ClassCheck(Result):
    """What a function class declares beside what was measured.

    Attributes:
        checkpoint: the name of the class, in the place of a model's.
        step: None.
        table: one row per kind of weights and check: `weights`, `check`, `declared`, `measured` with its interval
            `ci_low`, `ci_high`, `agrees`, and `problem`, which is empty where they agree.
        n_dims: of x.
        n_prompts: functions that were drawn.
        seed: of the draws.
    """

    checkpoint: str
    step: int | None
    table: pd.DataFrame
    n_dims: int
    n_prompts: int
    seed: int

    @property
    def problems(self) -> list[str]:
        """One sentence per check that failed."""
        return [f"{row['weights']} weights: {row['problem']}" for row in records(self.table) if not row["agrees"]]

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"class_check": self.table}

    def sentences(self) -> list[str]:
        return self.problems or [f"{self.checkpoint}: no check contradicts what the class declares."]


@library_defaults()
def check_class(
    function_class: str | FunctionClass | type[FunctionClass],
    *,
    n_dims: int = 4,
    n_prompts: int = 32_768,
    seed: int = 0,
) -> ClassCheck:
    """Compare what a function class declares with many draws: E[y²], the no-context optimum, the baseline.

    A disagreement is a row of the table and a sentence in `problems`, not an error; see `interp.doctor.class_checks`
    for the checks and how often a right class is named. What the class itself raises is passed on.

    Args:
        function_class: a name (`root:0.3`), a class, or an instance of one.
        n_dims: of x.
        n_prompts: functions to draw, with 8 points each, per kind of weights.
        seed: of the draws.

    Raises:
        UserError: there is no such class, it cannot be made or drawn, or an argument is too small.

    >>> check_class("linear", n_prompts=512).problems
    []
    """
    check_arguments(check_class, (), {"n_dims": n_dims, "n_prompts": n_prompts, "seed": seed})
    name, drawn = open_class(function_class)
    if n_prompts < LEAST_PROMPTS:
        raise UserError(f"n_prompts={n_prompts}: a number of at least {LEAST_PROMPTS} is needed")
    if n_dims < drawn.least_dims:
        raise UserError(f"{name} needs n_dims >= {drawn.least_dims} (given: {n_dims})")
    rows = [
        {"function_class": name, "weights": kind, **check._asdict()}
        for kind in KINDS
        for check in check_weights(drawn, kind, n_dims, n_prompts, stream_seed("class checks", seed))
    ]
    return ClassCheck(name, None, pd.DataFrame(rows), n_dims, n_prompts, seed)


def open_class(given: Any) -> tuple[str, FunctionClass]:
    """The name of a class and an instance of it.

    Raises:
        UserError: it is none, or it needs arguments or methods.
    """
    name = given if isinstance(given, str) else getattr(given, "__name__", repr(given))
    try:
        drawn = class_called(given) if isinstance(given, str) else given() if isinstance(given, type) else given
    except TypeError as error:
        raise UserError(f"{name} cannot be made: {error}") from None
    if not isinstance(drawn, FunctionClass):
        raise UserError(f"function_class={name}: the name of a function class is needed, or a FunctionClass")
    return name, drawn


class Drawn(NamedTuple):
    """Prompts of one class and what it predicts without any of them. Nothing is known yet of their shapes."""

    raw: Tensor
    xs: Tensor
    ys: Tensor
    no_context: Tensor

    def first(self) -> "Drawn":
        """The first point of every prompt."""
        return Drawn(*(tensor[:, :1] for tensor in self))

    @property
    def has_right_shapes(self) -> bool:
        numbers = all(tensor.is_floating_point() for tensor in (self.xs, self.ys, self.no_context))
        per_point = self.raw.shape[:2]
        return numbers and self.xs.shape == self.raw.shape and self.ys.shape == self.no_context.shape == per_point


def draw(drawn: FunctionClass, kind: WeightKind, n_prompts: int, n_points: int, n_dims: int, seed: int) -> Drawn:
    """Prompts from a generator of this seed."""
    generator = torch.Generator().manual_seed(seed)
    weights = drawn.sample_weights(generator, n_prompts, n_dims, kind)
    raw = torch.randn(n_prompts, n_points, n_dims, generator=generator)
    xs, ys = drawn.pairs(raw.clone(), weights, generator)
    return Drawn(raw, xs, ys, drawn.no_context(xs, kind))


def check_weights(drawn: FunctionClass, kind: WeightKind, n_dims: int, n_prompts: int, seed: int) -> Iterator[Check]:
    """The checks with one kind of weights, up to the first that the others need."""
    sample = draw(drawn, kind, n_prompts, POINTS, n_dims, seed)
    kinds = ", ".join(f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.") for tensor in sample[1:])
    problem = f"x, y and the no-context optimum are {kinds}: floats of [{n_prompts}, {POINTS}(, {n_dims})] are needed"
    yield count_check("shapes", float(not sample.has_right_shapes), problem)
    if not sample.has_right_shapes:
        return
    n_bad = [int((~values.isfinite()).sum()) for values in (sample.ys, sample.no_context)]
    share = sum(n_bad) / sample.ys.numel()
    yield count_check(
        "finite", share, f"{n_bad[0]} y and {n_bad[1]} of the no-context optimum of {sample.ys.numel()} are not finite"
    )
    if share:
        return
    again = draw(drawn, kind, n_prompts, POINTS, n_dims, seed)
    changed = torch.cat(((again.xs != sample.xs).any(-1).flatten(), (again.ys != sample.ys).flatten())).double().mean()
    yield count_check(
        "repeats", changed.item(), "equal states of the generator give other prompts: draw from `generator` alone"
    )
    yield check_scale(sample, float(drawn.second_moment(n_dims, kind)))
    yield check_no_context(sample if isinstance(drawn, FunctionOfX) else sample.first())
    yield from check_baseline(drawn, kind, n_dims, seed)


def count_check(check: str, measured: float, problem: str) -> Check:
    """A check of something that a right class never has."""
    return Check(check, 0.0, float(measured), math.nan, math.nan, not measured, problem if measured else "")


def check_scale(sample: Drawn, declared: float) -> Check:
    """The declared E[y²] and the interval of the mean of y²."""
    squares = sample.ys.double().square().mean(1).numpy()
    low, high = mean_bounds(squares, critical_value())
    agrees = low - ROUNDING * abs(declared) <= declared <= high + ROUNDING * abs(declared)
    mean = float(squares.mean())
    text = f"{number(mean)} [{number(low)}, {number(high)}]"
    problem = f"second_moment says {number(declared)}, and E[y²] is {text}: every error would be in a wrong unit"
    return Check("E[y²]", declared, mean, low, high, agrees, "" if agrees else problem)


def check_no_context(sample: Drawn) -> Check:
    """The error of the declared optimum and that of a regression on x alone, on functions that it was not fitted on."""
    residual = sample.ys.double() - sample.no_context.double()
    predicted = regress(context_free_features(sample), residual, len(residual) // 2)
    tested = residual[len(residual) // 2 :]
    gains = (tested.square() - (tested - predicted).square()).mean(1).numpy()
    declared, gain = float(tested.square().mean()), float(gains.mean())
    low, high = mean_bounds(gains, critical_value())
    agrees = low <= ROUNDING * declared
    text = f"{number(declared - gain)} [{number(declared - high)}, {number(declared - low)}]"
    problem = (
        f"no_context has an error of {number(declared)}, and a regression of y on x alone {text}: not E[y given x]"
    )
    return Check(
        "no-context optimum",
        declared,
        declared - gain,
        declared - high,
        declared - low,
        agrees,
        "" if agrees else problem,
    )


def context_free_features(sample: Drawn) -> Float[Tensor, "batch point feature"]:
    """Functions of one x: the declared optimum, polynomials, lengths, random ReLUs."""
    xs, n_dims = sample.xs.double(), sample.xs.shape[2]
    length = xs.norm(dim=-1, keepdim=True)
    first, second = torch.triu_indices(n_dims, n_dims).unbind() if n_dims <= 12 else 2 * (torch.arange(n_dims),)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(n_dims, N_RELUS, generator=generator, dtype=torch.float64)
    offsets = torch.randn(N_RELUS, generator=generator, dtype=torch.float64)
    relus = (xs @ (directions / directions.norm(dim=0)) + offsets).relu()
    products = xs[..., first] * xs[..., second]
    return torch.cat((sample.no_context.double()[..., None], xs, products, length, length**3, length**4, relus), dim=-1)


def regress(
    features: Float[Tensor, "batch point feature"], target: Float[Tensor, "batch point"], n_fit: int
) -> Float[Tensor, "tested point"]:
    """Ridge regression, fitted on the first prompts, of the target in the others."""
    fit, values = features[:n_fit].flatten(0, 1), target[:n_fit].flatten()
    mean, spread = fit.mean(0), fit.std(0)
    scaled = (fit - mean) / spread.clamp(min=1e-9)
    penalty = PENALTY * len(scaled) * torch.eye(scaled.shape[1], dtype=scaled.dtype)
    weights = torch.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (values - values.mean()))
    return (features[n_fit:] - mean) / spread.clamp(min=1e-9) @ weights + values.mean()


def check_baseline(drawn: FunctionClass, kind: WeightKind, n_dims: int, seed: int) -> Iterator[Check]:
    """Whether the baseline of the class uses earlier pairs, and these alone."""
    half, own = BASELINE_POINTS // 2, drawn.baseline(kind)
    longer = draw(drawn, kind, BASELINE_PROMPTS, BASELINE_POINTS + half, n_dims, seed + 1)
    sample = Drawn(*(tensor[:, :BASELINE_POINTS] for tensor in longer))
    later = Drawn(*(tensor[:, BASELINE_POINTS:] for tensor in longer))
    predicted = own.predict(Prompts(sample.xs, sample.ys))
    yield check_causal(own, sample, later, predicted)
    yield compare_baseline(own.name, sample, predicted.double())


def check_causal(own: Baseline, sample: Drawn, later: Drawn, predicted: Float[Tensor, "batch point"]) -> Check:
    """Whether predictions stay the same with other pairs after them, and that of the last y with another last y.

    The other pairs are of the same function and these prompts few, so that no tuned penalty has a reason to change.
    """
    xs, ys, half = sample.xs.clone(), sample.ys.clone(), BASELINE_POINTS // 2
    longer, last = slice(N_CHANGED), slice(N_CHANGED, 2 * N_CHANGED)
    xs[longer, half:], ys[longer, half:] = later.xs[longer], later.ys[longer]
    ys[last, -1] = torch.where(ys[last, -1] == 0, 1.0, -ys[last, -1])
    after = own.predict(Prompts(xs, ys))
    pairs = ((after[longer, :half], predicted[longer, :half]), (after[last], predicted[last]))
    differs = [~torch.isclose(*pair, rtol=10 * ROUNDING, atol=10 * ROUNDING).flatten() for pair in pairs]
    problem = f"the baseline {own.name} predicts y_i from y_i or from later pairs"
    return count_check("baseline causal", torch.cat(differs).double().mean().item(), problem)


def compare_baseline(name: str, sample: Drawn, predicted: Float[Tensor, "batch point"]) -> Check:
    """The error of the baseline after many examples and that of the no-context optimum: difference over sum.

    It is between -1 and 1 on every prompt, so that a few prompts with a huge y do not decide.
    """
    late = last_quarter(BASELINE_POINTS)
    without, error = (
        (guess.double() - sample.ys.double()).square()[:, late].mean(1).numpy()
        for guess in (sample.no_context, predicted)
    )
    differences = (error - without) / np.maximum(error + without, 1e-300)
    low, high = mean_bounds(differences, NormalDist().inv_cdf(0.975))
    agrees = high < 0
    problem = f"the baseline {name} is not seen to beat the no-context optimum after {late.start} examples"
    return Check("baseline learns", 0.0, float(differences.mean()), low, high, agrees, "" if agrees else problem)


def critical_value() -> float:
    """The standard errors beyond which one of the intervals of a call says that a class is wrong.

    >>> round(critical_value(), 2)
    3.66
    """
    return NormalDist().inv_cdf(1 - FALSE_ALARMS / N_INTERVALS / 2)


def mean_bounds(values: Float[np.ndarray, " prompt"], z: float) -> tuple[float, float]:
    """The interval of a mean, `z` standard errors wide on each side, corrected for skewness (Hall 1992).

    With a = skewness / sqrt(n), (1 + a t / 3)³ = 1 + a (g - a / 6) takes the normal g to Student's t of skewed values.

    >>> mean_bounds(np.array([-1.0, 1.0] * 50), 2.0)
    (-0.2, 0.2)
    """
    mean, spread = float(values.mean()), float(values.std())
    error = spread / math.sqrt(len(values))
    a = float(((values - mean) ** 3).mean()) / spread**3 / math.sqrt(len(values)) if spread else 0.0
    return mean - student_of(z, a) * error, mean - student_of(-z, a) * error


def student_of(g: float, a: float) -> float:
    """The t that Hall's transformation takes to `g`."""
    return 3 / a * (float(np.cbrt(1 + a * (g - a / 6))) - 1) if abs(a) > 1e-9 else g
