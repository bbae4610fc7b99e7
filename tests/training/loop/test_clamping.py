"""Training under an intervention: what the engine computes with the same edit, no gradient where nothing can change."""

import pytest
import torch
import torch.nn.functional as F

from interp import hooked
from interp.scores.kinds import SCORES
from training.checkpoints.checkpoint import load, read_history
from training.common.errors import UserError
from training.config.parse import from_preset
from training.loop.state import new_state
from training.loop.trainer import train
from training.model.clamping import clamped_predict, clamping_edits
from training.sampling import sample_prompts


def prompts_of(config, n_points=None):
    return sample_prompts(config, "linear", torch.Generator().manual_seed(0), 6, n_points=n_points)


def by_loops(pattern, xs, action, heads, layer):
    """The pattern after the intervention, head by head, query by query, from the score's own definition."""
    kind, new = SCORES["retrospective"], pattern.clone()
    target = kind.weights(xs[:1])[0] > 0
    for head in range(pattern.shape[1]):
        if (layer, head) not in heads:
            continue
        for query in range(pattern.shape[2]):
            key = target[query].nonzero().flatten().tolist()
            if action == "clamp":
                new[:, head, query] = 0
                new[:, head, query, key or [query]] = 1
            else:
                new[:, head, query, key] = 0
                new[:, head, query] /= new[:, head, query].sum(-1, keepdim=True)
    return new


@pytest.mark.parametrize(
    ("action", "heads"),
    [("clamp", "0.1,1.3"), ("clamp", "2.0"), ("ablate", "0.1,1.3"), ("forbid", "0.1"), ("forbid", "")],
)
def test_the_clamped_forward_pass_is_that_of_transformer_lens_with_hooks(action, heads):
    settings = [f"clamping.action={action}", *([f"clamping.heads={heads}"] if heads else [])]
    config = from_preset("tiny", "mixed", 0, settings)
    checkpoint = load("zoo:mixed-0")
    prompts = prompts_of(config)
    every = {(layer, head) for layer in range(3) for head in range(8)}
    chosen = {(int(h[0]), int(h[2])) for h in heads.split(",")} if heads else every

    def hook(activation, hook):
        layer = int(hook.name.split(".")[1])
        if action == "ablate":
            activation = activation.clone()
            for own, head in chosen:
                if own == layer:
                    activation[:, :, head] = 0
            return activation
        return by_loops(activation, prompts.xs, action, chosen, layer)

    site = "attn.hook_z" if action == "ablate" else "attn.hook_pattern"
    model = hooked(checkpoint)
    hooks = [(f"blocks.{layer}.{site}", hook) for layer in range(3)]
    theirs = model.run_with_hooks(prompts.tokens, fwd_hooks=hooks)[:, ::2, 0]  # pyright: ignore
    ours = clamped_predict(checkpoint.model, clamping_edits(config))(prompts.tokens)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (ours - checkpoint.model.predict(prompts.tokens)).abs().max() > 1e-3


def gradients(config):
    model = new_state(config, "cpu").model
    prompts = prompts_of(config)
    F.mse_loss(clamped_predict(model, clamping_edits(config))(prompts.tokens), prompts.ys).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(
    ("action", "still"), [("clamp", ("W_Q", "W_K", "b_Q", "b_K")), ("ablate", ("W_Q", "W_K", "W_V", "W_O", "b_V"))]
)
def test_a_fixed_head_has_no_gradient_where_nothing_can_change(action, still):
    found = gradients(from_preset("tiny", "mixed", 0, [f"clamping.action={action}", "clamping.heads=1.2"]))
    for leaf in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
        of_head = found[f"blocks.1.attn.{leaf}"].abs().flatten(1).sum(1) if leaf[0] == "W" else None
        if leaf in still:
            assert not found[f"blocks.1.attn.{leaf}"][2].any(), leaf
        elif of_head is not None:
            assert of_head[2] > 0, leaf
        if of_head is not None:
            assert (of_head[torch.arange(8) != 2] > 0).all()


@pytest.mark.parametrize("instruction", [(), ("instruction.kind=one_hot", "instruction.at=3", "model.n_ctx=33")])
def test_forbidden_attention_is_exactly_zero_and_the_rest_sums_to_one(instruction):
    config = from_preset("tiny", "mixed", 0, ["clamping.action=forbid", *instruction])
    model, prompts, seen = new_state(config, "cpu").model, prompts_of(config), []

    def keep(pattern):
        seen.append(pattern)
        return pattern

    edits = dict(clamping_edits(config)) | {f"blocks.{layer}.attn.hook_pattern": keep for layer in range(3)}
    clamped_predict(model, edits)(prompts.tokens)
    target = SCORES["retrospective"].weights(prompts.xs[:1], config.layout)[0] > 0
    n_pos = seen[0].shape[-1]
    for pattern in seen:
        assert not pattern[:, :, target[:n_pos, :n_pos]].any()
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
    assert len(seen) == 3


def test_a_run_is_the_same_until_its_clamp_begins(quick_config, quick_settings, tmp_path, train_until):
    settings = ["clamping.action=clamp", "clamping.heads=0.1", "clamping.first=14", "clamping.until=50"]
    config = from_preset("tiny", "mixed", 0, [*quick_settings[1::2], *settings])
    train(quick_config, tmp_path / "plain")
    train(config, tmp_path / "clamped")
    for step, same in ((14, True), (60, False)):
        pair = [load(f"{tmp_path / name}@{step}").model.layers[0].attn.W_V for name in ("plain", "clamped")]
        assert torch.equal(*pair) is same
    rows = read_history(tmp_path / "clamped")
    assert {row["step"]: row["nmse_tail_clamped"] is not None for row in rows} == {
        0: False,
        25: True,
        50: True,
        60: False,
    }
    assert all(row["nmse_tail_clamped"] != row["nmse_tail"] for row in rows if row["step"] == 25)
    assert "nmse_tail_clamped" not in read_history(tmp_path / "plain")[0]
    assert "trained with clamp on 0.1 in steps 14 to 50, evaluated without" in repr(load(tmp_path / "clamped"))
    train_until(config, tmp_path / "cut", 30)
    train(config, tmp_path / "cut", resume=True)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("cut", "clamped")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["clamping.action=clamp"], "needs clamping.heads"),
        (["clamping.heads=0.1"], "clamping.heads has no use without clamping.action"),
        (["clamping.action=ablate", "clamping.heads=9.1"], "'9.1' is no head"),
        (["clamping.action=forbid", "clamping.first=50", "clamping.until=10"], "0 <= first < until"),
        (["clamping.action=forbid", "clamping.until=9000"], "<= recipe.steps=3000"),
    ],
)
def test_a_clamping_that_would_do_nothing_is_refused(settings, reason):
    with pytest.raises(UserError, match=reason):
        from_preset("tiny", "mixed", 0, settings)
