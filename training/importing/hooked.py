"""HookedTransformers of transformer-lens 3.x and native TransformerBridges of 4.x whose network is this program's.

Their configuration names what makes another network (`act_fn`, `normalization_type`, ...), and a state dict alone does
not: without a configuration nothing is imported.
"""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from training.config.config import ModelConfig, RunConfig
from training.importing.gpt2_layout import EPS
from training.importing.settings import OFF, Requirement, Settings
from training.importing.translation import Values, chosen_classes, single_or_random

Weights = Mapping[str, Tensor]

MASKS = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE)")
LAYERNORM = "LayerNorm with its weights unfolded (LN) can be opened"
REQUIRED = (
    Requirement("act_fn", ("gelu_new",), "gelu_new can be opened"),
    Requirement("eps", (EPS,), f"{EPS:g} can be opened"),
    Requirement("normalization_type", ("LN",), LAYERNORM),
    Requirement("layer_norm_folding", (False, None), LAYERNORM),
    Requirement("use_attn_scale", (True,), "attention scaled by sqrt(d_head) can be opened"),
    Requirement("attention_dir", ("causal",), "causal attention can be opened"),
    Requirement("positional_embedding_type", ("standard",), "learned positions (standard) can be opened"),
    Requirement("d_vocab_out", (1,), "a single real output can be read"),
    Requirement("attn_scores_soft_cap", (-1.0, 0), "scores without a cap can be opened"),
    Requirement("output_logits_soft_cap", (-1.0, 0), "outputs without a cap can be opened"),
    Requirement("num_experts", (None,), "models without experts can be opened"),
    Requirement("window_size", (None,), "attention to all earlier tokens can be opened"),
    *(
        Requirement(key, (False, None), "models without it can be opened")
        for key in (
            *("attn_only", "gated_mlp", "parallel_attn_mlp", "use_local_attn", "scale_attn_by_inverse_layer_idx"),
            *("final_rms", "uses_rms_norm", "post_embedding_ln", "use_qk_norm", "use_logn_attn", "use_attention_sinks"),
            *("use_normalization_before_and_after", "use_dynamic_ntk_rope", "use_yarn_rope", "use_NTK_by_parts_rope"),
            *("tie_word_embeddings", "load_in_4bit"),
        )
    ),
)
"""Settings that a network of this program's has, wherever they are named."""
NEEDED = ("act_fn",)
"""Whose default in transformer-lens is another network's."""
SIZES = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "d_vocab", "n_key_value_heads", "attn_scale")
WITHOUT_EFFECT = (
    *(
        "model_name",
        "device",
        "n_devices",
        "dtype",
        "seed",
        "init_mode",
        "init_weights",
        "initializer_range",
        "n_params",
    ),
    *("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in", "use_hook_tokens"),
    *("ungroup_grouped_query_attention", "default_prepend_bos", "tokenizer_name", "tokenizer_prepends_bos"),
    *("original_architecture", "from_checkpoint", "checkpoint_index", "checkpoint_label_type", "checkpoint_value"),
    *("trust_remote_code", "attn_types", "experts_per_token", "decoder_start_token_id", "train_seq_length"),
    *("architecture", "tokenizer", "tokenizer_appends_eos", "default_padding_side", "attn_implementation"),
)
"""Settings that change nothing in a network that meets the requirements."""
OF_OTHER_POSITIONS = ("rotary_", "yarn_", "NTK_", "relative_attention_")
"""How settings begin that only other kinds of positions read."""

BRIDGE_LAYOUTS = {
    **{f"W_{part}": f"{part.lower()}.weight head d_model d_head -> (head d_head) d_model" for part in "QKV"},
    **{f"b_{part}": f"{part.lower()}.bias head d_head -> (head d_head)" for part in "QKV"},
    "W_O": "o.weight head d_head d_model -> d_model (head d_head)",
    "W_in": "in.weight d_model d_mlp -> d_mlp d_model",
    "W_out": "out.weight d_mlp d_model -> d_model d_mlp",
    "W_U": "weight d_model out -> out d_model",
    "W_E": "weight dim d_model -> dim d_model",
    "W_pos": "weight pos d_model -> pos d_model",
    "w": "weight d_model -> d_model",
    "b": "bias d_model -> d_model",
    "b_U": "bias out -> out",
    **{f"b_{part}": f"{part.lower()}.bias d -> d" for part in ("O", "in", "out")},
}
"""What a TransformerBridge of transformer-lens 4 calls each parameter, and its axes here and there."""


