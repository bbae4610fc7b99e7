"""Run directories of Garg et al. 2022 and the programs that kept their layout, each with the traps that it sets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from foreign_sources import (
    SIZES,
    Garg,
    HybridModel,
    Looped,
    combine,
    garg_config,
    growth,
    prompts,
    randomised,
    relative_difference,
    save_garg,
)
from torch import Tensor, nn

from interp import import_checkpoint, load
from training.checkpoints.checkpoint import Checkpoint, read_document, snapshot_steps
from training.common.errors import UserError
from training.config.config import ModelConfig
from training.importing import gpt2_layout
from training.importing.hybrid_layout import flatten
from training.tasks.function_classes import function_class
from training.tasks.prompts import Prompts, one_hot_instruction, to_prompt

GargRun = Callable[..., Path]


def difference(checkpoint: Checkpoint, theirs: nn.Module, n_points: int = SIZES["n_positions"]) -> float:
    """Of our predictions from theirs, on prompts that the proof did not see."""
    xs, ys = prompts(n_points, checkpoint.config.model.n_dims)
    padded = torch.nn.functional.pad(xs, (0, SIZES["n_dims"] - xs.shape[2]))
    return relative_difference(checkpoint.model.predict(to_prompt(xs, ys)), theirs(padded, ys))


def test_a_run_of_garg_is_the_same_model_with_its_settings(garg_run: GargRun, garg: Garg, tmp_path: Path):
    checkpoint = import_checkpoint(garg_run(), tmp_path / "run")
    config = checkpoint.config
    assert difference(checkpoint, garg) < 1e-5
    assert (checkpoint.step, config.curriculum, config.data.classes) == (10_000, "single:linear", ("linear",))
    assert (config.model.n_heads, config.model.n_ctx, config.recipe.lr) == (4, 22, 1e-4)
    assert [config.growth.points_at(step, 7) for step in (0, 1999, 2000, 9000)] == [3, 3, 5, 7]
    document = read_document(tmp_path / "run")
    assert "environment" not in document
    (file,) = document["source"]["files"]
    assert file["step"] == 10_000
    assert len(file["sha256"]) == 64
    assert file["largest_relative_difference"] < 1e-5
    assert str(config.seeds) == "unknown"


def test_prompts_are_as_long_as_trained_and_not_as_there_are_positions(garg_run: GargRun, tmp_path: Path):
    curriculum = {"dims": growth(5, 5), "points": growth(3, 7, 2)}
    assert import_checkpoint(garg_run(curriculum=curriculum), tmp_path / "run").config.data.n_points == 7


def test_a_run_that_ended_early_has_the_length_it_had_reached(garg: Garg, tmp_path: Path):
    source = save_garg(tmp_path / "theirs", garg, garg_config(), step=2500)
    config = import_checkpoint(source, tmp_path / "run").config
    assert config.data.n_points == 5
    assert config.model.n_dims == 4


def test_dimensions_that_training_never_used_are_left_out(garg_run: GargRun, garg: Garg, tmp_path: Path):
    curriculum = {"dims": growth(3, 3), "points": growth(7, 7)}
    checkpoint = import_checkpoint(garg_run(curriculum=curriculum), tmp_path / "run")
    assert checkpoint.config.model.n_dims == 3
    assert difference(checkpoint, garg) < 1e-5
    with pytest.raises(UserError, match="decision trees ask for 5 coordinates, of which training used 3"):
        import_checkpoint(tmp_path / "theirs", tmp_path / "b", settings=["data.classes=decision_tree:2"])


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "module._orig_mod."])
def test_wrappers_are_stripped_from_names(garg: Garg, tmp_path: Path, wrapper: str):
    source = save_garg(tmp_path / "theirs", garg, garg_config())
    state = {wrapper + name: tensor for name, tensor in garg.state_dict().items()}
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}, "train_step": 10_000}, source / "state.pt")
    assert difference(import_checkpoint(source, tmp_path / "run"), garg) < 1e-5


def test_masks_of_old_transformers_are_dropped(garg: Garg, tmp_path: Path):
    source = save_garg(tmp_path / "theirs", garg, garg_config())
    masks = {f"_backbone.h.{layer}.attn.bias": torch.ones(1, 1, 22, 22, dtype=torch.uint8) for layer in range(2)}
    masks |= {f"_backbone.h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}
    state = {**garg.state_dict(), **masks}
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}, "train_step": 10_000}, source / "state.pt")
    assert difference(import_checkpoint(source, tmp_path / "run"), garg) < 1e-5


def test_a_configuration_inherits(garg: Garg, tmp_path: Path):
    source = save_garg(tmp_path / "theirs", garg, garg_config())
    whole = garg_config()
    (source / "models").mkdir()
    (source / "models" / "small.yaml").write_text(yaml.dump({"model": {**whole["model"], "n_head": 1}}))
    base = {"inherit": ["models/small.yaml"], "training": whole["training"]}
    (source / "base.yaml").write_text(yaml.dump(base))
    (source / "config.yaml").write_text(yaml.dump({"inherit": ["base.yaml"], "model": {"n_head": 4}}))
    checkpoint = import_checkpoint(source, tmp_path / "run")
    assert checkpoint.config.model.n_heads == 4
    assert difference(checkpoint, garg) < 1e-5
    (source / "config.yaml").write_text(yaml.dump({"inherit": ["config.yaml"]}))
    with pytest.raises(UserError, match="inherits from more than 8 files in a row, or from itself"):
        import_checkpoint(source, tmp_path / "b")


TASKS: list[tuple[str, dict[str, Any], str]] = [
    ("linear_regression", {}, "linear"),
    ("linear_regression", {"scale": 1}, "linear"),
    ("sparse_linear_regression", {}, "sparse_linear:3"),
    ("sparse_linear_regression", {"sparsity": 2}, "sparse_linear:2"),
    ("noisy_linear_regression", {}, "linear"),
    ("noisy_linear_regression", {"noise_std": 0.5}, "noisy_linear:0.5"),
    ("quadratic_regression", {}, "coordinatewise_quadratic"),
    ("relu_2nn_regression", {}, "relu_network:100"),
    ("relu_2nn_regression", {"hidden_layer_size": 4}, "relu_network:4"),
    ("decision_tree", {"depth": 3}, "decision_tree:3"),
]


@pytest.mark.parametrize(("task", "arguments", "expected"), TASKS)
def test_tasks_have_our_names(garg_run: GargRun, tmp_path: Path, task: str, arguments: dict[str, Any], expected: str):
    curriculum = {"dims": growth(5, 5), "points": growth(7, 7)}
    config = import_checkpoint(
        garg_run(task=task, task_kwargs=arguments, curriculum=curriculum), tmp_path / "run"
    ).config
    assert config.data.classes == (expected,)
    assert function_class(expected)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"task": "linear_classification"}, "training.task is linear_classification: its outputs are logits"),
    ({}, {"task": "fourier_series"}, "training.task is fourier_series: there is no such function class"),
    ({}, {"task_kwargs": {"scale": 2}}, "linear_regression with scale 2: no function class has that"),
    ({}, {"task_kwargs": {"renormalize_ys": True}}, "with renormalize_ys True"),
    ({}, {"data": "uniform"}, "training.data is uniform: only gaussian"),
    ({"family": "lstm"}, {}, "model.family is lstm: only gpt2"),
    ({"interleave": False}, {}, "model.interleave is False"),
    ({"vocab_size": 128}, {}, "model.vocab_size is 128"),
    ({"activation": "relu"}, {}, "model.activation is relu: what it changes is not known here"),
    ({"n_head": 3}, {}, "model.d_model=16 is not a multiple of model.n_heads=3"),
    ({"n_layer": 3}, {}, "lacks _backbone.h.2.attn.c_attn.bias, .* and 9 more"),
    ({"n_embd": 8}, {}, r"_read_in.weight is \[16, 5\], not \[8, 5\]"),
    ({"n_layer": "two"}, {}, "model.n_layer is two: a whole number of at least 1 is needed"),
]


@pytest.mark.parametrize(("model", "training", "message"), REFUSED)
def test_what_does_not_fit_is_refused_by_name(
    garg_run: GargRun, tmp_path: Path, model: dict[str, Any], training: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message):
        import_checkpoint(garg_run(model=model, **training), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_all_reasons_are_listed_at_once(garg_run: GargRun, tmp_path: Path):
    source = garg_run(model={"family": "lstm", "activation": "relu"}, task="fourier_series")
    with pytest.raises(UserError, match=r"for 3 reasons: \(1\).*family.*\(2\).*activation.*\(3\).*fourier"):
        import_checkpoint(source, tmp_path / "run")


def test_what_has_no_equal_here_can_be_set(garg_run: GargRun, garg: Garg, tmp_path: Path):
    source = garg_run(task="fourier_series")
    checkpoint = import_checkpoint(source, tmp_path / "run", settings=["data.classes=linear,quadratic"])
    assert checkpoint.config.evaluated_classes == ("linear", "quadratic")
    assert difference(checkpoint, garg) < 1e-5
    with pytest.raises(UserError, match=r"an import can set data.classes, data.inputs"):
        import_checkpoint(source, tmp_path / "b", settings=["model.n_heads=2"])


def test_every_snapshot_is_imported(tmp_path: Path):
    models = {step: randomised(Garg(**SIZES), seed=step) for step in (1000, 4000, 10_000)}
    snapshots = {f"model_{step}": models[step] for step in (1000, 4000)}
    source = save_garg(tmp_path / "theirs", models[10_000], garg_config(), **snapshots)
    import_checkpoint(source, tmp_path / "run", step="all")
    assert snapshot_steps(tmp_path / "run") == [1000, 4000]
    for step, model in models.items():
        assert difference(load(f"{tmp_path / 'run'}@{step}"), model) < 1e-5
    early = import_checkpoint(source, tmp_path / "early", step=1000)
    assert early.step == 1000
    assert early.config.data.n_points == 3
    with pytest.raises(
        UserError, match=r"--step 7: .* has no weights of that step \(it has: 1000, 4000, 10000; or all"
    ):
        import_checkpoint(source, tmp_path / "none", step=7)


def test_one_file_with_its_configuration(tmp_path: Path, garg: Garg):
    torch.save(garg.state_dict(), tmp_path / "model_3000.pt")
    (tmp_path / "theirs.yaml").write_text(yaml.dump(garg_config()))
    with pytest.raises(UserError, match="has no configuration beside it"):
        import_checkpoint(tmp_path / "model_3000.pt", tmp_path / "run")
    checkpoint = import_checkpoint(tmp_path / "model_3000.pt", tmp_path / "run", config=tmp_path / "theirs.yaml")
    assert checkpoint.step == 3000
    assert difference(checkpoint, garg) < 1e-5


def test_half_precision_is_converted_and_said(garg: Garg, tmp_path: Path):
    source = save_garg(tmp_path / "theirs", garg, garg_config())
    torch.save(garg.half().state_dict(), source / "model_12000.pt")
    checkpoint = import_checkpoint(source, tmp_path / "run", step=12_000)
    assert difference(checkpoint, garg.float()) < 1e-5
    assert "weights were float16 and are float32 here" in read_document(tmp_path / "run")["source"]["notes"]


def test_without_positions_only_the_bias_is_at_every_token(tmp_path: Path):
    model = randomised(Garg(**SIZES, pos_encode=False))
    config = garg_config()
    config["model"]["pos_encode"] = False
    checkpoint = import_checkpoint(save_garg(tmp_path / "theirs", model, config), tmp_path / "run")
    assert difference(checkpoint, model) < 1e-5
    assert checkpoint.config.model.positions == "none"
    assert torch.equal(checkpoint.model.pos_embed.W_pos[0], model._read_in.bias)


def in_context_config() -> str:
    return """
