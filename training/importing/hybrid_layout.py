"""The parameters and the forward pass of in-context-learning-2024/in-context's `hybrid` models (read at ab00265).

Such a model is a list of modules, `model.module_names`. Those that make GPT-2 with another norm or other positions are
this program's networks: `residual` adds the stream up to the last `residual`, so that the list begins with one (after
the positions, if they are learned), goes on with norm, attention, residual, norm, MLP, residual for every layer, and
ends with a norm.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from training.config.config import ModelConfig
from training.importing.hooked_layout import ACTIVATIONS, NORM_PARAMETERS, normalise, rotated
from training.importing.settings import Settings

Weights = Mapping[str, Tensor]

CODES = {
    "absolute positional embedding": "A",
    "residual": "R",
    "layer norm": "L",
    "rms norm": "M",
    "gpt2 attention": "G",
    "llama attention": "O",
    "llama attention no rope": "N",
    "gpt2 mlp": "F",
}
"""The modules of this program's networks, as letters."""
NETWORK = re.compile(r"(?P<positions>A?)R(?P<blocks>(?:[LM]?[GON]R(?:[LM]?FR)?)+)(?P<norm>[LM]?)")
BLOCK = re.compile(r"[LM]?[GON]R(?:[LM]?FR)?")
NORMS = {"L": "layer", "M": "rms", "": "none"}
EPS = {"layer": ("model.layer_norm_epsilon", 1e-5), "rms": ("model.rms_norm_eps", 1e-6), "none": ("", 1e-5)}
"""By norm, the setting of its eps and the default of LlamaConfig."""
KNOWN = ("type", "module_names", "n_positions", "n_embd", "n_head", "x_dim", "y_dim", "gpt2_hidden_act", "rope_theta")
KNOWN += ("layer_norm_epsilon", "rms_norm_eps")


def flatten(names: object) -> Iterator[str]:
    """The modules in order; the list may hold lists."""
    if isinstance(names, list):
        for name in names:
            yield from flatten(name)
    else:
        yield str(names)


def architecture(settings: Settings) -> dict[str, Any]:
    """The architecture and the number of layers, with a reason if the modules make another network."""
    names = [*flatten(settings.get("model.module_names") or [])]
    if other := [name for name in dict.fromkeys(names) if name not in CODES]:
        settings.refuse(f"model.module_names has {', '.join(other)}: only {', '.join(CODES)} can be opened")
        return {}
    code = "".join(CODES[name] for name in names)
    network = NETWORK.fullmatch(code)
    blocks = {*BLOCK.findall(network["blocks"])} if network else set()
    block = next(iter(blocks), "")
    norms = {letter for letter in block if letter in "LM"} | {network["norm"] if network else ""}
    n_norms = sum(letter in "LM" for letter in block)
    if not network or len(blocks) > 1 or len(norms) > 1 or n_norms not in (0, block.count("R")):
        settings.refuse("model.module_names does not repeat one GPT-2 block with residuals and a single kind of norm")
        return {}
    if network["positions"] and "O" in block:
        settings.refuse("model.module_names has learned and rotary positions: only one of them can be opened")
    norm = NORMS[network["norm"]]
    act = settings.word("model.gpt2_hidden_act", "gelu_new")
    if act not in ACTIVATIONS:
        settings.refuse(f"model.gpt2_hidden_act is {act}: only {', '.join(ACTIVATIONS)} can be opened")
    key, default = EPS[norm]
    return {
        "n_layers": len(BLOCK.findall(network["blocks"])),
        "norm": norm,
        "positions": "rotary" if "O" in block else "learned" if network["positions"] else "none",
        "eps": settings.number(key, default) if key else default,
        **({"act": act} if "F" in block else {"d_mlp": 0}),
    }


