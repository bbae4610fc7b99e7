"""Removals and patches equal plain torch hooks written by hand, and on the compact model the engine."""

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp.ablation.reference_activations import reference_prompts
from interp.any_model.task import Task
from interp.model.heads import Head
from training.evaluation.evaluate import evaluation_prompts
from training.tasks.prompts import last_quarter

HEADS = 4


def submodule(case, layer: int):
    return case.module.get_submodule(case.projection.format(layer))


def run_by_hand(case, examples, edits, layers=()):
    """The losses with pre-hooks that edit z [example pos head d_head], and z of other layers."""
    handles, seen = [], {}

    def hook_for(layer):
        def hook(_module, args):
            flat = args[0]
            z = flat if flat.ndim == 4 else flat.unflatten(-1, (HEADS, -1))
            seen[layer] = z.clone()
            z = edits[layer](z) if layer in edits else z
            return (z if flat.ndim == 4 else z.flatten(-2), *args[1:])

        return hook

    try:
        for layer in {*edits, *layers}:
            handles.append(submodule(case, layer).register_forward_pre_hook(hook_for(layer)))
        with torch.no_grad():
            output = case.module(**examples) if isinstance(examples, dict) else case.module(examples)
            return case.loss(output, examples).double().numpy(), seen
    finally:
        for handle in handles:
            handle.remove()


def replaced(number: int, values: Tensor | float):
    def edit(z: Tensor) -> Tensor:
        z = z.clone()
        z[:, :, number] = values
        return z

    return edit


def attached(case, **options):
    return interp.attach(case.module, case.examples, case.loss, batch_first=case.batch_first, **options)


def losses_after(result, mode: str, heads: tuple[Head, ...]):
    (of_condition,) = result.errors.values()
    return of_condition.ablated[mode][heads].total[:, 0]


def test_removals_equal_hooks_written_by_hand(causal_case):
    case = causal_case
    model = attached(case, reference=case.examples)
    result = interp.ablate(model, "0.1,2.3", modes=["zero", "mean", "mean:global", "resample"], n_controls=3)
    _, seen = run_by_hand(case, case.examples, {}, range(3))
    partners = model.task.partners()
    for mode, values in (
        ("zero", lambda _z: 0.0),
        ("mean", lambda z: z.mean(0)),
        ("mean:global", lambda z: z.mean((0, 1))),
        ("resample", lambda z: z[partners]),
    ):
        edits = {layer: replaced(head, values(seen[layer][:, :, head])) for layer, head in ((0, 1), (2, 3))}
        by_hand, _ = run_by_hand(case, case.examples, edits)
        ours = losses_after(result, mode, (Head(0, 1), Head(2, 3)))
        assert np.abs(ours / by_hand - 1).max() < 1e-6
    intact, _ = run_by_hand(case, case.examples, {})
    (errors,) = result.errors.values()
    assert np.abs(errors.intact[:, 0] / intact - 1).max() < 1e-6
    assert np.abs(by_hand / intact - 1).max() > 1e-4


def test_removals_in_an_encoder_equal_a_projection_without_the_head(encoder_case):
    """`nn.MultiheadAttention` does not call its projection: the oracle changes its weight and its bias."""
    case = encoder_case
    model = attached(case, reference=case.examples)
    result = interp.ablate(model, "1.2", modes=["zero", "mean:global"], n_controls=3)
    attention = case.module.encoder.layers[1].self_attn
    mean = model.task.moments.mean[1].mean(1)[0, 2]
    columns = slice(2 * 8, 3 * 8)
    weight, bias = attention.out_proj.weight.data, attention.out_proj.bias.data
    own = weight[:, columns].clone()
    for mode, constant in (("zero", torch.zeros(8)), ("mean:global", mean)):
        weight[:, columns] = 0
        bias += own @ constant
        with torch.no_grad():
            by_hand = case.loss(case.module(case.examples), case.examples).double().numpy()
        weight[:, columns] = own
        bias -= own @ constant
        assert np.abs(losses_after(result, mode, (Head(1, 2),)) / by_hand - 1).max() < 1e-5


def test_the_mean_in_an_encoder_is_that_of_its_attention(encoder_case):
    """z by hand: the pattern times the values."""
    case = encoder_case
    task: Task = attached(case, reference=case.examples).task
    layer = case.module.encoder.layers[0]
    with torch.no_grad():
        x = case.module.read_in(case.examples)
        weights = layer.self_attn(x, x, x, average_attn_weights=False)[1]
        v = (x @ layer.self_attn.in_proj_weight[64:].T + layer.self_attn.in_proj_bias[64:]).transpose(0, 1)
        z = (weights @ v.unflatten(-1, (HEADS, -1)).transpose(1, 2)).transpose(1, 2)
    assert (task.moments.mean[0][0] - z.mean(0)).abs().max() < 1e-6


