"""Opens any torch module: finds its heads, and lets the functions of `interp` test what they cause."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from interp.any_model import ablate as ablation
from interp.any_model import patch as patching
from interp.any_model import score as scoring
from interp.any_model.examples import (
    Examples,
    call,
    check_alike,
    check_device,
    count_examples,
    leaves,
    rows_of,
)
from interp.any_model.judge import LEAST_EXAMPLES, LossAblation, rows_by_condition
from interp.any_model.network import PROBED, Network, open_network
from interp.any_model.patch import LossPatchMap
from interp.any_model.projections import find_n_heads, find_projections
from interp.any_model.task import Loss, Task
from interp.any_model.token_roles import Roles, kind_called, roles_of
from interp.display.text import counted
from interp.model.attached import AttachedModel
from interp.model.parallel import keep_freed_memory
from interp.scores.kinds import ScoreKind
from interp.scores.patterns import Patterns
from interp.scores.score import HeadScores
from training.common.errors import UserError
from training.common.terminal import echo
from training.config.config import stream_seed
from training.options import DEFAULT_MEMORY


class Attached(AttachedModel):
    """A model of yours, for `interp.score`, `interp.ablate`, `interp.patterns`, `interp.patch` and `interp.report`."""

    def __init__(self, task: Task) -> None:
        self.task, self.name = task, task.name

    @property
    def network(self) -> Network:
        return self.task.network

    def __repr__(self) -> str:
        network, task = self.network, self.task
        about = f"{network.n_layers} layers of {network.n_heads} heads at {network.projections[0].name}"
        return f"<Attached {self.name}: {about}; {task.n_examples} examples, {task.n_reference} for reference>"

    def with_memory(self, gib: float) -> "Attached":
        """The same with another limit of memory.

        Raises:
            UserError: it is no size.
        """
        check_numbers(0, gib)
        return Attached(replace(self.task, memory=int(gib * 2**30)))

    def score(self, conditions: None = None, **options: Any) -> HeadScores:
        """See `interp.any_model.score.score`."""
        del conditions  # of checkpoints: function classes
        return scoring.score(self.task, **options)

    def ablate(self, heads: Any, **options: Any) -> LossAblation:
        """See `interp.any_model.ablate.ablate`."""
        if isinstance(heads, str) and heads.startswith(("top:", "above:")) and "scores" not in options:
            options["scores"] = scoring.selection_scores(self.task, options.pop("kind", None))
        return ablation.ablate(self.task, heads, **options)

    def patterns(self, heads: Any = "top:1", **options: Any) -> Patterns:
        """See `interp.any_model.score.patterns`."""
        return scoring.patterns(self.task, heads, **options)

    def patch(self, **options: Any) -> LossPatchMap:
        """See `interp.any_model.patch.patch`."""
        heads = options.get("heads", "each")
        if isinstance(heads, str) and heads.startswith(("top:", "above:")) and "scores" not in options:
            options["scores"] = scoring.selection_scores(self.task)
        return patching.patch(self.task, **options)


def attach(
    model: Any,
    examples: Any,
    loss: Loss,
    *,
    reference: Examples | None = None,
    no_context: Any = None,
    conditions: Sequence[str] | None = None,
    corrupt: Examples | None = None,
    projections: str | Sequence[str] | None = None,
    n_heads: int | None = None,
    forward: Callable[[nn.Module, Any], Any] = call,
    batch_first: bool = True,
    tokens: Tensor | None = None,
    roles: str | None = None,
    kind: str | ScoreKind | None = None,
    qkv: str | Sequence[str] | None = None,
    name: str | None = None,
    seed: int = 0,
    memory: int = DEFAULT_MEMORY,
) -> Attached:
    """Open any torch module, so that the functions of `interp` can be given it.

    Heads are replaced at the input of the attention output projection, exactly, by hooks that are there during a pass
    only. Nothing of the model is changed.

    Args:
        model: any `torch.nn.Module` with attention heads. It is run in evaluation mode, without gradients.
        examples: what it is run on: a tensor (`model(tensor)`), a tuple of tensors (`model(*tensors)`) or a mapping
            (`model(**tensors)`), each with an axis of examples.
        loss: from the model's output and the examples that it was run on to the losses `[example]`.
        reference: other examples of the same form, for means and resampling and to choose heads by score; None takes a
            random half of `examples`, and the test is on the other half.
        no_context: the losses `[example]` of a predictor that ignores the context, or a function as `loss` that gives
            them from the intact model's output; effects are then shares of the in-context gain, else differences of
            losses.
        conditions: the condition of every example; effects are measured within each.
        corrupt: examples that correspond to `examples` one by one, for `interp.patch`.
        projections: the names of the attention output projections in the order of layers, or one name with `*` for the
            layer's number; None finds them (`interp.any_model.projections`).
        n_heads: per layer; None reads it from the configuration or the attention modules.
        forward: runs the model on examples, where that takes more than calling it.
        batch_first: whether examples are on the first axis; else on the second.
        tokens: ids `[example pos]` of `examples`, for scores that read them; None takes the first integer tensor.
        roles: a letter per token, x, y or another, repeated to the end, such as `xy`; for the score `retrospective`.
        kind: the score by which heads are chosen; None is `induction` where there are ids, else `retrospective` where
            there are roles, else `previous_token`.
        qkv: the module that gives queries, keys and values, or the three modules, where the model gives no attention
            patterns (`interp.any_model.attention`).
        name: of the model; None is its class.
        seed: of the split, of partners and of resampling.
        memory: bytes that activations may take.

    Raises:
        CheckError: a projection is not reached in a pass, or more than once.
        UserError: no projections are found, heads do not divide the width, the examples do not fit each other or the
            model, or a loss is not one finite number per example.
    """
    axis = 0 if batch_first else 1
    n_examples = count_examples(examples, axis)
    check_model(model, examples)
    check_numbers(seed, memory)
    rows = split_rows(n_examples, reference is None, seed)
    if reference is not None:
        check_reference(examples, reference, axis)
    if tokens is not None:
        rows.checked(tokens, 0, "tokens")
    modules = find_projections(model, projections)
    network = open_network(
        model, modules, find_n_heads(model, modules, n_heads), examples, forward=forward, example_axis=axis
    )
    others, own_tokens = (examples, tokens) if reference is None else (reference, None)
    test_roles = roles_of(roles, network.n_pos, token_ids(examples, tokens, network.n_pos, rows.test))
    task = Task(
        name=name or type(model).__name__,
        network=network,
        examples=rows_of(examples, rows.test, axis),
        reference=rows_of(others, rows.reference or range(count_examples(others, axis, "reference")), axis),
        loss=loss,
        no_context=no_context if callable(no_context) else rows.chosen(no_context, "no_context"),
        conditions=rows.chosen(conditions, "conditions"),
        corrupt=None if corrupt is None else rows_of(rows.alike(examples, corrupt, axis), rows.test, axis),
        roles=(test_roles, test_roles._replace(ids=token_ids(others, own_tokens, network.n_pos, rows.reference))),
        kind=kind or default_kind(test_roles),
        qkv=qkv,
        seed=seed,
        memory=memory,
    )
    keep_freed_memory()  # without it a pass over several sets takes a quarter longer
    kind_called(task.kind)
    rows_by_condition(task.conditions, task.n_examples)  # refuses too few
    few = task.rows(task.examples, range(PROBED[1]))
    task.losses(network.run(few), few, "of the intact model")
    if any(module.training for module in model.modules()):
        echo(
            "interp: the model is in training mode: it is run without dropout, and set back after every pass", err=True
        )
    return Attached(task)


def check_model(model: Any, examples: Examples) -> None:
    """Refuse what is no module, or lies elsewhere than the examples.

    Raises:
        UserError: it is.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"attach takes a torch.nn.Module: {type(model).__name__} is given")
    check_device(model, examples)


