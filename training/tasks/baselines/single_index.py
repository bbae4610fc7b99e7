"""The learner of a class y = p(w·x) whose polynomial p is known and whose w is not: a single-index model.

1. Each prompt has a population of restarts; each starts from a draw from the prior over w.
2. Along the prefixes, each restart follows the least-squares problem, which gains one pair at a time (warm start), by
   Levenberg-Marquardt: w minimises sum_i (p(w·x_i) - y_i)² + noise² |w - draw|². Pulled towards a draw rather than
   towards 0, the minimum is a sample from the posterior, exactly so for linear p and y without noise (randomise then
   optimise: Bardsley et al. 2014, SIAM J. Sci. Comput. 36).
3. Before every fit, those in the worse half of a population that do not fit their pairs give way to new draws.
4. The prediction is p(w·x) averaged over the restarts with the weights of `posterior_weights`: while many w fit, an
   estimate of E[y given the pairs]; once few do, the prediction of the restart with the smallest residual.
"""

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Bool, Float
from numpy.polynomial import Polynomial
from torch import Tensor

from training.tasks.polynomials import horner
from training.tasks.prompts import Prompts

Directions = Float[Tensor, "batch restart dim"]

MISFIT = 100.0  # a restart is given up if its residual exceeds its population's smallest by so many times the noise


@dataclass(frozen=True)
class Problem:
    """Least squares for w on the pairs of a prefix, for every prompt.

    Attributes:
        xs: inputs [batch point dim].
        outer: x x' of each [batch point dim dim].
        ys: values [batch point].
        polynomial: p.
        unit: w has length 1; otherwise w ~ N(0, I).
        noise: standard deviation of y given w·x.
    """

    xs: Float[Tensor, "batch point dim"]
    outer: Float[Tensor, "batch point dim dim"]
    ys: Float[Tensor, "batch point"]
    polynomial: Polynomial
    unit: bool
    noise: float

    def before(self, k: int) -> "Problem":
        """The problem of the first k pairs."""
        return Problem(self.xs[:, :k], self.outer[:, :k], self.ys[:, :k], self.polynomial, self.unit, self.noise)

    def draw(self, restarts: int, generator: torch.Generator) -> Directions:
        """Draws of w from its prior: N(0, I), or uniform on the sphere."""
        w = torch.randn(len(self.xs), restarts, self.xs.shape[2], generator=generator, dtype=self.xs.dtype)
        return w / w.norm(dim=-1, keepdim=True) if self.unit else w

    def residuals(self, w: Directions) -> Float[Tensor, "batch restart point"]:
        return horner(self.polynomial.coef, project(self.xs, w)) - self.ys[:, None]

    def misfit(self, w: Directions) -> Float[Tensor, "batch restart"]:
        """sum_i (p(w·x_i) - y_i)² / noise²."""
        return self.residuals(w).square().sum(-1) / self.noise**2


def single_index(
    prompts: Prompts,
    polynomial: Polynomial,
    *,
    unit: bool,
    generator: torch.Generator,
    restarts: int = 16,
    iterations: int = 8,
    noise: float = 1e-3,
) -> Float[Tensor, "batch point"]:
    """y_k+1 = p(w·x_k+1) by nonlinear least squares for w on the k pairs before it; at k = 0 the mean over draws of w.

    Time grows as prompts · restarts · iterations · points² · dims²: on one core, seconds for 1,024 prompts of 16 points
    in 4 dims, minutes for 256 prompts of 100 points in 20 dims.

    Args:
        prompts: xs and ys.
        polynomial: p, known to the learner.
        unit: w is uniform on the sphere; otherwise w ~ N(0, I).
        generator: draws the starting points.
        restarts: w's per prompt. More of them find w at fewer examples, and cut the error before that (by their
            standard error, about 1/restarts of it).
        iterations: Levenberg-Marquardt steps per prefix.
        noise: standard deviation of y given w·x that the learner allows for; must exceed 0.
    """
    xs, ys = prompts.xs.double(), prompts.ys.double()
    outer = einsum(xs, xs, "batch point i, batch point j -> batch point i j")
    whole = Problem(xs, outer, ys, polynomial, unit, noise)
    w = draws = whole.draw(restarts, generator)
    predictions = []
    for k in range(ys.shape[1]):
        problem = whole.before(k)
        lost = is_lost(problem, w)[:, :, None]
        fresh = problem.draw(restarts, generator)
        draws, w = torch.where(lost, fresh, draws), torch.where(lost, fresh, w)
        w = fit(problem, w, draws, iterations)
        values = horner(polynomial.coef, project(xs[:, k : k + 1], w)).squeeze(-1)
        predictions.append((posterior_weights(problem, w, draws) * values).sum(1))
    return torch.stack(predictions, dim=1).to(prompts.ys.dtype)


