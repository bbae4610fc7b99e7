"""What a function of `interp` may be given as its model: a checkpoint, the name of one, or an attached model."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload, runtime_checkable

import torch

from interp.model.arguments import check_arguments
from interp.model.attached import AttachedModel
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import CheckError, UserError
from training.common.library_defaults import library_defaults

IN_FLOAT64 = ("ablate", "cumulative", "pairs")
"""Functions that compute in float64 where the weights are."""

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


@runtime_checkable
class OpensModels(Protocol[P, R]):
    """The type of a function that takes a model first."""

    @overload
    def __call__(self, checkpoint: Checkpoint | str | Path, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, checkpoint: AttachedModel, /, *args: Any, **kwargs: Any) -> Any: ...


def opens_models(function: Callable[Concatenate[Checkpoint, P], R]) -> OpensModels[P, R]:
    """Let a function of a checkpoint take its name, too, or call the method of the same name of an attached model.

    The function computes with the `library_defaults`.
    """

    @wraps(function)
    def dispatch(checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(checkpoint, AttachedModel):
            return attached_method(checkpoint, function.__name__)(*args, **kwargs)
        check_arguments(function, args, kwargs)
        with library_defaults():
            return function(open_checkpoint(checkpoint, function.__name__), *args, **kwargs)

    return dispatch  # type: ignore[return-value]  # a function has this type's call


def attached_method(model: AttachedModel, name: str) -> Callable[..., Any]:
    """
    Raises:
        UserError: attached models have no such method.
    """
    if name not in AttachedModel.__abstractmethods__:
        valid = ", ".join(sorted(AttachedModel.__abstractmethods__))
        raise UserError(f"{name} does not apply to attached models (valid: {valid})")
    return getattr(model, name)


def open_checkpoint(model: Any, function: str) -> Checkpoint:
    """A checkpoint whose weights can be computed with, loaded where its name is given.

    Raises:
        UserError: it is neither a checkpoint nor the name of one, or its weights have another precision than
            float32.
        CheckError: its weights are not finite.
    """
    if isinstance(model, str | Path):
        return load(model)
    if not isinstance(model, Checkpoint):
        raise UserError(
            f"{function} takes a checkpoint (interp.load), its name or an attached model (interp.attach), "
            f"not {type(model).__name__}"
        )
    dtypes = {torch.float32, torch.float64} if function in IN_FLOAT64 else {torch.float32}
    for name, weights in model.model.named_parameters():
        if weights.dtype not in dtypes:
            dtype = str(weights.dtype).removeprefix("torch.")
            raise UserError(f"{model.name}: {name} is {dtype}, float32 is needed (checkpoint.model.float())")
        if not weights.isfinite().all():
            raise CheckError(f"{model.name}: {name} has values that are not finite (loaded weights are finite)")
    return model
