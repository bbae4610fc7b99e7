"""Runs any torch module with activations read or replaced at its attention output projections and around its layers.

Sites (`SITES`): `z`, the input of a projection, heads apart; `attn_out`, its output; `resid_pre` and `resid_post`,
input and output of a layer. An edit sees an activation as [example, pos, head, d_head] at z and [example, pos, d_model]
elsewhere, whatever the module's own order of axes is. Every hook is taken away when a pass ends, also by an exception.

Layers before the first edit need not run again where layers are members of one list: their recorded outputs are given
back instead (`Recorded`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from interp.any_model.examples import Examples, count_examples, rows_of
from interp.any_model.projections import Projection, map_shape
from training.common.errors import CheckError, UserError

Edit = Callable[[Tensor], Tensor]
SITES: Mapping[str, str] = {
    "z": "a head's output before the output projection",
    "attn_out": "what all heads of a layer write together",
    "resid_pre": "the residual stream before a layer",
    "resid_post": "the residual stream after a layer",
}
PROJECTION = 11
"""Which argument of `multi_head_attention_forward` is the weight of the output projection; its bias follows."""
PROBED = (2, 3)
"""Numbers of examples: the axis that grows with them is that of examples."""


class Location(NamedTuple):
    """One activation of one layer."""

    site: str
    layer: int

    def __str__(self) -> str:
        return f"{self.site} of layer {self.layer}"


Edits = Mapping[Location, Edit]


@dataclass(frozen=True)
class Axes:
    """How a module orders the axes of an activation.

    Attributes:
        example: the axis of examples.
        n_heads: to take apart; 0 at sites without heads.
        by_head: whether heads have an axis of their own already.
    """

    example: int
    n_heads: int = 0
    by_head: bool = False

    def edited(self, raw: Tensor, n_examples: int, edit: Edit) -> Tensor:
        """The activation after an edit, in the module's own order."""
        moved = raw.movedim(self.example, 0)
        apart = moved.unflatten(-1, (self.n_heads, -1)) if self.n_heads and not self.by_head else moved
        kept = 2 if self.n_heads else 1  # axes after positions
        flat = apart.reshape(n_examples, -1, *apart.shape[-kept:])
        changed = edit(flat)
        if changed is flat:
            return raw
        return changed.reshape(moved.shape).movedim(0, self.example)


class Recorded(NamedTuple):
    """What layers gave in a pass.

    Attributes:
        outputs: by layer, its output.
        n_examples: in the pass.
    """

    outputs: Sequence[Any]
    n_examples: int


class LinearProducts(TorchFunctionMode):
    """Edits what `torch.nn.functional.linear` multiplies with certain weights, and what comes out.

    In `nn.MultiheadAttention`, whose product is inside of one function, the projection is taken out of that function.

    Args:
        before: by the address of a weight, an edit of the input.
        after: by the address of a weight, an edit of the product.
    """

    def __init__(self, before: Mapping[int, Edit], after: Mapping[int, Edit]) -> None:
        super().__init__()
        self.before, self.after = before, after

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called for every function of torch."""
        del types
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward and self.knows(*args[PROJECTION : PROJECTION + 1]):
            weight, bias = args[PROJECTION : PROJECTION + 2]
            identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)  # its product with z is z
            z, *rest = func(*args[:PROJECTION], identity, None, *args[PROJECTION + 2 :], **kwargs)
            return (self.product(z, weight, bias), *rest)
        if func is functional.linear and self.knows(*args[1:2]):
            return self.product(*args, **kwargs)
        return func(*args, **kwargs)

    def knows(self, *weights: Tensor) -> bool:
        return any(weight.data_ptr() in edits for weight in weights for edits in (self.before, self.after))

    def product(self, z: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The product with its edits."""
        address = weight.data_ptr()
        edited = self.before[address](z) if address in self.before else z
        product = functional.linear(edited, weight, bias)
        return self.after[address](product) if address in self.after else product


