"""HookedTransformers: files and objects, of both lines of transformer-lens, and what their configurations hide."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import VARIANTS
from foreign_sources import relative_difference
from torch import Tensor

from interp import export_checkpoint, hooked, import_checkpoint, load
from interp.model.hooked_transformer import SERIES, bridge_weights
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.parse import from_preset
from training.importing.hooked_layout import BRIDGE_LAYOUTS
from training.importing.hooked_source import convert
from training.model.transformer import Transformer
from training.tasks.prompts import to_prompt

SETTINGS = ["data.classes=linear,quadratic,cubic", "data.n_points=16", "data.weights=unit"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict with its configuration beside it."""
    out = tmp_path_factory.mktemp("hooked") / "model.pt"
    export_checkpoint("zoo:mixed-0", out, "hooked")
    return out


def config_of(exported: Path) -> dict[str, Any]:
    return json.loads(exported.with_suffix(".json").read_text())


def assert_same_weights(run: Path) -> None:
    ours, theirs = load(run).model.state_dict(), load("zoo:mixed-0").model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_import_of_an_export_is_bit_identical(exported: Path, tmp_path: Path):
    checkpoint = import_checkpoint(exported, tmp_path / "run", settings=SETTINGS, step=3000)
    assert_same_weights(tmp_path / "run")
    assert checkpoint.step == 3000
    assert checkpoint.config.data == load("zoo:mixed-0").config.data


@pytest.mark.parametrize("key", ["cfg", "config"])
def test_a_pickle_holds_the_configuration_beside_the_state_dict(exported: Path, tmp_path: Path, key: str):
    state = torch.load(exported, weights_only=True)
    masks = {"blocks.0.attn.mask": torch.ones(32, 32, dtype=torch.bool), "blocks.0.attn.IGNORE": torch.tensor(-1e5)}
    config = config_of(exported) | {"dtype": torch.float32, "device": "cuda", "attn_scale": 8**0.5}
    torch.save({"state_dict": {**state, **masks}, key: config}, tmp_path / "both.pt")
    import_checkpoint(tmp_path / "both.pt", tmp_path / "run", settings=SETTINGS)
    assert_same_weights(tmp_path / "run")


@pytest.mark.skipif(SERIES > 3, reason="of transformer-lens 3.x")
def test_an_object_is_proved_by_its_own_forward_pass(tmp_path: Path):
    twin = hooked("zoo:mixed-0")
    import_checkpoint(twin, tmp_path / "run", settings=SETTINGS)
    assert_same_weights(tmp_path / "run")
    forward = twin.forward
    twin.forward = lambda *a, **k: forward(*a, **k) * 1.001  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"its own forward pass and this program's differ by 0.001"):
        import_checkpoint(twin, tmp_path / "b", settings=SETTINGS)


def test_the_names_of_transformer_lens_4(exported: Path):
    state: dict[str, Tensor] = torch.load(exported, weights_only=True)
    converted = convert(bridge_weights(state), load("zoo:mixed-0").model.config, "a bridge")
    assert sorted(converted.weights) == sorted(state)
    assert all(torch.equal(converted.weights[name], state[name]) for name in state)
    assert set(BRIDGE_LAYOUTS) >= {name.rpartition(".")[2] for name in state}


