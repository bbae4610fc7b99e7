"""The engine against HookedTransformer, which is the oracle: forward, every site, every head under every value."""

from typing import Any

import pytest
import torch
from architectures import VARIANTS

from interp.ablation.reference_activations import activations
from interp.model.engine import (
    EVERY,
    Site,
    Substitutes,
    check_site,
    direct_without,
    pad_head_numbers,
    predict_without,
    predictions_of,
    read_sites,
    removal,
    trace,
)
from interp.model.heads import MLP, Head, all_heads
from interp.model.hooked_transformer import hooked
from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.config.config import ModelConfig
from training.model.sites import site_names
from training.model.transformer import Transformer

SHAPES = [(1, 1, 8, 3, 3), (2, 4, 32, 5, 8), (4, 2, 16, 1, 12), (3, 8, 64, 4, 16)]
"""(n_layers, n_heads, d_model, n_dims, n_points)."""


def random_model(shape, **choices: Any) -> tuple[Transformer, int]:
    n_layers, n_heads, d_model, n_dims, n_points = shape
    choices = {"init_std": 0.3} | choices
    config = ModelConfig(n_layers, n_heads, d_model, n_dims, n_ctx=2 * n_points, **choices)
    model = Transformer(config, torch.Generator().manual_seed(sum(shape)))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # biases and gains too, so that none of them can go wrong unseen
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False), n_points


@pytest.fixture(params=[*SHAPES, *VARIANTS, "zoo:mixed-0"], ids=str, scope="module")
def subject(request):
    """(model, its HookedTransformer, test prompts, reference prompts) for random and for trained weights."""
    if request.param in VARIANTS:
        model, n_points = random_model((3, 4, 32, 5, 8), **VARIANTS[request.param])
    elif isinstance(request.param, str):
        model, n_points = load(request.param).model, 16
    else:
        model, n_points = random_model(request.param)
    generator = torch.Generator().manual_seed(2)
    test, other = (torch.randn(9, 2 * n_points, model.config.n_dims, generator=generator) for _ in range(2))
    return model, hooked(model), test, other


BETWEEN_SHAPES = 1e-6
"""What one computation in different shapes may differ by, relative to its scale."""


def assert_same(ours, theirs, tolerance=1e-5):
    """Equal within a tolerance, relative to the tensor's scale."""
    assert ours.shape == theirs.shape
    finite = theirs.isfinite()
    assert torch.equal(finite, ours.isfinite())
    scale = theirs[finite].abs().max()
    assert (ours - theirs)[finite].abs().max() <= tolerance * scale


def test_forward_equals_hooked_transformer(subject):
    model, twin, test, _ = subject
    assert_same(model(test), twin(test)[..., 0])


def sites_of_both(model) -> list[str]:
    """The sites that the twin has, too: without MLPs there is no mlp_out in TransformerLens, and no resid_mid; without
    norms it has no sites of theirs."""
    absent = ("hook_mlp_out", "hook_resid_mid") if model.config.mlp_width == 0 else ()
    absent += ("hook_normalized",) if model.config.norm == "none" else ()
    return [site for site in site_names(model.config) if not site.endswith(absent)]


def test_every_site_equals_hooked_transformer(subject):
    model, twin, test, _ = subject
    twin.set_use_attn_result(True)
    _, cache = twin.run_with_cache(test)
    twin.set_use_attn_result(False)
    sites = sites_of_both(model)
    assert set(sites) <= set(cache), "a site is called otherwise than in transformer_lens"
    ours = read_sites(model, test, sites)
    for site in sites:
        assert_same(ours[site], cache[site])


def shrink(activation, hook):  # noqa: ARG001  # transformer_lens calls it by this name
    return activation * 0.7


@pytest.mark.sample(3)
def test_an_edit_at_any_site_equals_the_same_hook(subject):
    model, twin, test, _ = subject
    twin.set_use_attn_result(True)
    for site in sites_of_both(model):
        ours = model(test, {site: lambda activation: activation * 0.7})
        theirs = twin.run_with_hooks(test, fwd_hooks=[(site, shrink)])[..., 0]
        assert_same(ours, theirs)
    twin.set_use_attn_result(False)


def given_by(model, tokens, site: Site = "z"):
    """Other prompts' activations in place of the heads' and the MLPs', for every variant."""
    found = activations(model, tokens, site)
    n_layers = model.config.n_layers
    return Substitutes([one[None] for one in found[:n_layers]], [one[None] for one in found[n_layers:]])


def set_head(other, number):
    """A hook that puts another run's activation in place of one head's."""

    def hook(activation, hook):  # noqa: ARG001  # transformer_lens calls it by this name
        activation[:, :, number] = other[:, :, number]
        return activation

    return hook


def set_all(other):
    def hook(activation, hook):  # noqa: ARG001
        return other

    return hook


def set_uniform(number):
    def hook(pattern, hook):  # noqa: ARG001
        n_pos = pattern.shape[-1]
        pattern[:, number] = torch.ones(n_pos, n_pos).tril() / torch.arange(1, n_pos + 1)[:, None]
        return pattern

    return hook


