"""Attribution patching against HookedTransformer's gradients, exact patching and the exact softmax."""

import numpy as np
import pytest
import torch

from interp.attribution.nodes import (
    RunTokens,
    estimate_nodes,
    estimate_on_input_path,
    estimate_with_qk_fix,
    layer_outputs,
    n_drops,
)
from interp.model.engine import read_sites
from interp.model.hooked_transformer import hooked
from interp.patching.sites import SITES, hook_of
from training.config.config import ModelConfig
from training.model.transformer import Transformer

N_TOKENS = 9


def random_model(init_std=0.3, n_layers=2) -> Transformer:
    config = ModelConfig(n_layers, n_heads=2, d_model=16, n_dims=3, n_ctx=12, init_std=init_std)
    model = Transformer(config, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def ends():
    generator = torch.Generator().manual_seed(2)
    return RunTokens(*(torch.randn(5, N_TOKENS, 3, generator=generator) for _ in range(2)))


EACH = torch.eye(N_TOKENS, dtype=torch.bool)
ALL = torch.ones(1, N_TOKENS, dtype=torch.bool)
SEVERAL = torch.tensor([[i % 2 == 0 for i in range(N_TOKENS)], [i > 5 for i in range(N_TOKENS)]])


def hooked_gradients(model, tokens, sites, dropped=()):
    """By site, HookedTransformer's activation and gradient; gradients at `dropped` are set to 0 on their way back."""
    twin, seen = hooked(model), {}

    def keep(activation, hook):
        if not activation.requires_grad:
            activation.requires_grad_()
        activation.retain_grad()
        seen[hook.name] = activation

    def drop(activation, hook):  # noqa: ARG001  # transformer_lens calls it by this name
        activation.register_hook(torch.zeros_like)

    with torch.enable_grad():
        hooks = [("hook_embed", keep), *((site, keep) for site in sites), *((site, drop) for site in dropped)]
        twin.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1, 0].sum().backward()
    return {site: (seen[site].detach(), seen[site].grad) for site in sites}


def patched(model, tokens, hook, value):
    return model(tokens, {hook: lambda _: value})[:, -1]


def pattern_under(model, tokens, hook, value, pattern):
    """The attention pattern where another activation is patched in."""
    seen = []

    def keep(activation):
        seen.append(activation)
        return activation

    model(tokens, {hook: lambda _: value, pattern: keep})
    return seen[0]


