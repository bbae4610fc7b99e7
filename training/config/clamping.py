"""The settings of an intervention in the forward pass of training."""

from dataclasses import dataclass, fields
from typing import Literal

from training.common.errors import UserError
from training.config.head_names import parse_heads
from training.config.model_config import ModelConfig


@dataclass(frozen=True)
class ClampingConfig:
    """What is fixed in the forward pass of some training steps; evaluation, and all use of the model, is without it.

    Attributes:
        action: `clamp` gives each of `heads` a fixed attention pattern, in which y_i attends to x_i alone and every
            other token to itself; `ablate` sets their z to 0; `forbid` hides x_i from y_i in `heads` (none named: in
            all), and what else y_i sees is renormalised.
        heads: LAYER.HEAD.
        first: the first step with the intervention, counted from 0.
        until: the first step without it; 0 is the end of training.
    """

    action: Literal["none", "clamp", "ablate", "forbid"] = "none"
    heads: tuple[str, ...] = ()
    first: int = 0
    until: int = 0

    def check(self, model: ModelConfig, steps: int) -> None:
        """Refuse what would do nothing.

        Raises:
            UserError: no heads to clamp or ablate, heads that the model does not have, no steps, or no action.
        """
        if self.action == "none":
            for field in fields(self):
                if getattr(self, field.name) != field.default:
                    raise UserError(
                        f"clamping.{field.name} has no use without clamping.action: clamp, ablate or forbid"
                    )
            return
        if not self.heads and self.action != "forbid":
            raise UserError(f"clamping.action={self.action} needs clamping.heads, for example 0.1")
        parse_heads("clamping.heads", self.heads, model)
        if not 0 <= self.first < (self.until or steps) <= steps:
            raise UserError(
                f"clamping.first={self.first}, clamping.until={self.until}: 0 <= first < until <= recipe.steps={steps} "
                "is needed (until=0 is the end)"
            )

    def acts_at(self, step: int) -> bool:
        """Whether the training step of this number, counted from 0, is made with the intervention.

        >>> [ClampingConfig("forbid", first=1, until=3).acts_at(step) for step in range(4)]
        [False, True, True, False]
        """
        return self.action != "none" and self.first <= step and (not self.until or step < self.until)
