"""The patching engine against HookedTransformer's hooks, which are the oracle: every site, by head and token."""

from itertools import pairwise

import pytest
import torch
from architectures import WITH_MLPS
from patching_oracle import HOOKS, assert_same, at_query, cached, patched, random_model, random_tokens

from interp.model.engine import read_sites
from interp.model.heads import Head
from interp.model.hooked_transformer import hooked
from interp.patching.engine import predict_patched, read_activations, record_run
from interp.patching.sites import SITES, Patch, Variant, head_patches, stack_patches
from training.checkpoints.checkpoint import load
from training.model.sites import Sites
from training.model.transformer import EVERY, Past
from training.tasks.prompts import Layout

SUBJECTS = {
    "one layer": ((1, 1, 8, 3, 3), Layout()),
    "few tokens": ((2, 4, 32, 5, 6), Layout()),
    "wide heads": ((2, 2, 64, 5, 20), Layout()),  # 39 tokens, heads of 32: fused attention
    "told within": ((2, 2, 16, 3, 8), Layout(n_instruction=2, at=3)),
    "told by vectors": ((2, 2, 32, 2, 9), Layout(n_instruction=1, at=2, n_vectors=3)),
    "zoo:mixed-0": ((3, 8, 64, 4, 16), Layout()),  # 31 tokens, heads of 8: batched attention
}


@pytest.fixture(params=[*SUBJECTS, *WITH_MLPS], scope="module")
def subject(request):
    """(model, its HookedTransformer, base tokens, source tokens)."""
    shape, layout = SUBJECTS.get(request.param, SUBJECTS["few tokens"])
    if request.param.startswith("zoo"):
        model = load(request.param).model
    else:
        model = random_model(*shape, layout, **WITH_MLPS.get(request.param, {}))
    return model, hooked(model), *random_tokens(model, shape[-1])


def token_sets(n_tokens):
    """All, one in the middle, the query, and a range."""
    place = torch.arange(n_tokens)
    middle = n_tokens // 2
    return [None, place == middle, place == n_tokens - 1, (place >= middle - 1) & (place <= middle + 1)]


