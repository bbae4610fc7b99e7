import numpy as np
import pytest
import torch

from interp.scores import SCORES, own_attention, score, y_to_own_x
from training.errors import UserError
from training.evaluate import evaluation_prompts


def test_own_attention_reads_the_entry_from_y_to_its_own_x():
    pattern = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert y_to_own_x(pattern).flatten().tolist() == [pattern[0, 0, q, q - 1].item() for q in (1, 3, 5)]


def test_scores_of_a_literal_attention():
    attention = torch.tensor([1.0, 1.0, 0.5, 0.5, 0.0, 0.0, 0.0, 1.0])
    assert SCORES["retrospective"].value(attention).item() == pytest.approx(4 / 8)
    assert SCORES["paper"].value(attention).item() == pytest.approx(3 / 12)
    assert SCORES["paper"].value(torch.ones(100)).item() == pytest.approx(0.5)


def test_chance_is_the_score_of_uniform_attention(random_checkpoint):
    model = random_checkpoint.model
    for block in model.layers:
        block.attn.W_Q.zero_()
        block.attn.b_Q.zero_()
    for kind in SCORES:
        result = score(random_checkpoint, ["linear"], kind=kind, n_prompts=16)
        np.testing.assert_allclose(result.values["linear"], result.chance, rtol=1e-5)


def test_own_attention_is_that_of_hooked_transformer(random_checkpoint):
    from interp.hooked import hooked

    tokens = evaluation_prompts(random_checkpoint.config, "cubic", n_prompts=5, seed=0).tokens
    _, cache = hooked(random_checkpoint).run_with_cache(tokens)
    ours = own_attention(random_checkpoint.model, tokens)
    for layer in range(3):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        theirs = torch.stack([pattern[:, :, 2 * i + 1, 2 * i] for i in range(16)], dim=-1)
        torch.testing.assert_close(ours[:, layer], theirs, rtol=0, atol=1e-5)  # attention is at most 1


def test_interval_holds_the_mean_and_shrinks_with_prompts(random_checkpoint):
    few, many = (score(random_checkpoint, ["linear"], n_prompts=n) for n in (32, 512))
    for result in (few, many):
        assert (result.ci_low["linear"] <= result.values["linear"]).all()
        assert (result.values["linear"] <= result.ci_high["linear"]).all()
    widths = [(r.ci_high["linear"] - r.ci_low["linear"]).mean() for r in (few, many)]
    assert widths[1] < widths[0] / 2


def test_selection_prompts_are_not_test_prompts(random_checkpoint):
    streams = [
        evaluation_prompts(random_checkpoint.config, "linear", n_prompts=4, seed=0, stream=s).xs
        for s in ("selection", "test", "reference")
    ]
    assert not any(torch.equal(a, b) for a, b in ((streams[0], streams[1]), (streams[1], streams[2])))


def test_table_has_a_row_per_class_and_head(random_checkpoint):
    table = score(random_checkpoint, ["linear", "cubic"], n_prompts=8).table()
    assert len(table) == 2 * 24
    assert list(table["name"][:2]) == ["0.0", "0.1"]


def test_unknown_score_is_refused(random_checkpoint):
    with pytest.raises(UserError, match=r"'induction' \(valid: retrospective, paper\)"):
        score(random_checkpoint, kind="induction")
