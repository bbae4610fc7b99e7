"""Laws of patching that need no oracle: what is patched twice over, from both sides, in a model with its heads moved.

tests/interp/patching/test_patch_engine.py compares the engine with HookedTransformer's hooks.
"""

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patching_oracle import BY_HEAD, assert_same, random_model, random_tokens
from torch import Tensor

from interp.patching.engine import Run, predict_patched, read_activations, record_run
from interp.patching.sites import SITES, Patch, Variant, stack_patches
from training.model.transformer import Past, Transformer

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
N_LAYERS, N_HEADS, N_POINTS = 3, 4, 5
N_TOKENS = 2 * N_POINTS - 1
WHOLE = tuple(range(N_HEADS))

few = settings(derandomize=True, deadline=None, max_examples=8)
layers = st.integers(0, N_LAYERS - 1)
some_heads = st.sets(st.integers(0, N_HEADS - 1), min_size=1).map(sorted).map(tuple)
some_tokens = st.lists(st.booleans(), min_size=N_TOKENS, max_size=N_TOKENS).filter(any).map(torch.tensor)


@lru_cache
def subject(device: str = "cpu") -> tuple[Transformer, Tensor, Tensor]:
    """(model, base tokens, source tokens), all random."""
    model = random_model(N_LAYERS, N_HEADS, 16, 3, N_POINTS)
    base, source = random_tokens(model, N_POINTS)
    return model.to(device), base.to(device), source.to(device)


def run_patched(model: Transformer, base: Tensor, source: Tensor, variants: list[Variant]) -> Tensor:
    patches = stack_patches(variants, base.shape[1], N_HEADS, base.device)
    return predict_patched(model, record_run(model, base), patches, read_activations(model, source, patches.masks))


SAME: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("q", "k"), ("pattern",)),
    (("q", "k", "v"), ("z",)),
    (("pattern", "v"), ("z",)),
    (("resid_pre",), ("resid_mid",)),
    (("resid_mid", "mlp_out"), ("resid_post",)),
    (("z", "q", "pattern"), ("z",)),
]
"""At all tokens, sites behind one another: what one side gives is all that the other is made of."""


@pytest.mark.sample(2)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("sites", "others"), SAME, ids=lambda sites: "+".join(sites))
@given(layer=layers, heads=some_heads)
@few
def test_what_an_activation_is_made_of_is_the_activation(device, sites, others, layer, heads):
    model, base, source = subject(device)
    variants = [
        tuple(Patch(site, layer, heads if site in BY_HEAD else ()) for site in chosen) for chosen in (sites, others)
    ]
    ours, theirs = (run_patched(model, base, source, [variant])[0] for variant in variants)
    assert_same(ours, theirs)


@given(layer=layers, tokens=some_tokens)
@few
def test_at_any_tokens_all_heads_are_the_attention_and_the_stream_is_the_next_layers(layer, tokens):
    model, base, source = subject()
    heads, attention = (Patch("z", layer, WHOLE, tokens),), (Patch("attn_out", layer, (), tokens),)
    middle, end = (Patch("resid_mid", layer, (), tokens),), (Patch("resid_post", layer, (), tokens),)
    found = run_patched(model, base, source, [heads, attention, middle, end])
    assert_same(found[0], found[1])
    assert_same(found[2], found[3])
    if layer + 1 < N_LAYERS:
        (following,) = run_patched(model, base, source, [(Patch("resid_pre", layer + 1, (), tokens),)])
        assert_same(found[3], following)


@given(layer=layers, tokens=some_tokens)
@few
def test_a_stream_put_together_from_two_runs_has_no_base(layer, tokens):
    """The source at some tokens in the base is the base at all others in the source."""
    model, base, source = subject()
    (one,) = run_patched(model, base, source, [(Patch("resid_pre", layer, (), tokens),)])
    (other,) = run_patched(model, source, base, [(Patch("resid_pre", layer, (), ~tokens),)])
    assert_same(one, other)


@pytest.mark.sample(4)
@pytest.mark.parametrize("site", SITES)
@given(layer=layers, heads=some_heads, tokens=some_tokens, seed=st.integers(0, 99))
@settings(few, max_examples=3)
def test_neither_the_order_of_heads_nor_that_of_prompts_matters(site, layer, heads, tokens, seed):
    model, base, source = subject()
    rng, twin, moved = np.random.default_rng(seed), copy.deepcopy(model), []
    for block in twin.layers:
        order = rng.permutation(N_HEADS).tolist()
        moved.append([order.index(head) for head in WHOLE])
        for name, part in block.attn.named_parameters():
            if name != "b_O":
                part.data = part.data[order]
    prompts = torch.tensor(rng.permutation(len(base)))
    by_head = site in BY_HEAD
    (ours,) = run_patched(model, base, source, [(Patch(site, layer, heads if by_head else (), tokens),)])
    there = tuple(moved[layer][head] for head in heads) if by_head else ()
    (theirs,) = run_patched(twin, base[prompts], source[prompts], [(Patch(site, layer, there, tokens),)])
    assert_same(theirs, ours[prompts])
    alone = [
        run_patched(model, base[half], source[half], [(Patch(site, layer, heads if by_head else (), tokens),)])[0]
        for half in (slice(2), slice(2, None))
    ]
    assert_same(torch.cat(alone), ours)


def poisoned(run: Run, layer: int, start: int) -> Run:
    """No number wherever a patch of this layer from this token on has nothing to take from the read_activations run."""
    resid_pre = [torch.full_like(one, torch.nan) for one in run.resid_pre]
    resid_pre[layer][:, start:] = run.resid_pre[layer][:, start:]
    past = []
    for number, (k, v) in enumerate(run.past):
        kept = [torch.full_like(one, torch.nan) for one in (k, v)]
        if number >= layer:
            for own, one in zip(kept, (k, v), strict=True):
                own[:, :start] = one[:, :start]
        past.append(Past(*kept))
    return Run(resid_pre, past, run.prediction * torch.nan)


@pytest.mark.parametrize("site", SITES)
@given(layer=layers, start=st.integers(0, N_TOKENS - 1))
@settings(few, max_examples=4)
def test_a_patch_goes_on_from_what_was_read_activations_and_from_nothing_else(site, layer, start):
    """Bit for bit: earlier layers, and what later tokens gave before they were patched, are not read."""
    model, base, source = subject()
    tokens = torch.arange(N_TOKENS) == start
    patches = stack_patches([(Patch(site, layer, WHOLE if site in BY_HEAD else (), tokens),)], N_TOKENS, N_HEADS, "cpu")
    given, run = read_activations(model, source, patches.masks), record_run(model, base)
    found = predict_patched(model, poisoned(run, layer, start), patches, given)
    assert torch.equal(found, predict_patched(model, run, patches, given))
    assert found.isfinite().all()


def test_a_source_of_other_prompts_acts_on_its_own_prompt_alone():
    model, base, source = subject()
    variant: list[Any] = [(Patch("resid_pre", 1),)]
    changed = source.clone()
    changed[2] += 1
    one, other = (run_patched(model, base, tokens, variant)[0] for tokens in (source, changed))
    assert (one != other).tolist() == [i == 2 for i in range(len(base))]
