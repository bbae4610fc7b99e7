"""The parameters and the forward pass of the GPT-2s that Garg et al. 2022 began: read-in, backbone, read-out.

Two backbones: Hugging Face's, whose Conv1D weights are [in, out], and nanoGPT's, whose Linear weights are [out, in].
The forward pass here is plain torch on their parameters and shares nothing with this project's network: what both give
on the same prompts is the proof of an import.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from training.config.config import ModelConfig

Weights = Mapping[str, Tensor]

PROJECTIONS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
EPS = 1e-5


@dataclass(frozen=True)
class Backbone:
    """How a program calls and lays out the parameters of its GPT-2.

    Attributes:
        prefix: in front of `wpe`, `h` and `ln_f`.
        transposed: weights are [out, in].
        spare_rows: rows of `wpe` beyond two for every position.
        has_positions: whether the rows of `wpe` are added.
    """

    prefix: str = "_backbone."
    transposed: bool = False
    spare_rows: int = 0
    has_positions: bool = True
    unused = re.compile(r"_backbone\.(transformer\.)?(wte\.weight|h\.\d+\.attn\.(bias|masked_bias))")
    """The table of token embeddings, which no real-valued prompt uses, and causal masks."""

    def shapes(self, sizes: ModelConfig, n_dims: int) -> dict[str, tuple[int, ...]]:
        """Every parameter that the network uses."""
        d, p = sizes.d_model, self.prefix
        shapes: dict[str, tuple[int, ...]] = {
            "_read_in.weight": (d, n_dims),
            "_read_in.bias": (d,),
            f"{p}ln_f.weight": (d,),
            f"{p}ln_f.bias": (d,),
            "_read_out.weight": (1, d),
            "_read_out.bias": (1,),
        }
        if self.has_positions:
            shapes[f"{p}wpe.weight"] = (sizes.n_ctx + self.spare_rows, d)
        for layer in range(sizes.n_layers):
            h = f"{p}h.{layer}."
            shapes |= {f"{h}{norm}.{leaf}": (d,) for norm in ("ln_1", "ln_2") for leaf in ("weight", "bias")}
            for name, ins, outs in zip(PROJECTIONS, (d, d, d, 4 * d), (3 * d, d, 4 * d, d), strict=True):
                shapes[f"{h}{name}.weight"] = (outs, ins) if self.transposed else (ins, outs)
                shapes[f"{h}{name}.bias"] = (outs,)
        return shapes

    def to_hooked(self, weights: Weights, sizes: ModelConfig) -> dict[str, Tensor]:
        """The parameters by HookedTransformer's names and in its shapes."""
        return to_hooked(weights, sizes, self)

    def predict(
        self, weights: Weights, embeds: Float[Tensor, "batch pos d_model"], sizes: ModelConfig
    ) -> Float[Tensor, "batch pos"]:
        """What the network says at every token, from embedded tokens."""
        return predict(weights, embeds, sizes.n_heads, self)

    def matrix(self, weights: Weights, name: str) -> Float[Tensor, "in out"]:
        """The weight of a projection, to be multiplied from the right."""
        weight = weights[f"{name}.weight"]
        return weight.T if self.transposed else weight


def unlike_gpt2(sizes: ModelConfig) -> list[str]:
    """The settings in which an architecture is not GPT-2's.

    >>> unlike_gpt2(ModelConfig(1, 1, 4, 1, 4, norm="rms", d_mlp=16))
    ['model.norm=rms']
    """
    gpt2 = {"norm": "layer", "positions": "learned", "d_mlp": 4 * sizes.d_model, "act": "gelu_new", "eps": EPS}
    given = {name: getattr(sizes, name) for name in gpt2} | {"d_mlp": sizes.mlp_width}
    return [f"model.{name}={value}" for name, value in given.items() if value != gpt2[name]]


def to_hooked(weights: Weights, sizes: ModelConfig, backbone: Backbone) -> dict[str, Tensor]:
    """The parameters by HookedTransformer's names and in its shapes.

    The read-in bias, which every token gets, becomes part of W_pos; without positions it is W_pos. Coordinates beyond
    `sizes.n_dims` are left out.
    """
    p = backbone.prefix
    bias = weights["_read_in.bias"]
    hooked = {
        "embed.W_E": weights["_read_in.weight"][:, : sizes.n_dims].T,
        "pos_embed.W_pos": weights[f"{p}wpe.weight"][: sizes.n_ctx] + bias if backbone.has_positions else bias[None],
        "ln_final.w": weights[f"{p}ln_f.weight"],
        "ln_final.b": weights[f"{p}ln_f.bias"],
        "unembed.W_U": weights["_read_out.weight"].T,
        "unembed.b_U": weights["_read_out.bias"],
    }
    for layer in range(sizes.n_layers):
        block = block_to_hooked(weights, f"{p}h.{layer}.", sizes.n_heads, backbone)
        hooked |= {f"blocks.{layer}.{name}": tensor for name, tensor in block.items()}
    return hooked


