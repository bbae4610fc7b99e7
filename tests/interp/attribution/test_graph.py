"""The graph: every edge there is, in the order of the arrays, and pruning that keeps what lies on a path."""

import itertools

import numpy as np
import pytest
import torch

from interp.attribution.circuits import best_edges, best_edges_on_paths, random_graphs
from interp.attribution.graph import Graph, parse_edges, prune
from interp.patching.path_receivers import all_receivers
from training.common.errors import UserError

GRAPH = Graph(n_layers=2, n_heads=3)


def test_the_edges_are_those_of_path_patching():
    ours = {(GRAPH.senders[s], GRAPH.receivers[r]) for r, s in np.argwhere(GRAPH.allowed)}
    theirs = {
        (str(sender), str(receiver))
        for sender, receiver in itertools.product(GRAPH.components, all_receivers(2, 3))
        if receiver.reads(sender)
    }
    assert ours == theirs


def test_places_name_what_they_stand_for():
    for layer in range(2):
        names = GRAPH.receivers[GRAPH.head_receivers(layer)]
        assert names == tuple(f"{layer}.{head}.{channel}" for channel in "qkv" for head in range(3))
        assert GRAPH.receivers[GRAPH.mlp_receiver(layer)] == f"{layer}.mlp"
        assert GRAPH.senders[GRAPH.n_before_heads(layer)] == f"{layer}.0"
        assert GRAPH.senders[GRAPH.n_before_mlp(layer)] == f"{layer}.mlp"
    for receiver, owner in zip(GRAPH.receivers[:-1], GRAPH.owners, strict=False):
        assert receiver.startswith(GRAPH.senders[owner])


def paths(edges):
    """Every edge on a path, by walking all of them."""
    found = set()

    def walk(sender, trail):
        for receiver in np.flatnonzero(edges[:, sender]):
            step = [*trail, (receiver, sender)]
            if receiver == len(GRAPH.receivers) - 1:
                found.update(step)
            else:
                walk(GRAPH.owners[receiver], step)

    walk(0, [])
    return found


def test_pruning_keeps_exactly_the_edges_on_paths(rng):
    for share in (0.05, 0.1, 0.2, 0.4):
        for _ in range(10):
            edges = GRAPH.allowed & (rng.random(GRAPH.allowed.shape) < share)
            assert {tuple(edge) for edge in np.argwhere(prune(GRAPH, edges))} == paths(edges)


def test_random_graphs_have_as_many_edges_on_paths_and_no_more_than_they_need(rng):
    for n in (1, 7, 30):
        for edges in random_graphs(GRAPH, n, 5, rng):
            assert (prune(GRAPH, edges) == edges).all()
            assert edges.sum() >= n
    order = rng.permutation(np.argwhere(GRAPH.allowed))
    grown = best_edges_on_paths(GRAPH, order, 10)
    needed = next(m for m in range(len(order) + 1) if best_edges(GRAPH, order, m).sum() >= 10)
    assert (grown == best_edges(GRAPH, order, needed)).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0.9->out", "no edge '0.9->out'"),
        ("1.0->0.mlp", "0.mlp comes before 1.0"),
        ("embed", "valid: SENDER->RECEIVER"),
    ],
)
def test_an_edge_that_is_none_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        parse_edges(GRAPH, [name])


def test_the_read_in_of_the_graph_is_the_oracles(random_checkpoint):
    """The names in the oracle (tests/truth/split_model.py) are the graph's."""
    from split_model import run

    model = random_checkpoint.model
    assert tuple(run(model, torch.zeros(1, 4, 4))[1]) == Graph.of(model.config).senders