def shapes(sizes: ModelConfig, n_coordinates: int) -> dict[str, tuple[int, ...]]:
    """Every parameter, by HookedTransformer's names."""
    d, heads, e = sizes.d_model, sizes.n_heads, sizes.d_head
    outer: dict[str, tuple[int, ...]] = {
        "embed.W_E": (n_coordinates, d),
        "pos_embed.W_pos": (sizes.n_ctx, d),
        "ln_final.w": (d,),
        "ln_final.b": (d,),
        "unembed.W_U": (d, 1),
        "unembed.b_U": (1,),
    }
    block: dict[str, tuple[int, ...]] = {
        **{f"attn.W_{part}": (heads, d, e) for part in "QKV"},
        **{f"attn.b_{part}": (heads, e) for part in "QKV"},
        "attn.W_O": (heads, e, d),
        "attn.b_O": (d,),
        "mlp.W_in": (d, 4 * d),
        "mlp.b_in": (4 * d,),
        "mlp.W_out": (4 * d, d),
        "mlp.b_out": (d,),
        **{f"{norm}.{leaf}": (d,) for norm in ("ln1", "ln2") for leaf in "wb"},
    }
    return outer | {f"blocks.{layer}.{name}": shape for layer in range(sizes.n_layers) for name, shape in block.items()}


def from_bridge(weights: Weights, n_heads: int) -> dict[str, Tensor]:
    """A TransformerBridge's parameters by HookedTransformer's names; other names stay as they are."""
    ours = {layout.split()[0]: name for name, layout in BRIDGE_LAYOUTS.items() if "." in layout.split()[0]}
    special = {"embed": "W_E", "pos_embed": "W_pos", "unembed": "W_U"}
    converted = {}
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        outer, _, inner = module.rpartition(".")
        if f"{inner}.{leaf}" in ours:
            ours_leaf, module = ours[f"{inner}.{leaf}"], outer
        elif module in special and leaf == "weight":
            ours_leaf = special[module]
        elif leaf in ("weight", "bias"):
            ours_leaf = "b_U" if module == "unembed" else leaf[0]
        else:
            converted[name] = tensor
            continue
        here, there = BRIDGE_LAYOUTS[ours_leaf].split(" ", 1)[1].split(" -> ")
        sizes = {"head": n_heads} if "(head" in there else {}
        converted[f"{module}.{ours_leaf}"] = rearrange(tensor, f"{there} -> {here}", **sizes)
    return converted


def is_bridge(weights: Weights) -> bool:
    """Whether the names are those of transformer-lens 4."""
    return "embed.weight" in weights


def translate(settings: Settings, step: int, label: str) -> RunConfig | None:
    """The run; None where there are reasons against it."""
    for key in NEEDED:
        settings.word(key)
    settings.require(REQUIRED)
    for key, value in settings.values.items():
        known = key in (*SIZES, *WITHOUT_EFFECT) or key.startswith(OF_OTHER_POSITIONS) or is_required(key)
        if not known and value not in OFF:
            settings.refuse(f"{key} is set: what it changes is not known here")
    sizes = check_sizes(settings)
    if not settings.is_set("data.classes"):
        settings.refuse(
            "a HookedTransformer does not say what it learned: name its function classes (--set data.classes=linear)"
        )
    if not settings.is_set("data.n_points"):
        settings.refuse(
            "a HookedTransformer does not say how long its prompts were: name their pairs "
            f"(--set data.n_points=N, at most {max(1, sizes['n_ctx'] // 2)})"
        )
    classes = chosen_classes(settings, ("linear",))
    values: Values = {
        "curriculum": single_or_random(classes),
        "seed_label": label,
        "model": sizes,
        "recipe": {"steps": max(1, step)},
        "data": {},
    }
    config = settings.run_config(values) if not settings.reasons else None
    return None if settings.reasons else config