@dataclass(frozen=True)
class Hybrid:
    """How a list of modules lays out its parameters.

    Attributes:
        module_names: the modules in order.
    """

    module_names: tuple[str, ...]

    @cached_property
    def prefixes(self) -> dict[str, list[str]]:
        """By letter of a module, the prefixes of the parameters of all such modules; norms together under `L`."""
        prefixes: dict[str, list[str]] = {"L": [], "G": [], "F": [], "A": []}
        for index, name in enumerate(self.module_names):
            letter = {"M": "L", "O": "G", "N": "G"}.get(CODES[name], CODES[name])
            prefixes.setdefault(letter, []).append(f"_backbone.layers.{index}.")
        return prefixes

    @property
    def unused(self) -> re.Pattern[str]:
        """Buffers of attention that older versions of transformers saved: causal masks, and frequencies."""
        attention = "|".join(map(re.escape, self.prefixes["G"]))
        return re.compile(rf"({attention})(bias|masked_bias|rotary_emb\.inv_freq)")

    @property
    def is_llama(self) -> bool:
        """Whether queries, keys and values have projections of their own, without biases."""
        return "gpt2 attention" not in self.module_names

    def shapes(self, sizes: ModelConfig, n_dims: int) -> dict[str, tuple[int, ...]]:
        """Every parameter that the network uses."""
        d, width = sizes.d_model, sizes.mlp_width
        shapes: dict[str, tuple[int, ...]] = {
            "_read_in.weight": (d, n_dims),
            "_read_in.bias": (d,),
            "_read_out.weight": (1, d),
            "_read_out.bias": (1,),
        }
        leaves = {"w": "weight", "b": "bias"}
        for norm in self.prefixes["L"]:
            shapes |= {f"{norm}{leaves[leaf]}": (d,) for leaf in NORM_PARAMETERS[sizes.norm]}
        for prefix in self.prefixes["A"]:
            shapes[f"{prefix}embed.weight"] = (sizes.n_ctx, d)
        for prefix in self.prefixes["G"]:
            if self.is_llama:
                shapes |= {f"{prefix}{part}_proj.weight": (d, d) for part in "qkvo"}
            else:
                shapes |= linear_shapes(f"{prefix}c_attn", d, 3 * d) | linear_shapes(f"{prefix}c_proj", d, d)
        for prefix in self.prefixes["F"]:
            shapes |= linear_shapes(f"{prefix}c_fc", d, width) | linear_shapes(f"{prefix}c_proj", width, d)
        return shapes

    def to_hooked(self, weights: Weights, sizes: ModelConfig) -> dict[str, Tensor]:
        """The parameters by HookedTransformer's names and in its shapes; absent biases are 0."""
        bias = weights["_read_in.bias"][None]
        tables = [weights[f"{prefix}embed.weight"] + bias for prefix in self.prefixes["A"]]
        hooked = {
            "embed.W_E": weights["_read_in.weight"][:, : sizes.n_dims].T,
            "pos_embed.W_pos": tables[0] if tables else bias,
            "unembed.W_U": weights["_read_out.weight"].T,
            "unembed.b_U": weights["_read_out.bias"],
        }
        names = [f"blocks.{layer}.{norm}" for layer in range(sizes.n_layers) for norm in self.norms_of_block(sizes)]
        for ours, theirs in zip([*names, "ln_final"], self.prefixes["L"], strict=False):
            leaves = {"w": "weight", "b": "bias"}
            hooked |= {f"{ours}.{leaf}": weights[theirs + leaves[leaf]] for leaf in NORM_PARAMETERS[sizes.norm]}
        for layer, prefix in enumerate(self.prefixes["G"]):
            parts = self.attention(weights, prefix, sizes)
            hooked |= {f"blocks.{layer}.attn.{name}": tensor for name, tensor in parts.items()}
        for layer, prefix in enumerate(self.prefixes["F"]):
            for ours, theirs in (("in", "c_fc"), ("out", "c_proj")):
                hooked[f"blocks.{layer}.mlp.W_{ours}"] = weights[f"{prefix}{theirs}.weight"]
                hooked[f"blocks.{layer}.mlp.b_{ours}"] = weights[f"{prefix}{theirs}.bias"]
        return hooked

    def norms_of_block(self, sizes: ModelConfig) -> list[str]:
        return [] if sizes.norm == "none" else ["ln1", "ln2"] if sizes.mlp_width else ["ln1"]

    def attention(self, weights: Weights, prefix: str, sizes: ModelConfig) -> dict[str, Tensor]:
        """One layer's attention by HookedTransformer's names."""
        d, heads = sizes.d_model, sizes.n_heads
        if self.is_llama:
            matrices = [weights[f"{prefix}{part}_proj.weight"].T for part in "qkvo"]
            biases = [torch.zeros(d)] * 4
        else:
            matrices = [*weights[f"{prefix}c_attn.weight"].chunk(3, dim=1), weights[f"{prefix}c_proj.weight"]]
            biases = [*weights[f"{prefix}c_attn.bias"].chunk(3), weights[f"{prefix}c_proj.bias"]]
        named: dict[str, Tensor] = {}
        for part, matrix, bias in zip("QKV", matrices, biases, strict=False):
            named[f"W_{part}"] = rearrange(matrix, "d_model (head d_head) -> head d_model d_head", head=heads)
            named[f"b_{part}"] = rearrange(bias, "(head d_head) -> head d_head", head=heads)
        written = rearrange(matrices[3], "(head d_head) d_model -> head d_head d_model", head=heads)
        return named | {"W_O": written, "b_O": biases[3]}

    @torch.no_grad()
    def predict(
        self, weights: Weights, embeds: Float[Tensor, "batch pos d_model"], sizes: ModelConfig
    ) -> Float[Tensor, "batch pos"]:
        """What the network says at every token: its modules in turn, as `HybridBackbone.forward` runs them."""
        hidden, residual = embeds, torch.zeros_like(embeds)
        for index, name in enumerate(self.module_names):
            prefix = f"_backbone.layers.{index}."
            match CODES[name]:
                case "A":
                    hidden = hidden + weights[f"{prefix}embed.weight"][: hidden.shape[1]]
                case "R":
                    hidden = residual = residual + hidden
                case "L" | "M":
                    leaves = {f"norm.{leaf[0]}": weights[f"{prefix}{leaf}"] for leaf in ("weight", "bias")
                              if f"{prefix}{leaf}" in weights}  # fmt: skip
                    hidden = normalise(hidden, leaves, "norm", sizes)
                case "F":
                    pre = hidden @ weights[f"{prefix}c_fc.weight"] + weights[f"{prefix}c_fc.bias"]
                    post = ACTIVATIONS[sizes.act](pre)
                    hidden = post @ weights[f"{prefix}c_proj.weight"] + weights[f"{prefix}c_proj.bias"]
                case attention:
                    hidden = self.attend(weights, prefix, hidden, sizes, is_rotary=attention == "O")
        return (hidden @ weights["_read_out.weight"].T + weights["_read_out.bias"]).squeeze(-1)

    def attend(
        self, weights: Weights, prefix: str, hidden: Float[Tensor, "batch pos d_model"], sizes: ModelConfig, *,
        is_rotary: bool,
    ) -> Float[Tensor, "batch pos d_model"]:  # fmt: skip
        """What an attention module writes."""
        if self.is_llama:
            packed = [hidden @ weights[f"{prefix}{part}_proj.weight"].T for part in "qkv"]
        else:
            packed = (hidden @ weights[f"{prefix}c_attn.weight"] + weights[f"{prefix}c_attn.bias"]).chunk(3, dim=2)
        q, k, v = (x.unflatten(2, (sizes.n_heads, -1)).transpose(1, 2) for x in packed)
        if is_rotary:
            q, k = rotated(q), rotated(k)
        n_pos = hidden.shape[1]
        causal = torch.ones(n_pos, n_pos, dtype=torch.bool).tril()
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~causal, -torch.inf)
        z = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        if self.is_llama:
            return z @ weights[f"{prefix}o_proj.weight"].T
        return z @ weights[f"{prefix}c_proj.weight"] + weights[f"{prefix}c_proj.bias"]


def linear_shapes(name: str, ins: int, outs: int) -> dict[str, tuple[int, ...]]:
    """Weight and bias of a Conv1D."""
    return {f"{name}.weight": (ins, outs), f"{name}.bias": (outs,)}
