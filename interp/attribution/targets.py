"""What effects are asked of: the nodes of a site, or all edges; each knows its names, its estimates, the exact way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.attribution import edges, nodes
from interp.attribution.graph import Graph
from interp.attribution.nodes import Ends, Moves
from interp.model.heads import HeadSet, parse_heads
from interp.patching.maps import patch, place_name, places_of, token_sets
from interp.patching.path_receivers import all_receivers
from interp.patching.paths import parse_senders, path_effects
from interp.patching.runner import Question
from interp.patching.sites import check_site
from training.checkpoints.checkpoint import Checkpoint
from training.model.transformer import Transformer

EXACT = "exact"


class Effects(NamedTuple):
    """Effects with their 95 % intervals over prompts, in the order of a target's rows.

    Attributes:
        value: 0 = nothing happened, 1 = as if everything had been patched.
        low: lower end.
        high: upper end.
        size: what ranks them: |value|, for AtP* the mean of |value| over dropped layers.
    """

    value: Float[np.ndarray, " node"]
    low: Float[np.ndarray, " node"]
    high: Float[np.ndarray, " node"]
    size: Float[np.ndarray, " node"]


@runtime_checkable
class Target(Protocol):
    """Nodes or edges of one model, in a fixed order.

    Attributes:
        methods: approximate methods, with their definitions.
    """

    methods: Mapping[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """What each is called, as columns of a table."""
        ...

    def names(self) -> list[str]:
        """What each is called, in words."""
        ...

    def moves(self, model: Transformer, ends: Ends, method: str) -> Moves:
        """By how much patching each would move the prediction, to first order."""
        ...

    def exact(self, checkpoint: Checkpoint, name: str, question: Question) -> Effects:
        """By intervention."""
        ...

    def floats(self) -> int:
        """About how many numbers a prompt takes."""
        ...


@dataclass(frozen=True)
class Nodes:
    """The nodes of a site: every head (or layer, where the site has no heads) at every set of tokens.

    Attributes:
        checkpoint: the model.
        site: a name in `interp.patching.sites.SITES`.
        at: tokens, as in `interp.patching.maps.patch`.
        n_examples: pairs before the query.
        n_steps: parts of paths.
    """

    checkpoint: Checkpoint
    site: str
    at: str | None
    n_examples: int
    n_steps: int
    methods = nodes.METHODS

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"site": self.site, "layer": one.layer, "heads": one.heads, "tokens": one.tokens}
            for one in places_of(self.checkpoint.config, self.site, self.heads, self.at, self.n_examples)
        ]

    @property
    def heads(self) -> list[HeadSet] | None:
        """Every head alone; None at sites without heads."""
        model = self.checkpoint.config.model
        return parse_heads("each", model.n_layers, model.n_heads) if check_site(self.site).by_head else None

    def names(self) -> list[str]:
        return [place_name(self.site, row) for row in self.rows()]

    def sets(self) -> nodes.Sets:
        """The sets of tokens; those of every head are the same."""
        layout, n_points = self.checkpoint.config.layout, self.n_examples + 1
        at = self.at or ("each" if self.heads is None else "all")
        everything = torch.ones(layout.n_needed(layout.n_tokens(n_points)), dtype=torch.bool)
        return torch.stack([everything if one is None else one for _, one in token_sets(at, layout, n_points)])

    def moves(self, model: Transformer, ends: Ends, method: str) -> Moves:
        return nodes.node_moves(model, ends, self.site, self.sets().to(model.device), method, self.n_steps)

    def exact(self, checkpoint: Checkpoint, name: str, question: Question) -> Effects:
        found = patch(checkpoint, [name], site=self.site, at=self.at, **options_of(question))
        return effects_in(found.table)

    def floats(self) -> int:
        return floats_of_graph(self.checkpoint, self.n_examples)


@dataclass(frozen=True)
class AllEdges:
    """Every edge of a model, receiver by receiver (`interp.attribution.graph.Graph.allowed`).

    Attributes:
        checkpoint: the model.
        n_examples: pairs before the query.
        n_steps: parts of paths.
    """

    checkpoint: Checkpoint
    n_examples: int
    n_steps: int
    methods = edges.METHODS

    @property
    def graph(self) -> Graph:
        return Graph.of(self.checkpoint.config.model)

    def rows(self) -> list[dict[str, Any]]:
        graph = self.graph
        return [
            {"sender": graph.senders[sender], "receiver": graph.receivers[receiver]}
            for receiver, sender in np.argwhere(graph.allowed).tolist()
        ]

    def names(self) -> list[str]:
        return [self.graph.name(receiver, sender) for receiver, sender in np.argwhere(self.graph.allowed).tolist()]

    def moves(self, model: Transformer, ends: Ends, method: str) -> Moves:
        found = edges.edge_moves(model, ends, method, self.n_steps).double()
        chosen = found[:, torch.from_numpy(self.graph.allowed).to(found.device)]
        return Moves(rearrange(chosen, "batch edge -> batch 1 1 edge"))

    def exact(self, checkpoint: Checkpoint, name: str, question: Question) -> Effects:
        sizes = checkpoint.config.model.n_layers, checkpoint.config.model.n_heads
        to = [(receiver,) for receiver in all_receivers(*sizes)]
        found = path_effects(checkpoint, parse_senders("each", *sizes), to, [name], **options_of(question))
        order = pd.MultiIndex.from_frame(pd.DataFrame(self.rows()))
        return effects_in(found.table.set_index(["sender", "receiver"]).loc[order])

    def floats(self) -> int:
        config, graph = self.checkpoint.config, self.graph
        n_tokens = config.layout.n_tokens(self.n_examples + 1)
        streams = 3 * len(graph.senders) + 6 * graph.n_heads
        return streams * n_tokens * config.model.d_model + floats_of_graph(self.checkpoint, self.n_examples)


def floats_of_graph(checkpoint: Checkpoint, n_examples: int) -> int:
    """About how many numbers one prompt leaves in a forward pass with gradients, patterns included."""
    model, n_tokens = checkpoint.config.model, checkpoint.config.layout.n_tokens(n_examples + 1)
    return model.n_layers * n_tokens * (40 * model.d_model + 8 * model.n_heads * n_tokens)


def options_of(question: Question) -> dict[str, Any]:
    return question._asdict()


def effects_in(table: pd.DataFrame) -> Effects:
    """The effects of a table of `interp.patching`."""
    value, low, high = (table[column].to_numpy(dtype=float) for column in ("effect", "ci_low", "ci_high"))
    return Effects(value, low, high, np.abs(value))


def flat(moves: Float[Tensor, "... batch layer unit set"]) -> Float[np.ndarray, "... batch node"]:
    """In the order of a target's rows."""
    return moves.double().flatten(-3).cpu().numpy()
