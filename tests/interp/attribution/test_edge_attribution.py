"""EAP against autograd through split inputs, and against exact path patching as the difference of the runs shrinks."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from architectures import VARIANTS
from split_model import patch_edge, run

from interp.attribution.attribute import attribute_edges, find_effects
from interp.attribution.edges import estimate_edges, gradient_sites, receiver_products, sender_outputs
from interp.attribution.gradients import run_with_gradients
from interp.attribution.graph import Graph
from interp.attribution.nodes import RunTokens, estimate_nodes
from interp.attribution.targets import AllEdges
from interp.patching.runner import Question
from training.checkpoints.checkpoint import Checkpoint, load
from training.config.config import ModelConfig
from training.config.parse import from_preset
from training.model.transformer import Transformer


def random_model(n_layers=2, n_heads=2, d_model=16, **choices: Any) -> Transformer:
    choices = {"init_std": 0.3} | choices
    config = ModelConfig(n_layers, n_heads, d_model, n_dims=3, n_ctx=12, **choices)
    model = Transformer(config, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # biases and gains too, so that none of them can go wrong unseen
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return random_model().double()


@pytest.fixture(scope="module", params=["default", *VARIANTS])
def any_model(request):
    return random_model(**VARIANTS.get(request.param, {})).double()


@pytest.fixture(scope="module")
def ends():
    generator = torch.Generator().manual_seed(2)
    return RunTokens(*(torch.randn(4, 9, 3, generator=generator, dtype=torch.double) for _ in range(2)))


def gradients_at_split_inputs(model, tokens):
    """By receiver, d prediction / d its own input, by autograd."""
    leaves = {}

    def look(receiver, stream, _):
        leaves[receiver] = torch.zeros_like(stream, requires_grad=True)
        return stream + leaves[receiver]

    prediction, _ = run(model, tokens, look)
    found = torch.autograd.grad(prediction.sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def test_what_senders_write_adds_up_to_the_residual_stream(any_model, ends):
    ours = sender_outputs(any_model, ends.base)
    theirs = run(any_model, ends.base)[1]
    for row, name in zip(ours, Graph.of(any_model.config).senders, strict=True):
        torch.testing.assert_close(row, theirs[name])


def test_receivers_gradients_are_those_of_split_inputs(any_model, ends):
    """An arbitrary change of one sender is multiplied with every receiver's gradient: all of them are read off."""
    graph = Graph.of(any_model.config)
    wanted = gradients_at_split_inputs(any_model, ends.base)
    found = run_with_gradients(any_model, ends.base, gradient_sites(any_model))
    change = torch.randn(len(graph.senders), *ends.base.shape[:2], any_model.config.d_model, dtype=torch.double)
    change *= torch.from_numpy(graph.allowed.any(0))[:, None, None, None]  # an MLP that is not there writes nothing
    products = receiver_products(any_model, found, change)
    for row, receiver in enumerate(graph.receivers):
        gradient = wanted.get(receiver, torch.zeros_like(change[0]))
        expected = (gradient * change).sum((2, 3)) * torch.from_numpy(graph.allowed[row])[:, None]
        torch.testing.assert_close(products[:, row].T, expected, rtol=1e-8, atol=1e-12)


def test_in_float32_they_are_within_1e_4_of_float64(model, ends):
    twin = copy.deepcopy(model).float()
    exact = estimate_edges(model, ends, "eap", 1)
    rounded = estimate_edges(twin, RunTokens(*(tokens.float() for tokens in ends)), "eap", 1)
    assert (rounded - exact).abs().max() < 1e-4 * exact.abs().max()


def test_eap_misses_exact_path_patching_by_the_second_order(model, ends):
    """Halve the difference of the runs, and the error falls to a quarter."""
    graph = Graph.of(model.config)
    edges = [tuple(edge) for edge in np.argwhere(graph.allowed)]
    errors = []
    for step in (0.002, 0.001):
        near = RunTokens(ends.base, ends.base + step * (ends.source - ends.base))
        base, _ = run(model, near.base)
        exact = torch.stack([patch_edge(model, *near, graph.senders[s], graph.receivers[r]) - base for r, s in edges])
        moves = estimate_edges(model, near, "eap", 1)
        estimate = torch.stack([moves[:, r, s] for r, s in edges])
        assert (estimate - exact).abs().max() < 0.01 * exact.abs().max()
        errors.append((estimate - exact).norm(dim=1))
    felt = errors[0] > 1e-3 * errors[0].max()
    ratio = (errors[0] / errors[1])[felt]
    assert felt.sum() > len(edges) // 2
    assert ((ratio > 3.7) & (ratio < 4.3)).all(), ratio


