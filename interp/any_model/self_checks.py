"""Self-checks of removals from any model: what should act acts, and what should not act does not."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from interp.any_model.network import Edit, Location
from interp.any_model.projections import Projection, weight_shape
from interp.any_model.task import Task
from interp.model.heads import Head, HeadSet, head_set, show
from training.common.errors import CheckError

ROUNDING = 1e-5
"""Relative: two computations of the same losses differ by less."""
UNCHANGED = 1e-6
"""Relative: a replacement that differs by less from what it replaces changes nothing."""


def check_removals(
    task: Task, rows: range, given: Mapping[str, Sequence[Tensor]], sets: Sequence[HeadSet]
) -> dict[str, frozenset[Head]]:
    """Prove on a few examples that removing nothing changes nothing and that every removal acts.

    Args:
        task: the model and its examples.
        rows: the examples.
        given: by mode and layer, the replacement values of these examples.
        sets: the sets under test.

    Returns:
        By mode, the heads whose output is already what the mode puts in its location, or is not read.

    Raises:
        CheckError: a check fails.
    """
    examples = task.rows(task.examples, rows)
    output, recorded = task.network.record(examples)
    intact = task.losses(output, examples, "of the intact model")
    own = task.read_z(examples)
    check_nothing(task, rows, intact, own)
    for first in sorted({head.layer for heads in sets for head in heads}) if recorded.outputs else ():
        again = task.run(examples, recorded=recorded, first=first)
        require_same(again, intact, f"starting at layer {first} changes the losses")
    unvarying = {}
    for mode, values in given.items():
        heads = {head for heads in sets for head in heads}
        unvarying[mode] = frozenset(head for head in heads if not is_changed(task, own, values, head))
        for layer in sorted({head.layer for head in heads - unvarying[mode]}):
            of_layer = head_set(head for head in heads - unvarying[mode] if head.layer == layer)
            removed = {Location("z", layer): replacing_heads([head.number for head in of_layer], values[layer])}
            changed = task.network.run(examples, removed, recorded=recorded if recorded.outputs else None, first=layer)
            check_acting(output, changed, f"{mode} ablation of {show(of_layer)}")
    return unvarying


def check_nothing(task: Task, rows: range, intact: np.ndarray, own: Sequence[Tensor]) -> None:
    """Refuse a model whose passes differ, and edits that change something where they put back what was there.

    Raises:
        CheckError: they do.
    """
    examples = task.rows(task.examples, rows)
    require_same(task.run(examples), intact, "two passes of the intact model differ")
    itself = {Location("z", layer): putting(z) for layer, z in enumerate(own)}
    require_same(task.run(examples, itself), intact, "replacing every head by itself changes the losses")
    single = task.run(task.rows(task.examples, rows[:1]))
    require_same(single, intact[:1], "an example's loss depends on the examples beside it")


def putting(values: Tensor) -> Edit:
    def edit(activation: Tensor) -> Tensor:
        return values.to(activation).clone()

    return edit


def require_same(again: np.ndarray, intact: np.ndarray, what: str) -> None:
    difference = float(np.abs(again - intact).max())
    if difference > ROUNDING * max(1e-3, float(np.abs(intact).max())):
        raise CheckError(f"{what} (by up to {difference:.2g})")


def is_changed(task: Task, own: Sequence[Tensor], values: Sequence[Tensor], head: Head) -> bool:
    """Whether a mode changes what a head writes."""
    z = own[head.layer][:, :, head.number]
    difference = (values[head.layer][:, :, head.number].to(z) - z).abs().max()
    reads = reads_head(task.network.projections[head.layer], head.number, task.network.n_heads)
    return reads and bool(difference > UNCHANGED * z.abs().max())


def reads_head(projection: Projection, head: int, n_heads: int) -> bool:
    """Whether the projection has a weight for a head that is not zero; so it has where its weight is not seen."""
    weight = projection.weight if projection.weight is not None else getattr(projection.module, "weight", None)
    shape = weight_shape(projection)
    if shape is None or not isinstance(weight, Tensor):
        return True
    flat = weight.flatten(0, -2) if weight.ndim == 3 else weight
    by_input = flat if is_input_first(projection) else flat.T
    return bool(by_input.unflatten(0, (n_heads, -1))[head].any())


def is_input_first(projection: Projection) -> bool:
    """Whether a weight is [in, out], as that of transformers' Conv1D or a parameter `W_O`."""
    is_parameter = projection.weight is not None and not projection.is_multihead
    return is_parameter or type(projection.module).__name__ == "Conv1D"


def check_acting(output: object, changed: object, what: str) -> None:
    """Refuse a removal that leaves the model's output as it is.

    Raises:
        CheckError: it does.
    """
    pairs = zip(tree_flatten(output)[0], tree_flatten(changed)[0], strict=True)
    if all(torch.equal(first, second) for first, second in pairs if isinstance(first, Tensor)):
        raise CheckError(f"{what} leaves the model's output as it is: it did not act")


def replacing_heads(numbers: Sequence[int], values: Tensor) -> Edit:
    def edit(z: Tensor) -> Tensor:
        changed = z.clone()
        changed[:, :, list(numbers)] = values.to(z)[:, :, list(numbers)]
        return changed

    return edit
