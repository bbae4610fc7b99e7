"""The engine against HookedTransformer, which is the oracle: forward, every site, every head under every value."""

import pytest
import torch

from interp.engine import predict_with, read_sites, trace
from interp.heads import Head, all_heads
from interp.hooked import hooked
from interp.interventions import MODES, Reference
from training.checkpoint import load
from training.config import ModelConfig
from training.transformer import Transformer, site_names

SHAPES = [(1, 1, 8, 3, 3), (2, 4, 32, 5, 8), (4, 2, 16, 1, 12), (3, 8, 64, 4, 16)]
"""(n_layers, n_heads, d_model, n_dims, n_points)."""


def random_model(shape) -> tuple[Transformer, int]:
    n_layers, n_heads, d_model, n_dims, n_points = shape
    config = ModelConfig(n_layers, n_heads, d_model, n_dims, n_ctx=2 * n_points, init_std=0.3)
    model = Transformer(config, torch.Generator().manual_seed(sum(shape)))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # biases and gains too, so that none of them can go wrong unseen
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False), n_points


@pytest.fixture(params=[*SHAPES, "zoo:mixed-0"], ids=str, scope="module")
def subject(request):
    """(model, its HookedTransformer, test prompts, reference prompts) for random and for trained weights."""
    if isinstance(request.param, str):
        model, n_points = load(request.param).model, 16
    else:
        model, n_points = random_model(request.param)
    generator = torch.Generator().manual_seed(2)
    test, other = (torch.randn(9, 2 * n_points, model.config.n_dims, generator=generator) for _ in range(2))
    return model, hooked(model), test, other


def assert_same(ours, theirs):
    """Equal within 1e-5 of the tensor's scale."""
    assert ours.shape == theirs.shape
    finite = theirs.isfinite()
    assert torch.equal(finite, ours.isfinite())
    scale = theirs[finite].abs().max()
    assert (ours - theirs)[finite].abs().max() <= 1e-5 * scale


def test_forward_equals_hooked_transformer(subject):
    model, twin, test, _ = subject
    assert_same(model(test), twin(test)[..., 0])


def test_every_site_equals_hooked_transformer(subject):
    model, twin, test, _ = subject
    twin.set_use_attn_result(True)
    _, cache = twin.run_with_cache(test)
    twin.set_use_attn_result(False)
    sites = site_names(model.config.n_layers)
    assert set(sites) <= set(cache), "a site is called otherwise than in transformer_lens"
    ours = read_sites(model, test, sites)
    for site in sites:
        assert_same(ours[site], cache[site])


def shrink(activation, hook):  # noqa: ARG001  # transformer_lens calls it by this name
    return activation * 0.7


def test_an_edit_at_any_site_equals_the_same_hook(subject):
    model, twin, test, _ = subject
    twin.set_use_attn_result(True)
    for site in site_names(model.config.n_layers):
        ours = model(test, {site: lambda activation: activation * 0.7})
        theirs = twin.run_with_hooks(test, fwd_hooks=[(site, shrink)])[..., 0]
        assert_same(ours, theirs)
    twin.set_use_attn_result(False)


def reference_of(model, tokens):
    """z on the reference prompts from the general path; the engine's traces must agree with it."""
    sites = read_sites(model, tokens, [f"blocks.{layer}.attn.hook_z" for layer in range(model.config.n_layers)])
    return list(sites.values())


@pytest.mark.parametrize("mode", list(MODES))
def test_ablating_any_head_equals_the_hook_that_does_it(subject, mode):
    model, twin, test, other = subject
    run, references = trace(model, test), [Reference(z, z.mean(0, keepdim=True)) for z in trace(model, other).z]
    replacements = [MODES[mode].replacement(reference) for reference in references]
    written = {
        "zero": torch.zeros_like,
        "mean": lambda z: z.mean(0, keepdim=True).expand_as(z),
        "resample": lambda z: z,
    }
    full = [written[mode](z) for z in reference_of(model, other)]
    for head in all_heads(model.config.n_layers, model.config.n_heads):

        def hook(z, hook, head=head):  # noqa: ARG001
            z[:, :, head.number] = full[head.layer][:, :, head.number]
            return z

        theirs = twin.run_with_hooks(test, fwd_hooks=[(f"blocks.{head.layer}.attn.hook_z", hook)])
        assert_same(predict_with(model, run, (head,), replacements), theirs[:, ::2, 0])


def test_ablating_a_set_across_layers_equals_its_hooks(subject):
    model, twin, test, _ = subject
    heads = tuple(Head(layer, 0) for layer in range(model.config.n_layers))
    zeros = [torch.zeros(1, 1, model.config.n_heads, model.config.d_head)] * model.config.n_layers

    def hook(z, hook):  # noqa: ARG001
        z[:, :, 0] = 0
        return z

    hooks = [(f"blocks.{layer}.attn.hook_z", hook) for layer in range(model.config.n_layers)]
    assert_same(
        predict_with(model, trace(model, test), heads, zeros), twin.run_with_hooks(test, fwd_hooks=hooks)[:, ::2, 0]
    )


def test_sharing_a_prefix_changes_nothing(subject):
    """Started at the last layer, at the first, and not started from anywhere: the same predictions to 1e-6."""
    model, _, test, _ = subject
    run = trace(model, test)
    intact = model.predict(test)
    for first in range(model.config.n_layers):
        ours = predict_with(model, run, (Head(first, 0),), run.z)
        assert (ours - intact).abs().max() <= 1e-6 * intact.abs().max()


def test_engine_works_in_float64(generator):
    model = random_model(SHAPES[1])[0].double()
    test = torch.randn(4, 16, 5, generator=generator, dtype=torch.float64)
    run = trace(model, test)
    torch.testing.assert_close(predict_with(model, run, (), []), model(test)[:, ::2], rtol=1e-12, atol=1e-12)
