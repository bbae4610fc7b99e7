"""Prompts of a user's own, in the place of those drawn from a function class: examples with inputs x and values y."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from training.common.errors import UserError
from training.config.config import stream_seed

LEAST = 4  # prompts: two in each half, of which a mean has an interval


@dataclass(frozen=True, eq=False)
class OwnPrompts:
    """Prompts to score, ablate, patch, read and evaluate a model on.

    The mean of y² is the unit of errors. Where a command needs prompts apart from those that it tests on (to choose
    heads, for means, partners and fits), a random half is kept for that.

    Attributes:
        xs: inputs [batch point dim], as many dimensions as the model has or fewer (the others are 0).
        ys: values [batch point].
        source: name of the file, for messages.
        no_context: what predicts y best without a context, one number: the gain of a model is over its error. Nothing
            is known of the data, so 0 is the default.

    Raises:
        UserError: shapes do not fit, a value is no finite real number, or there are fewer than `LEAST` prompts.

    >>> OwnPrompts([[[1.0], [2.0]]] * 4, [[1.0, 2.0]] * 4).ys.shape
    torch.Size([4, 2])
    """

    xs: Any
    ys: Any
    source: str = "prompts"
    no_context: Any = 0.0

    def __post_init__(self) -> None:
        xs, ys = (as_floats(getattr(self, name), name, self.source) for name in ("xs", "ys"))
        if xs.ndim != 3 or ys.ndim != 2 or xs.shape[:2] != ys.shape or 0 in xs.shape:
            raise UserError(
                f"{self.source}: xs {list(xs.shape)} and ys {list(ys.shape)}: [batch point dim] and [batch point] of "
                "the same batch and point are needed"
            )
        if len(xs) < LEAST:
            raise UserError(f"{self.source}: {len(xs)} prompts, at least {LEAST} are needed")
        if not ys.any():
            raise UserError(f"{self.source}: every y is 0, so that errors have no unit")
        object.__setattr__(self, "no_context", as_number(self.no_context, self.source))
        object.__setattr__(self, "xs", xs)
        object.__setattr__(self, "ys", ys)

    @property
    def second_moment(self) -> float:
        """The mean of y² over all prompts and points."""
        return self.ys.double().square().mean().item()

    def half(self, stream: str, seed: int) -> "tuple[Float[Tensor, 'half point dim'], Float[Tensor, 'half point']]":
        """(xs, ys) of the random half of a stream: one for `test`, the other for all others."""
        order = np.random.default_rng(stream_seed("own prompts", seed)).permutation(len(self.xs))
        n_test = len(order) // 2
        chosen = torch.from_numpy(order[:n_test] if stream == "test" else order[n_test:])
        return self.xs[chosen], self.ys[chosen]


def as_number(value: Any, source: str) -> float:
    """A finite number.

    Raises:
        UserError: it is something else.
    """
    number = as_floats(value, "no_context", source)
    if number.numel() != 1:
        raise UserError(f"{source}: no_context has the shape {list(number.shape)}: one number is needed")
    return number.item()


def as_floats(values: Any, name: str, source: str) -> Tensor:
    """The values in float32.

    Raises:
        UserError: some are no finite real numbers.
    """
    try:
        array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    except (TypeError, ValueError):
        raise UserError(f"{source}: {name} is no array of numbers") from None
    if array.dtype.kind not in "fiu":
        raise UserError(f"{source}: {name} holds {array.dtype}, real numbers are needed")
    with np.errstate(over="ignore"):
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if not tensor.isfinite().all():
        raise UserError(f"{source}: {name} holds values that are not finite in float32")
    return tensor
