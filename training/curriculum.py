"""Which function class a training step sees: pure functions of the step (paper.md, section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from training.errors import UserError, one_of
from training.function_classes import function_class

CURRICULA = ("mixed", "sequential", "random", "single:CLASS")


@dataclass(frozen=True)
class Curriculum:
    """An order of function classes and the rule by which steps choose among them.

    `sequential` trains class b in block b; `mixed` draws uniformly from classes 1..b in block b; `random` draws
    uniformly from all classes throughout; `single` has one class.
    """

    kind: Literal["mixed", "sequential", "random", "single"]
    classes: tuple[str, ...]
    steps: int

    def probabilities(self, step: int) -> list[float]:
        """The chance of each class at this step.

        >>> Curriculum("mixed", ("linear", "quadratic"), 10).probabilities(9)
        [0.5, 0.5]
        """
        n = len(self.classes)
        block = block_of(step, self.steps, n)
        if self.kind == "sequential":
            return [float(b == block) for b in range(n)]
        n_open = block + 1 if self.kind == "mixed" else n
        return [1 / n_open if b < n_open else 0.0 for b in range(n)]

    def choose(self, step: int, generator: torch.Generator) -> str:
        """This step's class. Every step draws exactly once, so the stream does not depend on the curriculum."""
        draw = torch.rand((), generator=generator, dtype=torch.float64).item()
        reached = 0.0
        for name, probability in zip(self.classes, self.probabilities(step), strict=True):
            reached += probability
            if draw < reached:
                return name
        return self.classes[-1]  # unreachable unless rounding leaves `reached` just below 1


def block_edges(steps: int, n_blocks: int) -> list[int]:
    """The last step of each block, inclusive, as the authors' `create_schedule` has them.

    >>> block_edges(500_001, 3)
    [166667, 333334, 500001]
    """
    return [steps * (b + 1) // n_blocks for b in range(n_blocks)]


def block_of(step: int, steps: int, n_blocks: int) -> int:
    """The first block whose edge is not below the step: blocks of 166,668 / 166,667 / 166,666 steps for 500,001."""
    return next(b for b, edge in enumerate(block_edges(steps, n_blocks)) if edge >= step)


def parse_curriculum(name: str, classes: Sequence[str], steps: int) -> Curriculum:
    """The curriculum called `mixed`, `sequential`, `random` or `single:CLASS`.

    Raises:
        UserError: unknown curriculum or function class.
    """
    kind, _, single_class = name.partition(":")
    if kind == "single":
        if not single_class:
            raise UserError(f"curriculum '{name}' names no class (for example single:{classes[0]})")
        return Curriculum("single", (function_class(single_class).name,), steps)
    if name not in ("mixed", "sequential", "random"):
        raise one_of("curriculum", name, CURRICULA)
    return Curriculum(name, tuple(function_class(c).name for c in classes), steps)  # type: ignore[arg-type]
