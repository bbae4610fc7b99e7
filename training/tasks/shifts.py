"""Changes of the data at evaluation only: does what was learned hold where it was not trained? (Garg et al. 2022)

A shift of the whole prompt changes raw inputs, weights or labels. A shift of the query leaves the examples as in
training and changes only the x that is asked about, so every number of examples needs a pass of its own.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from training.common.errors import UserError, require
from training.tasks.function_classes import FunctionOfX, function_class
from training.tasks.registry import Families, from_registry

Inputs = Float[Tensor, "batch point dim"]
Query = Float[Tensor, "batch dim"]


@dataclass(frozen=True)
class Shift:
    """No change.

    Whole-prompt shifts override one of the first three methods, query shifts one of the last two.

    Attributes:
        query_only: whether only the asked x changes.
        reaches: `any` class, only a `function of x`, or only one whose `weights` have a scale.
    """

    query_only: ClassVar[bool] = False
    reaches: ClassVar[Literal["any", "function of x", "weights"]] = "function of x"

    def inputs(self, xs: Inputs, generator: torch.Generator) -> Inputs:
        del generator
        return xs

    def weights(self, weights: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        return weights

    def outputs(self, ys: Float[Tensor, "batch point"], generator: torch.Generator) -> Float[Tensor, "batch point"]:
        del generator
        return ys

    def query(self, examples: Inputs, query: Query, generator: torch.Generator) -> Query:
        """The x to ask about instead, after these examples."""
        del examples, generator
        return query

    def allows(self, n_examples: int, n_dims: int) -> bool:
        """Whether there is such a query after this many examples."""
        del n_dims
        return n_examples >= 0


@dataclass(frozen=True)
class ScaleX(Shift):
    """Every x times `factor`."""

    factor: float

    def inputs(self, xs: Inputs, generator: torch.Generator) -> Inputs:
        return self.factor * xs


@dataclass(frozen=True)
class ScaleW(Shift):
    """The weights times `factor`."""

    factor: float
    reaches = "weights"

    def weights(self, weights: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        return self.factor * weights


@dataclass(frozen=True)
class Noise(Shift):
    """Normal noise of standard deviation `std` on every y, examples and answer."""

    std: float
    reaches = "any"

    def __post_init__(self) -> None:
        require("noise", self.std, at_least=0)

    def outputs(self, ys: Float[Tensor, "batch point"], generator: torch.Generator) -> Float[Tensor, "batch point"]:
        return ys + self.std * torch.randn(ys.shape, generator=generator, device=generator.device)


@dataclass(frozen=True)
class HalfSubspace(Shift):
    """Every x of a prompt in one random subspace of d/2 dimensions (d/2 rounded up), its length kept on average.

    Each prompt has a subspace of its own; the code of Garg et al. 2022 has one for all prompts of an evaluation.
    """

    def inputs(self, xs: Inputs, generator: torch.Generator) -> Inputs:
        n_prompts, _, n_dims = xs.shape
        n_kept = (n_dims + 1) // 2
        spanning = torch.randn(n_prompts, n_dims, n_kept, generator=generator, device=generator.device)
        basis = torch.linalg.qr(spanning).Q
        return (n_dims / n_kept) ** 0.5 * (xs @ basis) @ basis.mT


@dataclass(frozen=True)
class RandomQuadrants(Shift):
    """The examples' x all in one random quadrant of the prompt, the query anywhere."""

    def inputs(self, xs: Inputs, generator: torch.Generator) -> Inputs:
        draws = torch.rand(len(xs), 1, xs.shape[2], generator=generator, device=generator.device)
        return xs.abs() * torch.where(draws < 0.5, -1.0, 1.0)

    query_only = True

    def query(self, examples: Inputs, query: Query, generator: torch.Generator) -> Query:
        draws = torch.rand(query.shape, generator=generator, device=generator.device)
        return query.abs() * torch.where(draws < 0.5, -1.0, 1.0)


@dataclass(frozen=True)
class OrthogonalQuery(Shift):
    """A query orthogonal to every example, its length kept: nothing can be known about it. Only before d examples."""

    query_only = True

    def query(self, examples: Inputs, query: Query, generator: torch.Generator) -> Query:
        if not examples.shape[1]:
            return query
        exact = query.double()  # a query almost in the span of the examples loses digits
        basis = torch.linalg.qr(examples.double().mT).Q
        rest = exact - einsum(basis, basis, exact, "batch i k, batch j k, batch j -> batch i")
        return (rest * exact.norm(dim=1, keepdim=True) / rest.norm(dim=1, keepdim=True)).to(query.dtype)

    def allows(self, n_examples: int, n_dims: int) -> bool:
        return n_examples < n_dims


@dataclass(frozen=True)
class RepeatedQuery(Shift):
    """A query that is one of the examples, chosen at random."""

    query_only = True

    def query(self, examples: Inputs, query: Query, generator: torch.Generator) -> Query:
        chosen = torch.randint(examples.shape[1], (len(examples),), generator=generator, device=generator.device)
        return examples[torch.arange(len(examples), device=examples.device), chosen]

    def allows(self, n_examples: int, n_dims: int) -> bool:
        return n_examples > 0


@dataclass(frozen=True)
class Beyond(Shift):
    """A query `factor` times as long as in training, the examples as in training: extrapolation."""

    factor: float = 3.0
    query_only = True

    def query(self, examples: Inputs, query: Query, generator: torch.Generator) -> Query:
        return self.factor * query


SHIFTS: Families[Shift] = {
    "none": Shift,
    "scale_x": ScaleX,
    "scale_w": ScaleW,
    "noise": Noise,
    "half_subspace": HalfSubspace,
    "random_quadrants": RandomQuadrants,
    "orthogonal_query": OrthogonalQuery,
    "repeated_query": RepeatedQuery,
    "beyond": Beyond,
}


def shift(spec: str) -> Shift:
    """The shift called NAME or NAME:PARAMETER.

    Raises:
        UserError: there is none, or its parameter is missing or not valid.

    >>> shift("scale_x:2")
    ScaleX(factor=2.0)
    """
    return from_registry("shift", spec, SHIFTS)


def check_shift(spec: str, name: str) -> Shift:
    """The shift, if it means something on this function class.

    Raises:
        UserError: it does not, or there is none.
    """
    chosen, drawn = shift(spec), function_class(name)
    if type(chosen) is not Shift and chosen.reaches != "any" and not isinstance(drawn, FunctionOfX):
        raise UserError(f"shift '{spec}' does not apply to {name}, which is not a function of x")
    if chosen.reaches == "weights" and not drawn.has_scale:
        raise UserError(f"shift '{spec}' does not apply to {name}, whose weights have no scale")
    return chosen
