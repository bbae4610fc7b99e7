"""Functions with many pieces: a two-layer ReLU network and a decision tree (Garg et al. 2022)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.common.errors import require
from training.tasks.baselines.plain import greedy_tree, nearest_neighbours
from training.tasks.function_classes.base import Baseline, FunctionOfX, WeightKind, gaussian


@dataclass(frozen=True)
class ReLUNetwork(FunctionOfX):
    """y = sqrt(2/h) sum_j a_j max(v_j·x, 0) with h = `hidden` units; `unit` weights divide it by sqrt(d)."""

    hidden: int = 100
    growth = 1

    def __post_init__(self) -> None:
        require("relu_network", self.hidden, at_least=1)

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> tuple[Float[Tensor, "batch dim hidden"], Float[Tensor, "batch hidden"]]:
        inner = gaussian(generator, n_prompts, n_dims, self.hidden)
        outer = gaussian(generator, n_prompts, self.hidden)
        return inner if kind == "standard" else inner / math.sqrt(n_dims), outer

    def evaluate(
        self,
        xs: Float[Tensor, "batch point dim"],
        weights: tuple[Float[Tensor, "batch dim hidden"], Float[Tensor, "batch hidden"]],
    ) -> Float[Tensor, "batch point"]:
        inner, outer = weights
        return math.sqrt(2 / self.hidden) * ((xs @ inner).relu() @ outer[:, :, None]).squeeze(-1)

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        """2 E[max(v·x, 0)²] = E[(v·x)²]."""
        return float(n_dims) if kind == "standard" else 1.0

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("nearest_neighbours", nearest_neighbours)


@dataclass(frozen=True)
class DecisionTree(FunctionOfX):
    """A full binary tree of `depth` levels: each node asks for the sign of one coordinate, leaves hold N(0, 1)."""

    depth: int = 4
    growth = 0

    def __post_init__(self) -> None:
        require("decision_tree", self.depth, at_least=1, at_most=16)  # leaves double with every level

    def sample_weights(
        self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind
    ) -> tuple[Int[Tensor, "batch node"], Float[Tensor, "batch leaf"]]:
        nodes = torch.randint(n_dims, (n_prompts, 2**self.depth - 1), generator=generator, device=generator.device)
        return nodes, gaussian(generator, n_prompts, 2**self.depth)

    def evaluate(
        self,
        xs: Float[Tensor, "batch point dim"],
        weights: tuple[Int[Tensor, "batch node"], Float[Tensor, "batch leaf"]],
    ) -> Float[Tensor, "batch point"]:
        """Node n has the children 2n+1 and 2n+2; the leaves follow the last node."""
        coordinates, leaves = weights
        node = torch.zeros_like(xs[..., 0], dtype=torch.long)
        for _ in range(self.depth):
            coordinate = coordinates.gather(1, node)
            answer = xs.gather(2, coordinate[..., None]).squeeze(-1) > 0
            node = 2 * node + 1 + answer
        return leaves.gather(1, node - coordinates.shape[1])

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return 1.0

    def baseline(self, kind: WeightKind) -> Baseline:
        return Baseline("tree", greedy_tree)
