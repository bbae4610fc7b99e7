"""The parameters and the forward pass of HookedTransformers of transformer-lens 3.x and TransformerBridges of 4.x.

The forward pass here is plain torch on their parameters and shares nothing with this project's network: what both give
on the same prompts is the proof of an import.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from training.config.config import ModelConfig
from training.model.transformer import ROTARY_BASE

Weights = Mapping[str, Tensor]

BUFFERS = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE|rotary_sin|rotary_cos)")
"""Causal masks, and tables of angles."""
READ_IN_BIAS = "read_in_bias"
"""What is added to every token where positions are rotary; a HookedTransformer of token ids has no such parameter."""
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda pre: F.gelu(pre, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}
NORMS: Mapping[str | None, str] = {"LN": "layer", "RMS": "rms", None: "none"}
NORM_PARAMETERS: Mapping[str, tuple[str, ...]] = {"layer": ("w", "b"), "rms": ("w",), "none": ()}

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
        **({READ_IN_BIAS: (1, d)} if sizes.positions == "rotary" else {"pos_embed.W_pos": (sizes.n_ctx, d)}),
        "unembed.W_U": (d, 1),
        "unembed.b_U": (1,),
    }
    block: dict[str, tuple[int, ...]] = {
        **{f"attn.W_{part}": (heads, d, e) for part in "QKV"},
        **{f"attn.b_{part}": (heads, e) for part in "QKV"},
        "attn.W_O": (heads, e, d),
        "attn.b_O": (d,),
    }
    norms = ["ln1"]
    if width := sizes.mlp_width:
        norms.append("ln2")
        block |= {"mlp.W_in": (d, width), "mlp.b_in": (width,), "mlp.W_out": (width, d), "mlp.b_out": (d,)}
    leaves = NORM_PARAMETERS[sizes.norm]
    outer |= {f"ln_final.{leaf}": (d,) for leaf in leaves}
    block |= {f"{norm}.{leaf}": (d,) for norm in norms for leaf in leaves}
    return outer | {f"blocks.{layer}.{name}": shape for layer in range(sizes.n_layers) for name, shape in block.items()}


def to_hooked(weights: Weights, sizes: ModelConfig) -> dict[str, Tensor]:
    """Our parameters as a HookedTransformer has them: a row of W_pos for every position, or none if they are rotary."""
    hooked = dict(weights)
    if sizes.positions == "rotary":
        hooked[READ_IN_BIAS] = hooked.pop("pos_embed.W_pos")
    elif sizes.positions == "none":
        hooked["pos_embed.W_pos"] = hooked["pos_embed.W_pos"].expand(sizes.n_ctx, -1)
    return hooked


def from_hooked(hooked: Weights, sizes: ModelConfig) -> dict[str, Tensor]:
    """The inverse of `to_hooked`."""
    weights = dict(hooked)
    table = weights.pop(READ_IN_BIAS if sizes.positions == "rotary" else "pos_embed.W_pos")
    return weights | {"pos_embed.W_pos": table[: sizes.n_positions]}


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


def has_equal_positions(weights: Weights) -> bool:
    """Whether every position has the same vector, so that it tells the model nothing; in either line's names."""
    table = weights.get("pos_embed.W_pos", weights.get("pos_embed.weight"))
    return isinstance(table, Tensor) and table.ndim == 2 and len(table) > 1 and bool((table == table[0]).all())


@torch.no_grad()
def predict(
    weights: Weights, sizes: ModelConfig, tokens: Float[Tensor, "batch pos coordinate"]
) -> Float[Tensor, "batch pos"]:
    """What a HookedTransformer of this architecture says at every token, in plain torch."""
    n_pos = tokens.shape[1]
    causal = torch.ones(n_pos, n_pos, dtype=torch.bool).tril()
    is_rotary = sizes.positions == "rotary"
    added = weights[READ_IN_BIAS] if is_rotary else weights["pos_embed.W_pos"][:n_pos]
    resid = tokens @ weights["embed.W_E"] + added
    for layer in range(sizes.n_layers):
        block = f"blocks.{layer}."
        normalized = normalise(resid, weights, f"{block}ln1", sizes)
        q, k, v = (
            einsum(normalized, weights[f"{block}attn.W_{part}"], "batch pos d, head d e -> batch head pos e")
            + weights[f"{block}attn.b_{part}"][:, None]
            for part in "QKV"
        )
        if is_rotary:
            q, k = rotated(q), rotated(k)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~causal, -torch.inf)
        z = scores.softmax(-1) @ v
        written = einsum(z, weights[f"{block}attn.W_O"], "batch head pos e, head e d -> batch pos d")
        resid = resid + written + weights[f"{block}attn.b_O"]
        if sizes.mlp_width:
            normalized = normalise(resid, weights, f"{block}ln2", sizes)
            post = ACTIVATIONS[sizes.act](normalized @ weights[f"{block}mlp.W_in"] + weights[f"{block}mlp.b_in"])
            resid = resid + post @ weights[f"{block}mlp.W_out"] + weights[f"{block}mlp.b_out"]
    normalized = normalise(resid, weights, "ln_final", sizes)
    return (normalized @ weights["unembed.W_U"] + weights["unembed.b_U"]).squeeze(-1)


def normalise(
    resid: Float[Tensor, "batch pos d_model"], weights: Weights, name: str, sizes: ModelConfig
) -> Float[Tensor, "batch pos d_model"]:
    """A norm of the kind that `sizes` names, with the parameters `name.w` and `name.b`."""
    if sizes.norm == "none":
        return resid
    centred = resid - resid.mean(-1, keepdim=True) if sizes.norm == "layer" else resid
    scaled = centred / (centred.square().mean(-1, keepdim=True) + sizes.eps).sqrt() * weights[f"{name}.w"]
    return scaled + weights[f"{name}.b"] if sizes.norm == "layer" else scaled


def rotated(vectors: Float[Tensor, "batch head pos d_head"]) -> Float[Tensor, "batch head pos d_head"]:
    """Coordinates i and i + d_head / 2 as a complex number, turned by position / ROTARY_BASE^(2i / d_head)."""
    n_pos, d_head = vectors.shape[2:]
    speeds = ROTARY_BASE ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    angles = torch.outer(torch.arange(n_pos, dtype=torch.float64), speeds)
    turned = torch.complex(*vectors.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
    return torch.cat((turned.real, turned.imag), dim=-1)


def configuration(sizes: ModelConfig, n_coordinates: int) -> dict[str, Any]:
    """What `HookedTransformerConfig.from_dict` needs for a network of this program's."""
    names = {ours: theirs for theirs, ours in NORMS.items()}
    rotary = {"positional_embedding_type": "rotary", "rotary_dim": sizes.d_head, "rotary_base": int(ROTARY_BASE)}
    return {
        "n_layers": sizes.n_layers,
        "n_heads": sizes.n_heads,
        "d_model": sizes.d_model,
        "d_head": sizes.d_head,
        "d_mlp": sizes.mlp_width,
        "attn_only": sizes.mlp_width == 0,
        "n_ctx": sizes.n_ctx,
        "d_vocab": n_coordinates,
        "d_vocab_out": 1,
        "act_fn": sizes.act,
        "eps": sizes.eps,
        "normalization_type": names[sizes.norm],
        "attention_dir": "causal",
        **(rotary if sizes.positions == "rotary" else {}),
    }