def check_numbers(seed: Any, memory: Any) -> None:
    """Refuse what is no seed, or no size.

    Raises:
        UserError: it is not.
    """
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed {seed!r}: a whole number from 0 is needed")
    if not isinstance(memory, int | float) or not 0 < memory < math.inf:
        raise UserError(f"--memory {memory}: a number above 0 is needed")


def check_reference(examples: Examples, reference: Examples, axis: int) -> None:
    """Refuse examples for reference that are too few, or not like those under test.

    Raises:
        UserError: they are.
    """
    n_reference = count_examples(reference, axis, "reference")
    if n_reference < LEAST_EXAMPLES:
        few = counted(n_reference, "example")
        raise UserError(f"reference has {few}, too few for a mean: at least {LEAST_EXAMPLES} are needed")
    check_alike(examples, reference, axis, "reference")


class Rows(NamedTuple):
    """Which of the given examples are under test, and which are for reference.

    Attributes:
        n_examples: all that are given.
        test: their numbers.
        reference: empty where other examples are given for that.
    """

    n_examples: int
    test: list[int]
    reference: list[int]

    def chosen(self, values: Any, what: str) -> list[Any] | None:
        """The values of the examples under test, of one value per given example.

        Raises:
            UserError: there are more or fewer.
        """
        if values is None:
            return None
        members = values.tolist() if hasattr(values, "tolist") else values
        if not hasattr(members, "__len__"):
            raise UserError(f"{what} is {type(members).__name__}: one value per example is needed")
        if len(members) != self.n_examples:
            raise UserError(
                f"{what} has {len(members)} values for {self.n_examples} examples: one per example is needed"
            )
        return [members[row] for row in self.test]

    def checked(self, examples: Examples, axis: int, what: str) -> Examples:
        """Examples of which there are as many.

        Raises:
            UserError: there are not.
        """
        n_examples = count_examples(examples, axis, what)
        if n_examples != self.n_examples:
            raise UserError(f"{what} has {n_examples} examples for {self.n_examples}: they correspond one by one")
        return examples

    def alike(self, examples: Examples, corrupt: Examples, axis: int) -> Examples:
        """Corrupt examples that correspond to these one by one.

        Raises:
            UserError: they do not.
        """
        self.checked(corrupt, axis, "corrupt")
        check_alike(examples, corrupt, axis, "corrupt")
        return corrupt


