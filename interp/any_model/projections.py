"""Finds the attention output projection of every layer: its input is the concatenation of the layer's heads.

Projections are known by the names in use (`NAMES`), below a module that is called attention, and by their shape. Where
that leaves none or several kinds, the user names them. Three kinds are read and replaced in different ways:

- a module that is called (Linear, Conv1D): its input;
- a hook point with an axis of heads (TransformerLens: `hook_z`): its input;
- a weight that is used without its module being called (`nn.MultiheadAttention.out_proj`, a parameter `W_O`): the input
  of the `torch.nn.functional.linear` that multiplies it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from training.common.errors import UserError

NAMES = ("o_proj", "c_proj", "out_proj", "dense", "wo", "W_O", "to_out", "to_out.0", "out_lin", "proj", "o")
OWN_NAMES = ("o_proj", "wo", "W_O", "out_proj")
"""Those that nothing but attention uses, so that they count wherever they are."""
HOOK_POINT = "hook_z"
ATTENTION = re.compile("attn|attention|mha", re.IGNORECASE)
HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads", "nhead", "heads")
"""How configurations and attention modules call the number of heads."""


class Candidate(NamedTuple):
    """Something that could be an output projection.

    Attributes:
        name: its path in the model.
        module: what is called; for a weight, the module that owns it.
        weight: None where the module is called.
        shape: [in, out]; None for a hook point.
    """

    name: str
    module: nn.Module
    weight: Tensor | None
    shape: tuple[int, int] | None

    @property
    def pattern(self) -> str:
        return re.sub(r"\d+", "*", self.name)


@dataclass(frozen=True)
class Projection:
    """The output projection of one layer.

    Attributes:
        name: its path in the model.
        module: what is called; for a weight, the module that owns it.
        weight: the weight whose product is intercepted; None where the module is called.
        ancestors: the modules around it, the nearest first, without the whole model.
        block: the layer that holds it, where layers are a list of modules; else None.
        output: the module whose output is what the heads write together; None where it is the product itself, or is
            not known.
    """

    name: str
    module: nn.Module
    weight: Tensor | None
    ancestors: tuple[nn.Module, ...]
    block: nn.Module | None
    output: nn.Module | None

    @property
    def is_multihead(self) -> bool:
        """Whether it belongs to a `nn.MultiheadAttention`."""
        return isinstance(self.module, nn.MultiheadAttention)


def find_projections(model: nn.Module, names: str | Sequence[str] | None = None) -> list[Projection]:
    """The output projection of every layer, in the order of layers.

    Args:
        model: any module.
        names: theirs, or a name with `*` for the layer's number; None finds them.

    Raises:
        UserError: there are none, or several kinds, or a named module does not exist.
    """
    known = candidates(model)
    if names is None and not known:
        maps = show_groups(by_pattern(linear_maps(model))) or "none"
        raise UserError(
            f"no attention output projection is found by name or shape ({', '.join(NAMES)}): "
            f"name one, projections=NAME (linear maps [in, out]: {maps})"
        )
    chosen = choose(known) if names is None else named_candidates(model, known, names)
    modules = dict(model.named_modules())
    blocks = blocks_of(modules, [candidate.name for candidate in chosen])
    return [
        Projection(
            candidate.name,
            candidate.module,
            candidate.weight,
            ancestors(modules, candidate.name),
            block,
            output_of(modules, candidate),
        )
        for candidate, block in zip(chosen, blocks, strict=True)
    ]


def candidates(model: nn.Module) -> list[Candidate]:
    """Everything that is called like an output projection, or is a square map below an attention module."""
    candidates = []
    inside = set()
    for path, module in model.named_modules():
        last = path.rpartition(".")[2]
        if isinstance(module, nn.MultiheadAttention):
            weight = module.out_proj.weight
            candidates.append(Candidate(f"{path}.out_proj", module, weight, (weight.shape[1], weight.shape[0])))
            inside.add(f"{path}.out_proj")
        elif last == HOOK_POINT:
            candidates.append(Candidate(path, module, None, None))
        elif path not in inside and path.endswith(NAMES) and last in {name.rpartition(".")[2] for name in NAMES}:
            shape = map_shape(module)
            candidates += [] if shape is None else [Candidate(path, module, None, shape)]
    modules = dict(model.named_modules())
    for path, parameter in model.named_parameters():
        owner, _, last = path.rpartition(".")
        if last == "W_O" and parameter.ndim in (2, 3):
            flat = parameter.flatten(0, -2).shape
            candidates.append(Candidate(path, modules[owner], parameter, (flat[0], flat[1])))
    return sorted(
        candidates,
        key=lambda candidate: [int(part) if part.isdigit() else 0 for part in re.split(r"(\d+)", candidate.name)],
    )


def map_shape(module: nn.Module) -> tuple[int, int] | None:
    """[in, out] of a linear map; None of anything else."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return None
    is_transposed = type(module).__name__ == "Conv1D"  # of transformers: [in, out]
    return (weight.shape[0], weight.shape[1]) if is_transposed else (weight.shape[1], weight.shape[0])


