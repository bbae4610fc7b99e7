"""The model as a graph of senders, which write to the residual stream, and receivers, which read it.

Senders: the read-in, every head (its z W_O) and every MLP. Receivers: the q, k and v input of every head separately,
every MLP's input, and the read-out. A sender has an edge to every receiver that comes after it. b_O belongs to no
sender: it is the same in every run.

Edges are held as arrays [receiver sender], in the order that `Graph` defines.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from interp.model.heads import EMBED, MLP, Head
from training.common.errors import UserError
from training.config.config import ModelConfig

CHANNELS = ("q", "k", "v")
OUT = "out"
"""The read-out, as a receiver."""

Edges = Bool[np.ndarray, "receiver sender"]


@dataclass(frozen=True)
class Graph:
    """Senders and receivers of a model, in the order in which arrays hold them.

    Senders: `embed`, then layer by layer the heads `0.0`, `0.1`, … and the MLP `0.mlp`. Receivers: layer by layer the
    q of every head (`0.0.q`, `0.1.q`, …), the k of every head, the v of every head, and the MLP `0.mlp`; then `out`.

    >>> graph = Graph(n_layers=1, n_heads=2)
    >>> graph.senders, graph.receivers[-3:]
    (('embed', '0.0', '0.1', '0.mlp'), ('0.1.v', '0.mlp', 'out'))
    >>> int(graph.allowed.sum())
    13
    """

    n_layers: int
    n_heads: int
    has_mlps: bool = True

    @classmethod
    def of(cls, config: ModelConfig) -> "Graph":
        return cls(config.n_layers, config.n_heads, config.mlp_width > 0)

    @cached_property
    def components(self) -> tuple[Head, ...]:
        """The senders as `Head`s."""
        numbers = (*range(self.n_heads), MLP)
        return (EMBED, *(Head(layer, number) for layer in range(self.n_layers) for number in numbers))

    @cached_property
    def senders(self) -> tuple[str, ...]:
        return tuple(map(str, self.components))

    @cached_property
    def receivers(self) -> tuple[str, ...]:
        names = []
        for layer in range(self.n_layers):
            names += [f"{layer}.{head}.{channel}" for channel in CHANNELS for head in range(self.n_heads)]
            names.append(f"{layer}.mlp")
        return (*names, OUT)

    @cached_property
    def owners(self) -> Int[np.ndarray, " receiver"]:
        """By receiver, the sender of the same component; for the read-out, the number of senders."""
        names = [name.removesuffix(f".{name[-1]}") if name[-1] in CHANNELS else name for name in self.receivers[:-1]]
        return np.array([*map(self.senders.index, names), len(self.senders)])

    @cached_property
    def allowed(self) -> Edges:
        """Every edge of the model; without MLPs none from or to one."""
        n_before = np.concatenate(
            [
                [self.n_before_heads(layer)] * 3 * self.n_heads + [self.n_before_mlp(layer)]
                for layer in range(self.n_layers)
            ]
            + [[len(self.senders)]]
        )
        allowed = np.arange(len(self.senders)) < n_before[:, None]
        if not self.has_mlps:
            allowed[:, [head.number == MLP for head in self.components]] = False
            allowed[[name.endswith("mlp") for name in self.receivers]] = False
        return allowed

    def n_before_heads(self, layer: int) -> int:
        """The number of senders before a layer's heads."""
        return 1 + layer * (self.n_heads + 1)

    def n_before_mlp(self, layer: int) -> int:
        """The number of senders before a layer's MLP, its heads included."""
        return self.n_before_heads(layer) + self.n_heads

    def head_receivers(self, layer: int) -> slice:
        """The receivers of a layer's heads, in the order (channel head)."""
        start = layer * (3 * self.n_heads + 1)
        return slice(start, start + 3 * self.n_heads)

    def mlp_receiver(self, layer: int) -> int:
        """The receiver of a layer's MLP."""
        return self.head_receivers(layer).stop

    def index(self, receiver: str, sender: str) -> tuple[int, int]:
        """The index of an edge in arrays [receiver sender]."""
        return self.receivers.index(receiver), self.senders.index(sender)

    def name(self, receiver: int, sender: int) -> str:
        """The name of an edge, `0.1->0.mlp`."""
        return f"{self.senders[sender]}->{self.receivers[receiver]}"


def parse_edges(graph: Graph, names: Iterable[str]) -> Edges:
    """The edges with these names, such as `embed->0.1.v`.

    Raises:
        UserError: there is no such edge.

    >>> parse_edges(Graph(1, 2), ["0.1->out"]).sum()
    np.int64(1)
    """
    edges = np.zeros_like(graph.allowed)
    for name in names:
        sender, _, receiver = name.partition("->")
        if sender not in graph.senders or receiver not in graph.receivers:
            raise UserError(f"no edge '{name}' (valid: SENDER->RECEIVER such as 0.1->0.mlp, embed->0.1.v, 0.mlp->out)")
        index = graph.index(receiver, sender)
        if not graph.allowed[index]:
            raise UserError(f"no edge '{name}': {receiver} comes before {sender}")
        edges[index] = True
    return edges


def prune(graph: Graph, edges: Edges) -> Edges:
    """The edges that lie on a path of such edges from the read-in to the read-out.

    The others have no effect: a component without clean input stays as in the corrupt run, and a component from which
    no path leads to the read-out does not change the prediction.

    >>> graph = Graph(1, 2)
    >>> kept = prune(graph, parse_edges(graph, ["embed->0.1.q", "0.1->out", "0.0->out", "embed->0.mlp"]))
    >>> [graph.name(*edge) for edge in np.argwhere(kept).tolist()]
    ['embed->0.1.q', '0.1->out']
    """
    n_senders = len(graph.senders)
    reached = np.arange(n_senders) == 0
    read = np.arange(n_senders + 1) == n_senders
    for sender in range(1, n_senders):
        reached[sender] = (edges[graph.owners == sender] & reached).any()
    for sender in reversed(range(n_senders)):
        read[sender] = edges[read[graph.owners], sender].any()
    return edges & reached & read[graph.owners][:, None]