def project(xs: Float[Tensor, "batch point dim"], w: Directions) -> Float[Tensor, "batch restart point"]:
    """w·x for every restart and point."""
    return einsum(w, xs, "batch restart dim, batch point dim -> batch restart point")


def is_lost(problem: Problem, w: Directions) -> Bool[Tensor, "batch restart"]:
    """Which restarts are in the worse half of their prompt's population and do not fit the pairs."""
    misfit = problem.misfit(w)
    rank = misfit.argsort(dim=1).argsort(dim=1)
    return (rank >= w.shape[1] // 2) & (misfit > misfit.amin(1, keepdim=True) + MISFIT**2)


def posterior_weights(problem: Problem, w: Directions, draws: Directions) -> Float[Tensor, "batch restart"]:
    """The likelihood of each w, times prior(w) / prior(draw) where below 1; normalised over the population.

    The second factor sets aside solutions far longer than any w of the prior.
    """
    excess = (w.square().sum(-1) - draws.square().sum(-1)).relu()
    return torch.softmax(-(problem.misfit(w) + excess) / 2, dim=1)


def fit(problem: Problem, w: Directions, draws: Directions, iterations: int) -> Directions:
    """Levenberg-Marquardt from w: of every restart's steps those that lower its loss, with damping to match."""

    def loss(w: Directions) -> Float[Tensor, "batch restart"]:
        return problem.misfit(w) + (w - draws).square().sum(-1)

    damping, lowest = torch.full_like(w[:, :, 0], 1e-2), loss(w)
    for _ in range(iterations):
        moved = step(problem, w, draws, damping)
        reached = loss(moved)
        is_better = reached < lowest
        w = torch.where(is_better[:, :, None], moved, w)
        lowest = torch.where(is_better, reached, lowest)
        damping = torch.where(is_better, damping / 10, damping * 5)
    return w


def step(problem: Problem, w: Directions, draws: Directions, damping: Float[Tensor, "batch restart"]) -> Directions:
    """One Gauss-Newton step with damping · mean diagonal added to J'J; along the sphere if w has length 1."""
    identity = torch.eye(w.shape[-1], dtype=w.dtype)
    slopes = horner(problem.polynomial.deriv().coef, project(problem.xs, w))
    gram = einsum(slopes.square(), problem.outer, "batch restart point, batch point i j -> batch restart i j")
    pull = slopes * problem.residuals(w)
    gradient = einsum(pull, problem.xs, "batch restart point, batch point dim -> batch restart dim")
    gradient = gradient + problem.noise**2 * (w - draws)
    if problem.unit:
        tangent = identity - w[:, :, :, None] * w[:, :, None]
        gram = tangent @ gram @ tangent
        gradient = einsum(tangent, gradient, "batch restart i j, batch restart j -> batch restart i")
    ridge = damping * gram.diagonal(dim1=-2, dim2=-1).mean(-1) + problem.noise**2
    moved = w - torch.linalg.solve(gram + ridge[:, :, None, None] * identity, gradient)
    return moved / moved.norm(dim=-1, keepdim=True) if problem.unit else moved
