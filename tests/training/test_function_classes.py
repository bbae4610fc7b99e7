import math

import pytest
import torch

from training.errors import UserError
from training.function_classes import FUNCTION_CLASSES, function_class

NAMES = list(FUNCTION_CLASSES)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("linear", lambda t: t),
        ("quadratic", lambda t: (t + (t**2 - 1) / math.sqrt(2)) / math.sqrt(2)),
        ("cubic", lambda t: (t + (t**2 - 1) / math.sqrt(2) + (t**3 - 3 * t) / math.sqrt(6)) / math.sqrt(3)),
        (
            "quartic",
            lambda t: (t + (t**2 - 1) / 2**0.5 + (t**3 - 3 * t) / 6**0.5 + (t**4 - 6 * t**2 + 3) / 24**0.5) / 2,
        ),
    ],
)
def test_values_are_the_papers_formulas(name, formula, generator):
    xs, w = torch.randn(5, 7, 20, generator=generator), torch.randn(5, 20, generator=generator)
    t = torch.einsum("bpd,bd->bp", xs, w)
    torch.testing.assert_close(function_class(name).evaluate(xs, w), formula(t), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "moment"), [("linear", 20), ("quadratic", 330.25), ("cubic", 8933.095)])
def test_second_moment_at_20_dims_is_the_papers(name, moment):
    assert function_class(name).second_moment(20, "standard") == pytest.approx(moment, rel=1e-6)


@pytest.mark.parametrize("kind", ["standard", "unit"])
@pytest.mark.parametrize("name", NAMES)
def test_second_moment_is_the_average_of_many_draws(name, kind, generator):
    n_dims, n = 4, 400_000
    w = function_class(name).sample_weights(generator, n, n_dims, kind)
    squares = function_class(name).evaluate(torch.randn(n, 1, n_dims, generator=generator), w).double().square()
    standard_error = squares.std().item() / math.sqrt(n)
    assert abs(squares.mean().item() - function_class(name).second_moment(n_dims, kind)) < 5 * standard_error


def test_unit_weights_make_every_class_of_unit_scale():
    assert [function_class(name).second_moment(7, "unit") for name in NAMES] == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize("kind", ["standard", "unit"])
@pytest.mark.parametrize("name", NAMES)
def test_no_context_optimum_is_the_mean_of_y_given_x(name, kind, generator):
    n, x = 400_000, torch.tensor([0.6, -1.1, 0.4, 1.3])
    w = function_class(name).sample_weights(generator, n, 4, kind)
    ys = function_class(name).evaluate(x.expand(n, 1, 4), w).double()
    standard_error = ys.std().item() / math.sqrt(n)
    given = function_class(name).no_context(x[None, None], kind).item()
    assert abs(ys.mean().item() - given) < 5 * standard_error


def test_no_context_optima_are_the_papers_closed_forms(generator):
    xs = torch.randn(3, 5, 20, generator=generator)
    square = xs.square().sum(-1)
    for name, wanted in (
        ("linear", 0 * square),
        ("quadratic", (square - 1) / 2),
        ("cubic", (square - 1) / math.sqrt(6)),
    ):
        torch.testing.assert_close(function_class(name).no_context(xs, "standard"), wanted, rtol=1e-5, atol=1e-5)


def test_unknown_class_names_the_valid_ones():
    with pytest.raises(UserError, match=r"'sine' \(valid: linear, quadratic, cubic, quartic\)"):
        function_class("sine")
