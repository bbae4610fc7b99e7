"""Scores that are no attention: an oracle with plain hooks, intervals, and what is refused."""

import numpy as np
import pytest
import torch

import interp
from interp.model.heads import Head
from interp.patching.function_vectors import effect_by_prompt, permuted_pairs, same_function_means
from interp.scores.measured import MeasuredScore, ScoredPrompts
from training.common.bootstrap import mean_interval
from training.common.errors import UserError


def test_plain_hooks_give_the_same_effect():
    checkpoint = interp.load("zoo:linear-0")
    scored = ScoredPrompts(checkpoint, "linear", 8, 3, "test")
    pairs, means, twin, head = (
        permuted_pairs(scored),
        same_function_means(scored),
        interp.hooked(checkpoint),
        Head(1, 3),
    )

    def put_mean(z, hook):  # noqa: ARG001  # transformer_lens calls it by this name
        z[:, -1, head.number] = means[:, head.layer, head.number]
        return z

    with torch.no_grad():
        clean, corrupt = (side.tokens[:, :-1] for side in pairs)
        name = f"blocks.{head.layer}.attn.hook_z"
        runs = [twin(clean), twin(corrupt), twin.run_with_hooks(corrupt, fwd_hooks=[(name, put_mean)])]
    source, base, patched = (run[:, -1].double().numpy().ravel() for run in runs)
    wanted = ((patched - base) * (source - base)).mean() / np.square(source - base).mean()
    scores = interp.score(checkpoint, "linear", kind="function_vector", n_prompts=8, seed=3)
    assert scores.values["linear"][head] == pytest.approx(wanted, abs=1e-5)


def test_the_interval_is_that_of_a_ratio(rng):
    covered = []
    for _ in range(120):
        gap = rng.normal(size=200) * rng.exponential(size=200)
        patched = 0.4 * gap + 0.3 * rng.normal(size=200)
        values = effect_by_prompt(patched[None], np.zeros(200), gap)[0]
        low, high = mean_interval(values[:, None], rng)
        covered.append(low[0] <= 0.4 <= high[0])
    assert 0.87 < np.mean(covered) < 0.99


def count_heads(scored: ScoredPrompts) -> np.ndarray:
    """The number of the head, and the prompt's first y."""
    model = scored.checkpoint.config.model
    first = scored.prompts.ys[:, 0].double().numpy()
    return first[:, None, None] + np.arange(model.n_heads) + np.zeros((1, model.n_layers, 1))


def test_a_score_may_be_any_function_of_model_and_prompts():
    scores = interp.score("zoo:linear-0", "linear", kind=MeasuredScore("number", count_heads), n_prompts=32)
    assert np.diff(scores.values["linear"], axis=1) == pytest.approx(1)
    assert (scores.ci_low["linear"] < scores.values["linear"]).all()
    assert "The number of the head" in scores.tables()[0].title


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "value"}, "is no score of attention: it takes no weighting"),
        ({"points": "0-3"}, "it takes no points"),
        ({"shift": "scale_x:2"}, "it takes no shift"),
    ],
)
def test_what_a_measured_score_does_not_take_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        interp.score("zoo:linear-0", "linear", kind="function_vector", n_prompts=8, **options)


def test_values_of_another_shape_are_refused():
    flat = MeasuredScore("flat", lambda _: np.zeros(8))
    with pytest.raises(UserError, match=r"the score flat measures float64 \[8\]: floats \[8, 3, 8\] are needed"):
        interp.score("zoo:linear-0", "linear", kind=flat, n_prompts=8)


def test_the_functions_of_own_prompts_are_unknown(rng):
    own = interp.OwnPrompts(rng.normal(size=(8, 6, 4)), rng.normal(size=(8, 6)))
    with pytest.raises(UserError, match="needs function classes"):
        interp.score("zoo:linear-0", prompts=own, kind="function_vector")
