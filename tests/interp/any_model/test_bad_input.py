"""What cannot be attached is refused in one line, and nothing is left hooked."""

from typing import Any

import pytest
import torch
from torch import nn

import interp
from interp.any_model.projections import find_projections
from training.common.errors import CheckError, UserError


def n_hooks(module: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return sum(len(getattr(one, kind)) for one in module.modules() for kind in kinds)


def replaced_forwards(module: nn.Module) -> list[str]:
    return [name for name, one in module.named_modules() if "forward" in one.__dict__]


class Plain(nn.Module):
    """No attention: a projection that is not known by name."""

    def __init__(self, n_inputs: int = 32, name: str = "mixer") -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({name: nn.Linear(n_inputs, 32)}) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            linear: Any = next(iter(layer.children()))
            x = linear(x)
        return x


EXAMPLES = torch.randn(20, 5, 32, generator=torch.Generator().manual_seed(0))


def loss(output, _examples):
    return output.square().mean((1, 2))


def test_no_projection_is_found():
    maps = r"\(linear maps \[in, out\]: layers\.\*\.mixer \[32, 32\] \(2\)\)"
    with pytest.raises(UserError, match=f"no attention output projection is found by name or shape .*{maps}"):
        interp.attach(Plain(), EXAMPLES, loss)


def test_several_kinds_are_listed_with_their_shapes():
    model = nn.ModuleDict({"self_attn": nn.ModuleDict({"o_proj": nn.Linear(4, 4), "out_proj": nn.Linear(4, 6)})})
    with pytest.raises(UserError, match=r"candidates \[in, out\]: self_attn.o_proj \[4, 4\] \(1\), self_attn.out_proj"):
        find_projections(model)


def test_projections_can_be_told():
    model = interp.attach(Plain(), EXAMPLES, loss, projections="layers.*.mixer", n_heads=4)
    assert (model.network.n_layers, model.network.n_heads) == (2, 4)
    with pytest.raises(UserError, match=r"no module 'layers\.\*\.mix'"):
        interp.attach(Plain(), EXAMPLES, loss, projections="layers.*.mix", n_heads=4)


def test_heads_that_are_not_known_or_do_not_divide_the_width():
    with pytest.raises(UserError, match="number of heads per layer is not known"):
        interp.attach(Plain(), EXAMPLES, loss, projections="layers.*.mixer")
    with pytest.raises(UserError, match=r"5 heads do not divide the input of layers.0.mixer \[32, 32\]"):
        interp.attach(Plain(), EXAMPLES, loss, projections="layers.*.mixer", n_heads=5)


@pytest.mark.parametrize(
    ("bad_loss", "message"),
    [
        (lambda output, _: output.square().mean(), r"shape \[\]"),
        (lambda output, _: output.square().mean(2), r"shape \[3, 5\]"),
        (lambda output, _: output.mean((1, 2)) * torch.nan, "NaN or infinite on 3 of 3"),
        (lambda _output, _: None, "are NoneType: one number per example"),
        (lambda output, _: {"loss": output.mean((1, 2))}, "are dict: one number per example"),
        (lambda output, _: output.mean((1, 2)).to(torch.complex64), "are torch.complex64: one number per example"),
    ],
)
def test_a_loss_is_one_finite_number_per_example(bad_loss, message):
    with pytest.raises(UserError, match=message):
        interp.attach(Plain(), EXAMPLES, bad_loss, projections="layers.*.mixer", n_heads=4)


def test_a_loss_that_becomes_infinite_without_a_head_names_the_set():
    model = interp.attach(
        Plain(), EXAMPLES, lambda output, _: 1 / output[:, 0, :8].abs().sum(1), projections="layers.*.mixer", n_heads=4
    )
    layers: Any = model.network.module.layers
    for layer in layers:
        layer["mixer"].bias.data.zero_()
    with pytest.raises(UserError, match=r"without 1.0,1.1,1.2,1.3 \(zero\) are NaN or infinite"):
        interp.ablate(model, "layer:1", modes=["zero"])
    assert not n_hooks(model.network.module)


def test_training_mode_is_said_and_restored(nano, capsys):
    nano.module.train()
    nano.module.transformer["h"][1].eval()
    before = [one.training for one in nano.module.modules()]
    model = interp.attach(nano.module, nano.examples, nano.loss)
    assert capsys.readouterr().err.count("training mode") == 1
    first, again = (interp.ablate(model, "1.1", modes=["zero"]).table["loss_before"].item() for _ in range(2))
    assert first == again
    assert [one.training for one in nano.module.modules()] == before


def test_another_device(nano):
    with pytest.raises(UserError, match="the model is on cpu and examples are on meta"):
        interp.attach(nano.module, nano.examples.to("meta"), nano.loss)


def test_too_few_examples(nano):
    with pytest.raises(
        UserError, match="15 examples are too few for an interval: at least 16 are needed, half of them"
    ):
        interp.attach(nano.module, nano.examples[:15], nano.loss)
    with pytest.raises(UserError, match="7 examples are too few for an interval: at least 8"):
        interp.attach(nano.module, nano.examples[:7], nano.loss, reference=nano.examples)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ("text", "examples are str"),
        ({"a": torch.zeros(3, 2), "b": torch.zeros(4)}, r"examples have \[3, 2\], \[4\]"),
        ({"flag": True}, "no tensors"),
    ],
)
def test_examples_that_are_none(nano, examples, message):
    with pytest.raises(UserError, match=message):
        interp.attach(nano.module, examples, nano.loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": ["a"] * 3}, "conditions has 3 values for 24 examples"),
        ({"no_context": torch.ones(5)}, "no_context has 5 values"),
        ({"no_context": 3.0}, "no_context is float: one value per example"),
        ({"corrupt": torch.zeros(3, 12, dtype=torch.long)}, "corrupt has 3 examples for 24"),
        ({"corrupt": torch.zeros(24, 6).long()}, r"corrupt has shapes \[\[6\]\] and examples have \[\[12\]\]"),
        ({"reference": torch.zeros(1, 12).long()}, "reference has 1 example, too few for a mean: at least 8"),
        ({"reference": torch.zeros(24, 6).long()}, r"reference has shapes \[\[6\]\]"),
        ({"reference": {"ids": torch.zeros(24, 12).long()}}, r"reference has members \['ids'\]"),
        ({"tokens": torch.zeros(3, 12).long()}, "tokens has 3 examples for 24"),
        ({"memory": 0}, "a number above 0"),
        ({"seed": -1}, "seed -1: a whole number from 0"),
        ({"roles": "xz"}, "roles 'xz'"),
        ({"kind": "inductive"}, "unknown score 'inductive'"),
    ],
)
def test_options_that_do_not_fit(nano, options, message):
    with pytest.raises(UserError, match=message):
        interp.attach(nano.module, nano.examples, nano.loss, **options)