def block_to_hooked(weights: Weights, h: str, n_heads: int, backbone: Backbone) -> dict[str, Tensor]:
    """One layer. GPT-2 packs queries, keys and values side by side, and in each of them its heads."""
    block: dict[str, Tensor] = {}
    packed = backbone.matrix(weights, f"{h}attn.c_attn").chunk(3, dim=1)
    biases = weights[f"{h}attn.c_attn.bias"].chunk(3)
    for part, weight, bias in zip("QKV", packed, biases, strict=True):
        block[f"attn.W_{part}"] = rearrange(weight, "d_model (head d_head) -> head d_model d_head", head=n_heads)
        block[f"attn.b_{part}"] = rearrange(bias, "(head d_head) -> head d_head", head=n_heads)
    out = backbone.matrix(weights, f"{h}attn.c_proj")
    block["attn.W_O"] = rearrange(out, "(head d_head) d_model -> head d_head d_model", head=n_heads)
    block["attn.b_O"] = weights[f"{h}attn.c_proj.bias"]
    for ours, theirs in (("in", "c_fc"), ("out", "c_proj")):
        block[f"mlp.W_{ours}"] = backbone.matrix(weights, f"{h}mlp.{theirs}")
        block[f"mlp.b_{ours}"] = weights[f"{h}mlp.{theirs}.bias"]
    for ours, theirs in (("ln1", "ln_1"), ("ln2", "ln_2")):
        block[f"{ours}.w"], block[f"{ours}.b"] = weights[f"{h}{theirs}.weight"], weights[f"{h}{theirs}.bias"]
    return block


def from_hooked(hooked: Weights, sizes: ModelConfig) -> dict[str, Tensor]:
    """The inverse of `to_hooked` for Hugging Face's backbone; where there are positions the read-in bias is 0."""
    p, table = Backbone().prefix, hooked["pos_embed.W_pos"]
    positions, bias = table, torch.zeros(sizes.d_model)
    if sizes.positions == "none":
        positions, bias = torch.zeros(sizes.n_ctx, sizes.d_model), table[0]
    weights = {
        "_read_in.weight": hooked["embed.W_E"][: sizes.n_dims].T,
        "_read_in.bias": bias,
        f"{p}wpe.weight": positions,
        f"{p}ln_f.weight": hooked["ln_final.w"],
        f"{p}ln_f.bias": hooked["ln_final.b"],
        "_read_out.weight": hooked["unembed.W_U"].T,
        "_read_out.bias": hooked["unembed.b_U"],
    }
    for layer in range(sizes.n_layers):
        ours = {name.removeprefix(f"blocks.{layer}."): tensor for name, tensor in hooked.items()}
        weights |= {f"{p}h.{layer}.{name}": tensor for name, tensor in block_from_hooked(ours).items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def block_from_hooked(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One layer's weights, or gradients of them; GPT-2 packs queries, keys and values side by side."""
    packed = [rearrange(ours[f"attn.W_{part}"], "head d_model d_head -> d_model (head d_head)") for part in "QKV"]
    return {
        "ln_1.weight": ours["ln1.w"],
        "ln_1.bias": ours["ln1.b"],
        "attn.c_attn.weight": torch.cat(packed, dim=1),
        "attn.c_attn.bias": torch.cat([ours[f"attn.b_{part}"].flatten() for part in "QKV"]),
        "attn.c_proj.weight": rearrange(ours["attn.W_O"], "head d_head d_model -> (head d_head) d_model"),
        "attn.c_proj.bias": ours["attn.b_O"],
        "ln_2.weight": ours["ln2.w"],
        "ln_2.bias": ours["ln2.b"],
        "mlp.c_fc.weight": ours["mlp.W_in"],
        "mlp.c_fc.bias": ours["mlp.b_in"],
        "mlp.c_proj.weight": ours["mlp.W_out"],
        "mlp.c_proj.bias": ours["mlp.b_out"],
    }


@torch.no_grad()
def predict(
    weights: Weights,
    embeds: Float[Tensor, "batch pos d_model"],
    n_heads: int,
    backbone: Backbone,
) -> Float[Tensor, "batch pos"]:
    """What the network says at every token, from embedded tokens: GPT-2 as its authors and Hugging Face compute it."""
    p = backbone.prefix
    n_pos, d_model = embeds.shape[1:]
    n_layers = len({name.split(".h.")[1].split(".")[0] for name in weights if f"{p}h." in name})
    resid = embeds + weights[f"{p}wpe.weight"][:n_pos] if backbone.has_positions else embeds
    causal = torch.ones(n_pos, n_pos, dtype=torch.bool).tril()

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ backbone.matrix(weights, name) + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (d_model,), weights[f"{name}.weight"], weights[f"{name}.bias"], EPS)

    for layer in range(n_layers):
        h = f"{p}h.{layer}."
        packed = linear(f"{h}attn.c_attn", norm(f"{h}ln_1", resid)).split(d_model, dim=2)
        q, k, v = (x.unflatten(2, (n_heads, -1)).transpose(1, 2) for x in packed)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~causal, -torch.inf)
        z = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        resid = resid + linear(f"{h}attn.c_proj", z)
        hidden = F.gelu(linear(f"{h}mlp.c_fc", norm(f"{h}ln_2", resid)), approximate="tanh")
        resid = resid + linear(f"{h}mlp.c_proj", hidden)
    return (norm(f"{p}ln_f", resid) @ weights["_read_out.weight"].T + weights["_read_out.bias"]).squeeze(-1)
