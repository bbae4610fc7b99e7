"""The class of a user's own prompts, which cannot be drawn."""

from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from training.common.errors import UserError
from training.tasks.function_classes.base import FunctionClass, WeightKind, Weights

DATA = "data"


@dataclass(frozen=True)
class OwnData(FunctionClass):
    """Whatever made the prompts: nothing is known of it, so the best prediction without an example is 0."""

    growth: ClassVar[float] = 1.0

    def sample_weights(self, generator: torch.Generator, n_prompts: int, n_dims: int, kind: WeightKind) -> NoReturn:
        del generator, n_prompts, n_dims, kind
        raise UserError(
            "prompts of your own (class 'data') cannot be drawn with another function, input or class (valid: patch "
            "--corrupt permuted, pair:J, noise; ablate --mode zero, mean, resample)"
        )

    def pairs(
        self, xs: Float[Tensor, "batch point dim"], weights: Weights, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch point dim"], Float[Tensor, "batch point"]]:
        return self.sample_weights(generator, len(xs), xs.shape[2], "unit")

    def second_moment(self, n_dims: int, kind: WeightKind) -> float:
        return self.sample_weights(torch.Generator(), 1, n_dims, kind)