@pytest.mark.slow
def test_integrated_gradients_of_the_read_ins_edges_add_up_to_the_whole_difference(model, ends):
    """Completeness, in two ways: every edge from the read-in carries its share, and midpoints converge as 1 / m²."""
    whole = run(model, ends.source)[0] - run(model, ends.base)[0]
    estimates = [estimate_edges(model, ends, "eap-ig", n_steps)[:, :, 0].sum(1) for n_steps in (20, 40)]
    missing = [(estimate - whole).abs().max() for estimate in estimates]
    assert missing[1] < 5e-3 * whole.abs().max()
    assert 3 < missing[0] / missing[1] < 5
    plain = (estimate_edges(model, ends, "eap", 1)[:, :, 0].sum(1) - whole).abs().max()
    assert plain > 10 * missing[1]


@pytest.mark.slow
def test_the_default_number_of_steps_is_close_to_the_integral():
    """Of effects up to 0.44, 30 steps are within 0.003 of twice as many; 5 steps are not."""
    checkpoint = load("zoo:mixed-0")
    common: dict[str, Any] = {"methods": ["eap-ig"], "n_prompts": 8, "n_validate": 0}
    more: tuple[dict[str, Any], ...] = ({}, {"n_steps": 60}, {"n_steps": 5})
    given, fine, coarse = (
        attribute_edges(checkpoint, "linear", **common, **steps).table["effect"].to_numpy() for steps in more
    )
    assert np.abs(given - fine).max() < 0.003 < np.abs(coarse - fine).max()


@pytest.mark.sample(5)
@pytest.mark.parametrize(("edge_method", "node_method"), [("eap", "gradient"), ("eap-ig", "ig")])
def test_a_heads_edges_add_up_to_its_node(any_model, ends, edge_method, node_method):
    graph, everything = Graph.of(any_model.config), torch.ones(1, ends.base.shape[1], dtype=torch.bool)
    edges = estimate_edges(any_model, ends, edge_method, 3).sum(1)
    heads = estimate_nodes(any_model, ends, "z", everything, node_method, 3).signed
    mlps = estimate_nodes(any_model, ends, "mlp_out", everything, node_method, 3).signed
    for layer in range(any_model.config.n_layers):
        first = graph.n_before_heads(layer)
        torch.testing.assert_close(edges[:, first : first + any_model.config.n_heads], heads[:, layer, :, 0])
        torch.testing.assert_close(edges[:, graph.n_before_mlp(layer)], mlps[:, layer, 0, 0])


@pytest.mark.slow
def test_path_patching_of_the_package_is_the_oracles(model, tmp_path, monkeypatch):
    """The exact effects that validations and circuits use, in the order of the estimates."""
    monkeypatch.setattr("interp.patching.self_checks.PLAIN", 1)  # of its self-checks, which have tests of their own
    settings = ["model.n_layers=2", "model.n_heads=2", "model.d_model=16", "model.n_dims=3"]
    checkpoint = Checkpoint("random", tmp_path, from_preset("tiny", "mixed", 0, settings), 0, random_model())
    question, target = Question("prompt", "denoise", 2, 4, 0), AllEdges(checkpoint, 2, 1)
    found = find_effects("linear", target, "exact", question)
    base, source = (
        checkpoint.model.needed(side.tokens) for side in question.sides(question.pairs(checkpoint, "linear"))
    )
    intact = run(model, base.double())[0]
    gap = run(model, source.double())[0] - intact
    for value, row in zip(found.value, target.rows(), strict=True):
        moved = patch_edge(model, base.double(), source.double(), **row) - intact
        assert value == pytest.approx(((moved * gap).mean() / gap.square().mean()).item(), abs=1e-5), row