def choose(known: Sequence[Candidate]) -> list[Candidate]:
    """The only kind of candidates that can be output projections.

    Raises:
        UserError: there is none, or there are several.
    """
    groups = by_pattern(known)
    below = {pattern: group for pattern, group in groups.items() if ATTENTION.search(pattern)}
    points = {pattern: group for pattern, group in below.items() if group[0].shape is None}
    fitting = points or below or {pattern: groups[pattern] for pattern in groups if pattern.endswith(OWN_NAMES)}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    kind = "several kinds of modules could be" if fitting else "none of these modules is known to be"
    raise UserError(
        f"{kind} the attention output projection: name one, projections=NAME (candidates [in, out]: "
        f"{show_groups(fitting or groups)})"
    )


def by_pattern(known: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Candidates that differ in the numbers of their names only, together."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in known:
        groups.setdefault(candidate.pattern, []).append(candidate)
    return groups


def show_groups(groups: Mapping[str, Sequence[Candidate]]) -> str:
    """Names with shapes and how many there are."""
    return ", ".join(f"{name} {list(group[0].shape or ())} ({len(group)})" for name, group in groups.items())


def linear_maps(model: nn.Module) -> list[Candidate]:
    """Everything that could be an output projection of any name."""
    named = [module_candidate(path, module) for path, module in model.named_modules() if path]
    return [candidate for candidate in named if candidate.shape and not isinstance(candidate.module, nn.Embedding)]


def named_candidates(model: nn.Module, known: Sequence[Candidate], given: str | Sequence[str]) -> list[Candidate]:
    """The candidates that a user names.

    Raises:
        UserError: there is none, or what is named has no input that could be one.
    """
    names = [given] if isinstance(given, str) else list(given)
    by_name = {candidate.name: candidate for candidate in known}
    everything = {**{path: module for path, module in model.named_modules() if path}, **by_name}
    chosen = []
    for name in names:
        pattern = re.compile(re.escape(name).replace(r"\*", r"\d+"))
        matching = [path for path in everything if pattern.fullmatch(path)]
        if not matching:
            listed = ", ".join(dict.fromkeys(candidate.pattern for candidate in known)) or "none"
            raise UserError(f"projections: the model has no module '{name}' (known by name: {listed})")
        chosen += matching
    order = sorted(chosen, key=lambda path: [int(part) if part.isdigit() else 0 for part in re.split(r"(\d+)", path)])
    return [by_name.get(path) or module_candidate(path, everything[path]) for path in order]


def module_candidate(path: str, module: Any) -> Candidate:
    return Candidate(path, module, None, map_shape(module))


def ancestors(modules: dict[str, nn.Module], name: str) -> tuple[nn.Module, ...]:
    """The modules around one, the nearest first."""
    parts = name.split(".")
    paths = [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
    return tuple(modules[path] for path in paths if path in modules and not isinstance(modules[path], nn.ModuleList))


def blocks_of(modules: dict[str, nn.Module], names: Sequence[str]) -> list[nn.Module | None]:
    """The layer that holds each projection, where layers are members of one list in order; else None for all."""
    for n_parts in range(1, min(len(name.split(".")) for name in names)):
        parents = {".".join(name.split(".")[:n_parts]) for name in names}
        members = [name.split(".")[n_parts] for name in names]
        if len(parents) == 1 and isinstance(modules.get(parents.copy().pop()), nn.ModuleList | nn.Sequential):
            if members == [str(number) for number in range(len(names))]:
                return [modules[f"{parents.copy().pop()}.{member}"] for member in members]
            return [None for _ in names]
    return [None for _ in names]


def output_of(modules: dict[str, nn.Module], candidate: Candidate) -> nn.Module | None:
    """The module whose output is what all heads write together."""
    if candidate.weight is not None:
        return None
    if candidate.name.endswith(f"attn.{HOOK_POINT}"):
        return modules.get(candidate.name.removesuffix(f"attn.{HOOK_POINT}") + "hook_attn_out")
    return candidate.module


def find_n_heads(model: nn.Module, projections: Sequence[Projection], given: int | None) -> int:
    """The number of heads per layer, told or read from the configuration or the attention modules.

    Raises:
        UserError: it is not known, differs between layers, or does not divide the width.
    """
    n_heads = given if given is not None else heads_in(getattr(model, "config", None) or getattr(model, "cfg", None))
    if n_heads is None:
        per_layer = {next(filter(None, map(heads_in, projection.ancestors)), None) for projection in projections}
        if len(per_layer) != 1 or None in per_layer:
            counts = ", ".join(map(str, per_layer - {None})) or "nothing"
            raise UserError(
                f"the number of heads per layer is not known (the configurations say {counts}): give it as n_heads=N"
            )
        n_heads = per_layer.pop()
    assert n_heads is not None
    for projection in projections:
        shape = weight_shape(projection)
        if shape is not None and (n_heads < 1 or shape[0] % n_heads):
            raise UserError(
                f"{n_heads} heads do not divide the input of {projection.name} {list(shape)}: give another as n_heads=N"
            )
    return n_heads


def weight_shape(projection: Projection) -> tuple[int, int] | None:
    """[in, out]; None where there is no weight to be seen."""
    if projection.weight is None:
        return map_shape(projection.module)
    if projection.is_multihead:
        return projection.weight.shape[1], projection.weight.shape[0]
    flat = projection.weight.flatten(0, -2).shape
    return flat[0], flat[1]


def heads_in(described: Any) -> int | None:
    """The number of heads that a configuration or a module names; None if it names none."""
    values = described if isinstance(described, dict) else vars(described) if hasattr(described, "__dict__") else {}
    for name in HEADS:
        value = values.get(name, None if isinstance(described, nn.Module) else getattr(described, name, None))
        if isinstance(value, int):
            return value
    return None
