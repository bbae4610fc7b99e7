"""Prompts and the token stream of the transformer: the positions of x, y and instruction tokens."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

Positions = slice | Int[Tensor, " chosen"]


@dataclass(frozen=True)
class Layout:
    """Positions in the token stream x_1 y_1 x_2 y_2 … with instruction tokens inserted before token `at`.

    Attributes:
        n_instruction: instruction tokens in every prompt.
        at: the token of the plain stream before which they are inserted; 0 is the front.
        n_vectors: instruction vectors of the embedding space; each has its own input coordinate and row of W_E.
    """

    n_instruction: int = 0
    at: int = 0
    n_vectors: int = 0

    def x_tokens(self, n_pos: int) -> Positions:
        """The positions of the x tokens, at which predictions are read, among the first `n_pos` tokens.

        >>> Layout().x_tokens(6), Layout(n_instruction=1).x_tokens(7), Layout(1, at=2).x_tokens(7).tolist()
        (slice(0, None, 2), slice(1, None, 2), [0, 3, 5])
        """
        return self.every_other(0, n_pos)

    def y_tokens(self, n_pos: int) -> Positions:
        """The positions of the y tokens."""
        return self.every_other(1, n_pos)

    def every_other(self, first: int, n_pos: int) -> Positions:
        if self.at <= first:
            return slice(first + self.n_instruction, None, 2)
        stream = torch.arange(first, n_pos, 2)
        shifted = torch.where(stream < self.at, stream, stream + self.n_instruction)
        return shifted[shifted < n_pos]

    def n_needed(self, n_pos: int) -> int:
        """Number of tokens up to the last x token: later tokens influence no prediction.

        >>> Layout().n_needed(6), Layout(n_instruction=1).n_needed(7), Layout().n_needed(5)
        (5, 6, 5)
        """
        x_tokens = self.x_tokens(n_pos)
        return int(x_tokens[-1]) + 1 if isinstance(x_tokens, Tensor) else range(n_pos)[x_tokens][-1] + 1

    def n_tokens(self, n_points: int) -> int:
        return 2 * n_points + self.n_instruction


PLAIN = Layout()


class Prompts(NamedTuple):
    """A batch of prompts; each has its own function of one class.

    Attributes:
        xs: inputs [batch point dim].
        ys: their values [batch point].
        layout: their positions in the token stream.
        instruction: the instruction tokens [batch n_instruction coordinate], if there are any; coordinates beyond
            `dim` stand for the layout's instruction vectors.
    """

    xs: Float[Tensor, "batch point dim"]
    ys: Float[Tensor, "batch point"]
    layout: Layout = PLAIN
    instruction: Float[Tensor, "batch n_instruction coordinate"] | None = None

    @property
    def tokens(self) -> Float[Tensor, "batch pos coordinate"]:
        """The input of the transformer."""
        stream = to_prompt(self.xs, self.ys)
        if self.instruction is None:
            return stream
        if self.layout.n_vectors:
            stream = torch.nn.functional.pad(stream, (0, self.layout.n_vectors))
        before, after = stream[:, : self.layout.at], stream[:, self.layout.at :]
        return torch.cat((before, self.instruction, after), dim=1)

    def to(self, device: torch.device | str) -> "Prompts":
        instruction = None if self.instruction is None else self.instruction.to(device)
        return Prompts(self.xs.to(device), self.ys.to(device), self.layout, instruction)

    def double(self) -> "Prompts":
        """The same prompts in float64."""
        instruction = None if self.instruction is None else self.instruction.double()
        return self._replace(xs=self.xs.double(), ys=self.ys.double(), instruction=instruction)

    def head(self, n_prompts: int) -> "Prompts":
        """The first prompts."""
        return self.rows(range(n_prompts))

    def rows(self, prompts: range) -> "Prompts":
        """A range of prompts."""
        chosen = slice(prompts.start, prompts.stop)
        instruction = None if self.instruction is None else self.instruction[chosen]
        return Prompts(self.xs[chosen], self.ys[chosen], self.layout, instruction)

    def first(self, n_points: int) -> "Prompts":
        """The same prompts, ended after `n_points` pairs."""
        return self._replace(xs=self.xs[:, :n_points], ys=self.ys[:, :n_points])


def to_prompt(xs: Float[Tensor, "batch point dim"], ys: Float[Tensor, "batch point"]) -> Float[Tensor, "batch pos dim"]:
    """Tokens x_1 y_1 x_2 y_2 …, with y as (y, 0, …, 0); pos = 2 point.

    >>> to_prompt(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[3.0]])).tolist()
    [[[1.0, 2.0], [3.0, 0.0]]]
    """
    y_tokens = torch.zeros_like(xs)
    y_tokens[:, :, 0] = ys
    return torch.stack((xs, y_tokens), dim=2).flatten(1, 2)


def last_quarter(n_points: int) -> slice:
    """The points over which errors are averaged: the last quarter, where the context helps most.

    >>> last_quarter(16), last_quarter(3)
    (slice(12, 16, None), slice(2, 3, None))
    """
    return slice(n_points - max(1, n_points // 4), n_points)


def one_hot_instruction(
    coordinate: int, n_coordinates: int, n_prompts: int, n_tokens: int
) -> Float[Tensor, "batch n_instruction coordinate"]:
    """The same instruction for every prompt: tokens that are 1 in one coordinate and 0 elsewhere."""
    token = torch.zeros(n_coordinates)
    token[coordinate] = 1
    return repeat(token, "coordinate -> batch token coordinate", batch=n_prompts, token=n_tokens).contiguous()