HOOKS = {"z": "attn.hook_z", "pattern": "attn.hook_pattern", "value": "attn.hook_v"}


def hooks_for(components, given, site):
    hooks = []
    for layer, number in components:
        if number == MLP:
            hooks.append((f"blocks.{layer}.hook_mlp_out", set_all(given.mlps[layer][0])))
        elif site == "pattern":
            hooks.append((f"blocks.{layer}.{HOOKS[site]}", set_uniform(number)))
        else:
            hooks.append((f"blocks.{layer}.{HOOKS[site]}", set_head(given.heads[layer][0], number)))
    return hooks


def sets_of(model):
    """Every head and MLP alone, a set across layers, one with several heads in a layer, one with an MLP, none, all."""
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    heads = all_heads(n_layers, n_heads)
    alone = [(head,) for head in heads] + [(Head(layer, MLP),) for layer in range(n_layers)]
    across = tuple(Head(layer, 0) for layer in range(n_layers))
    mixed = (Head(0, MLP), Head(n_layers - 1, n_heads - 1))
    return [*alone, across, mixed, heads[: max(1, n_heads // 2)], (), heads]


@pytest.mark.sample(5)
@pytest.mark.parametrize("site", list(HOOKS))
def test_removing_any_set_equals_the_hooks_that_do_it(subject, site):
    """All sets in one stacked pass, and each in a pass of its own, against HookedTransformer run once for each."""
    model, twin, test, other = subject
    n_needed = model.layout.n_needed(test.shape[1])
    run, given, sets = trace(model, test), given_by(model, other, site), sets_of(model)
    stacked = predict_without(model, run, removal(model, sets, site), given)
    for variant, components in enumerate(sets):
        hooks = hooks_for(components, given, site)
        theirs = twin.run_with_hooks(test[:, :n_needed], fwd_hooks=hooks)[:, ::2, 0]
        assert_same(stacked[variant], theirs)
        assert_same(predict_without(model, run, removal(model, [components], site), given)[0], theirs)


def only_at(tokens, full, axis):
    """The hook, at some of the tokens."""

    def hook(activation, hook):
        where = tokens.view(-1, *[1] * (activation.ndim - axis - 1))
        return torch.where(where, full(activation.clone(), hook=hook), activation)

    return hook


@pytest.mark.sample(12)
@pytest.mark.parametrize("site", list(HOOKS))
def test_removal_at_some_tokens_equals_the_hook_at_those_tokens(subject, site):
    """At the site `pattern` these are the queries, at `value` the keys."""
    model, twin, test, other = subject
    n_needed, n_layers = model.layout.n_needed(test.shape[1]), model.config.n_layers
    run, given = trace(model, test), given_by(model, other, site)
    tokens = torch.arange(n_needed) % 3 == 1
    each = [Head(layer, number) for layer in range(n_layers) for number in (0, MLP)]
    for components in [*((one,) for one in each), each]:
        hooks = [
            (name, only_at(tokens, full, axis=2 if name.endswith("hook_pattern") else 1))
            for name, full in hooks_for(components, given, site)
        ]
        theirs = twin.run_with_hooks(test[:, :n_needed], fwd_hooks=hooks)[:, ::2, 0]
        ours = predict_without(model, run, removal(model, [tuple(components)], site, tokens), given)[0]
        assert_same(ours, theirs)


@pytest.mark.sample(8)
@pytest.mark.parametrize("site", ["z", "value"])
def test_a_substitute_of_one_token_stands_for_all(subject, site):
    model, _, test, other = subject
    run, given, removed = trace(model, test), given_by(model, other, site), removal(model, sets_of(model), site)
    single = Substitutes(*([one[:, :, :1] for one in kind] for kind in given))
    spread = Substitutes(*([one[:, :, :1].expand_as(one) for one in kind] for kind in given))
    for predict in (predict_without, direct_without):
        for points in (EVERY, slice(1, 3)):
            from_single, from_spread = (predict(model, run, removed, each, points=points) for each in (single, spread))
            assert_same(from_single, from_spread, BETWEEN_SHAPES)


@pytest.mark.sample(4)
def test_frozen_layer_norms_equal_the_hooks_that_freeze_them(subject):
    model, twin, test, other = subject
    n_needed = model.layout.n_needed(test.shape[1])
    run, given, sets = trace(model, test), given_by(model, other), sets_of(model)
    _, cache = twin.run_with_cache(test[:, :n_needed])
    ours = predict_without(model, run, removal(model, sets), given, freeze_ln=True)
    for variant, components in enumerate(sets):
        frozen = [(site, set_all(cache[site])) for site in sites_of_both(model) if "hook_scale" in site]
        hooks = [*frozen, *hooks_for(components, given, "z")]
        assert_same(ours[variant], twin.run_with_hooks(test[:, :n_needed], fwd_hooks=hooks)[:, ::2, 0])


@pytest.mark.sample(5)
@pytest.mark.parametrize("site", list(HOOKS))
def test_the_direct_effect_is_the_change_of_the_final_residual_stream(subject, site):
    """HookedTransformer: freeze what every component writes, but for the removed ones."""
    model, twin, test, other = subject
    tokens = test[:, : model.layout.n_needed(test.shape[1])]
    given, sets = given_by(model, other, site), sets_of(model)
    _, cache = twin.run_with_cache(tokens)
    ours = direct_without(model, trace(model, test), removal(model, sets, site), given)
    for variant, components in enumerate(sets):
        hooks = []
        for layer in range(model.config.n_layers):
            name, mlp = f"blocks.{layer}.attn.hook_z", Head(layer, MLP)
            heads = [one for one in components if one.layer == layer and one != mlp]
            hooks.append((name, set_all(z_without(twin, tokens, name, hooks_for(heads, given, site), cache))))
            if model.config.mlp_width:
                written = given.mlps[layer][0] if mlp in components else cache[f"blocks.{layer}.hook_mlp_out"]
                hooks.append((f"blocks.{layer}.hook_mlp_out", set_all(written)))
        assert_same(ours[variant], twin.run_with_hooks(tokens, fwd_hooks=hooks)[:, ::2, 0])


def z_without(twin, tokens, name, hooks, cache):
    """A layer's z when its own heads are removed and nothing before it changes."""
    if not hooks:
        return cache[name]
    with twin.hooks(fwd_hooks=hooks):
        return twin.run_with_cache(tokens, names_filter=name)[1][name]


@pytest.mark.sample(5)
@pytest.mark.parametrize("site", list(HOOKS))
def test_measuring_few_points_changes_none_of_them(subject, site):
    model, _, test, other = subject
    run, given = trace(model, test), given_by(model, other, site)
    removed, n_points = removal(model, sets_of(model), site), test.shape[1] // 2
    points = slice(n_points // 2, n_points)
    for freeze_ln in (False, True):
        whole = predict_without(model, run, removed, given, freeze_ln=freeze_ln)[:, :, points]
        part = predict_without(model, run, removed, given, points=points, freeze_ln=freeze_ln)
        assert_same(part, whole, BETWEEN_SHAPES)
    whole = direct_without(model, run, removed, given)[:, :, points]
    assert_same(direct_without(model, run, removed, given, points=points), whole, BETWEEN_SHAPES)


def test_sharing_a_prefix_changes_nothing(subject):
    """Started at the last layer, at the first, and not started from anywhere: the same predictions to 1e-6."""
    model, _, test, _ = subject
    run, itself = trace(model, test), given_by(model, test)
    intact = model.predict(test)
    for first in range(model.config.n_layers):
        ours = predict_without(model, run, removal(model, [(Head(first, 0),)]), itself)[0]
        assert_same(ours, intact, BETWEEN_SHAPES)


def test_removing_disjoint_sets_one_after_the_other_is_removing_both(subject):
    """The second removal starts from a model whose first set already gives its substitutes."""
    model, _, test, other = subject
    n_needed, given = model.layout.n_needed(test.shape[1]), given_by(model, other)
    first, second = (Head(0, 0),), (Head(model.config.n_layers - 1, MLP),)
    both = predict_without(model, trace(model, test), removal(model, [first + second]), given)[0]
    edits = {
        "blocks.0.attn.hook_z": lambda z: torch.cat((given.heads[0][0][:, :, :1], z[:, :, 1:]), dim=2),
        f"blocks.{model.config.n_layers - 1}.hook_mlp_out": lambda _: given.mlps[-1][0],
    }
    assert_same(both, model(test[:, :n_needed], edits)[:, ::2])


def test_slots_hold_the_heads_of_each_set_in_order(generator):
    """As many slots as the largest set needs, and one for sets without any."""
    heads = torch.rand(5, 64, generator=generator) < torch.tensor([0, 0.05, 0.3, 0.5, 0.3])[:, None]
    numbers, used = pad_head_numbers(heads)
    assert numbers.shape == used.shape == (5, int(heads.sum(1).max()))
    for variant in range(5):
        assert numbers[variant][used[variant]].tolist() == heads[variant].nonzero()[:, 0].tolist()
    assert pad_head_numbers(torch.zeros(2, 3, dtype=torch.bool))[1].tolist() == [[False], [False]]


def test_components_are_removed_at_z_unless_a_site_is_given():
    model = random_model(SHAPES[1])[0]
    assert removal(model, [(Head(0, 1),)]).site == "z"


def test_a_site_is_found_by_its_name():
    assert [check_site(name) for name in HOOKS] == list(HOOKS)
    with pytest.raises(UserError, match=r"^unknown site 'k' \(valid: z, pattern, value\)$"):
        check_site("k")


def test_engine_works_in_float64(generator):
    model = random_model(SHAPES[1])[0].double()
    test = torch.randn(4, 16, 5, generator=generator, dtype=torch.float64)
    run = trace(model, test)
    torch.testing.assert_close(predictions_of(model, run), model(test)[:, ::2], rtol=1e-12, atol=1e-12)
