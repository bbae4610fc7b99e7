"""What the sentences of an ablation claim, held against circuits that are known and disguised (`disguised`).

For every kind of circuit: which heads are called decoys, of which it is said that they are none, whose removal is said
to help, and what their effects are.
"""

from typing import NamedTuple

import pytest
from circuits import SPREAD
from disguised import KINDS, SHIFT, Disguised, disguised, rescaled_effect

from interp.ablation.ablate import Ablation, ablate
from interp.ablation.pairs import pairs
from interp.model.heads import head_set, show
from interp.scores.score import selection_scores
from training.common.output import records
from training.common.table_rows import where

N_PROMPTS = 128
HALVED = (0.25 - 0.75 * SPREAD) / (1 - SPREAD)
SUPPRESSED = (0.84 * SPREAD - 0.36) / (0.64 - 0.16 * SPREAD)
OPPOSING = (0.75 * SPREAD - 0.25) / (0.75 - 0.25 * SPREAD)


class Truth(NamedTuple):
    """What is true of one head under mean ablation.

    Attributes:
        effect: of removing it alone.
        decoy: whether it attends and does nothing in any company; None if it is not asked, as it does something alone.
    """

    effect: float
    decoy: bool | None = None


UNDER_CONDITIONS = {"early only": "copy 0", "tail only": "copy 1", "moved": "mover"}
"""Heads that do nothing to the error over the last quarter of the points on inputs as in training, but do something."""
TRUTHS = {
    "two alternatives": {"copy 0": Truth(0, False), "copy 1": Truth(0, False)},
    "three alternatives": {f"copy {i}": Truth(0, False) for i in range(3)},
    "weak backup": {"copy 0": Truth(0), "copy 1": Truth(0)},
    "gated copy": {"copy 0": Truth(1), "gate": Truth(1)},
    "gated alternatives": {f"copy {i}": Truth(0, False) for i in range(3)} | {"gate": Truth(1)},
    "cancelling pair": {"plus": Truth(1), "minus": Truth((1 + 3 * SPREAD) / (1 - SPREAD))},
    "suppressor": {"copy 0": Truth((2.2 + 0.2 * SPREAD) / (0.64 - 0.16 * SPREAD)), "suppressor": Truth(SUPPRESSED)},
    "constant carrier": {"copy 0": Truth(1), "carrier": Truth(0)},
    "null space": {"copy 0": Truth(1), "decoy": Truth(0, True)},
    "product alone": {"copy 0": Truth(1)},
    "two halves": {"half 0": Truth(HALVED), "half 1": Truth(HALVED)},
    "two readers": {"copy 0": Truth(1), "reader 0": Truth(HALVED), "reader 1": Truth(HALVED)},
    "pair and decoy": {"copy 0": Truth(0, False), "copy 1": Truth(0, False), "decoy": Truth(0, True)},
    "opposed halves": {"half 0": Truth(1), "half 1": Truth(1), "suppressor": Truth(OPPOSING)},
    "early only": {"copy 0": Truth(0), "copy 1": Truth(1)},
    "tail only": {"copy 0": Truth(1), "copy 1": Truth(0)},
    "moved": {"copy 0": Truth(1 / (1 - SHIFT**2)), "mover": Truth(0)},
    "rescaled": {"copy 0": Truth(1), "scaler": Truth(rescaled_effect())},
}
"""Of the kinds that solve `linear` alone."""
CLASSES = ("linear", "linear_classification")
OWN_CLASS = {"copy 0": "linear", "copy 1": "linear_classification"}
"""Of the copies of the kind `class only`."""
QUICK = ("suppressor", "null space")
EVERY = [pytest.param(kind, 0, marks=() if kind in QUICK else pytest.mark.slow) for kind in TRUTHS]
EVERY += [pytest.param(kind, seed, marks=pytest.mark.slow) for kind in TRUTHS for seed in (1, 2)]