@dataclass(frozen=True, eq=False)
class Network:
    """A module whose heads can be replaced.

    Attributes:
        module: the user's model.
        projections: by layer.
        n_heads: per layer.
        forward: how it is run on examples.
        example_axis: of the examples.
        axes: of every location that exists.
        leaf_axes: by layer, the axis of examples of each tensor in the layer's output; empty where layers cannot be
            given back.
        n_pos: positions at z.
    """

    module: nn.Module
    projections: Sequence[Projection]
    n_heads: int
    forward: Callable[[nn.Module, Examples], Any]
    example_axis: int
    axes: Mapping[Location, Axes]
    leaf_axes: Sequence[Sequence[int | None]]
    n_pos: int

    @property
    def n_layers(self) -> int:
        return len(self.projections)

    def run(
        self,
        examples: Examples,
        edits: Edits | None = None,
        *,
        recorded: Recorded | None = None,
        first: int = 0,
        times: int = 1,
    ) -> Any:
        """The model's output.

        Args:
            examples: what to run it on.
            edits: by location.
            recorded: what the layers before `first` give, instead of running.
            first: the first layer to run, where `recorded` is given.
            times: how many copies of the recorded examples these are.

        Raises:
            CheckError: an edit was not reached, or was reached more than once.
        """
        edits = edits or {}
        n_examples = count_examples(examples, self.example_axis)
        reached: Counter[Location] = Counter()
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluating(self.module))
            stack.enter_context(without_fast_path())
            if recorded is not None and first:
                stack.enter_context(self.giving_back(recorded, first, times))
            self.hook(edits, n_examples, reached, stack)
            output = self.forward(self.module, examples)
        for location in edits:
            if reached[location] != 1:
                name = self.projections[location.layer].name
                raise CheckError(f"{location} ({name}) is reached {reached[location]} times in a pass: once is needed")
        return output

    def hook(self, edits: Edits, n_examples: int, reached: "Counter[Location]", stack: ExitStack) -> None:
        """Install the edits until the stack is closed."""
        before: dict[int, Edit] = {}
        after: dict[int, Edit] = {}
        for location, edit in edits.items():

            def act(raw: Tensor, location: Location = location, edit: Edit = edit) -> Tensor:
                reached[location] += 1
                return self.axes[location].edited(raw, n_examples, edit)

            self.hook_place(location, act, before, after, stack)
        if before or after:
            stack.enter_context(LinearProducts(before, after))

    def hook_place(
        self, location: Location, act: Edit, before: dict[int, Edit], after: dict[int, Edit], stack: ExitStack
    ) -> None:
        """Install one edit of raw activations."""
        projection = self.projections[location.layer]
        if projection.weight is not None and location.site in ("z", "attn_out"):
            (before if location.site == "z" else after)[projection.weight.data_ptr()] = act
        elif location.site == "z":
            hook_input(projection.module, act, stack)
        elif location.site == "attn_out":
            assert projection.output is not None
            hook_output(projection.output, act, stack)
        else:
            assert projection.block is not None
            (hook_input if location.site == "resid_pre" else hook_output)(projection.block, act, stack)

    def record(self, examples: Examples, edits: Edits | None = None) -> tuple[Any, Recorded]:
        """The model's output, and what every layer gave; nothing of layers that cannot be given back."""
        outputs: list[Any] = []
        with ExitStack() as stack:
            for projection in self.projections if self.leaf_axes else ():
                assert projection.block is not None
                stack.callback(projection.block.register_forward_hook(keeping(outputs)).remove)
            output = self.run(examples, edits)
        return output, Recorded(outputs, count_examples(examples, self.example_axis))

    @contextmanager
    def giving_back(self, recorded: Recorded, first: int, times: int) -> Iterator[None]:
        """Let the layers before `first` give what was recorded, so many times over, without running."""
        with ExitStack() as stack:
            for layer in range(first):
                block = self.projections[layer].block
                assert block is not None
                output = copies(recorded.outputs[layer], self.leaf_axes[layer], times)
                stack.enter_context(replaced_forward(block, output))
            yield

    def read(self, examples: Examples, locations: Sequence[Location]) -> tuple[Any, dict[Location, Tensor]]:
        """The model's output, and the activations at some locations."""
        seen: dict[Location, Tensor] = {}
        output = self.run(examples, {location: reading(seen, location) for location in locations})
        return output, seen