@pytest.mark.parametrize("site", list(SITES))
def test_the_gradient_method_is_hooked_transformers_gradient(model, ends, site):
    hooks = [hook_of(site, layer) for layer in range(2)]
    theirs = hooked_gradients(model, ends.base, hooks)
    source = read_sites(model, ends.source, hooks)
    ours = estimate_nodes(model, ends, site, EACH, "gradient", 1).signed
    for layer, hook in enumerate(hooks):
        product = (source[hook] - theirs[hook][0]) * theirs[hook][1]
        if site == "pattern":
            wanted = product.sum(-1)
        else:
            wanted = product.sum(-1).mT if SITES[site].by_head else product.sum(-1)[:, None]
        assert (ours[:, layer] - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_a_node_of_several_tokens_is_the_sum_of_theirs(model, ends):
    each = estimate_nodes(model, ends, "z", EACH, "ig", 3).signed
    several = estimate_nodes(model, ends, "z", SEVERAL, "ig", 3).signed
    torch.testing.assert_close(several, each @ SEVERAL.double().T)


@pytest.mark.sample(1)
@pytest.mark.parametrize("site", ["resid_pre", "z", "mlp_out", "k", "pattern"])
def test_on_its_own_path_a_layers_site_gets_its_exact_effect(model, ends, site):
    """The attributions of all nodes of a layer add up to what patching the whole site does."""
    ours = estimate_nodes(model, ends, site, ALL, "ig-activations", 60).signed.sum((2, 3))
    base = model(ends.base)[:, -1]
    for layer in range(2):
        hook = hook_of(site, layer)
        exact = patched(model, ends.base, hook, read_sites(model, ends.source, [hook])[hook]) - base
        assert (ours[:, layer] - exact).abs().max() < 2e-3 * exact.abs().max()


def test_on_the_read_ins_path_the_first_stream_gets_the_whole_difference(model, ends):
    ours = estimate_nodes(model, ends, "resid_pre", ALL, "ig", 60).signed[:, 0, 0, 0]
    whole = model(ends.source)[:, -1] - model(ends.base)[:, -1]
    assert (ours - whole).abs().max() < 1e-3 * whole.abs().max()


@pytest.mark.parametrize("sets", [EACH, ALL, SEVERAL], ids=["each", "all", "several"])
@pytest.mark.parametrize("site", ["q", "k"])
def test_the_qk_fix_is_the_exact_change_of_the_pattern_times_its_gradient(model, ends, site, sets):
    """Every node patched for real, the pattern read, and HookedTransformer's gradient at the pattern."""
    ours = estimate_nodes(model, ends, site, sets, "atp", 1).signed
    for layer in range(2):
        hook, pattern = hook_of(site, layer), hook_of("pattern", layer)
        before, gradient = hooked_gradients(model, ends.base, [pattern])[pattern]
        base, source = (read_sites(model, tokens, [hook])[hook] for tokens in ends)
        for place, tokens in enumerate(sets):
            mixed = torch.where(tokens[:, None, None], source, base)
            after = pattern_under(model, ends.base, hook, mixed, pattern)
            wanted = ((after - before) * gradient).sum((2, 3))
            assert (ours[:, layer, :, place] - wanted).abs().max() < 1e-4 * gradient.abs().max()


def test_the_qk_fix_mends_what_saturation_hides(ends):
    """Sharp attention, and heads that write so little that nothing but the softmax is far from linear."""
    model = random_model()
    for block in model.layers:
        block.attn.W_Q.mul_(12)
        block.attn.W_O.mul_(0.01)
    model, ends = model.double(), RunTokens(*(tokens.double() for tokens in ends))
    base = model(ends.base)[:, -1]
    for site in ("q", "k"):
        misses = {}
        for method in ("gradient", "atp"):
            found = estimate_nodes(model, ends, site, ALL, method, 1).signed[:, -1, :, 0]
            hook = hook_of(site, 1)
            own, source = (read_sites(model, tokens, [hook])[hook] for tokens in ends)
            exact = torch.stack(
                [
                    patched(model, ends.base, hook, torch.where(torch.arange(2)[:, None] == head, source, own)) - base
                    for head in range(2)
                ],
                dim=1,
            )
            misses[method] = (found - exact).abs().mean() / exact.abs().mean()
        assert misses["gradient"] > 0.5, site
        assert misses["atp"] < 0.02, site


def test_very_sharp_attention_stays_finite(ends):
    model = random_model()
    for block in model.layers:
        block.attn.W_Q.mul_(1000)
    for site in ("q", "k"):
        found = estimate_nodes(model, ends, site, EACH, "atp", 1)
        assert found.dropped is not None
        assert found.signed.isfinite().all()
        assert found.dropped.isfinite().all()


@pytest.mark.parametrize("site", ["z", "resid_pre", "resid_mid", "mlp_out"])
def test_graddrop_is_the_gradient_with_a_layer_cut_off(model, ends, site):
    """HookedTransformer, with the gradients at what one layer's heads and MLP write set to 0 on their way back."""
    hooks = [hook_of(site, layer) for layer in range(2)]
    source = read_sites(model, ends.source, hooks)
    for dropped in range(2):
        ours = estimate_on_input_path(model, ends, site, ALL, [0.0], layer_outputs(dropped))
        cut = [f"blocks.{dropped}.hook_attn_out", f"blocks.{dropped}.hook_mlp_out"]
        theirs = hooked_gradients(model, ends.base, [one for one in hooks if one not in cut], cut)
        for layer, hook in enumerate(hooks):
            if hook in cut:  # the node itself is cut off
                assert not ours[:, layer].any()
                continue
            gradient = theirs[hook][1]
            gradient = torch.zeros_like(source[hook]) if gradient is None else gradient
            product = (source[hook] - theirs[hook][0]) * gradient
            wanted = product.sum((1, -1)) if SITES[site].by_head else product.sum((1, 2))[:, None]
            assert (ours[:, layer, :, 0] - wanted).abs().max() <= 1e-4 * ours.abs().max()


def test_atp_averages_over_the_drops_that_leave_a_path(model, ends):
    found = estimate_nodes(model, ends, "z", ALL, "atp", 1)
    assert found.dropped is not None
    each = [estimate_on_input_path(model, ends, "z", ALL, [0.0], layer_outputs(layer)) for layer in range(2)]
    torch.testing.assert_close(found.dropped * n_drops("z", 2), torch.stack(each))
    assert (n_drops("z", 2), n_drops("resid_mid", 2), n_drops("z", 1)) == (1, 2, 1)


def test_a_source_equal_to_the_base_moves_nothing(model, ends):
    same = RunTokens(ends.base, ends.base)
    for method in ("gradient", "ig", "ig-activations", "atp"):
        assert not estimate_nodes(model, same, "z", ALL, method, 2).signed.any()
    for site in ("q", "k"):
        assert estimate_with_qk_fix(model, same, site, ALL).abs().max() < 1e-6


def test_first_order_means_an_error_of_the_second_order(ends):
    """Halve the difference of the runs, and the error of the gradient falls to a quarter."""
    model = random_model().double()
    base, source = (tokens.double() for tokens in ends)
    intact, errors = model(base)[:, -1], []
    for step in (0.002, 0.001):
        near = RunTokens(base, base + step * (source - base))
        ours = estimate_nodes(model, near, "resid_mid", EACH, "gradient", 1).signed
        for layer in range(2):
            hook = hook_of("resid_mid", layer)
            own, other = (read_sites(model, tokens, [hook])[hook] for tokens in near)
            exact = [patched(model, base, hook, torch.where(one[:, None], other, own)) - intact for one in EACH]
            errors.append((torch.stack(exact, dim=1) - ours[:, layer, 0]).norm(dim=0).numpy())
    coarse, fine = np.stack(errors[:2]), np.stack(errors[2:])
    felt = coarse > 1e-3 * coarse.max()
    assert felt.sum() >= 4
    assert ((coarse[felt] / fine[felt] > 3.7) & (coarse[felt] / fine[felt] < 4.3)).all()