def test_losses_in_half_precision_are_losses():
    given: Any = {"projections": "layers.*.mixer", "n_heads": 4, "reference": EXAMPLES.bfloat16()}
    model = interp.attach(Plain().bfloat16(), EXAMPLES.bfloat16(), loss, **given)
    assert model.task.run(model.task.examples).dtype == "float64"


def test_what_is_no_module():
    with pytest.raises(UserError, match=r"takes a torch.nn.Module: function is given"):
        interp.attach(loss, EXAMPLES, loss)


def test_a_projection_that_is_not_called_is_caught(nano):
    for layer in nano.module.transformer["h"]:
        layer.attn.forward = lambda x, attn=layer.attn: nn.functional.linear(x, attn.c_proj.weight)
    with pytest.raises(CheckError, match=r"transformer.h.0.attn.c_proj is reached 0 times"):
        interp.attach(nano.module, nano.examples, nano.loss)
    assert not n_hooks(nano.module)


def test_a_projection_that_is_called_twice_is_caught():
    model = Plain()
    model.layers[1] = model.layers[0]
    with pytest.raises(CheckError, match="is reached 2 times in a pass"):
        interp.attach(model, EXAMPLES, loss, projections=["layers.0.mixer"], n_heads=4)


def test_an_output_that_is_thrown_away_is_caught(nano):
    """The projection is called and changed, and nobody reads it."""
    for layer in nano.module.transformer["h"]:
        own = layer.attn.forward
        layer.attn.forward = lambda x, own=own: own(x) * 0
    model = interp.attach(nano.module, nano.examples, nano.loss)
    with pytest.raises(CheckError, match=r"zero ablation of 1\.2 leaves the model's output as it is: it did not act"):
        interp.ablate(model, "1.2", modes=["zero"])


