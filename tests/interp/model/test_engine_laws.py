"""Laws of removal that need no oracle: on models whose weights were changed, on prompts cut and put in another order.

tests/interp/model/test_engine.py compares the engine with HookedTransformer; here a removal is compared with
another model (weights set to zero, heads in another order, biases moved) and with itself.
"""

import copy
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patching_oracle import assert_same, random_model, random_tokens
from torch import Tensor

from interp.ablation import runner as sweep
from interp.ablation.errors import SetErrors
from interp.ablation.modes import MODES, UNIFORM, Reference
from interp.ablation.reference_activations import activations, read_reference
from interp.ablation.runner import AblationProtocol, class_errors
from interp.model.engine import (
    SITES,
    Site,
    Substitutes,
    Trace,
    direct_without,
    predict_without,
    predictions_of,
    removal,
    trace,
)
from interp.model.heads import MLP, Head, all_heads
from interp.scores.score import score
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.progress import progress_bar
from training.model.transformer import Transformer
from training.options import DEFAULT_MEMORY

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
N_LAYERS, N_HEADS, N_POINTS = 3, 4, 6
HEADS = all_heads(N_LAYERS, N_HEADS)
COMPONENTS = [*HEADS, *(Head(layer, MLP) for layer in range(N_LAYERS))]

few = settings(derandomize=True, deadline=None, max_examples=12)
some = st.lists(st.sampled_from(COMPONENTS), unique=True).map(tuple)
some_heads = st.lists(st.sampled_from(HEADS), unique=True).map(tuple)


@lru_cache
def subject(device: str = "cpu") -> tuple[Transformer, Tensor, Tensor]:
    """(model, test prompts, reference prompts), all random."""
    model = random_model(N_LAYERS, N_HEADS, 16, 3, N_POINTS)
    test, other = random_tokens(model, N_POINTS, 7)
    return model.to(device), test.to(device), other.to(device)


def given_by(model: Transformer, tokens: Tensor, mode: str = "resample", site: Site = "z") -> Substitutes:
    """What a mode gives, with these prompts for references and partners."""
    found, known = activations(model, tokens, site), read_reference(model, tokens, site).moments
    every = [
        MODES[mode].replacement(Reference(mean, std, partner, model.layout))[None]
        for mean, std, partner in zip(*known, found, strict=True)
    ]
    return Substitutes(every[:N_LAYERS], every[N_LAYERS:])


def without(model, tokens, sets, given, site: Site = "z", **more) -> Tensor:
    return predict_without(model, trace(model, tokens), removal(model, sets, site), given, **more)


def parts_of(attention) -> dict[str, Tensor]:
    """Every weight of an attention layer that has an axis of heads."""
    return {name: one for name, one in attention.named_parameters() if name != "b_O"}


def operated(model: Transformer, components, site="z") -> Transformer:
    """A model without these components, by its weights: the write, the values or the queries of a head are zero."""
    model = copy.deepcopy(model)
    silenced = {"z": ("W_O",), "value": ("W_V", "b_V"), "pattern": ("W_Q", "b_Q")}[site]
    for layer, number in components:
        block = model.layers[layer]
        if number == MLP:
            block.mlp.W_out.data.zero_()
            block.mlp.b_out.data.zero_()
        else:
            for name in silenced:
                parts_of(block.attn)[name].data[number] = 0
    return model


@pytest.mark.sample(1)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("site", SITES)
@given(components=some)
@few
def test_zero_is_what_zero_weights_are(device, site, components):
    """Of patterns: a head without queries looks everywhere alike."""
    model, test, other = subject(device)
    (ours,) = without(model, test, [components], given_by(model, other, "zero", site), site)
    assert_same(ours, operated(model, components, site).predict(test))


@given(components=some)
@few
def test_a_mean_over_everything_is_a_bias(components):
    """What does not depend on the token can be written by b_O and b_out instead."""
    model, test, other = subject()
    given = given_by(model, other, "mean:global")
    twin = operated(model, components)
    for layer, number in components:
        block = twin.layers[layer]
        if number == MLP:
            block.mlp.b_out.data += given.mlps[layer][0, 0, 0]
        else:
            block.attn.b_O.data += given.heads[layer][0, 0, 0, number] @ model.layers[layer].attn.W_O[number]
    (ours,) = without(model, test, [components], given)
    assert_same(ours, twin.predict(test))


@pytest.mark.parametrize("mode", ["zero", "mean", "mean:global", "mean:parity"])
def test_without_any_head_a_prediction_knows_its_own_token_only(mode):
    """Under constants: whatever else stands in the prompt. With its own token changed it changes."""
    model, test, other = subject()
    given = given_by(model, other, mode)
    elsewhere = random_tokens(model, N_POINTS, 7)[1].flip(0)
    for point in range(N_POINTS):
        same_x, other_x = elsewhere.clone(), test.clone()
        same_x[:, 2 * point] = test[:, 2 * point]
        other_x[:, 2 * point] = elsewhere[:, 2 * point]
        ours, same, changed = (
            without(model, tokens, [HEADS], given)[0, :, point] for tokens in (test, same_x, other_x)
        )
        assert_same(ours, same)
        assert not torch.isclose(ours, changed, rtol=1e-3).any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("site", SITES)
