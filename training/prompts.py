"""Prompts: (xs, ys) pairs drawn from a function class, and the token stream that the transformer reads."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from training.config import RunConfig
from training.function_classes import function_class


class Prompts(NamedTuple):
    """A batch of prompts; each has its own function of one class.

    Attributes:
        xs: inputs [batch point dim].
        ys: their values [batch point].
    """

    xs: Float[Tensor, "batch point dim"]
    ys: Float[Tensor, "batch point"]

    @property
    def tokens(self) -> Float[Tensor, "batch pos dim"]:
        return to_prompt(self.xs, self.ys)

    def to(self, device: torch.device | str) -> "Prompts":
        return Prompts(self.xs.to(device), self.ys.to(device))


def sample_prompts(config: RunConfig, name: str, generator: torch.Generator, n_prompts: int) -> Prompts:
    """Draw prompts of one function class as a run sees them, each with its own function, x ~ N(0, I).

    Equal generator states give every class the same w and x, so that classes can be compared prompt by prompt.

    Raises:
        UserError: unknown function class.
    """
    drawn, n_dims = function_class(name), config.model.n_dims
    w = drawn.sample_weights(generator, n_prompts, n_dims, config.data.weights)
    xs = torch.randn(n_prompts, config.data.n_points, n_dims, generator=generator, device=generator.device)
    return Prompts(xs, drawn.evaluate(xs, w))


def to_prompt(xs: Float[Tensor, "batch point dim"], ys: Float[Tensor, "batch point"]) -> Float[Tensor, "batch pos dim"]:
    """Tokens x_1 y_1 x_2 y_2 …, with y as (y, 0, …, 0); pos = 2 point.

    >>> to_prompt(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[3.0]])).tolist()
    [[[1.0, 2.0], [3.0, 0.0]]]
    """
    y_tokens = torch.zeros_like(xs)
    y_tokens[:, :, 0] = ys
    return torch.stack((xs, y_tokens), dim=2).flatten(1, 2)