ROTARY = {"positional_embedding_type": "rotary"}
OTHER_NETWORKS: list[tuple[dict[str, Any], str]] = [
    ({"act_fn": "gelu_fast"}, "act_fn is gelu_fast: only gelu_new, gelu, relu, silu"),
    ({"act_fn": "solu_ln"}, "act_fn is solu_ln: only gelu_new"),
    ({"act_fn": None}, "act_fn is missing"),
    ({"eps": -1.0}, "model.eps=-1.0: must be above 0"),
    ({"parallel_attn_mlp": True}, "parallel_attn_mlp is True"),
    ({"use_attn_scale": False}, "use_attn_scale is False"),
    ({"attn_scale": 2.0}, r"attn_scale is 2: only sqrt\(d_head\)"),
    ({"attention_dir": "bidirectional"}, "attention_dir is bidirectional: only causal"),
    ({"gated_mlp": True}, "gated_mlp is True"),
    ({"positional_embedding_type": "shortformer"}, "positional_embedding_type is shortformer: only learned"),
    ({"positional_embedding_type": "alibi"}, "positional_embedding_type is alibi: only learned"),
    (ROTARY | {"rotary_dim": 4}, "rotary_dim is 4: only all 8 coordinates of a head"),
    (ROTARY | {"rotary_base": 500000}, "rotary_base is 500000: only 10000"),
    (ROTARY | {"rotary_adjacent_pairs": True}, "rotary_adjacent_pairs is True: only pairs"),
    (ROTARY | {"rotary_scaling_factor": 8.0}, "rotary_scaling_factor is 8.0: only angles without"),
    (ROTARY | {"use_yarn_rope": True}, "use_yarn_rope is True"),
    (ROTARY, "has parameters of another network: pos_embed.W_pos"),
    (
        {"use_local_attn": True, "window_size": 4, "attn_types": ["local"] * 3},
        "window_size is 4.*use_local_attn is True",
    ),
    ({"attn_scores_soft_cap": 50.0}, "attn_scores_soft_cap is 50"),
    ({"output_logits_soft_cap": 30.0}, "output_logits_soft_cap is 30"),
    ({"normalization_type": "LNPre"}, "normalization_type is LNPre: only norms with their weights unfolded"),
    ({"normalization_type": "RMSPre"}, "normalization_type is RMSPre"),
    ({"normalization_type": ["LN"]}, "normalization_type is a list"),
    ({"normalization_type": "RMS"}, "has parameters of another network: blocks.0.ln1.b"),
    ({"normalization_type": None}, "has parameters of another network: blocks.0.ln1.b, blocks.0.ln1.w"),
    ({"attn_only": True}, "has parameters of another network: blocks.0.ln2.b"),
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ({"d_mlp": 64}, r"blocks.0.mlp.W_in is \[64, 256\], not \[64, 64\]"),
    ({"n_key_value_heads": 2}, "n_key_value_heads is 2: only 8"),
    ({"d_vocab_out": 4}, "d_vocab_out is 4: only a single real output"),
    ({"some_new_switch": True}, "some_new_switch is set: what it changes is not known here"),
    ({"n_heads": 16, "d_head": 8}, "d_head is 8: 16 heads of it are not d_model 64"),
]


@pytest.mark.parametrize(("changes", "message"), OTHER_NETWORKS)
def test_networks_that_would_load_as_another_are_refused(
    exported: Path, tmp_path: Path, changes: dict[str, Any], message: str
):
    config = dict((config_of(exported) | changes).items())
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        import_checkpoint(exported, tmp_path / "run", config=tmp_path / "cfg.json", settings=SETTINGS)
    assert not (tmp_path / "run").exists()


def test_what_a_hooked_transformer_does_not_say_has_to_be_named(exported: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"for 2 reasons: .*name its function classes.*name their pairs .*at most 16"):
        import_checkpoint(exported, tmp_path / "run")
    with pytest.raises(UserError, match=r"data.n_points=17 needs model.n_ctx >= 34"):
        import_checkpoint(exported, tmp_path / "run", settings=["data.classes=linear", "data.n_points=17"])


def test_folded_weights_have_no_layernorm(exported: Path, tmp_path: Path):
    state = torch.load(exported, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if ".ln" not in name}, tmp_path / "folded.pt")
    with pytest.raises(UserError, match=r"lacks blocks.0.ln1.b, blocks.0.ln1.w, blocks.0.ln2.b and 9 more"):
        import_checkpoint(
            tmp_path / "folded.pt", tmp_path / "run", config=exported.with_suffix(".json"), settings=SETTINGS
        )


