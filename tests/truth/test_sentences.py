"""What the sentences of an ablation claim, held against circuits that are known and disguised (`disguised`).

For every kind of circuit: which heads are called decoys, of which it is said that they are none, whose removal is said
to help, and what their effects are.
"""

from typing import NamedTuple

import pytest
from circuits import SPREAD
from disguised import KINDS, Disguised, disguised

from interp.ablation.ablate import Ablation, ablate
from interp.ablation.pairs import pairs
from interp.model.heads import head_set, show
from interp.scores.score import selection_scores
from training.common.table_rows import where

N_PROMPTS = 128
SUPPRESSED = (0.84 * SPREAD - 0.36) / (0.64 - 0.16 * SPREAD)


class Truth(NamedTuple):
    """What is true of one head under mean ablation.

    Attributes:
        effect: of removing it alone.
        decoy: whether it attends and does nothing in any company; None if it is not asked, as it does something alone.
    """

    effect: float
    decoy: bool | None = None


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
}
QUICK = ("two alternatives", "suppressor", "null space")
EVERY = [pytest.param(kind, 0, marks=() if kind in QUICK else pytest.mark.slow) for kind in KINDS]
EVERY += [pytest.param(kind, seed, marks=pytest.mark.slow) for kind in KINDS for seed in (1, 2)]


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
        assert text.endswith(": a decoy on linear (pairs 12-15).") == (truth.decoy is True), text
        if truth.decoy is not None:
            assert ("It is not a decoy." in text) == (not truth.decoy), text


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_constant_is_told_with_the_reason(seed, tmp_path):
    model = disguised("constant carrier", seed, tmp_path)
    (text,) = ablation_of(model, ["carrier"]).all_sentences()
    head = model.heads["carrier"]
    assert "THE REPLACEMENTS DISAGREE (zero 1.00, mean 0.00, resample 0.00)" in text
    assert f"the output of {head} does not vary, so mean ablation leaves it unchanged" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "roles", "together", "interaction"),
    [
        ("two alternatives", ("copy 0", "copy 1"), 1, 1),
        ("gated copy", ("copy 0", "gate"), 1, -1),
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
@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_disguise_changes_no_prediction_beyond_rounding(kind, seed, tmp_path):
    """Two disguises of the same circuit predict the same."""
    from training.evaluation.evaluate import evaluation_prompts

    first, second = (disguised(kind, one, tmp_path).checkpoint for one in (seed, seed + 10))
    tokens = evaluation_prompts(first.config, "linear", n_prompts=64, seed=0).tokens.double()
    one, other = (checkpoint.model.double().predict(tokens) for checkpoint in (first, second))
    assert (one - other).abs().max() < 0.02 * one.abs().max()
