import math

import pytest
import torch
from torch import Tensor

from training.config.config import ModelConfig
from training.config.parse import from_preset
from training.model import transformer
from training.model.attention_kernels import causal_mask, fused_attention
from training.model.sites import site_names
from training.model.transformer import Transformer


def model_of(seed=0, **sizes) -> Transformer:
    defaults = {"n_layers": 2, "n_heads": 4, "d_model": 32, "n_dims": 5, "n_ctx": 24, "init_std": 0.3}
    return Transformer(ModelConfig(**(defaults | sizes)), torch.Generator().manual_seed(seed))


def test_paper_preset_has_the_papers_parameters_less_the_folded_bias():
    n_parameters = sum(p.numel() for p in Transformer(from_preset("paper", "mixed", 0).model).parameters())
    assert n_parameters == 9_534_977 - 256


@pytest.mark.parametrize("n_points", [1, 2, 12])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_predict_is_the_forward_pass_at_the_x_tokens(n_points, n_layers, generator):
    model, prompt = model_of(n_layers=n_layers), torch.randn(6, 2 * n_points, 5, generator=generator)
    torch.testing.assert_close(model.predict(prompt), model(prompt)[:, ::2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_heads", [1, 4], ids=["fused", "open"])
def test_visiting_every_site_changes_nothing(generator, n_heads):
    model, prompt = model_of(n_heads=n_heads), torch.randn(6, 24, 5, generator=generator)
    keep = dict.fromkeys(site_names(2), lambda activation: activation)
    torch.testing.assert_close(model(prompt, keep), model(prompt), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("queries", [slice(None), slice(0, None, 2)])
def test_open_and_fused_attention_have_the_same_values_and_gradients(generator, monkeypatch, queries):
    attention = model_of().double().layers[0].attn
    normalized = torch.randn(3, 24, 32, generator=generator, dtype=torch.float64, requires_grad=True)
    leaves = [normalized, attention.W_Q, attention.W_K, attention.W_V]
    answers = []
    for is_open in (True, False):
        monkeypatch.setattr(transformer, "faster_batched", lambda _, is_open=is_open: is_open)
        z = attention(normalized, queries=queries)
        answers.append([z, *torch.autograd.grad(z.square().sum(), leaves)])
    torch.testing.assert_close(*answers, rtol=1e-12, atol=1e-12)


def test_no_token_sees_a_later_one(generator):
    model, prompt = model_of(), torch.randn(2, 24, 5, generator=generator)
    changed = prompt.clone()
    changed[:, 11:] += 1
    before, after = model(prompt), model(changed)
    assert torch.equal(before[:, :11], after[:, :11])
    assert not torch.allclose(before[:, 11:], after[:, 11:])


def test_every_site_is_reached_once_and_in_order(generator):
    seen = []
    note = {site: lambda activation, site=site: (seen.append(site), activation)[1] for site in site_names(2)}
    model_of()(torch.randn(1, 4, 5, generator=generator), note)
    assert seen == site_names(2)


def test_an_edit_at_a_misspelt_site_is_refused():
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.hook_zz"):
        model_of()(torch.zeros(1, 4, 5), {"blocks.0.attn.hook_zz": lambda z: z})


@pytest.mark.parametrize("shape", [(1, 4, 6), (1, 26, 5)])
def test_a_prompt_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="at most 24 tokens x 5 dims"):
        model_of()(torch.zeros(shape))


def test_initialisation_is_gpt2s(generator):
    model = Transformer(ModelConfig(4, 4, 128, n_dims=20, n_ctx=100, init_std=0.1), generator)
    block = model.layers[1]
    for weight, std in (
        (block.attn.W_Q, 0.1),
        (block.mlp.W_in, 0.1),
        (model.pos_embed.W_pos, 0.1),
        (block.attn.W_O, 0.1 / math.sqrt(8)),
        (block.mlp.W_out, 0.1 / math.sqrt(8)),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.05)
        assert abs(weight.mean().item()) < 0.05 * std
    assert all(not p.any() for name, p in model.named_parameters() if ".b" in name)
    assert all(bool((p == 1).all()) for name, p in model.named_parameters() if name.endswith(".w"))


def test_linear_read_in_is_torchs_default_with_its_bias_in_the_positions(generator):
    model = Transformer(ModelConfig(1, 4, 256, n_dims=20, n_ctx=200, read_init="linear"), generator)
    assert model.embed.W_E.abs().max().item() == pytest.approx(20**-0.5, rel=0.01)
    assert model.unembed.W_U.abs().max().item() == pytest.approx(256**-0.5, rel=0.02)
    shared = model.pos_embed.W_pos.mean(0)
    assert shared.std().item() == pytest.approx(20**-0.5 / math.sqrt(3), rel=0.15)


def test_weights_follow_the_generator():
    assert torch.equal(model_of(seed=1).layers[0].attn.W_Q, model_of(seed=1).layers[0].attn.W_Q)
    assert not torch.equal(model_of(seed=1).layers[0].attn.W_Q, model_of(seed=2).layers[0].attn.W_Q)


@pytest.mark.parametrize("queries", [slice(None), slice(0, None, 2)])
def test_attention_of_bfloat16_has_the_gradients_of_float32_within_its_rounding(queries, generator):
    numbers = [torch.randn(2, 40, 3, 32, generator=generator).bfloat16() for _ in range(3)]
    visible = causal_mask(40, queries, torch.device("cpu"))

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        inputs = [x.to(dtype).requires_grad_() for x in numbers]
        q, k, v = inputs
        z = fused_attention(q[:, queries], k, v, visible, is_causal=queries == slice(None))
        assert z.dtype == dtype
        return [z, *torch.autograd.grad((z * v[:, queries].detach()).sum(), inputs)]

    for rounded, exact in zip(gradients(torch.bfloat16), gradients(torch.float32), strict=True):
        assert (rounded - exact).norm() < 0.01 * exact.norm()
