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
    "product alone": {"copy 0": Truth(1)},
    "early only": {"copy 0": Truth(0), "copy 1": Truth(1)},
    "tail only": {"copy 0": Truth(1), "copy 1": Truth(0)},
    "moved": {"copy 0": Truth(1 / (1 - SHIFT**2)), "mover": Truth(0)},
    "rescaled": {"copy 0": Truth(1), "scaler": Truth(rescaled_effect())},
}
"""Of the kinds that solve `linear` alone."""
CLASSES = ("linear", "linear_classification")
OWN_CLASS = {"copy 0": "linear", "copy 1": "linear_classification"}
"""Of the copies of the kind `class only`."""
QUICK = ("two alternatives", "suppressor", "null space")
EVERY = [pytest.param(kind, 0, marks=() if kind in QUICK else pytest.mark.slow) for kind in TRUTHS]
EVERY += [pytest.param(kind, seed, marks=pytest.mark.slow) for kind in TRUTHS for seed in (1, 2)]


def ablation_of(model: Disguised, roles, n_prompts: int = N_PROMPTS) -> Ablation:
    scores = selection_scores(model.checkpoint, 64, 0)
    sets = [(model.heads[role],) for role in roles]
    return ablate(
        model.checkpoint, sets, ["linear"], n_prompts=n_prompts, n_controls=10, matches=("layer",), scores=scores
    )


@pytest.mark.parametrize(("kind", "seed"), EVERY)
def test_every_sentence_is_true(kind, seed, tmp_path):
    model, truths = disguised(kind, seed, tmp_path), TRUTHS[kind]
    found = ablation_of(model, truths, N_PROMPTS if kind in QUICK else 2048)
    for (role, truth), text in zip(truths.items(), found.all_sentences(), strict=True):
        head = str(model.heads[role])
        effect = where(found.table, heads=head, mode="mean")["effect"].item()
        assert effect == pytest.approx(truth.effect, abs=0.15 + 0.1 * abs(truth.effect)), role
        assert text.startswith(f"Removing {head} helps on linear") == (truth.effect < 0), text
        assert text.endswith(": a decoy.") == (truth.decoy is True), text
        if truth.decoy is not None:
            assert ("It is no decoy." in text) == (not truth.decoy), text


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


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_copy_of_one_class_costs_there_and_nowhere_else(seed, tmp_path):
    """Both attend alike on both classes; the difference between the classes is the whole gain."""
    model = disguised("class only", seed, tmp_path)
    scores = selection_scores(model.checkpoint, 64, 0)
    sets = [(model.heads[role],) for role in OWN_CLASS]
    assert all(scores[head] > 0.9 for (head,) in sets)
    found = ablate(model.checkpoint, sets, CLASSES, n_prompts=N_PROMPTS, n_controls=0, scores=scores)
    for (head,), own, text in zip(sets, OWN_CLASS.values(), found.all_sentences(), strict=True):
        for name in CLASSES:
            effect = where(found.table, heads=str(head), mode="mean", function_class=name)["effect"].item()
            assert effect == pytest.approx(name == own, abs=0.05)
            assert f"Removing {head} costs {effect:.2f} [" in text.partition(f"gain on {name} (")[0].replace(
                "-0.00", "0.00"
            )
        assert "decoy" not in text


@pytest.mark.slow
def test_a_decoy_is_one_on_the_class_that_was_tested(tmp_path):
    """On linear_classification alone the copy for linear does nothing; no sentence may say so of other classes."""
    model = disguised("class only", 3, tmp_path)
    scores = selection_scores(model.checkpoint, 64, 0)
    heads = [(model.heads["copy 0"],)]
    (text,) = ablate(model.checkpoint, heads, CLASSES[1], n_prompts=256, n_controls=0, scores=scores).all_sentences()
    assert text.endswith(": a decoy on linear_classification (pairs 12-15).")


@pytest.mark.slow
def test_a_head_of_early_points_is_a_decoy_at_late_ones_alone(tmp_path):
    model = disguised("early only", 3, tmp_path)
    early, late = ((model.heads[role],) for role in ("copy 0", "copy 1"))
    scores = selection_scores(model.checkpoint, 64, 0)

    def sentences(points: str | None) -> list[str]:
        options = {"n_prompts": 256, "n_controls": 0, "scores": scores, "points": points}
        return ablate(model.checkpoint, [early, late], ["linear"], **options).all_sentences()

    of_early, of_late = sentences(None)
    assert of_early.endswith(": a decoy on linear (pairs 12-15).")
    assert "decoy" not in of_late
    assert all("decoy" not in text for text in sentences("5-7,12-15"))


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