def test_imported_predictions_are_those_of_the_source(exported: Path, tmp_path: Path):
    checkpoint = import_checkpoint(exported, tmp_path / "run", settings=SETTINGS)
    xs = torch.randn(3, 16, 4, generator=torch.Generator().manual_seed(5))
    prompt = to_prompt(xs, xs.sum(2))
    assert relative_difference(hooked(checkpoint)(prompt)[..., 0], hooked("zoo:mixed-0")(prompt)[..., 0]) < 1e-6


@pytest.fixture(params=VARIANTS.values(), ids=list(VARIANTS), scope="module")
def variant(request: pytest.FixtureRequest) -> Checkpoint:
    """A checkpoint of another architecture that lies nowhere; every parameter is drawn, biases and gains too."""
    config = from_preset("tiny", "mixed", 0, [f"model.{key}={value}" for key, value in request.param.items()])
    generator = torch.Generator().manual_seed(0)
    model = Transformer(config.model, generator).requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return Checkpoint("variant", Path(), config, 3000, model)


def assert_same_model(ours: Checkpoint, theirs: Checkpoint) -> None:
    assert ours.config.model == replace(theirs.config.model, init_std=ours.config.model.init_std)
    ours_weights, weights = ours.model.state_dict(), theirs.model.state_dict()
    assert ours_weights.keys() == weights.keys()
    assert all(torch.equal(ours_weights[name], weights[name]) for name in weights)


def test_every_architecture_comes_back_from_its_export(variant: Checkpoint, tmp_path: Path):
    export_checkpoint(variant, tmp_path / "model.pt", "hooked")
    assert_same_model(import_checkpoint(tmp_path / "model.pt", tmp_path / "run", settings=SETTINGS), variant)


@pytest.mark.skipif(SERIES > 3, reason="of transformer-lens 3.x")
def test_every_architecture_is_opened_from_a_hooked_transformer_in_memory(variant: Checkpoint, tmp_path: Path):
    assert_same_model(import_checkpoint(hooked(variant), tmp_path / "run", settings=SETTINGS), variant)


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
@pytest.mark.skipif(SERIES > 3, reason="of transformer-lens 3.x")
def test_transformer_lens_reads_the_export_of_every_architecture(variant: Checkpoint, tmp_path: Path):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    export_checkpoint(variant, tmp_path / "model.pt", "hooked")
    config = json.loads((tmp_path / "model.json").read_text())
    weights: dict[str, Tensor] = torch.load(tmp_path / "model.pt", weights_only=True)
    added = weights.pop("read_in_bias", None)
    theirs = HookedTransformer(HookedTransformerConfig.from_dict(config))
    assert not theirs.load_state_dict(weights, strict=False).unexpected_keys
    xs = torch.randn(3, 16, 4, generator=torch.Generator().manual_seed(5))
    tokens = to_prompt(xs, xs.sum(2))
    added = weights["pos_embed.W_pos"] if added is None else added
    outputs = theirs(tokens @ weights["embed.W_E"] + added, start_at_layer=0)[..., 0]
    assert relative_difference(variant.model(tokens), outputs) < 1e-5


def test_a_rotary_model_without_a_read_in_bias_is_a_plain_hooked_transformer(tmp_path: Path):
    config = from_preset("tiny", "mixed", 0, ["model.positions=rotary"])
    model = Transformer(config.model, torch.Generator().manual_seed(0)).requires_grad_(False)
    export_checkpoint(Checkpoint("new", Path(), config, 0, model), tmp_path / "model.pt", "hooked")
    assert "read_in_bias" not in torch.load(tmp_path / "model.pt", weights_only=True)
    checkpoint = import_checkpoint(tmp_path / "model.pt", tmp_path / "run", settings=SETTINGS)
    assert not checkpoint.model.pos_embed.W_pos.any()
