"""Every self-check of patching, by breaking what it guards."""

from typing import Any

import pytest
import torch

from interp.model import self_checks
from interp.model.heads import EMBED, Head
from interp.names import SITE_NAMES
from interp.patching import engine
from interp.patching import runner as sweep
from interp.patching import self_checks as checks
from interp.patching.maps import UNVARYING, patch
from interp.patching.path_receivers import Receiver
from interp.patching.paths import path_effects
from interp.patching.self_checks import find_differences
from interp.patching.sites import SITES, Patch, stack_patches
from training.checkpoints.checkpoint import load
from training.common.errors import CheckError
from training.common.output import records
from training.model.transformer import Past

COMMON: dict[str, Any] = {"examples": 4, "n_prompts": 16}


@pytest.fixture(scope="module")
def trained():
    return load("zoo:mixed-0")


def test_names_for_the_help_are_those_that_there_are():
    assert tuple(SITES) == SITE_NAMES


# For a single variant the engine is called for the empty patch, for the whole stream before each of three layers, for
# the run itself, and for the patch.
CALLS = {
    "the empty patch changes the predictions": 0,
    "patching the whole stream before layer 0 does not give the source run's prediction": 1,
    "patching the whole stream before layer 2 does not give the source run's prediction": 3,
    "patching a run with its own activations changes it": 4,
    "the engine's patched run differs from the model's own forward pass": 5,
}


@pytest.mark.parametrize("failure", list(CALLS))
@pytest.mark.parametrize("broken", [lambda found: found * 1.001, lambda found: found * torch.nan], ids=["off", "nan"])
def test_a_patch_that_goes_wrong_is_refused(trained, monkeypatch, failure, broken):
    true, calls = checks.predict_patched, []

    def predict(*given):
        calls.append(given)
        return broken(true(*given)) if len(calls) - 1 == CALLS[failure] else true(*given)

    monkeypatch.setattr(checks, "predict_patched", predict)
    with pytest.raises(CheckError, match=failure):
        patch(trained, ["linear"], site="z", heads="0.1", **COMMON)


def test_a_prediction_read_elsewhere_is_refused(trained, monkeypatch):
    true = checks.record_run
    monkeypatch.setattr(
        checks, "record_run", lambda *given: true(*given)._replace(prediction=true(*given).prediction + 0.01)
    )
    with pytest.raises(CheckError, match="reading the prediction at the query changes it"):
        patch(trained, ["linear"], site="z", heads="0.1", **COMMON)


def swapped(base, layer, start, n_variants):
    """Keys in place of values."""
    past = true_past(base, layer, start, n_variants)
    return past and Past(past.v, past.k)


true_past = engine.past_of
LATE_ALONE: dict[str, Any] = {"site": "v", "heads": "0.1", "tokens": "y:1"}


@pytest.mark.parametrize("broken", [swapped, lambda *_: None], ids=["swapped", "forgotten"])
def test_a_past_that_is_not_that_of_the_run_is_refused(trained, monkeypatch, broken):
    """A bug inside the engine, not one made up for the check: patches that start at a later token need the past."""
    monkeypatch.setattr(engine, "past_of", broken)
    with pytest.raises(CheckError, match="patching a run with its own activations changes it"):
        patch(trained, ["linear"], corrupt="prompt", **LATE_ALONE, **COMMON)


def test_a_patch_that_is_made_nowhere_is_refused(trained, monkeypatch):
    """The engine forgets the edits: silent no-ops are what the checks are for."""
    monkeypatch.setattr(engine, "Sites", lambda _: sites_without_edits)
    with pytest.raises(
        CheckError, match="patching the whole stream before layer 0 does not give the source run's prediction"
    ):
        patch(trained, ["linear"], corrupt="prompt", site="z", heads="0.1", **COMMON)


sites_without_edits = engine.Sites({})


