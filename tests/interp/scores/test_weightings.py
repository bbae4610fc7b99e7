import pytest
import torch
from einops import einsum, rearrange
from torch.autograd.functional import jacobian

from interp.scores.weightings import WEIGHTINGS, by_derivative, by_value, derivative_norms, open_layer
from training.common.errors import UserError
from training.config.config import ModelConfig
from training.evaluation.evaluate import evaluation_prompts
from training.model.transformer import Block


def block_of(generator, **choices) -> Block:
    layer = Block(ModelConfig(1, 3, 12, 2, 14, **choices)).double().requires_grad_(False)
    for name, parameter in layer.named_parameters():
        parameter.normal_(0, 0.6, generator=generator)
        if name == "ln1.w":
            parameter.add_(1)
    return layer


@pytest.fixture
def block(generator) -> Block:
    """A layer in float64 in which every parameter matters."""
    return block_of(generator)


@pytest.fixture
def resid(generator) -> torch.Tensor:
    return 0.02 + 1.5 * torch.randn(2, 7, 12, dtype=torch.float64, generator=generator)


def derivative_by_autograd(block: Block, resid: torch.Tensor) -> torch.Tensor:
    """[head query_pos key_pos] for one prompt."""

    def results(stream: torch.Tensor) -> torch.Tensor:
        return einsum(block.mix(stream[None])[0], block.attn.W_O, "pos head dim, head dim model -> head pos model")

    return rearrange(jacobian(results, resid), "head q model k wrt -> head q k (model wrt)").norm(dim=-1)


@pytest.mark.parametrize("size", [1.0, 3e-3], ids=["usual", "as small as LayerNorm's epsilon"])
def test_the_derivative_is_that_of_autograd(block, resid, size):
    resid = size * resid
    ours = derivative_norms(block, open_layer(block, resid))
    for prompt, norms in zip(resid, ours, strict=True):
        torch.testing.assert_close(norms, derivative_by_autograd(block, prompt), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("norm", ["rms", "none"])
def test_the_derivative_passes_any_norm(norm, generator, resid):
    block = block_of(generator, norm=norm)
    ours = derivative_norms(block, open_layer(block, resid))
    for prompt, norms in zip(resid, ours, strict=True):
        torch.testing.assert_close(norms, derivative_by_autograd(block, prompt), rtol=1e-8, atol=1e-10)


def test_the_derivative_is_refused_for_rotary_heads(generator, resid):
    block = block_of(generator, positions="rotary")
    with pytest.raises(UserError, match="derivative"):
        by_derivative(block, open_layer(block, resid))


def test_every_path_counts(block, resid):
    """The formula differs from its value path alone, from values and keys, and from itself without LayerNorm's unit."""
    whole = derivative_norms(block, open_layer(block, resid))
    values = einsum(
        (block.ln1.w[:, None] * block.attn.W_V) @ block.attn.W_O, "head read write -> head read write"
    ).flatten(1)
    only_values = open_layer(block, resid).pattern * values.norm(dim=-1)[:, None, None]
    assert (whole / only_values)[:, :, 3, :4].sub(1).abs().min() > 1e-3
    block.attn.W_Q.zero_()  # what is left of the pattern path is the query's bias, through the keys
    without_queries = derivative_norms(block, open_layer(block, resid))
    assert not torch.allclose(without_queries, whole, rtol=1e-2)


def test_the_derivative_is_exact_where_attention_is_saturated(block, resid):
    """Closed forms subtract: with one key taking everything in float32, little is left to be right about."""
    block.attn.W_Q.mul_(30)
    exact = derivative_norms(block, open_layer(block, resid))
    wanted = exact / exact.sum(-1, keepdim=True)
    single = Block(ModelConfig(1, 3, 12, 2, 14)).requires_grad_(False)
    single.load_state_dict(block.float().state_dict())
    ours = by_derivative(single, open_layer(single, resid.float()))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=1e-4)


def test_value_is_the_length_of_what_each_key_contributes(block, resid):
    layer = open_layer(block, resid)
    ours = by_value(block, layer)
    for head in range(3):
        contribution = einsum(
            layer.pattern[:, head], layer.v[:, :, head] @ block.attn.W_O[head], "b q k, b k model -> b q k model"
        )
        lengths = contribution.norm(dim=-1)
        torch.testing.assert_close(ours[:, head], lengths / lengths.sum(-1, keepdim=True))


@pytest.mark.parametrize("by", ["value", "derivative"])
def test_a_head_that_writes_nothing_scores_nothing(by, block, resid):
    block.attn.W_O[1] = 0
    shares = WEIGHTINGS[by](block, open_layer(block, resid))
    assert (shares[:, 1] == 0).all()
    torch.testing.assert_close(shares[:, [0, 2]].sum(-1), torch.ones(2, 2, 7, dtype=torch.float64))


@pytest.mark.parametrize("by", WEIGHTINGS)
def test_shares_are_causal_and_sum_to_one(by, random_checkpoint):
    model = random_checkpoint.model
    prompts = evaluation_prompts(random_checkpoint.config, "linear", n_prompts=3, seed=0)
    with torch.no_grad():
        shares = WEIGHTINGS[by](model.layers[0], open_layer(model.layers[0], model.read_in(prompts.tokens)))
    assert (shares.triu(1) == 0).all()
    torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:-1]))