def test_the_empty_set_changes_nothing(device, site):
    """Bit for bit where nothing is computed again; the direct effect reads all variants out in one larger product."""
    model, test, other = subject(device)
    run, given, nothing = trace(model, test), given_by(model, other, site=site), removal(model, [(), ()], site)
    for points in (slice(None), slice(2, 4)):
        intact = predictions_of(model, run)[:, points].expand(2, -1, -1)
        for freeze_ln in (False, True):
            found = predict_without(model, run, nothing, given, points=points, freeze_ln=freeze_ln)
            assert torch.equal(found, intact)
    assert_same(direct_without(model, run, nothing, given), predictions_of(model, run).expand(2, -1, -1), 1e-6)


@given(components=some, seed=st.integers(0, 99))
@few
def test_a_set_has_no_order(components, seed):
    model, test, other = subject()
    given = given_by(model, other)
    shuffled = tuple(components[i] for i in np.random.default_rng(seed).permutation(len(components)))
    for remove in (without, lambda m, t, sets, g: direct_without(m, trace(m, t), removal(m, sets), g)):
        assert torch.equal(remove(model, test, [components], given), remove(model, test, [shuffled], given))


@pytest.mark.sample(1)
@pytest.mark.parametrize("site", SITES)
@given(first=some, second=some)
@few
def test_removing_two_sets_is_removing_one_from_a_model_without_the_other(site, first, second):
    """Disjoint or not."""
    model, test, other = subject()
    both = tuple({*first, *second})
    (whole,) = without(model, test, [both], given_by(model, other, "zero", site), site)
    rest = operated(model, second, site)
    (twice,) = without(rest, test, [first], given_by(rest, other, "zero", site), site)
    assert_same(whole, twice)


@given(first=some_heads, second=some_heads)
@few
def test_two_interventions_at_once_are_the_one_that_has_both(first, second):
    """Each registered on its own, as edits of the model's own pass that know nothing of each other."""
    model, test, other = subject()
    second = tuple(head for head in second if head not in first)
    given = given_by(model, other)

    def edit_of(layer, sets):
        def edit(z):
            for heads in sets:
                z = z.clone()
                for number in (head.number for head in heads if head.layer == layer):
                    z[:, :, number] = given.heads[layer][0, :, :, number]
            return z

        return edit

    edits = {f"blocks.{layer}.attn.hook_z": edit_of(layer, (first, second)) for layer in range(N_LAYERS)}
    (ours,) = without(model, test, [first + second], given)
    assert_same(ours, model(test, edits)[:, ::2])


def reordered(model: Transformer, seed: int) -> tuple[Transformer, dict[Head, Head]]:
    """The same function with its heads in another order in every layer, and where each of them is now."""
    model, rng, moved = copy.deepcopy(model), np.random.default_rng(seed), {}
    for layer, block in enumerate(model.layers):
        order = rng.permutation(model.config.n_heads).tolist()
        for part in parts_of(block.attn).values():
            part.data = part.data[order]
        moved |= {Head(layer, old): Head(layer, new) for new, old in enumerate(order)}
        moved[Head(layer, MLP)] = Head(layer, MLP)
    return model, moved


@pytest.mark.sample(5)
@pytest.mark.parametrize("mode", ["zero", "mean", "mean:global", "mean:parity", "resample"])
@pytest.mark.parametrize("site", SITES)
@given(components=some, seed=st.integers(0, 99))
@settings(few, max_examples=3)
def test_heads_in_another_order_are_the_same_heads(mode, site, components, seed):
    model, test, other = subject()
    twin, moved = reordered(model, seed)
    there = tuple(moved[one] for one in components)
    ours = without(twin, test, [there], given_by(twin, other, mode, site), site)
    assert_same(ours, without(model, test, [components], given_by(model, other, mode, site), site))


@pytest.mark.slow
def test_heads_in_another_order_score_and_cost_the_same():
    """The whole way from a checkpoint to its scores and errors."""
    whole = load("zoo:mixed-0")
    model, moved = reordered(whole.model, 5)
    twin = Checkpoint("twin", whole.directory, whole.config, whole.step, model)
    sets = [
        (Head(0, 1),),
        (Head(0, 4),),
        (Head(1, 2), Head(2, 3)),
        (Head(0, 1), Head(2, 5)),
        (Head(1, MLP), Head(1, 1)),
    ]
    twins = [tuple(moved[head] for head in one) for one in sets]
    assert any(one != two for one, two in zip(sets, twins, strict=True))
    values, twin_values = (score(one, stream="selection", n_prompts=64).values["linear"] for one in (whole, twin))
    for head in all_heads(3, 8):
        assert twin_values[moved[head]] == pytest.approx(values[head], abs=1e-5)
    found, again = errors_of(whole, sets), errors_of(twin, twins)
    for mode, by_set in found.items():
        for one, two in zip(sets, twins, strict=True):
            assert_alike(again[mode][two], by_set[one])