b_size: 64
baseline_models: []
function_class: {sparsity: 2, type: sparse linear regression}
loss_fn: {type: squared}
model: {n_embd: 16, n_head: 4, n_layer: 2, n_positions: 11, type: gpt2, x_dim: 5, y_dim: 1}
optim: &id001 {lr: 0.0001, type: adam}
seq_len: !curriculum {start: 3, step_len: 2000, step_size: 3, stop: 7}
steps: 10001
x_dim: !curriculum {start: 3, step_len: 2000, step_size: 1, stop: 5}
x_dist: {type: normal}
y_dim: 1
"""


def test_a_run_of_in_context(tmp_path: Path, garg: Garg):
    source = tmp_path / "theirs"
    source.mkdir()
    (source / "config.yml").write_text(in_context_config())
    state = {"model_state_dict": garg.state_dict(), "optimizer_state_dict": {}}
    torch.save(state, source / "checkpoint_10000")
    checkpoint = import_checkpoint(source, tmp_path / "run")
    assert difference(checkpoint, garg) < 1e-5
    assert checkpoint.step == 10_000
    assert checkpoint.config.data.classes == ("sparse_linear:2",)
    assert checkpoint.config.data.n_points == 6  # 3, then 6: the next step of 3 would pass the stop
    for old, new, message in (
        ("type: gpt2", "type: llama", "model.type is llama: only gpt2"),
        ("sparse linear regression", "2 layer mlp regression", "2 layer mlp regression: none here has its scale"),
        ("y_dim: 1\n", "y_dim: 1\npredict_last: true\n", "predict_last is True"),
    ):
        (source / "config.yml").write_text(in_context_config().replace(old, new))
        with pytest.raises(UserError, match=message):
            import_checkpoint(source, tmp_path / "other")


LEARNED, RESIDUAL = "absolute positional embedding", "residual"
HYBRIDS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "rms": (
        [
            LEARNED,
            RESIDUAL,
            2 * [["rms norm", "gpt2 attention", RESIDUAL, "rms norm", "gpt2 mlp", RESIDUAL]],
            "rms norm",
        ],
        {"norm": "rms", "eps": 1e-6},
    ),
    "rope": (
        [RESIDUAL, *2 * ["layer norm", "llama attention", RESIDUAL, "layer norm", "gpt2 mlp", RESIDUAL], "layer norm"],
        {"positions": "rotary"},
    ),
    "rms and rope": (
        [RESIDUAL, 2 * [["rms norm", "llama attention", RESIDUAL, "rms norm", "gpt2 mlp", RESIDUAL]], "rms norm"],
        {"norm": "rms", "positions": "rotary", "eps": 1e-6},
    ),
    "attention alone, without positions": (
        [RESIDUAL, *2 * ["layer norm", "llama attention no rope", RESIDUAL], "layer norm"],
        {"positions": "none", "d_mlp": 0},
    ),
    "without norms": (
        [LEARNED, RESIDUAL, *2 * ["gpt2 attention", RESIDUAL, "gpt2 mlp", RESIDUAL]],
        {"norm": "none"},
    ),
}


def hybrid_source(directory: Path, module_names: list[Any], model: nn.Module, act: str) -> Path:
    """A run directory with the last state of a model of type hybrid."""
    directory.mkdir()
    config = yaml.safe_load(in_context_config().replace("!curriculum", ""))
    sizes = {"n_embd": 16, "n_head": 4, "n_positions": 11, "x_dim": 5, "y_dim": 1, "layer_norm_epsilon": 1e-5}
    config["model"] = {"type": "hybrid", "module_names": module_names, "gpt2_hidden_act": act, **sizes}
    (directory / "config.yml").write_text(yaml.dump(config))
    masks = {
        f"_backbone.layers.{index}.bias": torch.ones(1, 1, 22, 22, dtype=torch.bool)
        for index, name in enumerate(flatten(module_names))
        if name == "gpt2 attention"
    }
    state = {"model_state_dict": {**model.state_dict(), **masks}, "optimizer_state_dict": {}}
    torch.save(state, directory / "checkpoint_10000")
    return directory


@pytest.mark.parametrize("kind", HYBRIDS)
def test_hybrids_of_gpt2s_modules_are_architectures(tmp_path: Path, kind: str):
    module_names, architecture = HYBRIDS[kind]
    act = "relu" if kind == "rope" else "gelu_new"
    model = randomised(HybridModel([*flatten(module_names)], 5, 11, 16, 4, act))
    checkpoint = import_checkpoint(hybrid_source(tmp_path / "theirs", module_names, model, act), tmp_path / "run")
    assert difference(checkpoint, model) < 1e-5
    defaults = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_dims=5, n_ctx=22, read_init="linear")
    assert checkpoint.config.model == replace(defaults, **architecture, act=act)


OTHER_HYBRIDS: list[tuple[list[str], str]] = [
    (["residual", "layer norm", "gpt2 attention", "residual", "layer norm", "llama mlp", "residual"], "has llama mlp"),
    (["residual", "mamba block", "residual", "rms norm"], "has mamba block: only absolute positional embedding"),
    (["layer norm", "gpt2 attention", "residual", "layer norm"], "does not repeat one GPT-2 block"),
    (["residual", "layer norm", "gpt2 attention", "residual", "rms norm"], "a single kind of norm"),
    (["residual", "layer norm", "gpt2 attention", "residual", "gpt2 mlp", "residual"], "a single kind of norm"),
    (["residual", "gpt2 mlp", "residual", "gpt2 attention", "residual"], "does not repeat one GPT-2 block"),
    (["residual", "gpt2 attention", "residual", "llama attention", "residual"], "does not repeat one GPT-2 block"),
    ([LEARNED, "residual", "llama attention", "residual"], "has learned and rotary positions"),
    ([], "does not repeat one GPT-2 block"),
]


@pytest.mark.parametrize(("module_names", "message"), OTHER_HYBRIDS)
def test_hybrids_of_other_modules_are_refused_by_name(
    tmp_path: Path, garg: Garg, module_names: list[str], message: str
):
    source = hybrid_source(tmp_path / "theirs", module_names, garg, "gelu_new")
    with pytest.raises(UserError, match=message):
        import_checkpoint(source, tmp_path / "run")


def looped_config(**training: Any) -> dict[str, Any]:
    config = garg_config(**training)
    config["training"].pop("task", None)
    config["training"] |= {"task_name": "linear_regression", "sparsity": 100, "weight_decay": 0.0, "seed": 42}
    config["training"] |= training
    config["training"]["curriculum"]["loops"] = growth(1, 1)
    config["model"] |= {"pred_type": "regression", "loop_func": "z=f(x+z)", "pretrained_path": None}
    return config


def test_a_run_of_looped_transformer(tmp_path: Path):
    model = randomised(Looped(**SIZES))
    source = save_garg(tmp_path / "theirs", model, looped_config())
    torch.save({"model": model.state_dict()}, source / "model_9000.pt")
    for step in (10_000, 9000):
        checkpoint = import_checkpoint(source, tmp_path / str(step), step=step)
        assert difference(checkpoint, model) < 1e-5
        assert checkpoint.config.model.n_ctx == 22
    assert any("same number share streams" in note for note in read_document(tmp_path / "9000")["source"]["notes"])


def test_tasks_of_looped_transformer(tmp_path: Path):
    model = randomised(Looped(**SIZES))
    for name, sparsity, expected in (
        ("noisy_linear_regression", 100, "noisy_linear:0.1"),
        ("sparse_linear_regression", 3, "sparse_linear:3"),
        ("relu_2nn_regression", 100, "relu_network:100"),
    ):
        source = save_garg(tmp_path / name, model, looped_config(task_name=name, sparsity=sparsity))
        assert import_checkpoint(source, tmp_path / f"run-{name}").config.data.classes == (expected,)
    looped = looped_config()
    looped["model"]["family"] = "gpt2_loop"
    with pytest.raises(UserError, match=r"model.family is gpt2_loop: only gpt2"):
        import_checkpoint(save_garg(tmp_path / "looped", model, looped), tmp_path / "b")


def bhasin_config(**training: Any) -> dict[str, Any]:
    tasks = {f"task_{number}": {"task": "hermite_regression", "degree": number + 1} for number in range(3)}
    settings = {
        "task_kwargs": tasks,
        "data_kwargs": {"data_0": {"data": "gaussian", "type": "standard"}},
        "prompt_kwargs": {},
        "val_kwargs": {},
        "batch_size": 64,
        "learning_rate": 1e-4,
        "train_steps": 10_001,
        "n_points": 8,
        "weight_type": "normalized",
        "prompt_type": "standard",
        "val_type": "current_tasks",
        "data_split": "blocks_based",
        "data_schedule": "sequential",
        "task_schedule": "mixed_sequential",
    }
    return {"model": {"family": "gpt2", "transformer_seed": 0, **SIZES}, "training": settings | training}


def test_a_run_of_the_papers_authors(tmp_path: Path, garg: Garg):
    checkpoint = import_checkpoint(save_garg(tmp_path / "theirs", garg, bhasin_config()), tmp_path / "run")
    config = checkpoint.config
    assert difference(checkpoint, garg) < 1e-5
    assert (config.curriculum, config.data.weights, config.data.n_points) == ("mixed", "unit", 8)
    assert config.data.classes == ("linear", "quadratic", "cubic")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"data": "laplace", "type": "standard"}, "laplace:2"),
        ({"data": "cauchy", "type": "standard"}, "cauchy"),
        ({"data": "studentT", "type": "standard"}, "student_t:1"),
        ({"data": "studentT", "type": "standard", "df": 3}, "student_t:3"),
    ],
)
def test_their_input_distributions(tmp_path: Path, garg: Garg, data: dict[str, Any], expected: str):
    linear = {"task_0": {"task": "hermite_regression", "degree": 1}}
    config = bhasin_config(data_kwargs={"data_0": data}, task_kwargs=linear)
    checkpoint = import_checkpoint(save_garg(tmp_path / "theirs", garg, config), tmp_path / "run")
    assert checkpoint.config.data.inputs == (expected,)


def test_a_rotation_that_nobody_kept_is_refused(tmp_path: Path, garg: Garg):
    config = bhasin_config(data_kwargs={"data_0": {"data": "gaussian", "type": "skewed"}})
    source = save_garg(tmp_path / "theirs", garg, config)
    with pytest.raises(UserError, match="is skewed: its rotation was drawn at random and not kept"):
        import_checkpoint(source, tmp_path / "run")
    assert import_checkpoint(source, tmp_path / "run", settings=["data.inputs=gaussian"]).config.data.n_points == 8


def instructed(model: Garg, xs: Tensor, ys: Tensor, kind: str, number: int, at: int, vectors: Tensor) -> Tensor:
    """`TransformerModel.forward` of curriculum_learning_icl with a prompt type."""
    zs = combine(xs, ys)
    length = {"model_two": 1, "model_three": 2, "model_four": 1}[kind]
    if kind != "model_four":
        token = torch.zeros(len(xs), length, xs.shape[2])
        token[:, :, number] = 1
        zs = torch.cat((zs[:, :at], token, zs[:, at:]), dim=1)
    embeds = model.embed(zs)
    if kind == "model_four":
        embeds = torch.cat((vectors[number].expand(len(xs), 1, -1), embeds), dim=1)
    outputs = model.outputs(embeds)
    return torch.cat((outputs[:, :at], outputs[:, at + length :]), dim=1)[:, ::2, 0]


@pytest.mark.parametrize(("kind", "at"), [("model_two", 0), ("model_two", 2), ("model_three", 3), ("model_four", 0)])
def test_instructions_stand_where_their_code_puts_them(tmp_path: Path, garg: Garg, kind: str, at: int):
    instruction = {"type": "task", "encoding": "dynamic", "position": at}
    config = bhasin_config(prompt_type=kind, prompt_kwargs=instruction)
    source = save_garg(tmp_path / "theirs", garg, config)
    vectors = torch.randn(3, SIZES["n_embd"], generator=torch.Generator().manual_seed(3))
    if kind == "model_four":
        with pytest.raises(UserError, match=r"linear_instruction.pt is missing"):
            import_checkpoint(source, tmp_path / "run")
        (source / "instruction").mkdir()
        for name, vector in zip(("linear", "quadratic", "cubic"), vectors, strict=True):
            torch.save(vector[None].clone(), source / "instruction" / f"{name}_instruction.pt")
    checkpoint = import_checkpoint(source, tmp_path / "run")
    xs, ys = prompts(8)
    token = theirs = torch.empty(0)
    for number in range(3):
        n_coordinates = len(checkpoint.model.embed.W_E)
        coordinate = number + (n_coordinates - 3 if kind == "model_four" else 0)
        n_tokens = checkpoint.config.layout.n_instruction
        token = one_hot_instruction(coordinate, n_coordinates, len(xs), n_tokens)
        ours = checkpoint.model.predict(Prompts(xs, ys, checkpoint.config.layout, token).tokens)
        theirs = instructed(garg, xs, ys, kind, number, at, vectors)
        assert relative_difference(ours, theirs) < 1e-5
    other = checkpoint.model.predict(Prompts(xs, ys, checkpoint.config.layout, token.roll(1, 2)).tokens)
    assert relative_difference(other, theirs) > 1e-3


def test_a_network_that_only_looks_the_same_is_refused(tmp_path: Path, garg_run: GargRun, monkeypatch):
    source = garg_run()
    convert = gpt2_layout.to_hooked

    def swapped(*arguments: Any) -> dict[str, Tensor]:
        weights = convert(*arguments)
        return weights | {"blocks.0.attn.W_Q": weights["blocks.0.attn.W_Q"].roll(1, 0)}

    monkeypatch.setattr(gpt2_layout, "to_hooked", swapped)
    with pytest.raises(UserError, match="its own forward pass and this program's differ by"):
        import_checkpoint(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_seed_labels_are_kept(garg_run: GargRun, tmp_path: Path):
    checkpoint = import_checkpoint(garg_run(), tmp_path / "run", seed_label="theirs-1")
    assert checkpoint.config.seed_label == "theirs-1"
    assert replace(checkpoint.config, seed_label="") == import_checkpoint(tmp_path / "theirs", tmp_path / "b").config


@pytest.mark.parametrize("program", ["garg", "bhasin", "looped"])
@pytest.mark.parametrize("named", ["linear_classification", "linear"])
def test_logits_are_not_made_predictions_by_naming_a_class(garg: Garg, tmp_path: Path, program: str, named: str):
    """Every command would print their squared error."""
    task = "linear_classification"
    config = {
        "garg": garg_config(task=task),
        "bhasin": bhasin_config(task_kwargs={"task_0": {"task": task}}),
        "looped": looped_config(task_name=task),
    }[program]
    source = save_garg(tmp_path / "theirs", garg, config)
    with pytest.raises(UserError, match="its outputs are logits, trained with cross-entropy"):
        import_checkpoint(source, tmp_path / "run", settings=[f"data.classes={named}"])
