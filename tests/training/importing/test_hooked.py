"""HookedTransformers: files and objects, of both lines of transformer-lens, and what their configurations hide."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_sources import relative_difference
from torch import Tensor

from interp import export_checkpoint, hooked, import_checkpoint, load
from interp.model.hooked_transformer import SERIES, bridge_weights
from training.common.errors import UserError
from training.importing.hooked import BRIDGE_LAYOUTS
from training.importing.hooked_source import convert
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


OTHER_NETWORKS: list[tuple[dict[str, Any], str]] = [
    ({"act_fn": "relu"}, "act_fn is relu: only gelu_new"),
    ({"act_fn": "gelu"}, "act_fn is gelu: only gelu_new"),
    ({"act_fn": "silu"}, "act_fn is silu"),
    ({"act_fn": None}, "act_fn is missing"),
    ({"eps": 1e-6}, "eps is 1e-06: only 1e-05"),
    ({"parallel_attn_mlp": True}, "parallel_attn_mlp is True"),
    ({"use_attn_scale": False}, "use_attn_scale is False"),
    ({"attn_scale": 2.0}, r"attn_scale is 2: only sqrt\(d_head\)"),
    ({"attention_dir": "bidirectional"}, "attention_dir is bidirectional: only causal"),
    ({"gated_mlp": True}, "gated_mlp is True"),
    ({"positional_embedding_type": "shortformer"}, "positional_embedding_type is shortformer: only learned"),
    ({"positional_embedding_type": "rotary"}, "positional_embedding_type is rotary"),
    (
        {"use_local_attn": True, "window_size": 4, "attn_types": ["local"] * 3},
        "window_size is 4.*use_local_attn is True",
    ),
    ({"attn_scores_soft_cap": 50.0}, "attn_scores_soft_cap is 50"),
    ({"output_logits_soft_cap": 30.0}, "output_logits_soft_cap is 30"),
    ({"normalization_type": "LNPre"}, "normalization_type is LNPre: only LayerNorm with its weights unfolded"),
    ({"normalization_type": "RMS"}, "normalization_type is RMS"),
    ({"normalization_type": None}, "normalization_type is missing: only LayerNorm"),
    ({"attn_only": True}, "attn_only is True"),
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ({"d_mlp": 64}, "d_mlp is 64: only 4 d_model = 256"),
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
