"""What a removed head is made to write instead: frozen values, resolved against a reference run.

Every value replaces z, the head's mix of values before W_O (TransformerLens `hook_z`), at all positions. The reference
is a run on other prompts of the same function class, so its z carries the class but neither this prompt's function nor
its inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from training.errors import one_of


class Reference(NamedTuple):
    """One layer's z on reference prompts.

    Attributes:
        z: of as many prompts as are being tested, paired with them by order.
        mean: over all reference prompts.
    """

    z: Float[Tensor, "batch pos head d_head"]
    mean: Float[Tensor, "1 pos head d_head"]


@runtime_checkable
class Value(Protocol):
    """What to write in place of a head's z."""

    def replacement(self, reference: Reference) -> Float[Tensor, "#batch pos head d_head"]: ...


@dataclass(frozen=True)
class Zero:
    """Nothing. Pushes the model off its distribution: damage beyond the loss of what the head carried."""

    def replacement(self, reference: Reference) -> Float[Tensor, "1 pos head d_head"]:
        return torch.zeros_like(reference.mean)


@dataclass(frozen=True)
class Mean:
    """The head's average at each position: what it writes whatever the prompt."""

    def replacement(self, reference: Reference) -> Float[Tensor, "1 pos head d_head"]:
        return reference.mean


@dataclass(frozen=True)
class Resample:
    """The head's z on another prompt: of the right distribution, about the wrong function and inputs."""

    def replacement(self, reference: Reference) -> Float[Tensor, "batch pos head d_head"]:
        return reference.z


MODES: Mapping[str, Value] = {"zero": Zero(), "mean": Mean(), "resample": Resample()}


def mode(name: str) -> Value:
    """The value behind `--mode NAME`.

    Raises:
        UserError: there is none.
    """
    if name not in MODES:
        raise one_of("--mode", name, MODES)
    return MODES[name]