def test_examples_that_depend_on_one_another_are_caught(nano):
    def centred(output, ids):
        losses = nano.loss(output, ids)
        return losses - losses.mean()

    model = interp.attach(nano.module, nano.examples, centred)
    with pytest.raises(CheckError, match="an example's loss depends on the examples beside it"):
        interp.ablate(model, "1.2", modes=["zero"])


def test_nothing_is_left_hooked_after_an_exception(nano):
    calls = []

    def failing(output, ids):
        calls.append(1)
        if len(calls) > 6:
            raise KeyError("targets")
        return nano.loss(output, ids)

    model = interp.attach(nano.module, nano.examples, failing)
    with pytest.raises(KeyError):
        interp.ablate(model, "each", modes=["zero"])
    assert not n_hooks(nano.module)
    assert not replaced_forwards(nano.module)

    def broken(_module, _args):
        raise ValueError("inside")

    handle = nano.module.transformer["h"][2].register_forward_pre_hook(broken)
    with pytest.raises(ValueError, match="inside"):
        model.network.read(nano.examples, [*model.network.axes])
    handle.remove()
    assert not n_hooks(nano.module)
    assert torch.backends.mha.get_fastpath_enabled()


def test_heads_that_write_nothing_are_noted(nano):
    nano.module.transformer["h"][1].attn.c_proj.weight.data[:, 16:24] = 0
    model = interp.attach(nano.module, nano.examples, nano.loss)
    result = interp.ablate(model, "1.2", modes=["zero", "mean"])
    assert result.table["effect"].abs().max() < 1e-6
    assert result.table["note"].str.contains("the output of 1.2").all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: interp.ablate(model, "9.0"), "no head 9.0"),
        (lambda model: interp.ablate(model, "1.1", modes=["optimal"]), "unknown modes 'optimal'"),
        (lambda model: interp.ablate(model, "1.1", modes=["zero", "zero"]), "zero is named twice"),
        (lambda model: interp.ablate(model, "1.mlp"), "only attention heads"),
        (lambda model: interp.score(model, kind="paper"), "unknown score 'paper'"),
        (lambda model: interp.score(model, kind="retrospective"), "roles='xy'"),
        (lambda model: interp.score(model, kind="induction"), "gives no attention pattern"),
        (lambda model: interp.patch(model), "no corrupt examples"),
    ],
)
def test_questions_that_cannot_be_answered(nano, call, message):
    model = interp.attach(nano.module, nano.examples, nano.loss)
    with pytest.raises(UserError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "pattern"}, "unknown site 'pattern'"),
        ({"direction": "both"}, "both"),
        ({"tokens": "3-99"}, "positions 0-11"),
        ({"site": "attn_out", "heads": "1.1"}, "has no heads"),
        ({"heads": "1.mlp"}, "site of attention heads"),
    ],
)
def test_patches_that_cannot_be_made(nano, options, message):
    model = interp.attach(nano.module, nano.examples, nano.loss, corrupt=nano.examples.flip(0))
    with pytest.raises(UserError, match=message):
        interp.patch(model, **options)


def test_corrupt_examples_that_are_the_clean_ones_are_caught(nano):
    model = interp.attach(nano.module, nano.examples, nano.loss, corrupt=nano.examples)
    with pytest.raises(CheckError, match="no patch can act"):
        interp.patch(model)


def test_rotated_queries_do_not_reproduce_z():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, **sizes)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    ids = torch.randint(0, 40, (16, 8), generator=torch.Generator().manual_seed(0))
    names = [f"model.layers.*.self_attn.{kind}_proj" for kind in "qkv"]
    attached = interp.attach(model, ids, lambda out, _ids: out.logits[:, -1].square().mean(1), qkv=names)
    with pytest.raises(CheckError, match="are they rotated later"):
        interp.score(attached, kind="previous_token")
