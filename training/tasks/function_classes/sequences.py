"""Tasks that are not functions on R^d: the same prompts, another reason why the context helps."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from training.common.errors import require
from training.tasks.baselines.plain import lookup
from training.tasks.baselines.structured import prototype_bayes, transition_average
from training.tasks.function_classes.base import Baseline, FunctionClass, WeightKind, gaussian, signs


@dataclass(frozen=True)
class AssociativeRecall(FunctionClass):
    """x_i is one of `keys` random vectors of the prompt and y_i its value, N(0, 1): known once it has been seen."""

    keys: int = 4
    growth = 0

    def __post_init__(self) -> None:
        require("associative_recall", self.keys, at_least=1)

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Float[Tensor, "batch key"]:
        return gaussian(generator, n_prompts, self.keys)

    def pairs(
        self, xs: Float[Tensor, "batch point dim"], weights: Float[Tensor, "batch key"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch point dim"], Float[Tensor, "batch point"]]:
        """The first raw inputs are the keys."""
        n_keys = min(self.keys, xs.shape[1])
        indices = torch.randint(n_keys, xs.shape[:2], generator=generator, device=generator.device)
        return xs.gather(1, indices[..., None].expand_as(xs)), weights.gather(1, indices)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return 1.0

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("lookup", lookup)


@dataclass(frozen=True)
class Prototypes(FunctionClass):
    """Two-way few-shot classification: x_i = the prototype of y_i = ±1 plus noise; prototypes ~ N(0, spread² I)."""

    spread: float = 1.0
    growth = 0

    def __post_init__(self) -> None:
        require("prototypes", self.spread, above=0)

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Float[Tensor, "batch 2 dim"]:
        return self.spread * gaussian(generator, n_prompts, 2, n_dims)

    def pairs(
        self, xs: Float[Tensor, "batch point dim"], weights: Float[Tensor, "batch 2 dim"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch point dim"], Float[Tensor, "batch point"]]:
        """The raw inputs are the noise."""
        ys = signs(torch.rand(xs.shape[:2], generator=generator, device=generator.device) - 0.5)
        prototype = (ys > 0).long()[..., None].expand_as(xs)
        return xs + weights.gather(1, prototype), ys

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return 1.0

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("prototype_bayes", partial(prototype_bayes, sigma=1.0, spread=self.spread))


@dataclass(frozen=True)
class MarkovChain(FunctionClass):
    """x_i is the fixed embedding of the chain's symbol i and y_i the value of symbol i+1.

    Every prompt has its own transition matrix, with rows uniform on the simplex; it starts anywhere. After the first
    pair x alone says a little of y, below 0.3 % of its variance (a symbol that was reached is likelier to lead to
    itself); the no-context optimum, 0, leaves that out.
    """

    symbols: int = 4
    growth = 0

    def __post_init__(self) -> None:
        require("markov_chain", self.symbols, at_least=2, at_most=256)  # every prompt has their square

    def values(self) -> Float[Tensor, " symbol"]:
        """Equally spaced, mean 0, mean square 1.

        >>> MarkovChain(2).values().tolist()
        [-1.0, 1.0]
        """
        places = torch.arange(self.symbols) - (self.symbols - 1) / 2
        return places / math.sqrt((self.symbols**2 - 1) / 12)

    def embeddings(self, n_dims: int) -> Float[Tensor, "symbol dim"]:
        """The vocabulary, the same in every run: N(0, I) from a seed of its own."""
        return torch.randn(self.symbols, n_dims, generator=torch.Generator().manual_seed(self.symbols))

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> Float[Tensor, "batch symbol symbol"]:
        uniform = torch.rand(n_prompts, self.symbols, self.symbols, generator=generator, device=generator.device)
        exponential = -torch.log1p(-uniform)
        return exponential / exponential.sum(-1, keepdim=True)

    def pairs(
        self,
        xs: Float[Tensor, "batch point dim"],
        weights: Float[Tensor, "batch symbol symbol"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "batch point dim"], Float[Tensor, "batch point"]]:
        """The raw inputs only give the shape."""
        n_prompts, n_points, n_dims = xs.shape
        draws = torch.rand(n_prompts, n_points, generator=generator, device=generator.device)
        reached = weights.cumsum(-1)
        path = [torch.randint(self.symbols, (n_prompts,), generator=generator, device=generator.device)]
        for draw in draws.unbind(1):
            row = reached[torch.arange(n_prompts, device=xs.device), path[-1]]
            path.append((draw[:, None] > row[:, :-1]).sum(-1))
        symbols = torch.stack(path, dim=1)
        return self.embeddings(n_dims).to(xs.device)[symbols[:, :-1]], self.values().to(xs.device)[symbols[:, 1:]]

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return 1.0

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("transition_average", partial(transition_average, prior_count=float(self.symbols)))
