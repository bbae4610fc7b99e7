"""The function class and the input distribution of a training step, as pure functions of the step.

Every curriculum (arXiv 2404.03558; `train.py` of the authors' code at 1c896e3) is a table: blocks of steps, and in each
block the probability of every name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from training.common.errors import UserError, one_of

CURRICULA = ("mixed", "sequential", "random", "single:CLASS", "custom")


class Arm(NamedTuple):
    """What a prompt is drawn from."""

    function_class: str
    inputs: str


@dataclass(frozen=True)
class Curriculum:
    """An order of names and the chance of each, block by block.

    Attributes:
        names: function classes, or input distributions.
        blocks: by block, the chance of every name.
        edges: the last step of each block, inclusive.
    """

    names: tuple[str, ...]
    blocks: tuple[tuple[float, ...], ...]
    edges: tuple[int, ...]

    def block_of(self, step: int) -> int:
        """The first block whose edge is not below the step."""
        return next((b for b, edge in enumerate(self.edges) if edge >= step), len(self.edges) - 1)

    def probabilities(self, step: int) -> tuple[float, ...]:
        """The chance of each name at this step.

        >>> curriculum("mixed", ("linear", "quadratic"), 10).probabilities(9)
        (0.5, 0.5)
        """
        return self.blocks[self.block_of(step)]

    @property
    def reached(self) -> tuple[str, ...]:
        """The names that have a chance at some step: in a run of few steps a block may have none."""
        firsts, last = (0, *(edge + 1 for edge in self.edges)), self.edges[-1] - 1
        used = [
            block
            for block, first, edge in zip(self.blocks, firsts, self.edges, strict=False)
            if first <= min(edge, last)
        ]
        return tuple(name for name, chances in zip(self.names, zip(*used, strict=True), strict=True) if any(chances))


@dataclass(frozen=True)
class Schedule:
    """Two curricula at once, drawn independently.

    Attributes:
        classes: the curriculum over function classes.
        kind: the curriculum over input distributions.
        inputs: the input distributions.
        within_blocks: the second curriculum runs once within every block of the first, instead of once in the run.
    """

    classes: Curriculum
    kind: str
    inputs: tuple[str, ...]
    within_blocks: bool = False

    def input_probabilities(self, step: int) -> tuple[float, ...]:
        start, last = 0, self.classes.edges[-1]
        if self.within_blocks:
            block = self.classes.block_of(step)
            start = self.classes.edges[block - 1] + 1 if block else 0
            last = self.classes.edges[block]
        return curriculum(self.kind, self.inputs, last - start).probabilities(step - start)

    def choose(self, step: int, generator: torch.Generator) -> Arm:
        """This step's class and inputs. Every step draws as often, so the stream does not depend on the curriculum."""
        name = draw(self.classes.names, self.classes.probabilities(step), generator)
        if len(self.inputs) == 1:
            return Arm(name, self.inputs[0])
        return Arm(name, draw(self.inputs, self.input_probabilities(step), generator))

    def counts(self, step: int, n_prompts: int, generator: torch.Generator) -> dict[Arm, int]:
        """How many of a batch's prompts are of each arm when every prompt chooses for itself."""
        arms = [self.choose(step, generator) for _ in range(n_prompts)]
        order = [Arm(name, inputs) for name in self.classes.names for inputs in self.inputs]
        return {arm: arms.count(arm) for arm in order if arm in arms}


def draw(names: Sequence[str], probabilities: Sequence[float], generator: torch.Generator) -> str:
    """One of the names, at the price of one draw."""
    uniform = torch.rand((), generator=generator, dtype=torch.float64).item()
    reached = 0.0
    for name, probability in zip(names, probabilities, strict=True):
        reached += probability
        if uniform < reached:
            return name
    return [name for name, chance in zip(names, probabilities, strict=True) if chance][-1]  # rounding: reached < 1


def block_edges(steps: int, n_blocks: int) -> list[int]:
    """The last step of each block, inclusive; steps that remain are given to the first blocks, one each.

    As `create_schedule` in train.py of the authors' code (harmonbhasin/curriculum_learning_icl, 1c896e3).

    >>> block_edges(500_001, 3), block_edges(100, 3)
    ([166667, 333334, 500001], [34, 67, 100])
    """
    length, n_longer = divmod(steps, n_blocks)
    return [length * (block + 1) + min(block + 1, n_longer) for block in range(n_blocks)]


def curriculum(kind: str, names: Sequence[str], steps: int, edges: Sequence[int] = ()) -> Curriculum:
    """`sequential` has name b alone in block b, `mixed` names 1..b with equal chances, `random` all in one block.

    Args:
        kind: one of these.
        names: in the order in which they are introduced.
        steps: the run's length.
        edges: last step of every block but the last, instead of equal blocks.
    """
    n = len(names)
    opened = {
        "sequential": [[float(b == c) for c in range(n)] for b in range(n)],
        "mixed": [[1 / (b + 1) if c <= b else 0.0 for c in range(n)] for b in range(n)],
        "random": [[1 / n] * n],
    }[kind]
    return table(names, opened, steps, edges)


def table(names: Sequence[str], blocks: Sequence[Sequence[float]], steps: int, edges: Sequence[int] = ()) -> Curriculum:
    """A curriculum from its blocks.

    Raises:
        UserError: the edges are not as many as needed, or not in order within the run.
    """
    inner, last = [*edges], steps - 1
    if inner and (len(inner) != len(blocks) - 1 or sorted({*inner, last}) != [*inner, last] or inner[0] < 0):
        raise UserError(
            f"schedule.edges={inner}: {len(blocks) - 1} rising steps below {last} are needed, "
            "one per block but the last"
        )
    closed = [*inner, steps] if inner else block_edges(steps, len(blocks))
    return Curriculum(tuple(names), tuple(tuple(block) for block in blocks), tuple(closed))


def parse_curriculum(
    name: str,
    classes: Sequence[str],
    steps: int,
    edges: Sequence[int] = (),
    probabilities: Sequence[Sequence[float]] = (),
) -> Curriculum:
    """The curriculum called `mixed`, `sequential`, `random`, `single:CLASS`, or `custom` (blocks of probabilities).

    Raises:
        UserError: unknown curriculum, or one that does not fit its classes, edges or probabilities.
    """
    kind, _, single_class = name.partition(":")
    if (name == "custom") != bool(probabilities):
        raise UserError("curriculum custom and schedule.probabilities need each other")
    if kind == "single":
        if not single_class:
            raise UserError(f"curriculum '{name}' names no class (for example single:{classes[0]})")
        return table([single_class], [[1.0]], steps, edges)
    if name == "custom":
        for block in probabilities:
            if len(block) != len(classes) or min(block) < 0 or abs(sum(block) - 1) > 1e-6:
                raise UserError(
                    f"schedule.probabilities={list(block)}: {len(classes)} chances that sum to 1 are needed "
                    f"({', '.join(classes)})"
                )
        return table(classes, probabilities, steps, edges)
    if name not in ("mixed", "sequential", "random"):
        raise one_of("curriculum", name, CURRICULA)
    return curriculum(name, classes, steps, edges)