def ablation_of(model: Disguised, roles, n_prompts: int = N_PROMPTS) -> Ablation:
    scores = selection_scores(model.checkpoint, 64, 0)
    sets = [(model.heads[role],) for role in roles]
    return ablate(
        model.checkpoint, sets, ["linear"], n_prompts=n_prompts, n_controls=10, matches=("layer",), scores=scores
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize(("kind", "seed"), EVERY)
def test_every_sentence_is_true(kind, seed, tmp_path):
    model, truths = disguised(kind, seed, tmp_path), TRUTHS[kind]
    found = ablation_of(model, truths, N_PROMPTS if kind in QUICK else 2048)
    for (role, truth), text in zip(truths.items(), found.all_sentences(), strict=True):
        head = str(model.heads[role])
        effect = where(found.table, heads=head, mode="mean")["effect"].item()
        assert effect == pytest.approx(truth.effect, abs=0.15 + 0.1 * abs(truth.effect)), role
        assert text.startswith(f"Removing {head} helps on linear") == (truth.effect < 0), text
        if UNDER_CONDITIONS.get(kind) != role:
            assert text.endswith(": a decoy on linear (pairs 12-15; other inputs were not tested).") == (
                truth.decoy is True
            )
        if truth.decoy is not None:
            assert ("It is not a decoy: " in text) == (not truth.decoy), text


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_constant_is_told_with_the_reason(seed, tmp_path):
    model = disguised("constant carrier", seed, tmp_path)
    (text,) = ablation_of(model, ["carrier"]).all_sentences()
    head = model.heads["carrier"]
    assert "(zero 1.00, at least half of the gain; mean 0.00, no effect; resample 0.00, no effect)" in text
    assert f"the output of {head} does not vary, so mean ablation leaves it unchanged" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "roles", "together", "interaction"),
    [
        ("two alternatives", ("copy 0", "copy 1"), 1, 1),
        ("gated copy", ("copy 0", "gate"), 1, -1),
        ("two halves", ("half 0", "half 1"), 1, 1 - 2 * HALVED),
        ("cancelling pair", ("plus", "minus"), 0, -1 - (1 + 3 * SPREAD) / (1 - SPREAD)),
    ],
)
def test_pairs_have_the_known_interactions(kind, roles, together, interaction, tmp_path):
    model = disguised(kind, 0, tmp_path)
    heads = head_set(model.heads[role] for role in roles)
    row = pairs(model.checkpoint, heads, ["linear"], modes=["zero"], n_prompts=2048).table.iloc[0]
    assert row["heads"] == show(heads)
    assert row["effect"] == pytest.approx(together, abs=0.1)
    assert row["interaction"] == pytest.approx(interaction, abs=0.3)
    assert row["p_holm"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_copy_of_one_class_costs_there_and_nowhere_else(seed, tmp_path):
    """Both attend alike on both classes; the difference between the classes is the whole gain."""
    model = disguised("class only", seed, tmp_path)
    scores = selection_scores(model.checkpoint, 64, 0)
    sets = [(model.heads[role],) for role in OWN_CLASS]
    assert all(scores[head] > 0.9 for (head,) in sets)
    options = {"modes": ["mean"], "n_prompts": N_PROMPTS, "n_controls": 0, "scores": scores}
    found = ablate(model.checkpoint, sets, CLASSES, **options)
    for (head,), own, text in zip(sets, OWN_CLASS.values(), found.all_sentences(), strict=True):
        (other,) = set(CLASSES) - {own}
        effects = {name: where(found.table, heads=str(head), function_class=name)["effect"].item() for name in CLASSES}
        assert effects == {own: pytest.approx(1, abs=0.05), other: pytest.approx(0, abs=0.01)}
        assert f"Removing {head} costs {effects[own]:.2f} [" in text
        assert f"Removing {head} costs 0.00 [0.00, 0.00] of the in-context gain on {other} (" in text
        assert "decoy" not in text


@pytest.mark.slow
def test_heads_of_two_classes_do_not_interact_on_either(tmp_path):
    model = disguised("class only", 0, tmp_path)
    heads = head_set(model.heads[role] for role in OWN_CLASS)
    table = pairs(model.checkpoint, heads, CLASSES, modes=["mean"], n_prompts=N_PROMPTS).table
    assert table["effect"].tolist() == pytest.approx([1, 1], abs=0.05)
    assert table["interaction"].tolist() == pytest.approx([0, 0], abs=0.01)


def sentence_on(model: Disguised, role: str, name: str) -> str:
    """The sentence on a head that was removed on one class."""
    scores = selection_scores(model.checkpoint, 64, 0)
    options = {"modes": ["mean"], "n_prompts": 64, "n_controls": 0, "scores": scores}
    (text,) = ablate(model.checkpoint, [(model.heads[role],)], name, **options).all_sentences()
    return text


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("class only", "linear_classification"), ("early only", "linear")])
def test_a_decoy_is_named_with_the_class_and_the_pairs(kind, name, tmp_path):
    """Their first copy does nothing on this class over pairs 12-15, and everything on another or over pairs 0-7."""
    text = sentence_on(disguised(kind, 3, tmp_path), "copy 0", name)
    assert text.endswith(f": a decoy on {name} (pairs 12-15; other inputs were not tested).")


@pytest.mark.slow
def test_a_head_that_moves_predictions_is_not_called_a_decoy(tmp_path):
    """Without the mover a part of the predictions is 2 `SHIFT` away, and as wrong as before."""
    text = sentence_on(disguised("moved", 3, tmp_path), "mover", "linear")
    assert "but it changes predictions, by a mean square of 0." in text
    assert text.endswith("So it is no decoy.")


@pytest.mark.slow
def test_a_head_of_early_pairs_is_no_decoy_where_they_are_measured(tmp_path):
    model = disguised("early only", 3, tmp_path)
    sets = [(model.heads[role],) for role in ("copy 0", "copy 1")]
    scores = selection_scores(model.checkpoint, 64, 0)
    options = {"modes": ["mean"], "n_prompts": 64, "n_controls": 0, "scores": scores, "points": "5-7,12-15"}
    found = ablate(model.checkpoint, sets, ["linear"], **options)
    for (head,), (early, late) in zip(sets, ((1, 0), (0, 1)), strict=True):
        rows = where(found.table, heads=str(head))
        assert dict(zip(rows["points"], rows["effect"], strict=True)) == {
            "5-7": pytest.approx(early, abs=0.1),
            "12-15": pytest.approx(late, abs=0.1),
        }
    assert all("decoy" not in text for text in found.all_sentences())


@pytest.mark.slow
def test_what_acts_through_the_scale_alone_has_no_effect_with_frozen_scales(tmp_path):
    model = disguised("rescaled", 3, tmp_path)
    options = {"modes": ["zero"], "n_prompts": 2048, "n_controls": 0}
    (row,) = records(ablate(model.checkpoint, [(model.heads["scaler"],)], ["linear"], **options).table)
    assert row["effect"] == pytest.approx(rescaled_effect(), rel=0.15)
    assert row["frozen_effect"] == pytest.approx(0, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_disguise_changes_no_prediction_beyond_rounding(kind, seed, tmp_path):
    """Two disguises of the same circuit predict the same."""
    from training.evaluation.evaluate import evaluation_prompts

    first, second = (disguised(kind, one, tmp_path).checkpoint for one in (seed, seed + 10))
    tokens = evaluation_prompts(first.config, "linear", n_prompts=64, seed=0).tokens.double()
    one, other = (checkpoint.model.double().predict(tokens) for checkpoint in (first, second))
    assert (one - other).abs().max() < 0.02 * one.abs().max()