def errors_of(checkpoint, sets, modes=("zero", "mean", "resample"), site: Site = "z", **more):
    """The errors by mode and set; of every second set the total alone, on fewer prompts."""
    protocol = AblationProtocol(12, 0, (slice(4, 8), slice(12, 16)), site, n_null_prompts=5, **more)
    chosen = [UNIFORM] if site == "pattern" else [MODES[mode] for mode in modes]
    with progress_bar(total=1, disable=True) as bar:
        return class_errors(checkpoint, "linear", sets[::2], sets[1::2], chosen, protocol, bar).ablated


def assert_alike(ours: SetErrors, theirs: SetErrors) -> None:
    for kind in ("total", "direct", "frozen", "curve"):
        one, other = getattr(ours, kind), getattr(theirs, kind)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-5)


CUTS: dict[str, tuple[Site, int, int, int]] = {
    "prompt by prompt": ("value", 1, sweep.PASS, DEFAULT_MEMORY),
    "unevenly": ("pattern", 5, sweep.PASS, DEFAULT_MEMORY),
    "set by set": ("value", 12, 1, DEFAULT_MEMORY),
    "in little memory": ("z", 12, sweep.PASS, 2**18),
}


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
def test_passes_may_be_cut_in_any_way(monkeypatch, cut):
    """Prompts in one pass or many, sets in one pass or many, under every kind of replacement at once."""
    checkpoint, (site, chunk, size, memory) = load("zoo:mixed-0"), CUTS[cut]
    sets = [(Head(0, 1),), (Head(2, 3),), (Head(0, 2), Head(1, 5)), (Head(1, MLP),)]
    modes = ["mean:parity", "resample", "noise"]
    whole = errors_of(checkpoint, sets, modes, site)
    monkeypatch.setattr(sweep, "CHUNK", chunk)
    monkeypatch.setattr(sweep, "PASS", size)
    pieces = errors_of(checkpoint, sets, modes, site, memory=memory)
    assert list(pieces) == list(whole)
    for mode, by_set in whole.items():
        assert list(pieces[mode]) == list(by_set)
        assert [len(errors.total) for errors in by_set.values()] == [12, 12, 5, 5]
        for one, errors in by_set.items():
            assert_alike(pieces[mode][one], errors)


@pytest.mark.sample(1)
@pytest.mark.parametrize("site", SITES)
@given(components=some, others=st.lists(some, min_size=2, max_size=3))
@settings(few, max_examples=5)
def test_neither_the_other_prompts_nor_the_other_sets_matter(site, components, others):
    """A prompt alone, in another order, or beside other sets: what is predicted on it is the same."""
    model, test, other = subject()
    given = given_by(model, other, "mean", site)
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    (ours,) = without(model, test, [components], given, site)
    assert_same(without(model, test[order], [components], given, site)[0], ours[order])
    assert_same(torch.cat([without(model, one, [components], given, site)[0] for one in test.split(1)]), ours)
    assert_same(without(model, test, [*others, components], given, site)[-1], ours)


def parts(run: Trace) -> tuple[list[Tensor], ...]:
    """What a trace keeps by layer."""
    return run.resid_pre, run.z, run.resid_mid


def lost(kept: list[Tensor]) -> list[Tensor]:
    return [one * torch.nan for one in kept]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("first", range(N_LAYERS))
def test_a_removal_starts_at_its_first_layer(site, first):
    """What was recorded there decides; what was recorded of any other layer is not read."""
    model, test, other = subject()
    given, run = given_by(model, other, site=site), trace(model, test)
    sets = [(Head(first, 1),), (Head(first, 0), Head(first, 3), Head(N_LAYERS - 1, 2)), (Head(first, MLP),)]
    removed = removal(model, sets, site)
    pre, z, mid = (lost(kept[:first]) + kept[first : first + 1] + lost(kept[first + 1 :]) for kept in parts(run))
    found = predict_without(model, Trace(pre, z, mid, run.resid_post * torch.nan, run.norms), removed, given)
    assert torch.equal(found, predict_without(model, run, removed, given))
    assert found.isfinite().all()


@pytest.mark.sample(1)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("site", SITES)
@given(components=some)
@settings(few, max_examples=6)
def test_single_precision_is_double_precision_rounded(device, site, components):
    model, test, other = subject(device)
    exact, *tokens = copy.deepcopy(model).cpu().double(), test.cpu().double(), other.cpu().double()
    given, twin = given_by(model, other, "mean", site), given_by(exact, tokens[1], "mean", site)
    for freeze_ln in (False, True):
        ours = without(model, test, [components], given, site, freeze_ln=freeze_ln)
        theirs = without(exact, tokens[0], [components], twin, site, freeze_ln=freeze_ln)
        assert (ours.dtype, theirs.dtype) == (torch.float32, torch.float64)
        assert_same(ours.cpu().double(), theirs, 3e-5)
    (zero,) = without(exact, tokens[0], [components], given_by(exact, tokens[1], "zero", site), site)
    assert_same(zero, operated(exact, components, site).predict(tokens[0]), 1e-12)
