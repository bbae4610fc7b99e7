"""Boolean functions of the signs of the inputs (Kim et al. 2024): -1 is false, 1 is true.

Both classes are finite, so the best possible learner is known: it averages over the functions that fit every example.
"""

import itertools
import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.common.errors import require
from training.tasks.baselines.structured import fitting_hypotheses
from training.tasks.function_classes.base import Baseline, FunctionOfX, WeightKind, signs


def subsets(n_dims: int, size: int) -> Int[Tensor, "subset member"]:
    return torch.tensor(list(itertools.combinations(range(n_dims), size)))


def random_subsets(generator: torch.Generator, n_prompts: int, n_dims: int, size: int) -> Int[Tensor, "batch member"]:
    return torch.rand(n_prompts, n_dims, generator=generator, device=generator.device).argsort(dim=1)[:, :size]


@dataclass(frozen=True)
class SparseParity(FunctionOfX):
    """y = the product of the signs of `size` secret coordinates."""

    size: int = 2
    growth = 0

    def __post_init__(self) -> None:
        require("sparse_parity", self.size, at_least=1)

    @property
    def least_dims(self) -> int:
        return self.size

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Int[Tensor, "batch member"]:
        return random_subsets(generator, n_prompts, n_dims, self.size)

    def evaluate(
        self, xs: Float[Tensor, "batch point dim"], weights: Int[Tensor, "batch member"]
    ) -> Float[Tensor, "batch point"]:
        members = weights[:, None, :].expand(-1, xs.shape[1], -1)
        return signs(xs).gather(2, members).prod(-1)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return 1.0

    def no_context(self, xs: Float[Tensor, "batch point dim"], kind: WeightKind) -> Float[Tensor, "batch point"]:
        """The mean over all subsets: an elementary symmetric polynomial of the signs over the number of subsets."""
        n_dims = xs.shape[-1]
        symmetric = [torch.ones_like(xs[..., 0])] + [torch.zeros_like(xs[..., 0]) for _ in range(self.size)]
        for sign in signs(xs).unbind(-1):
            for k in range(self.size, 0, -1):
                symmetric[k] = symmetric[k] + sign * symmetric[k - 1]
        return symmetric[self.size] / math.comb(n_dims, self.size)

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("fitting_parities", partial(fitting_hypotheses, values=self.every_value))

    def every_value(self, xs: Float[Tensor, "batch point dim"]) -> Float[Tensor, "batch point hypothesis"]:
        """The value of every function of the class."""
        return signs(xs)[..., subsets(xs.shape[-1], self.size)].prod(-1)


@dataclass(frozen=True)
class Conjunction(FunctionOfX):
    """y = 1 where `size` secret coordinates all have their secret signs, otherwise -1."""

    size: int = 2
    growth = 0

    def __post_init__(self) -> None:
        require("conjunction", self.size, at_least=1)

    @property
    def least_dims(self) -> int:
        return self.size

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> tuple[Int[Tensor, "batch member"], Float[Tensor, "batch member"]]:
        members = random_subsets(generator, n_prompts, n_dims, self.size)
        wanted = torch.rand(n_prompts, self.size, generator=generator, device=generator.device) - 0.5
        return members, signs(wanted)

    def evaluate(
        self,
        xs: Float[Tensor, "batch point dim"],
        weights: tuple[Int[Tensor, "batch member"], Float[Tensor, "batch member"]],
    ) -> Float[Tensor, "batch point"]:
        members, wanted = weights
        chosen = signs(xs).gather(2, members[:, None, :].expand(-1, xs.shape[1], -1))
        return torch.where((chosen == wanted[:, None, :]).all(-1), 1.0, -1.0)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return 1.0

    def no_context(self, xs: Float[Tensor, "batch point dim"], kind: WeightKind) -> Float[Tensor, "batch point"]:
        """Whatever x is, 2^-size of the sign patterns accept it."""
        return torch.full_like(xs[..., 0], 2 ** (1 - self.size) - 1)

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("fitting_conjunctions", partial(fitting_hypotheses, values=self.every_value))

    def every_value(self, xs: Float[Tensor, "batch point dim"]) -> Float[Tensor, "batch point hypothesis"]:
        """The value of every function of the class."""
        chosen = signs(xs)[..., subsets(xs.shape[-1], self.size)]
        patterns = itertools.product((-1.0, 1.0), repeat=self.size)
        accepted = [(chosen == torch.tensor(pattern)).all(-1) for pattern in patterns]
        return torch.where(torch.cat(accepted, dim=-1), 1.0, -1.0)