def is_required(key: str) -> bool:
    return any(requirement.key == key for requirement in REQUIRED)


def check_sizes(settings: Settings) -> Values:
    """The table `model`, with a reason for every size that cannot be."""
    sizes = {ours: settings.whole(ours) for ours in ("n_layers", "n_heads", "d_model", "n_ctx")}
    sizes["n_dims"] = settings.whole("d_vocab")
    d_model, n_heads = sizes["d_model"], sizes["n_heads"]
    if settings.whole("d_head", default=max(1, d_model // n_heads)) * n_heads != d_model:
        settings.refuse(f"d_head is {settings.get('d_head')}: {n_heads} heads of it are not d_model {d_model}")
    if settings.whole("d_mlp", default=4 * d_model) != 4 * d_model:
        settings.refuse(f"d_mlp is {settings.get('d_mlp')}: only 4 d_model = {4 * d_model} can be opened")
    if settings.get("n_key_value_heads") not in (None, n_heads):
        settings.refuse(f"n_key_value_heads is {settings.get('n_key_value_heads')}: only {n_heads}, one per head")
    scale = settings.number("attn_scale", -1.0)
    if scale not in (-1.0, 0.0) and abs(scale - (d_model / n_heads) ** 0.5) > 1e-6:
        settings.refuse(f"attn_scale is {scale:g}: only sqrt(d_head) can be opened")
    if any(kind != "global" for kind in settings.get("attn_types") or ()):
        settings.refuse("attn_types is not global throughout: only attention to all earlier tokens can be opened")
    return sizes


@torch.no_grad()
def predict(weights: Weights, tokens: Float[Tensor, "batch pos coordinate"]) -> Float[Tensor, "batch pos"]:
    """What a HookedTransformer that meets the requirements says at every token, in plain torch."""
    n_pos = tokens.shape[1]
    causal = torch.ones(n_pos, n_pos, dtype=torch.bool).tril()
    resid = tokens @ weights["embed.W_E"] + weights["pos_embed.W_pos"][:n_pos]

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
        return centred / scale * weights[f"{name}.w"] + weights[f"{name}.b"]

    for layer in range(sum(name.endswith("attn.W_Q") for name in weights)):
        block = f"blocks.{layer}."
        normalized = norm(f"{block}ln1", resid)
        q, k, v = (
            einsum(normalized, weights[f"{block}attn.W_{part}"], "batch pos d, head d e -> batch head pos e")
            + weights[f"{block}attn.b_{part}"][:, None]
            for part in "QKV"
        )
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~causal, -torch.inf)
        z = scores.softmax(-1) @ v
        written = einsum(z, weights[f"{block}attn.W_O"], "batch head pos e, head e d -> batch pos d")
        resid = resid + written + weights[f"{block}attn.b_O"]
        pre = norm(f"{block}ln2", resid) @ weights[f"{block}mlp.W_in"] + weights[f"{block}mlp.b_in"]
        post = F.gelu(pre, approximate="tanh")
        resid = resid + post @ weights[f"{block}mlp.W_out"] + weights[f"{block}mlp.b_out"]
    return (norm("ln_final", resid) @ weights["unembed.W_U"] + weights["unembed.b_U"]).squeeze(-1)


def configuration(sizes: ModelConfig, n_coordinates: int) -> Values:
    """What `HookedTransformerConfig.from_dict` needs for a network of this program's."""
    return {
        "n_layers": sizes.n_layers,
        "n_heads": sizes.n_heads,
        "d_model": sizes.d_model,
        "d_head": sizes.d_head,
        "d_mlp": 4 * sizes.d_model,
        "n_ctx": sizes.n_ctx,
        "d_vocab": n_coordinates,
        "d_vocab_out": 1,
        "act_fn": "gelu_new",
        "eps": EPS,
        "normalization_type": "LN",
        "attention_dir": "causal",
    }
