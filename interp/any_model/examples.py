"""What a user's model is run on: a tensor, a tuple of tensors, or a mapping of tensors, with an axis of examples.

`model(tensor)`, `model(*tensors)` or `model(**tensors)` is called, as the model takes them. What is not a tensor, or a
tensor without axes, belongs to every example and is passed on as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.common.errors import UserError

Examples = Tensor | Sequence[Any] | Mapping[str, Any]


def call(model: nn.Module, examples: Examples) -> Any:
    """The model's output.

    >>> call(nn.Identity(), torch.ones(2)).tolist()
    [1.0, 1.0]
    """
    if isinstance(examples, Tensor):
        return model(examples)
    return model(**examples) if isinstance(examples, Mapping) else model(*examples)


def leaves(examples: Examples) -> list[Tensor]:
    """The tensors that have an axis of examples."""
    if isinstance(examples, Tensor):
        members: list[Any] = [examples]
    else:
        members = [*examples.values()] if isinstance(examples, Mapping) else [*examples]
    return [member for member in members if isinstance(member, Tensor) and member.ndim]


def mapped(examples: Examples, function: Callable[[Tensor], Tensor]) -> Any:
    """The examples with a function applied to every tensor that has an axis of examples."""

    def apply(member: Any) -> Any:
        return function(member) if isinstance(member, Tensor) and member.ndim else member

    if isinstance(examples, Tensor):
        return apply(examples)
    if isinstance(examples, Mapping):
        return {name: apply(member) for name, member in examples.items()}
    return tuple(map(apply, examples))


def axis_in(tensor: Tensor, example_axis: int) -> int:
    """The axis of examples: a tensor with fewer axes, such as one target per example, has it as its last."""
    return min(example_axis, tensor.ndim - 1)


def count_examples(examples: Examples, example_axis: int, what: str = "examples") -> int:
    """How many examples there are.

    Raises:
        UserError: they are no tensors, or tensors of different numbers of examples.

    >>> count_examples({"x": torch.zeros(5, 3), "y": torch.zeros(5)}, 0)
    5
    """
    if not isinstance(examples, Tensor | Sequence | Mapping) or isinstance(examples, str):
        raise UserError(f"{what} are {type(examples).__name__}: a tensor, or a tuple or mapping of tensors, is needed")
    sizes = {tensor.shape[axis_in(tensor, example_axis)] for tensor in leaves(examples)}
    if len(sizes) != 1:
        shapes = ", ".join(str([*tensor.shape]) for tensor in leaves(examples)) or "no tensors"
        raise UserError(f"{what} have {shapes}: all need the same number of examples along axis {example_axis}")
    return sizes.pop()


def check_alike(examples: Examples, others: Examples, example_axis: int, what: str) -> None:
    """Refuse other examples that are not of the form of the examples.

    Raises:
        UserError: they have other members, or members of another shape but for the number of examples.
    """

    def form(members: Examples) -> Any:
        def shape(tensor: Tensor) -> Any:
            axis = axis_in(tensor, example_axis)
            return [n for i, n in enumerate(tensor.shape) if i != axis]

        sizes = [shape(tensor) for tensor in leaves(members)]
        return [*members] if isinstance(members, Mapping) else type(members).__name__, sizes

    for part, ours, theirs in zip(("members", "shapes"), form(examples), form(others), strict=True):
        if ours != theirs:
            raise UserError(f"{what} has {part} {theirs} and examples have {ours}: the same form is needed")


def rows_of(examples: Examples, rows: Sequence[int], example_axis: int) -> Any:
    """Some of the examples.

    >>> rows_of(torch.arange(3), [2, 0], 0).tolist()
    [2, 0]
    """
    chosen = torch.as_tensor([*rows], dtype=torch.long)
    return mapped(examples, lambda t: t.index_select(axis_in(t, example_axis), chosen.to(t.device)))


def repeated(examples: Examples, times: int, example_axis: int) -> Any:
    """All examples so many times, one copy after the other.

    >>> repeated(torch.arange(2), 2, 0).tolist()
    [0, 1, 0, 1]
    """
    if times == 1:
        return examples
    return mapped(examples, lambda tensor: torch.cat([tensor] * times, axis_in(tensor, example_axis)))


def check_device(module: nn.Module, examples: Examples) -> None:
    """Refuse examples that lie elsewhere than the model.

    Raises:
        UserError: they do.
    """
    of_model = next((parameter.device for parameter in module.parameters()), None)
    for tensor in leaves(examples):
        if of_model is not None and tensor.device != of_model:
            raise UserError(f"the model is on {of_model} and examples are on {tensor.device}: move them to one device")
