"""Receivers of paths: inputs of later components, by name (`1.2.q`, `1.mlp`, `out`)."""

from collections.abc import Sequence
from typing import NamedTuple

from interp.model.heads import MLP, Head, HeadSet, all_heads
from interp.patching.sites import Patch
from training.common.errors import UserError

INPUTS = ("q", "k", "v")
SYNTAX = "LAYER.HEAD.q, .k or .v, LAYER.HEAD for all three, LAYER.mlp, out, a list, or each"


class Receiver(NamedTuple):
    """One input of one component.

    Attributes:
        layer: of the component; for the read-out, the number of layers.
        number: of the head, `MLP`, or 0 for the read-out.
        input: `q`, `k` or `v` of a head, `mlp`, or `out`.

    >>> str(Receiver(1, 2, "q")), str(Receiver(1, MLP, "mlp")), str(Receiver(3, 0, "out"))
    ('1.2.q', '1.mlp', 'out')
    """

    layer: int
    number: int
    input: str

    def __str__(self) -> str:
        if self.input == "out":
            return "out"
        return f"{self.layer}.mlp" if self.input == "mlp" else f"{self.layer}.{self.number}.{self.input}"

    def reads(self, sender: Head) -> bool:
        """Whether the sender writes to the residual stream before this input reads it."""
        if self.input == "mlp":
            return sender.layer < self.layer or (sender.layer == self.layer and sender.number != MLP)
        return sender.layer < self.layer

    def reads_any(self, senders: HeadSet) -> bool:
        return any(self.reads(sender) for sender in senders)

    def patch(self) -> Patch:
        """The patch that gives it a changed input: of its q, k or v, of mlp_out, or of the final residual stream."""
        if self.input == "out":
            return Patch("resid_post", self.layer - 1)
        return Patch("mlp_out", self.layer) if self.input == "mlp" else Patch(self.input, self.layer, (self.number,))


def all_receivers(n_layers: int, n_heads: int, *, has_mlps: bool = True) -> list[Receiver]:
    """Every input of a model, layer by layer.

    >>> [str(receiver) for receiver in all_receivers(1, 1)]
    ['0.0.q', '0.0.k', '0.0.v', '0.mlp', 'out']
    """
    receivers = []
    for layer in range(n_layers):
        heads = [head for head in all_heads(n_layers, n_heads) if head.layer == layer]
        receivers += [Receiver(layer, head.number, name) for head in heads for name in INPUTS]
        if has_mlps:
            receivers.append(Receiver(layer, MLP, "mlp"))
    return [*receivers, Receiver(n_layers, 0, "out")]


ReceiverChoice = str | Head | Sequence[str | Head | tuple[Receiver, ...]]


def choose_receivers(
    choice: ReceiverChoice, n_layers: int, n_heads: int, *, has_mlps: bool = True
) -> list[tuple[Receiver, ...]]:
    """The sets of receivers behind text, a `Head`, or several sets of inputs.

    Raises:
        UserError: it is none of these, or there is no such input.

    >>> [len(inputs) for inputs in choose_receivers([Head(1, 0), "1.0.q,out"], 2, 1)]
    [3, 2]
    """
    members = [choice] if isinstance(choice, str | Head) else choice
    sets: list[tuple[Receiver, ...]] = []
    for member in members:
        if isinstance(member, str | Head):
            sets += parse_receivers(str(member), n_layers, n_heads, has_mlps=has_mlps)
        elif all(isinstance(receiver, Receiver) for receiver in member):
            sets.append(member)
        else:
            raise UserError(f"receivers={member!r}: inputs are named as text ({SYNTAX}) or as a Head")
    return sets


def parse_receivers(text: str, n_layers: int, n_heads: int, *, has_mlps: bool = True) -> list[tuple[Receiver, ...]]:
    """The sets of receivers named by `--to`: `each` input alone, or one list of inputs that change together.

    Raises:
        UserError: malformed, or no such input.

    >>> [str(receiver) for receiver in parse_receivers("1.0,out", 2, 1)[0]]
    ['1.0.q', '1.0.k', '1.0.v', 'out']
    """
    receivers = all_receivers(n_layers, n_heads, has_mlps=has_mlps)
    if text == "each":
        return [(receiver,) for receiver in receivers]
    by_name: dict[str, list[Receiver]] = {str(receiver): [receiver] for receiver in receivers}
    for receiver in receivers:
        if receiver.input in INPUTS:
            by_name.setdefault(f"{receiver.layer}.{receiver.number}", []).append(receiver)
    chosen: list[Receiver] = []
    for name in (part.strip() for part in text.split(",")):
        if name not in by_name:
            raise UserError(
                f"--to {text}: there is no input '{name}' (valid: {SYNTAX}; "
                f"layers 0-{n_layers - 1}, heads 0-{n_heads - 1})"
            )
        chosen += by_name[name]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"--to {text}: an input is named twice")
    return [tuple(chosen)]