def reading(seen: dict[Location, Tensor], location: Location) -> Edit:
    """An edit that changes nothing and keeps what it sees."""

    def edit(activation: Tensor) -> Tensor:
        seen[location] = activation.detach().clone()
        return activation

    return edit


def keeping(outputs: list[Any]) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs.append(output)

    return hook


def hook_input(module: nn.Module, act: Edit, stack: ExitStack) -> None:
    """Edit the first tensor that a module is called with."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and isinstance(args[0], Tensor):
            return (act(args[0]), *args[1:]), kwargs
        name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
        return args, {**kwargs, name: act(kwargs[name])}

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def hook_output(module: nn.Module, act: Edit, stack: ExitStack) -> None:
    """Edit a module's output, or the first tensor in it."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return act(output)
        flat, spec = tree_flatten(output)
        location = next(i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor))
        flat[location] = act(flat[location])
        return tree_unflatten(flat, spec)

    stack.callback(module.register_forward_hook(hook).remove)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a block; every module has its own mode back afterwards."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Without the fused kernels of `nn.TransformerEncoder`, in which no projection can be seen."""
    is_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_enabled)


@contextmanager
def replaced_forward(module: nn.Module, output: Any) -> Iterator[None]:
    """A module that gives this output without running."""
    own = module.__dict__.get("forward")

    def forward(*_args: Any, **_kwargs: Any) -> Any:
        return output

    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


def copies(output: Any, axes: Sequence[int | None], times: int) -> Any:
    """A layer's output for so many copies of its examples."""
    if times == 1:
        return output
    flat, spec = tree_flatten(output)
    several = [leaf if axis is None else torch.cat([leaf] * times, axis) for leaf, axis in zip(flat, axes, strict=True)]
    return tree_unflatten(several, spec)


def open_network(
    module: nn.Module,
    projections: Sequence[Projection],
    n_heads: int,
    examples: Examples,
    *,
    forward: Callable[[nn.Module, Examples], Any],
    example_axis: int,
) -> Network:
    """Find out on two and three examples how the module orders axes, and whether its layers can be given back.

    Raises:
        CheckError: a projection is not reached, or is reached more than once in a pass.
        UserError: an activation has no axis of examples, or its width is not made of heads.
    """
    probe = Probe(module, projections, forward, example_axis)
    few, more = (probe.run(rows_of(examples, range(n), example_axis)) for n in PROBED)
    axes = {
        location: axes_of(location, projections[location.layer], n_heads, (few.raw[location], more.raw[location]))
        for location in few.raw
    }
    leaf_axes = [leaf_axes_of(*outputs) for outputs in zip(few.outputs, more.outputs, strict=True)]
    usable = len(leaf_axes) == len(projections) and all(axis is not None for axis in leaf_axes)
    z = Location("z", 0)
    network = Network(
        module,
        projections,
        n_heads,
        forward,
        example_axis,
        axes,
        [axis for axis in leaf_axes if axis is not None] if usable else [],
        n_positions(few.raw[z], axes[z], PROBED[0]),
    )
    if network.leaf_axes and not gives_back(network, rows_of(examples, range(PROBED[0]), example_axis)):
        return Network(**{**vars(network), "leaf_axes": []})
    return network


class Probed(NamedTuple):
    """Raw activations and outputs of a pass."""

    raw: dict[Location, Tensor]
    outputs: list[tuple[list[Any], TreeSpec]]


