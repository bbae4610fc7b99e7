"""The run of a circuit against a forward pass in which every receiver's input is assembled by hand."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from architectures import VARIANTS
from split_model import run, run_circuit

from interp.attribution.circuit_run import predict_circuit, record_corrupt_run
from interp.attribution.circuits import CircuitRuns, circuits
from interp.attribution.graph import Graph, prune
from interp.model.hooked_transformer import hooked
from interp.patching.runner import Question
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import CheckError, UserError
from training.common.output import records
from training.config.config import ModelConfig
from training.config.parse import from_preset
from training.model.transformer import Transformer


def random_model(**choices: Any) -> Transformer:
    choices = {"init_std": 0.3} | choices
    config = ModelConfig(n_layers=3, n_heads=2, d_model=16, n_dims=4, n_ctx=32, **choices)
    model = Transformer(config, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False)


@pytest.fixture(scope="module", params=["default", *VARIANTS])
def model(request):
    return random_model(**VARIANTS.get(request.param, {})).double()


@pytest.fixture
def checkpoint(tmp_path):
    settings = ["model.n_layers=3", "model.n_heads=2", "model.d_model=16"]
    return Checkpoint("random", tmp_path, from_preset("tiny", "mixed", 0, settings), 0, random_model())


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(5, 9, 4, generator=generator, dtype=torch.double) for _ in range(2)]


def predict(model, prompts, edges):
    clean, corrupt = prompts
    return predict_circuit(model, clean, record_corrupt_run(model, corrupt), torch.from_numpy(edges))


@pytest.mark.sample(8)
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_any_circuit_is_the_run_assembled_by_hand(model, prompts, rng, share):
    graph = Graph.of(model.config)
    for _ in range(3):
        edges = graph.allowed & (rng.random(graph.allowed.shape) < share)
        named = {(graph.senders[s], graph.receivers[r]) for r, s in np.argwhere(edges)}
        torch.testing.assert_close(predict(model, prompts, edges), run_circuit(model, prompts[0], prompts[1], named))


def test_all_edges_are_the_clean_run_and_none_the_corrupt_run(model, prompts):
    """By the oracle too, and by HookedTransformer."""
    graph, twin = Graph.of(model.config), hooked(deepcopy(model).float())
    for edges, tokens in ((graph.allowed, prompts[0]), (np.zeros_like(graph.allowed), prompts[1])):
        found = predict(model, prompts, edges)
        torch.testing.assert_close(found, run(model, tokens)[0])
        torch.testing.assert_close(found.float(), twin(tokens.float())[:, -1, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.sample(3)
def test_what_pruning_takes_away_changes_nothing(model, prompts, rng):
    graph = Graph.of(model.config)
    for _ in range(5):
        edges = graph.allowed & (rng.random(graph.allowed.shape) < 0.15)
        kept = prune(graph, edges)
        assert kept.sum() < edges.sum()
        torch.testing.assert_close(predict(model, prompts, kept), predict(model, prompts, edges))


def test_a_circuit_of_whole_components_is_a_mean_of_nothing_else(model, prompts):
    """All edges but those from one head: the model with that head's z from the corrupt run, by plain edits."""
    from interp.model.engine import read_sites

    graph = Graph.of(model.config)
    clean, corrupt = prompts
    edges = graph.allowed.copy()
    edges[:, graph.senders.index("1.1")] = False
    site = "blocks.1.attn.hook_z"
    other = read_sites(model, corrupt, [site])[site]
    wanted = model(clean, {site: lambda z: torch.cat((z[:, :, :1], other[:, :, 1:]), dim=2)})[:, -1]
    torch.testing.assert_close(predict(model, prompts, edges), wanted)


def test_chunks_change_nothing(checkpoint, monkeypatch, rng):
    question = Question("prompt", "noise", 3, 20, 0)
    graph = Graph.of(checkpoint.config.model)
    edges = [graph.allowed & (rng.random(graph.allowed.shape) < 0.5) for _ in range(2)]
    whole = CircuitRuns.of(checkpoint, "linear", question).predict(edges)
    monkeypatch.setattr("interp.attribution.circuits.CHUNK", 3)
    again = CircuitRuns.of(checkpoint, "linear", question).predict(edges)
    np.testing.assert_allclose(again, whole, rtol=0, atol=1e-5)


def test_a_run_that_is_not_the_models_is_noticed(checkpoint, monkeypatch):
    from interp.attribution import circuits as module

    def damaged(model, tokens):
        found = record_corrupt_run(model, tokens)
        return found._replace(resid_post=found.resid_post.roll(1, -1))

    monkeypatch.setattr(module, "record_corrupt_run", damaged)
    runs = CircuitRuns.of(checkpoint, "linear", Question("prompt", "noise", 3, 8, 0))
    with pytest.raises(CheckError, match="the run with all edges is not the clean run"):
        runs.check(Graph.of(checkpoint.config.model))


def test_the_curve_ends_at_the_clean_run_and_random_graphs_do_too(checkpoint):
    n_edges = int(Graph.of(checkpoint.config.model).allowed.sum())
    sizes = [10, n_edges // 2, n_edges, 10 * n_edges]
    found = circuits(checkpoint, ["linear"], sizes=sizes, method="eap", n_prompts=24, n_random=3, examples=4)
    last = records(found.curve)[-1]
    assert last["n_best"] == last["n_edges"] == n_edges
    assert last["faithfulness"] == pytest.approx(1, abs=1e-4)
    assert [last["completeness"], last["distance"]] == pytest.approx([0, 0], abs=1e-4)
    assert last["random_low"] == pytest.approx(1, abs=1e-4)
    assert last["p_value"] == 1
    assert found.edges["rank"].tolist() == list(range(1, n_edges + 1))
    assert (np.diff(np.abs(found.edges["score"].to_numpy(dtype=float))) <= 0).all()


def test_the_smallest_circuit_is_faithful_and_its_edges_are_marked(checkpoint):
    sizes = [20, int(Graph.of(checkpoint.config.model).allowed.sum())]
    found = circuits(
        checkpoint, ["linear"], sizes=sizes, method="eap", n_prompts=24, n_random=0, examples=4, min_faithfulness=0.8
    )
    smallest = found.smallest["linear"]
    assert smallest is not None
    assert abs(1 - smallest["faithfulness"]) <= 0.2
    assert 20 < smallest["n_best"] < sizes[1]
    chosen = found.edges[found.edges["chosen"]]
    assert len(chosen) == smallest["n_edges"]
    assert chosen["rank"].max() <= smallest["n_best"]
    runs = CircuitRuns.of(checkpoint, "linear", found.question)
    edges = np.zeros_like(found.graph.allowed)
    for row in found.chosen("linear"):
        edges[found.graph.receivers.index(row["receiver"]), found.graph.senders.index(row["sender"])] = True
    assert runs.faithfulness(edges).value == pytest.approx(smallest["faithfulness"], abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sizes": [0, 5]}, "sizes 0,5: numbers of edges from 1 upwards"),
        ({"min_faithfulness": 1.5}, "min_faithfulness 1.5: a number above 0 and at most 1"),
        ({"method": "atp"}, "unknown methods 'atp' .valid: exact, eap, eap-ig"),
        ({"corrupt": "nothing"}, "unknown corrupt 'nothing'"),
        ({"direction": "sideways"}, "unknown direction 'sideways'"),
    ],
)
def test_wrong_input_is_refused(checkpoint, wrong, message):
    with pytest.raises(UserError, match=message):
        circuits(checkpoint, ["linear"], n_prompts=8, **wrong)
