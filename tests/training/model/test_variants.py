"""Every architecture that `ModelConfig` names, held against torch's own functions and against what is true of it."""

import pytest
import torch
import torch.nn.functional as F
from architectures import VARIANTS
from torch.utils.flop_counter import FlopCounterMode

from training.common.errors import UserError
from training.config.config import ModelConfig
from training.config.parse import from_dict, from_preset, to_dict
from training.model.flops import forward_flops
from training.model.norms import NORMS
from training.model.sites import Sites, site_names
from training.model.transformer import ACTIVATIONS, Past, Transformer, rotate


def model_of(seed=0, **choices) -> Transformer:
    sizes = {
        "n_layers": 2,
        "n_heads": 4,
        "d_model": 32,
        "n_dims": 5,
        "n_ctx": 24,
        "init_std": 0.3,
        "read_init": "linear",
    }
    config = ModelConfig(**(sizes | choices))
    model = Transformer(config, torch.Generator().manual_seed(seed))
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2].startswith(("w", "b_")):  # no gain is 1 and no bias 0
            torch.nn.init.normal_(parameter, float(name.endswith(".w")), 0.3, torch.Generator().manual_seed(len(name)))
    return model


@pytest.fixture(params=VARIANTS.values(), ids=list(VARIANTS))
def model(request):
    return model_of(**request.param).double()  # activations grow without a norm, and rounding with them


def test_every_site_is_reached_once_and_in_order(model, generator):
    seen = []
    names = site_names(model.config)
    note = {site: lambda activation, site=site: (seen.append(site), activation)[1] for site in names}
    prompt = torch.randn(3, 24, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(model(prompt, note), model(prompt), rtol=1e-5, atol=1e-5)
    assert seen == names


def test_predict_is_the_forward_pass_at_the_x_tokens(model, generator):
    prompt = torch.randn(6, 24, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(model.predict(prompt), model(prompt)[:, ::2], rtol=1e-5, atol=1e-5)


def test_later_tokens_can_be_run_alone(model, generator):
    """With the keys and values of the tokens before them, which are recorded before any rotation."""
    block, seen = model.layers[0], {}
    resid = torch.randn(3, 12, 32, generator=generator, dtype=torch.float64)
    edits = {f"attn.hook_{name}": lambda a, name=name: seen.setdefault(name, a) for name in "kv"}
    whole = block.mix(resid, Sites(edits))
    alone = block.mix(resid[:, 7:], past=Past(seen["k"][:, :7], seen["v"][:, :7]))
    torch.testing.assert_close(alone, whole[:, 7:], rtol=1e-5, atol=1e-5)


def test_the_configuration_counts_the_parameters(model):
    assert model.config.n_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_flops_differ_from_the_default_by_those_of_the_products(model):
    """Counted by torch, whose count of fused attention is the same in both."""
    counts = []
    for each in (model, model_of().double()):
        with FlopCounterMode(display=False) as counter:
            each.predict(torch.zeros(1, 2, 5, dtype=torch.float64))
        counts.append(counter.get_total_flops() - forward_flops(each.config, 1))
    assert counts[0] == counts[1]


def test_a_model_without_positions_knows_order_by_the_mask_alone(generator):
    """The first layer's output at a token depends on the set of tokens before it, not on their order."""
    model = model_of(positions="none", n_layers=1)
    prompt = torch.randn(2, 6, 5, generator=generator)
    swapped = prompt[:, [2, 1, 0, 3, 4, 5]]
    torch.testing.assert_close(model(prompt)[:, 3:], model(swapped)[:, 3:], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model_of(n_layers=1)(prompt)[:, 3:], model_of(n_layers=1)(swapped)[:, 3:], atol=1e-3)


def test_rotation_depends_on_the_distance_alone(generator):
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator, dtype=torch.float64)
    products = [
        (rotate(q, torch.tensor([query])) * rotate(k, torch.tensor([key]))).sum().item()
        for query, key in ((3, 1), (103, 101), (5, 1))
    ]
    assert products[0] == pytest.approx(products[1], abs=1e-9)
    assert abs(products[0] - products[2]) > 1e-3


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_norm_is_torchs(kind, generator):
    norm = NORMS[kind](16, 1e-3).double()
    resid = torch.randn(4, 16, generator=generator, dtype=torch.float64)
    theirs = F.layer_norm(resid, (16,), eps=1e-3) if kind == "layer" else F.rms_norm(resid, (16,), eps=1e-3)
    torch.testing.assert_close(norm.normalise(resid), theirs)


@pytest.mark.parametrize("kind", list(NORMS))
def test_a_norms_algebra_is_that_of_its_derivative(kind, generator):
    """`pull_back`, `shrink`, `centre` and `visible_basis` against automatic differentiation."""
    norm = NORMS[kind](16, 0.1).double()
    resid, gradient = torch.randn(2, 16, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(norm.normalise, resid)
    pulled = norm.pull_back(gradient, norm.normalise(resid), norm.scale(resid))
    torch.testing.assert_close(pulled, gradient @ jacobian)
    unit, scale = norm.normalise(resid), norm.scale(resid)
    centring = norm.centre(torch.eye(16, dtype=torch.float64))
    squared = (centring - norm.shrink(resid) * torch.outer(unit, unit)) / scale**2
    torch.testing.assert_close(jacobian @ jacobian.T, squared)
    basis = norm.visible_basis()
    torch.testing.assert_close(basis @ basis.T, centring)
    assert basis.shape[1] == 16 - norm.n_removed


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_an_activation_is_torchs_with_and_without_gradients(name):
    pre = torch.linspace(-4, 4, 101)
    theirs = {
        "gelu_new": F.gelu(pre, approximate="tanh"),
        "gelu": F.gelu(pre),
        "relu": F.relu(pre),
        "silu": F.silu(pre),
    }
    for given in (pre, pre.clone().requires_grad_()):
        torch.testing.assert_close(ACTIVATIONS[name](given), theirs[name], rtol=1e-5, atol=1e-6)


def test_the_choices_are_settings_of_a_run_and_old_files_take_the_defaults():
    config = from_preset("tiny", "mixed", 0, ["model.d_mlp=0", "model.norm=rms", "model.positions=rotary"])
    assert (config.model.d_mlp, config.model.norm, config.model.positions) == (0, "rms", "rotary")
    values = to_dict(config)
    assert from_dict(type(config), values) == config
    for name in ("norm", "positions", "d_mlp", "act", "attention", "eps", "d_out"):
        del values["model"][name]
    assert from_dict(type(config), values).model == from_preset("tiny", "mixed", 0).model


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.d_mlp=-1", "must not be negative"),
        ("model.norm=batch", "valid: layer, rms, none"),
        ("model.eps=0", "must be above 0"),
        ("model.act=tanh", "valid: gelu_new, gelu, relu, silu"),
        ("model.attention=linear", "valid: softmax"),
        ("model.d_out=2", "only 1 is possible"),
    ],
)
def test_an_impossible_architecture_is_refused(setting, message):
    with pytest.raises(UserError, match=message):
        from_preset("tiny", "mixed", 0, [setting])


def test_rotary_heads_need_an_even_width():
    with pytest.raises(UserError, match="even"):
        ModelConfig(1, 2, 6, 2, 4, positions="rotary")