@dataclass(frozen=True, eq=False)
class Probe:
    """Reads activations before it is known how their axes are ordered."""

    module: nn.Module
    projections: Sequence[Projection]
    forward: Callable[[nn.Module, Examples], Any]
    example_axis: int

    def run(self, examples: Examples) -> Probed:
        raw: dict[Location, Tensor] = {}
        reached: Counter[Location] = Counter()
        kept: list[Any] = []

        def keep(location: Location) -> Edit:
            def act(activation: Tensor) -> Tensor:
                reached[location] += 1
                raw[location] = activation.detach()
                return activation

            return act

        network = Network(self.module, self.projections, 0, self.forward, self.example_axis, {}, [], 0)
        before: dict[int, Edit] = {}
        after: dict[int, Edit] = {}
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluating(self.module))
            stack.enter_context(without_fast_path())
            for layer, projection in enumerate(self.projections):
                for location in places_of(projection, layer):
                    network.hook_place(location, keep(location), before, after, stack)
                if projection.block is not None:
                    stack.callback(projection.block.register_forward_hook(keeping(kept)).remove)
            if before or after:
                stack.enter_context(LinearProducts(before, after))
            self.forward(self.module, examples)
        for layer, projection in enumerate(self.projections):
            count = reached[Location("z", layer)]
            if count != 1:
                raise CheckError(f"the projection {projection.name} is reached {count} times in a pass: once is needed")
        return Probed(raw, [tree_flatten(output) for output in kept])


def places_of(projection: Projection, layer: int) -> list[Location]:
    """The locations of a layer that can be read."""
    sites = ["z"]
    if projection.output is not None or projection.weight is not None:
        sites.append("attn_out")
    if projection.block is not None:
        sites += ["resid_pre", "resid_post"]
    return [Location(site, layer) for site in sites]


def axes_of(location: Location, projection: Projection, n_heads: int, raw: tuple[Tensor, Tensor]) -> Axes:
    """How an activation is ordered.

    Raises:
        UserError: it has no axis of examples, or its width is not made of heads.
    """
    few, more = raw
    heads = n_heads if location.site == "z" else 0
    is_point = projection.weight is None and map_shape(projection.module) is None
    by_head = bool(heads) and is_point and few.ndim >= 4 and few.shape[-2] == heads
    if heads and not by_head and few.shape[-1] % heads:
        raise UserError(
            f"{heads} heads do not divide the width {few.shape[-1]} of {location} ({projection.name}): n_heads=N"
        )
    axis = growing_axis(few, more)
    if axis is None or axis >= few.ndim - (2 if by_head else 1):
        shapes = f"{[*few.shape]} for {PROBED[0]} examples and {[*more.shape]} for {PROBED[1]}"
        raise UserError(f"{location} ({projection.name}) is {shapes}: no axis is that of examples")
    return Axes(axis, n_heads=heads, by_head=by_head)


def growing_axis(few: Tensor, more: Tensor) -> int | None:
    """The axis that has one entry per example; None where there is none."""
    if few.ndim != more.ndim:
        return None
    sizes = enumerate(zip(few.shape, more.shape, strict=True))
    differing = [(axis, pair) for axis, pair in sizes if pair[0] != pair[1]]
    return differing[0][0] if len(differing) == 1 and differing[0][1] == PROBED else None


def leaf_axes_of(few: tuple[list[Any], TreeSpec], more: tuple[list[Any], TreeSpec]) -> list[int | None] | None:
    """The axis of examples of every tensor in a layer's output; None where the output cannot be repeated."""
    if len(few[0]) != len(more[0]):
        return None
    axes: list[int | None] = []
    for first, second in zip(few[0], more[0], strict=True):
        is_same = not isinstance(first, Tensor) or first.shape == second.shape
        axis = None if is_same else growing_axis(first, second)
        if axis is None and not is_same:
            return None
        axes.append(axis)
    return axes


def n_positions(raw: Tensor, axes: Axes, n_examples: int) -> int:
    seen: dict[Location, Tensor] = {}
    axes.edited(raw, n_examples, reading(seen, Location("z", 0)))
    return seen[Location("z", 0)].shape[1]


def gives_back(network: Network, examples: Examples) -> bool:
    """Whether giving back all layers but the last one leaves the model's output as it is."""
    try:
        output, recorded = network.record(examples)
        again = network.run(examples, recorded=recorded, first=network.n_layers - 1)
    except Exception:  # a module that does not bear it is run whole
        return False
    return all(map(agree, tree_flatten(output)[0], tree_flatten(again)[0]))


def agree(first: Any, second: Any) -> bool:
    """Whether two leaves of an output hold the same numbers; what is no tensor is not compared."""
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return True
    return first.shape == second.shape and bool(torch.allclose(first, second, rtol=1e-5, atol=1e-6, equal_nan=True))
