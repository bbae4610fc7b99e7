"""The attention patterns of any model: as its modules give them, or computed from queries and keys and checked by z.

In this order: a hook point `hook_pattern` (TransformerLens); the weights that `nn.MultiheadAttention` returns if asked;
what an attention module returns beside its output (transformers, with eager attention); else softmax(q k' / sqrt(d)) of
modules that the user names, which has to reproduce z together with their values.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from interp.any_model.examples import Examples, count_examples
from interp.any_model.network import Location, Network
from interp.any_model.projections import Projection
from training.common.errors import CheckError, UserError

Patterns = list[Float[Tensor, "example head query_pos key_pos"]]
SAME = 1e-3
"""Of the largest z: how far values mixed by a computed pattern may be from z."""


def read_patterns(network: Network, examples: Examples, qkv: str | Sequence[str] | None = None) -> Patterns:
    """The attention of every layer.

    Args:
        network: the model.
        examples: what to run it on.
        qkv: the module that gives queries, keys and values side by side, or the three modules, with `*` for the layer's
            number; None takes what the model gives.

    Raises:
        CheckError: a pattern that was computed does not reproduce z.
        UserError: the model gives none and nothing is told, or there is no such module.
    """
    if qkv is not None:
        return computed_patterns(network, examples, [qkv] if isinstance(qkv, str) else list(qkv))
    n_examples = count_examples(examples, network.example_axis)
    seen: list[dict[int, Tensor]] = [{} for _ in network.projections]
    with ExitStack() as stack:
        stack.enter_context(eager(network.module))
        for layer, projection in enumerate(network.projections):
            hook_sources(network, projection, n_examples, seen[layer], stack)
        network.run(examples)
    if not all(seen):
        missing = next(layer for layer, patterns in enumerate(seen) if not patterns)
        raise UserError(
            f"layer {missing} gives no attention pattern: name the modules of queries, keys and values, "
            "qkv=('layers.*.q_proj', 'layers.*.k_proj', 'layers.*.v_proj'), or the one of all three"
        )
    return [patterns[min(patterns)] for patterns in seen]


def hook_sources(
    network: Network, projection: Projection, n_examples: int, seen: dict[int, Tensor], stack: ExitStack
) -> None:
    """Watch every module that could give the pattern of a layer; the nearest to the projection counts."""
    around = list(projection.ancestors)
    point = getattr(around[0], "hook_pattern", None) if around else None
    if isinstance(point, nn.Module):
        around.insert(0, point)
    for distance, module in enumerate(around):

        def watch(_module: nn.Module, _args: Any, output: Any, distance: int = distance) -> None:
            for leaf in tree_flatten(output)[0]:
                if is_pattern(leaf, n_examples, network.n_heads):
                    seen[distance] = leaf.detach()

        stack.callback(module.register_forward_hook(watch).remove)
        if isinstance(module, nn.MultiheadAttention):
            stack.callback(module.register_forward_pre_hook(asking_weights, with_kwargs=True).remove)


def asking_weights(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args, {**kwargs, "need_weights": True, "average_attn_weights": False}


def is_pattern(leaf: Any, n_examples: int, n_heads: int) -> bool:
    """Whether an output can be [example head query key], rows of which sum to 1 or 0."""
    if not isinstance(leaf, Tensor) or leaf.ndim != 4 or not leaf.is_floating_point():
        return False
    if leaf.shape[:2] != (n_examples, n_heads) or leaf.shape[2] != leaf.shape[3] or bool((leaf < 0).any()):
        return False
    sums = leaf.sum(-1)
    return bool(((sums - 1).abs() < 1e-3).logical_or(sums == 0).all())


@contextmanager
def eager(module: nn.Module) -> Iterator[None]:
    """Let models of transformers compute attention in the open, for a block."""
    configs: dict[int, Any] = {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}
    known = [config for config in configs.values() if getattr(config, "_attn_implementation", None) is not None]
    kept = [config._attn_implementation for config in known]
    try:
        for config in known:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, implementation in zip(known, kept, strict=True):
            config._attn_implementation = implementation


def computed_patterns(network: Network, examples: Examples, names: Sequence[str]) -> Patterns:
    """softmax(q k' / sqrt(d_head)) of named modules, causal or not, whichever reproduces z."""
    n_examples = count_examples(examples, network.example_axis)
    modules = [modules_called(network, name) for name in names]
    outputs: dict[tuple[int, int], Tensor] = {}
    with ExitStack() as stack:
        for which, by_layer in enumerate(modules):
            for layer, module in enumerate(by_layer):

                def keep(_module: nn.Module, _args: Any, output: Any, key: tuple[int, int] = (layer, which)) -> None:
                    outputs[key] = output.detach()

                stack.callback(module.register_forward_hook(keep).remove)
        locations = [Location("z", layer) for layer in range(network.n_layers)]
        _, seen = network.read(examples, locations)
    patterns = []
    for layer, location in enumerate(locations):
        parts = [outputs[layer, which].movedim(network.axes[location].example, 0) for which in range(len(names))]
        q, k, v = (
            heads_of(part, n_examples, seen[location].shape[-1]) for part in split(parts, network, seen[location])
        )
        patterns.append(pattern_of(q, k, v, seen[location], location))
    return patterns


def modules_called(network: Network, name: str) -> list[nn.Module]:
    """The module of every layer.

    Raises:
        UserError: not one per layer.
    """
    pattern = re.compile(re.escape(name).replace(r"\*", r"\d+"))
    named = [(path, module) for path, module in network.module.named_modules() if pattern.fullmatch(path)]
    if len(named) != network.n_layers:
        raise UserError(f"qkv: '{name}' names {len(named)} modules, and the model has {network.n_layers} layers")
    named.sort(key=lambda pair: [int(part) for part in re.findall(r"\d+", pair[0])])
    return [module for _, module in named]


def split(parts: Sequence[Tensor], network: Network, z: Tensor) -> list[Tensor]:
    """Queries, keys and values; from one output they are its parts of equal width, or with fewer keys and values."""
    if len(parts) == 3:
        return list(parts)
    if len(parts) != 1:
        raise UserError(f"qkv: one module or three are needed, and {len(parts)} are named")
    width, n_queries = parts[0].shape[-1], network.n_heads * z.shape[-1]
    rest = (width - n_queries) // 2
    return list(parts[0].split((n_queries, rest, rest), dim=-1))


def heads_of(flat: Tensor, n_examples: int, d_head: int) -> Float[Tensor, "example head pos d_head"]:
    return flat.reshape(n_examples, -1, flat.shape[-1] // d_head, d_head).transpose(1, 2)


def pattern_of(
    q: Float[Tensor, "example head pos d_head"],
    k: Float[Tensor, "example group pos d_head"],
    v: Float[Tensor, "example group pos d_head"],
    z: Float[Tensor, "example pos head d_head"],
    location: Location,
) -> Float[Tensor, "example head pos pos"]:
    """The attention that reproduces z.

    Raises:
        CheckError: neither causal nor full attention of these queries and keys does.
    """
    k, v = (kind.repeat_interleave(q.shape[1] // kind.shape[1], dim=1) for kind in (k, v))
    logits = q @ k.mT / q.shape[-1] ** 0.5
    visible = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    for masked in (logits.masked_fill(~visible, -torch.inf), logits):
        pattern = masked.softmax(-1)
        if ((pattern @ v).transpose(1, 2) - z).abs().max() < SAME * z.abs().max():
            return pattern
    raise CheckError(
        f"attention computed from the named queries and keys does not give {location}: are they rotated later?"
    )