def split_rows(n_examples: int, splits: bool, seed: int) -> Rows:
    """All examples under test, or a random half of them.

    Raises:
        UserError: these are too few for an interval.

    >>> [len(part) for part in split_rows(17, True, 0)[1:]]
    [9, 8]
    """
    needed = LEAST_EXAMPLES * (2 if splits else 1)
    if n_examples < needed:
        half = ", half of them for reference (reference=EXAMPLES gives others)" if splits else ""
        raise UserError(f"{n_examples} examples are too few for an interval: at least {needed} are needed{half}")
    if not splits:
        return Rows(n_examples, list(range(n_examples)), [])
    order = np.random.default_rng(stream_seed("split", seed)).permutation(n_examples)
    n_reference = n_examples // 2
    return Rows(n_examples, sorted(order[n_reference:].tolist()), sorted(order[:n_reference].tolist()))


def token_ids(examples: Examples, given: Tensor | None, n_pos: int, rows: Sequence[int]) -> Tensor | None:
    """The ids of these examples, of all where none are named: those told, or the first integer tensor [example pos]."""
    named = [examples["input_ids"]] if isinstance(examples, Mapping) and "input_ids" in examples else []
    fitting = [
        tensor
        for tensor in ([given] if given is not None else [*named, *leaves(examples)])
        if tensor.ndim == 2
        and tensor.shape[1] == n_pos
        and not tensor.is_floating_point()
        and tensor.dtype != torch.bool
    ]
    if not fitting:
        return None
    return fitting[0][list(rows)] if rows else fitting[0]


def default_kind(roles: Roles) -> str:
    """The score that the known roles of tokens allow."""
    if roles.ids is not None:
        return "induction"
    return "retrospective" if roles.are_given else "previous_token"