def head_sets(n_layers, n_heads):
    """One head, all of a layer, heads in several layers."""
    last = Head(n_layers - 1, n_heads - 1)
    whole = tuple(Head(n_layers // 2, number) for number in range(n_heads))
    across = tuple(Head(layer, (layer + 1) % n_heads) for layer in range(n_layers))
    return [(Head(0, 0),), (last,), whole, across]


def variants_of(model, site, n_tokens) -> list[Variant]:
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    if SITES[site].by_head:
        return [
            head_patches(site, heads, tokens)
            for heads in head_sets(n_layers, n_heads)
            for tokens in token_sets(n_tokens)
        ]
    alone = [(Patch(site, layer, (), tokens),) for layer in range(n_layers) for tokens in token_sets(n_tokens)]
    return [*alone, tuple(Patch(site, layer) for layer in range(n_layers))]


def run_patched(model, base, source, variants):
    """The engine, all variants in one pass."""
    patches = stack_patches(variants, base.shape[1], model.config.n_heads, "cpu")
    return predict_patched(model, record_run(model, base), patches, read_activations(model, source, patches.masks))


def test_every_site_is_tested():
    assert {name: site.hook for name, site in SITES.items()} == HOOKS


def test_the_run_is_hooked_transformers(subject):
    model, twin, base, _ = subject
    run, cache = record_run(model, base), cached(twin, base)
    assert_same(run.prediction, at_query(twin, base, []))
    for layer in range(model.config.n_layers):
        assert_same(run.resid_pre[layer], cache[f"blocks.{layer}.hook_resid_pre"])
        assert_same(run.past[layer].k, cache[f"blocks.{layer}.attn.hook_k"])
        assert_same(run.past[layer].v, cache[f"blocks.{layer}.attn.hook_v"])


@pytest.mark.sample(11)
@pytest.mark.parametrize("site", list(SITES))
def test_every_patch_equals_the_hook_that_does_it(subject, site):
    """In two stacked passes: from the first token, and, with the keys and values of what comes before, from a later."""
    model, twin, base, source = subject
    variants, cache = variants_of(model, site, base.shape[1]), cached(twin, source)
    for late in (False, True):
        together = [one for one in variants if (one[0].tokens is not None) == late]
        stacked = run_patched(model, base, source, together)
        assert stacked.dtype == torch.float32
        for ours, variant in zip(stacked, together, strict=True):
            assert_same(ours, patched(twin, base, cache, variant))


@pytest.mark.sample(4)
def test_batching_variants_changes_nothing(subject):
    """Stacked, all start with the first layer and token that any of them changes; alone, each where it has to."""
    model, _, base, source = subject
    variants = [
        variant for place, site in enumerate(SITES) for variant in variants_of(model, site, base.shape[1])[place::9]
    ]
    stacked = run_patched(model, base, source, variants)
    alone = torch.cat([run_patched(model, base, source, [variant]) for variant in variants])
    assert (alone - stacked).square().mean().sqrt() <= 1e-6 * stacked.square().mean().sqrt()


@pytest.mark.sample(4)
def test_patches_of_several_sites_act_together(subject):
    """Every site at once, each in another layer, of another head, at other tokens."""
    model, twin, base, source = subject
    n_layers, n_heads, n_tokens = model.config.n_layers, model.config.n_heads, base.shape[1]
    sets = token_sets(n_tokens)
    every = tuple(
        Patch(site, place % n_layers, (place % n_heads,) if SITES[site].by_head else (), sets[place % len(sets)])
        for place, site in enumerate(SITES)
    )
    pairs = list(pairwise(every))
    cache = cached(twin, source)
    for variants in ([every], [every[:5], every[5:]], pairs):
        for ours, variant in zip(run_patched(model, base, source, variants), variants, strict=True):
            in_order = sorted(variant, key=lambda patch: (patch.layer, list(HOOKS).index(patch.site)))
            assert_same(ours, patched(twin, base, cache, tuple(in_order)))


def test_heads_of_one_layer_are_patched_each_at_its_own_tokens(subject):
    model, twin, base, source = subject
    last, query = model.config.n_heads - 1, torch.arange(base.shape[1]) == base.shape[1] - 1
    first, second = (torch.arange(base.shape[1]) == place for place in (1, 3))
    variant = (Patch("v", 0, (0,), first), Patch("v", 0, (last,), query), Patch("v", 0, (0,), second))
    (ours,) = run_patched(model, base, source, [variant])
    assert_same(ours, patched(twin, base, cached(twin, source), variant))


@pytest.mark.sample(4)
def test_a_patch_acts(subject):
    """Oracle and engine could agree that nothing happens; here something does, at every site that the query reads."""
    model, _, base, source = subject
    run = record_run(model, base)
    for site in SITES:
        heads = tuple(range(model.config.n_heads)) if SITES[site].by_head else ()
        variant = tuple(Patch(site, layer, heads) for layer in range(model.config.n_layers))
        (ours,) = run_patched(model, base, source, [variant])
        assert (ours - run.prediction).abs().max() > 1e-3 * run.prediction.abs().max()


@pytest.mark.sample(4)
def test_patching_nothing_or_the_run_itself_is_the_run(subject):
    model, _, base, _ = subject
    run = record_run(model, base)
    for site in SITES:
        for ours in run_patched(model, base, base, [(), *variants_of(model, site, base.shape[1])[::3]]):
            assert_same(ours, run.prediction, 3e-6)
    nothing = stack_patches([(), ()], base.shape[1], model.config.n_heads, "cpu")
    assert torch.equal(predict_patched(model, run, nothing, {}), run.prediction.expand(2, -1))


def test_the_whole_stream_is_the_other_run(subject):
    model, _, base, source = subject
    wanted = record_run(model, source).prediction
    variants = [(Patch(site, layer),) for site in ("resid_pre", "resid_post") for layer in range(model.config.n_layers)]
    for ours in run_patched(model, base, source, variants):
        assert_same(ours, wanted, 3e-6)


@pytest.mark.sample(4)
def test_tokens_that_a_layer_does_not_need_change_nothing(subject):
    """In the last layer only the query's outputs are read; a value at the query is seen by no other token."""
    model, _, base, source = subject
    last, all_but_query = model.config.n_layers - 1, torch.arange(base.shape[1]) < base.shape[1] - 1
    heads = tuple(range(model.config.n_heads))
    for site in SITES:
        if not SITES[site].of_keys:
            variant = (Patch(site, last, heads if SITES[site].by_head else (), all_but_query),)
            (ours,) = run_patched(model, base, source, [variant])
            assert_same(ours, record_run(model, base).prediction, 3e-6)


@pytest.mark.sample(8)
@pytest.mark.parametrize("queries", [EVERY, slice(-1, None)], ids=["every", "query"])
def test_attention_goes_on_from_past_keys_and_values(subject, queries):
    """Started at any token, with the keys and values of those before it: the same z, whichever way it is computed."""
    model, _, base, _ = subject
    run = record_run(model, base)
    visits = [Sites({}), Sites({"attn.hook_pattern": lambda pattern: pattern})]
    for layer, block in enumerate(model.layers):
        name = f"blocks.{layer}.attn.hook_z"
        whole = read_sites(model, base, [name])[name]
        for start in {1, 2, base.shape[1] // 2, base.shape[1] - 1} & set(range(base.shape[1])):
            past = Past(run.past[layer].k[:, :start], run.past[layer].v[:, :start])
            for at in visits:
                z = block.mix(run.resid_pre[layer][:, start:], at, queries, past)
                assert_same(z, whole[:, start:][:, queries], 3e-6)


def test_the_engine_does_not_leave_the_precision_of_its_model():
    model = random_model(2, 2, 16, 3, 8)
    base, source = random_tokens(model, 8)
    variants = [variant for site in SITES for variant in variants_of(model, site, base.shape[1])]
    single = run_patched(model, base, source, variants)
    double = run_patched(model.double(), base.double(), source.double(), variants)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert_same(single.double(), double, 1e-4)