@pytest.mark.sample(1)
def test_layers_that_are_given_back_and_shared_passes_change_nothing(case):
    model = attached(case, reference=case.examples)
    assert model.network.leaf_axes
    whole = interp.attach(case.module, case.examples, case.loss, batch_first=case.batch_first, reference=case.examples)
    object.__setattr__(whole.network, "leaf_axes", [])
    object.__setattr__(whole.task, "memory", 1)  # one example and one set in a pass
    after, plain = (
        interp.ablate(one, "each", modes=["mean"], n_controls=0).table["loss_after"].to_numpy()
        for one in (model, whole)
    )
    assert np.abs(after / plain - 1).max() < 1e-6


@pytest.mark.parametrize("site", ["z", "attn_out", "resid_pre", "resid_post"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_patches_equal_hooks_written_by_hand(nano, site, direction):
    case = nano
    corrupt = case.examples.clone()
    corrupt[:, :6] = torch.randint(0, 40, (24, 6), generator=torch.Generator().manual_seed(5))
    model = attached(case, reference=case.examples, corrupt=corrupt)
    found = interp.patch(
        model, site=site, direction=direction, tokens="7-9", **({"heads": "each"} if site == "z" else {})
    )
    base, source = (corrupt, case.examples) if direction == "denoise" else (case.examples, corrupt)
    block = case.module.transformer["h"][1]
    kept = {}

    def keep(_module, args, output=None):
        kept["z"] = (args[0] if output is None else output).clone()

    def put(_module, args, output=None):
        activation = (args[0] if output is None else output).clone()
        columns = slice(2 * 8, 3 * 8) if site == "z" else slice(None)
        activation[:, 7:10, columns] = kept["z"][:, 7:10, columns]
        return (activation,) if output is None else activation

    module = {"z": block.attn.c_proj, "attn_out": block.attn.c_proj}.get(site, block)
    register = module.register_forward_pre_hook if site in ("z", "resid_pre") else module.register_forward_hook
    with torch.no_grad():
        handle = register(keep)
        case.module(source)
        handle.remove()
        handle = register(put)
        by_hand = case.loss(case.module(base), case.examples).mean().item()
        handle.remove()
    row = found.table[(found.table["layer"] == 1) & (found.table["heads"] == ("1.2" if site == "z" else ""))]
    assert row["loss"].item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.sample(3)
def test_patching_everything_gives_the_other_run(case):
    examples = case.examples["input_ids"] if isinstance(case.examples, dict) else case.examples
    corrupt = examples.flip(0 if case.batch_first else 1)
    corrupt = {**case.examples, "input_ids": corrupt} if isinstance(case.examples, dict) else corrupt
    model = attached(case, reference=case.examples, corrupt=corrupt)
    for direction in ("denoise", "noise"):
        found = interp.patch(model, site="resid_post", tokens="all", direction=direction)
        assert found.table["effect"].to_numpy()[-1] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_the_compact_model_equals_the_engine(random_checkpoint, mode):
    checkpoint, points = random_checkpoint, last_quarter(16)
    config = checkpoint.config
    test = evaluation_prompts(config, "linear", n_prompts=64, seed=0)
    reference = reference_prompts(config, "linear", 0).tokens
    unit = config.second_moment("linear")

    def loss(output, tokens):
        answers = tokens[:, 1::2, 0]
        return (output[:, ::2] - answers)[:, points].square().mean(1) / unit

    model = interp.attach(checkpoint.model, test.tokens, loss, reference=reference, roles="xy")
    ours = interp.ablate(model, "each", modes=[mode], n_controls=0)
    engine = interp.ablate(checkpoint, "each", "linear", modes=[mode], n_prompts=64, matches=())
    assert np.abs(ours.table["loss_after"] / engine.table["nmse_after"] - 1).max() < 1e-5


def test_scores_and_patterns_of_all_sources_agree(nano, random_checkpoint):
    """Patterns that are computed from named queries and keys, those of HookedTransformer, and the engine's."""
    prompts = evaluation_prompts(random_checkpoint.config, "linear", n_prompts=32, seed=0)

    def loss(output, tokens):
        return (output[:, ::2, 0] - tokens[:, 1::2, 0]).square().mean(1)

    hooked = interp.attach(interp.hooked(random_checkpoint), prompts.tokens, loss, reference=prompts.tokens, roles="xy")
    ours = interp.score(hooked, kind="retrospective").values["all examples"]
    engine = interp.score(random_checkpoint, "linear", n_prompts=32).values["linear"]
    assert np.abs(ours - engine).max() < 1e-5
    told = interp.attach(nano.module, nano.examples, nano.loss, qkv="transformer.h.*.attn.c_attn")
    assert interp.patterns(told, "1.0").values.sum(-1) == pytest.approx(1)


def test_the_encoder_attends_in_both_directions(encoder_case):
    model = attached(encoder_case, roles="xy")
    result = interp.score(model)
    assert result.chance == pytest.approx(1 / 10)
    first = model.task.rows(model.task.examples, range(1))
    with torch.no_grad():
        x = encoder_case.module.read_in(first)
        pattern = encoder_case.module.encoder.layers[0].self_attn(x, x, x, average_attn_weights=False)[1]
    assert interp.patterns(model, "0.3").values[0] == pytest.approx(pattern[0, 3].numpy(), abs=1e-6)
