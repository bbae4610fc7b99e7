"""What is patched: the nodes of a site, or all edges of a model. Each gives its names, estimates and exact effects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.attribution import edges, nodes
from interp.attribution.graph import Graph
from interp.attribution.nodes import Estimates, RunTokens
from interp.model.heads import HeadSet, parse_heads
from interp.patching.maps import list_locations, name_location, patch, token_sets
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
        value: 0 = the prediction is unchanged, 1 = as if everything had been patched.
        low: lower end.
        high: upper end.
        size: what ranks them: |value|, for AtP* the mean of |value| over dropped layers.
    """

    value: Float[np.ndarray, " node"]
    low: Float[np.ndarray, " node"]
    high: Float[np.ndarray, " node"]
    size: Float[np.ndarray, " node"]


@dataclass(frozen=True)
class Nodes:
    """The nodes of a site: every head (or layer, where the site has no heads) at every set of tokens.

    Attributes:
        checkpoint: a loaded run.
        n_examples: (x, y) pairs before the query.
        n_steps: parts of paths.
        site: a name in `interp.patching.sites.SITES`.
        tokens: as in `interp.patching.maps.patch`.
    """

    checkpoint: Checkpoint
    n_examples: int
    n_steps: int
    site: str
    tokens: str | None
    methods: ClassVar[Mapping[str, str]] = nodes.METHODS

    @property
    def title(self) -> str:
        return self.site

    @property
    def heads(self) -> list[HeadSet] | None:
        """Every head alone; None at sites without heads."""
        model = self.checkpoint.config.model
        return parse_heads("each", model.n_layers, model.n_heads) if check_site(self.site).by_head else None

    def rows(self) -> list[dict[str, Any]]:
        """The columns that identify each node in a table."""
        locations = list_locations(self.checkpoint.config, self.site, self.heads, self.tokens, self.n_examples)
        return [
            {"site": self.site, "layer": location.layer, "heads": location.heads, "tokens": location.tokens}
            for location in locations
        ]

    def names(self) -> list[str]:
        return [name_location(self.site, row) for row in self.rows()]

    def token_sets(self) -> nodes.TokenSets:
        """The sets of tokens, which are the same for every head."""
        layout, n_points = self.checkpoint.config.layout, self.n_examples + 1
        tokens = self.tokens or ("each" if self.heads is None else "all")
        every_token = torch.ones(layout.n_needed(layout.n_tokens(n_points)), dtype=torch.bool)
        masks = [every_token if mask is None else mask for _, mask in token_sets(tokens, layout, n_points)]
        return torch.stack(masks)

    def estimate(self, model: Transformer, tokens: RunTokens, method: str) -> Estimates:
        """First-order changes of the prediction under each patch."""
        sets = self.token_sets().to(model.device)
        return nodes.estimate_nodes(model, tokens, self.site, sets, method, self.n_steps)

    def exact(self, function_class: str, question: Question) -> Effects:
        """The effect of each patch, by intervention."""
        result = patch(self.checkpoint, [function_class], site=self.site, tokens=self.tokens, **question._asdict())
        return read_effects(result.table)

    def n_floats(self) -> int:
        """About how many numbers a prompt takes."""
        return n_floats_of_gradients(self.checkpoint, self.n_examples)


@dataclass(frozen=True)
class AllEdges:
    """Every edge of a model, receiver by receiver (`interp.attribution.graph.Graph.allowed`).

    Attributes:
        checkpoint: a loaded run.
        n_examples: (x, y) pairs before the query.
        n_steps: parts of paths.
    """

    checkpoint: Checkpoint
    n_examples: int
    n_steps: int
    methods: ClassVar[Mapping[str, str]] = edges.METHODS
    title: ClassVar[str] = "edges"

    @property
    def graph(self) -> Graph:
        return Graph.of(self.checkpoint.config.model)

    @property
    def n_edges(self) -> int:
        return int(self.graph.allowed.sum())

    def rows(self) -> list[dict[str, Any]]:
        """The columns that identify each edge in a table."""
        graph = self.graph
        return [
            {"sender": graph.senders[sender], "receiver": graph.receivers[receiver]}
            for receiver, sender in np.argwhere(graph.allowed).tolist()
        ]

    def names(self) -> list[str]:
        return [f"{row['sender']}->{row['receiver']}" for row in self.rows()]

    def estimate(self, model: Transformer, tokens: RunTokens, method: str) -> Estimates:
        """First-order changes of the prediction under each patch."""
        estimates = edges.estimate_edges(model, tokens, method, self.n_steps).double()
        existing = estimates[:, torch.from_numpy(self.graph.allowed).to(estimates.device)]
        return Estimates(rearrange(existing, "batch edge -> batch 1 1 edge"))

    def exact(self, function_class: str, question: Question) -> Effects:
        """The effect of each patch, by intervention."""
        graph = self.graph
        receivers = [(receiver,) for receiver in all_receivers(graph.n_layers, graph.n_heads)]
        senders = parse_senders("each", graph.n_layers, graph.n_heads)
        result = path_effects(self.checkpoint, senders, receivers, [function_class], **question._asdict())
        order = pd.MultiIndex.from_frame(pd.DataFrame(self.rows()))
        return read_effects(result.table.set_index(["sender", "receiver"]).loc[order])

    def n_floats(self) -> int:
        """About how many numbers a prompt takes."""
        config, graph = self.checkpoint.config, self.graph
        n_tokens = config.layout.n_tokens(self.n_examples + 1)
        streams = 3 * len(graph.senders) + 6 * graph.n_heads
        return streams * n_tokens * config.model.d_model + n_floats_of_gradients(self.checkpoint, self.n_examples)


Target = Nodes | AllEdges


def n_floats_of_gradients(checkpoint: Checkpoint, n_examples: int) -> int:
    """About how many numbers one prompt leaves in a forward pass with gradients, patterns included."""
    model, n_tokens = checkpoint.config.model, checkpoint.config.layout.n_tokens(n_examples + 1)
    return model.n_layers * n_tokens * (40 * model.d_model + 8 * model.n_heads * n_tokens)


def read_effects(table: pd.DataFrame) -> Effects:
    """The effects of a table of `interp.patching`."""
    value, low, high = (table[column].to_numpy(dtype=float) for column in ("effect", "ci_low", "ci_high"))
    return Effects(value, low, high, np.abs(value))


def flatten_estimates(estimates: Float[Tensor, "... batch layer unit set"]) -> Float[np.ndarray, "... batch node"]:
    """Estimates in the order of a target's rows."""
    return estimates.double().flatten(-3).cpu().numpy()
