import math

import pytest
import torch

from training.common.errors import UserError
from training.tasks.inputs import INPUTS, input_distribution, skewing_matrix

N = 40_000


def draws(spec, n_dims=5, rotation=3):
    return input_distribution(spec).sample(torch.Generator().manual_seed(0), N // 4, 4, n_dims, rotation).flatten(0, 1)


@pytest.mark.parametrize(
    ("spec", "variance"), [("gaussian", 1), ("laplace", 1), ("laplace:2", 2), ("uniform", 1), ("student_t:6", 1.5)]
)
def test_coordinates_are_independent_with_the_stated_variance(spec, variance):
    covariance = draws(spec).double().T.cov()
    assert (covariance - variance * torch.eye(5)).abs().max() < 0.08 * variance


@pytest.mark.parametrize(
    ("spec", "cdf"),
    [
        ("gaussian", lambda t: 0.5 * (1 + math.erf(t / math.sqrt(2)))),
        ("laplace", lambda t: 0.5 + math.copysign(0.5 * (1 - math.exp(-math.sqrt(2) * abs(t))), t)),
        ("laplace:2", lambda t: 0.5 + math.copysign(0.5 * (1 - math.exp(-abs(t))), t)),
        ("uniform", lambda t: min(1, max(0, 0.5 + t / (2 * math.sqrt(3))))),
        ("cauchy", lambda t: 0.5 + math.atan(t) / math.pi),
        ("student_t:1", lambda t: 0.5 + math.atan(t) / math.pi),
        ("student_t:2", lambda t: 0.5 + t / (2 * math.sqrt(2 + t * t))),
    ],
)
def test_every_coordinate_has_the_stated_distribution(spec, cdf):
    below = [(draws(spec) <= t).double().mean().item() for t in (-2.0, -0.5, 0.0, 1.0, 3.0)]
    assert below == pytest.approx([cdf(t) for t in (-2.0, -0.5, 0.0, 1.0, 3.0)], abs=0.006)


def test_skewed_inputs_have_the_papers_spectrum_and_size():
    covariance = draws("skewed").double().T.cov()
    wanted = torch.tensor([1 / i**2 for i in range(1, 6)], dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)
    torch.testing.assert_close(eigenvalues, 5 * wanted / wanted.sum(), rtol=0.05, atol=0)
    torch.testing.assert_close(
        covariance, skewing_matrix(5, 3).double() @ skewing_matrix(5, 3).double(), rtol=0, atol=0.1
    )


def test_the_rotation_is_that_of_its_seed():
    assert torch.equal(skewing_matrix(5, 3), skewing_matrix(5, 3))
    assert (skewing_matrix(5, 3) - skewing_matrix(5, 4)).abs().max() > 0.1
    torch.testing.assert_close(skewing_matrix(5, 3), skewing_matrix(5, 3).T)


@pytest.mark.parametrize("spec", INPUTS)
def test_draws_are_finite_and_repeat(spec):
    assert draws(spec).isfinite().all()
    assert torch.equal(draws(spec), draws(spec))


def test_what_is_no_distribution_is_refused():
    with pytest.raises(UserError, match=r"unknown input distribution 'normal' \(valid: gaussian, skewed, student_t"):
        input_distribution("normal")
    with pytest.raises(UserError, match=r"student_t:0\.0: must be at least 0.5"):
        input_distribution("student_t:0")
