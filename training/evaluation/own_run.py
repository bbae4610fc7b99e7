"""A checkpoint on prompts of a user's own: its configuration answers for the class `data` instead of its own ones."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import RunConfig
from training.evaluation.own_prompts import OwnPrompts
from training.tasks.function_classes.own import DATA
from training.tasks.prompts import Prompts
from training.tasks.second_moments import Scale


@dataclass(frozen=True)
class OwnRun(RunConfig):
    """The configuration of a run whose prompts are a user's own.

    Attributes:
        own: the prompts.
        is_split: whether a half of them is kept for what must not be tested on.
    """

    own: OwnPrompts | None = None
    is_split: bool = True

    def __post_init__(self) -> None:
        """The run has been checked; its prompts are checked by `on_prompts`."""

    @property
    def prompts(self) -> OwnPrompts:
        assert self.own is not None
        return self.own

    @property
    def trained_classes(self) -> tuple[str, ...]:
        return (DATA,)

    @property
    def evaluated_classes(self) -> tuple[str, ...]:
        return (DATA,)

    def scale(self, name: str, inputs: str | None = None) -> Scale:
        del name, inputs
        return Scale(self.prompts.second_moment, 0.0, "exact")

    def no_context_scale(self, name: str, inputs: str | None = None) -> Scale:
        del name, inputs
        return Scale((self.prompts.ys.double() - self.prompts.no_context).square().mean().item(), 0.0, "exact")

    def predict_without_context(self, name: str, xs: Float[Tensor, "batch point dim"]) -> Float[Tensor, "batch point"]:
        del name
        return xs.new_full(xs.shape[:2], self.prompts.no_context)

    def stream(self, stream: str, n_prompts: int, seed: int) -> Prompts:
        """The first prompts of a stream, at most as many as there are; without a split all streams are one."""
        xs, ys = self.prompts.half(stream, seed) if self.is_split else (self.prompts.xs, self.prompts.ys)
        padded = torch.nn.functional.pad(xs[:n_prompts], (0, self.model.n_dims - xs.shape[2]))
        return Prompts(padded, ys[:n_prompts], self.layout)

    @property
    def n_test(self) -> int:
        """How many prompts can be tested on."""
        return len(self.prompts.xs) // (2 if self.is_split else 1)


def on_prompts(checkpoint: Checkpoint, own: OwnPrompts, *, is_split: bool) -> Checkpoint:
    """The checkpoint on these prompts.

    Args:
        checkpoint: a loaded run.
        own: the prompts.
        is_split: whether to keep a random half to choose heads, for means, partners and fits.

    Raises:
        UserError: they are longer or have more dimensions than the run's, or the run's begin with an instruction.
    """
    config = checkpoint.config
    _, n_points, n_dims = own.xs.shape
    if n_points > config.data.n_points:
        raise UserError(f"{own.source}: {n_points} points, {checkpoint.name} takes at most {config.data.n_points}")
    if n_dims > config.model.n_dims:
        raise UserError(f"{own.source}: {n_dims} dimensions, {checkpoint.name} takes at most {config.model.n_dims}")
    if config.layout.n_instruction:
        raise UserError(f"{own.source}: the prompts of {checkpoint.name} have instruction tokens, these have none")
    parts = {field.name: getattr(config, field.name) for field in fields(RunConfig)}
    parts["data"] = replace(config.data, n_points=n_points, inputs=(DATA,))
    return replace(checkpoint, config=OwnRun(**parts, own=own, is_split=is_split))


def open_own(
    checkpoint: Checkpoint, own: OwnPrompts | None, classes: object, n_prompts: int, *, is_split: bool
) -> tuple[Checkpoint, int]:
    """The checkpoint and the number of prompts of a function that takes `prompts=`.

    Args:
        checkpoint: a loaded run.
        own: the prompts; None: those of function classes.
        classes: what was given as function classes.
        n_prompts: at most so many are tested on.
        is_split: see `on_prompts`.

    Raises:
        UserError: classes are given too, or the prompts do not fit the run.
    """
    if own is None:
        return checkpoint, n_prompts
    if classes is not None:
        raise UserError("prompts of your own and function classes are given: leave one of the two out")
    opened = on_prompts(checkpoint, own, is_split=is_split)
    assert isinstance(opened.config, OwnRun)
    return opened, min(n_prompts, opened.config.n_test)