def test_runs_that_hold_the_same_at_every_place_are_refused(trained):
    """Under another function of the same inputs, the first x is the same, and so is all that sees nothing else."""
    for direction in ("denoise", "noise"):
        with pytest.raises(
            CheckError, match="clean and corrupt prompts give the same resid_pre wherever it is patched"
        ):
            patch(trained, ["linear"], site="resid_pre", tokens="x:0", direction=direction, **COMMON)
    with pytest.raises(CheckError, match="give the same q"):
        patch(trained, ["linear"], site="q", heads="layer:0", tokens="x", **COMMON)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("site", "where"), [("z", {"heads": "0.1"}), ("v", {"heads": "1.2", "tokens": "y:1"}), ("resid_mid", {})]
)
def test_rounding_is_not_taken_for_a_defect(trained, monkeypatch, site, where):
    """Where float32 differs by more than the tolerance, everything is repeated in float64, and agrees."""
    monkeypatch.setattr(self_checks, "TOLERANCE", -1.0)
    patch(trained, ["linear"], site=site, corrupt="prompt", **where, **COMMON)


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_a_head_whose_output_does_not_vary_is_a_row_with_a_note(bias):
    """A pruned head, and one that writes a constant: alone, and beside one that acts."""
    pruned = load("zoo:mixed-0")
    pruned.model.layers[1].attn.W_V[3] = 0
    pruned.model.layers[1].attn.b_V[3] = bias
    alone = patch(pruned, ["linear"], heads="1.3", **COMMON)
    (row,) = records(alone.table)
    assert row["effect"] == pytest.approx(0, abs=1e-6)
    assert row["note"] == UNVARYING
    assert alone.sentences() == [
        "On linear (corrupt: function) no patch is shown to have an effect of 0.01 or more (1 location patched).",
        "z of 1.3: the same on every prompt, so that patching it changes nothing.",
    ]
    both = patch(pruned, ["linear"], heads=[(Head(1, 2),), (Head(1, 3),)], **COMMON)
    assert [bool(note) for note in both.table["note"]] == [False, True]


def test_paths_go_through_the_same_checks(trained, monkeypatch):
    senders, receivers = [(Head(0, 1),)], [(Receiver(1, 2, "v"),)]
    true = checks.predict_patched

    def broken(model, base, patches, given):
        found = true(model, base, patches, given)
        return found * 1.001 if (1, "v") in patches.masks else found

    monkeypatch.setattr(checks, "predict_patched", broken)
    with pytest.raises(CheckError, match="patching a run with its own activations changes it"):
        path_effects(trained, senders, receivers, ["linear"], **COMMON)


def test_senders_that_write_the_same_in_both_runs_are_refused(trained, monkeypatch):
    """A corruption that corrupts nothing."""
    true = sweep.prompt_pairs
    monkeypatch.setattr(sweep, "prompt_pairs", lambda *a, **k: true(*a, **k)._replace(corrupt=true(*a, **k).clean))
    with pytest.raises(CheckError, match="clean and corrupt prompts give the same"):
        path_effects(trained, [(EMBED,)], [(Receiver(3, 0, "out"),)], ["linear"], **COMMON)


def test_what_differs_is_found_by_head_and_token():
    """One number of one head at one token changed, at every site: only the patch that covers it differs."""
    n_tokens, n_heads = 4, 3
    at = [torch.arange(n_tokens) == place for place in range(n_tokens)]
    for name, site in SITES.items():
        shape = {"pattern": (2, n_heads, n_tokens, n_tokens)}.get(name, (2, n_tokens, n_heads, 5))
        shape = shape if site.by_head else (2, n_tokens, 5)
        own, given = torch.zeros(shape), torch.zeros(shape)
        where = (1, 1, 2, 0) if name == "pattern" else (1, 2, 1, 4) if site.by_head else (1, 2, 4)
        given[where] = 1
        heads = [(0,), (1,), (2,)] if site.by_head else [()]
        variants = [(Patch(name, 0, numbers, tokens),) for numbers in heads for tokens in at]
        patches = stack_patches(variants, n_tokens, n_heads, "cpu")
        found = find_differences(patches, {(0, name): own}, {(0, name): given})
        wanted = [(not numbers or numbers == (1,)) and place == 2 for numbers in heads for place in range(n_tokens)]
        assert found.tolist() == wanted, name
