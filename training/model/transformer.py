"""The compact transformer: a plain module whose parameters carry HookedTransformer's names and shapes.

Inputs are continuous, so the embedding is `prompt @ W_E` instead of a look-up and the read-in bias lives in `W_pos`;
everything else is GPT-2 (pre-LayerNorm, learned positions, tanh-GELU), or one of its variants (`ModelConfig`: another
norm, other positions, another activation function, no MLPs). Activations go by their TransformerLens hook
names and are read or replaced through `edits`:

    model(prompt)                                                 # no site visited
    model(prompt, {"blocks.0.attn.hook_z": lambda z: z * 0})      # every head of layer 0 removed
    model.predict(prompt)                                         # only what the x tokens predict, fastest

A block is cut where heads are cut, at z, so that a sweep can start from a recorded z (`interp.model.engine`).
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from training.common.library_defaults import library_defaults
from training.config.config import ModelConfig
from training.model.attention_kernels import batched_attention, causal_mask, faster_batched, fused_attention
from training.model.norms import NORMS, Norm
from training.model.sites import UNTOUCHED, Edits, Sites, site_names
from training.tasks.prompts import PLAIN, Layout, Positions

EVERY = slice(None)
"""All positions."""
ROTARY_BASE = 10_000.0


class Past(NamedTuple):
    """Keys and values of the tokens before those that a layer is run on; they are not computed again."""

    k: Float[Tensor, "batch past_pos head d_head"]
    v: Float[Tensor, "batch past_pos head d_head"]


class Attention(nn.Module):
    """Causal self-attention; head h writes `z[h] @ W_O[h]`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n_heads, d_model, d_head = config.n_heads, config.d_model, config.d_head
        self.is_rotary = config.positions == "rotary"
        self.W_Q = nn.Parameter(torch.empty(n_heads, d_model, d_head))
        self.W_K = nn.Parameter(torch.empty(n_heads, d_model, d_head))
        self.W_V = nn.Parameter(torch.empty(n_heads, d_model, d_head))
        self.W_O = nn.Parameter(torch.empty(n_heads, d_head, d_model))
        self.b_Q = nn.Parameter(torch.zeros(n_heads, d_head))
        self.b_K = nn.Parameter(torch.zeros(n_heads, d_head))
        self.b_V = nn.Parameter(torch.zeros(n_heads, d_head))
        self.b_O = nn.Parameter(torch.zeros(d_model))

    def forward(
        self,
        normalized: Float[Tensor, "batch pos d_model"],
        at: Sites = UNTOUCHED,
        queries: Positions = EVERY,
        past: Past | None = None,
    ) -> Float[Tensor, "batch query_pos head d_head"]:
        """z, each head's mix of values, at the query positions, which count from the end of `past`."""
        q = at("hook_q", project(normalized[:, queries], self.W_Q, self.b_Q))
        k = at("hook_k", project(normalized, self.W_K, self.b_K))
        v = at("hook_v", project(normalized, self.W_V, self.b_V))
        return at("hook_z", self.attend(q, k, v, at, queries, past))

    def attend(
        self,
        q: Float[Tensor, "batch query_pos head d_head"],
        k: Float[Tensor, "batch pos head d_head"],
        v: Float[Tensor, "batch pos head d_head"],
        at: Sites = UNTOUCHED,
        queries: Positions = EVERY,
        past: Past | None = None,
    ) -> Float[Tensor, "batch query_pos head d_head"]:
        """Each head's mix of values, from queries, keys and values before any rotation."""
        n_past = 0
        if past is not None:
            n_past = past.k.shape[1]
            k, v = torch.cat((past.k, k), dim=1), torch.cat((past.v, v), dim=1)
        if self.is_rotary:
            positions = torch.arange(k.shape[1], device=k.device)
            q, k = rotate(q, positions[n_past:][queries]), rotate(k, positions)
        visible = causal_mask(k.shape[1], queries, k.device, n_past)
        if at.wanted("hook_attn_scores", "hook_pattern"):
            return self.open_attention(q, k, v, visible, at)
        if faster_batched(k):
            return batched_attention(q, k, v, visible)
        return fused_attention(q, k, v, visible, is_causal=queries is EVERY and past is None)

    def open_attention(
        self,
        q: Float[Tensor, "batch query_pos head d_head"],
        k: Float[Tensor, "batch key_pos head d_head"],
        v: Float[Tensor, "batch key_pos head d_head"],
        visible: Bool[Tensor, "query_pos key_pos"],
        at: Sites,
    ) -> Float[Tensor, "batch query_pos head d_head"]:
        """Attention with its scores and pattern in the open, `[batch head query_pos key_pos]`."""
        n_heads = q.shape[2]
        q, k, v = (rearrange(x, "batch pos head d_head -> (batch head) pos d_head") for x in (q, k, v))
        hidden = torch.where(visible, 0.0, -torch.inf).to(q)
        products = torch.baddbmm(hidden, q, k.mT, alpha=1 / math.sqrt(q.shape[-1]))
        scores = at("hook_attn_scores", rearrange(products, "(batch head) ... -> batch head ...", head=n_heads))
        pattern = at("hook_pattern", scores.softmax(-1))
        mix = pattern.flatten(0, 1) @ v
        return rearrange(mix, "(batch head) pos d_head -> batch pos head d_head", head=n_heads)

    def write(
        self, z: Float[Tensor, "batch pos head d_head"], at: Sites = UNTOUCHED
    ) -> Float[Tensor, "batch pos d_model"]:
        """attn_out: what the heads write into the residual stream together."""
        if at.wanted("hook_result"):
            result = einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos head d_model")
            return at("hook_result", result).sum(-2) + self.b_O
        return F.linear(z.flatten(-2), self.W_O.flatten(0, 1).T, self.b_O)


class MLP(nn.Module):
    """Two matrices with an activation function between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model, d_mlp = config.d_model, config.mlp_width
        self.act = ACTIVATIONS[config.act]
        self.W_in = nn.Parameter(torch.empty(d_model, d_mlp))
        self.b_in = nn.Parameter(torch.zeros(d_mlp))
        self.W_out = nn.Parameter(torch.empty(d_mlp, d_model))
        self.b_out = nn.Parameter(torch.zeros(d_model))

    def forward(
        self, normalized: Float[Tensor, "batch pos d_model"], at: Sites = UNTOUCHED
    ) -> Float[Tensor, "batch pos d_model"]:
        pre = at("hook_pre", F.linear(normalized, self.W_in.T, self.b_in))
        post = at("hook_post", self.act(pre))
        return F.linear(post, self.W_out.T, self.b_out)


def gelu(pre: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """GPT-2's tanh-GELU, x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x³).

    Without gradients on a CPU as x sigmoid(2u), which is the same and takes half the time of torch's.
    """
    if pre.requires_grad or pre.device.type != "cpu":
        return F.gelu(pre, approximate="tanh")
    slope = torch.tensor(2 * math.sqrt(2 / math.pi), dtype=pre.dtype)
    return torch.addcmul(slope, pre, pre, value=0.044715 * slope.item()).mul_(pre).sigmoid_().mul_(pre)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": gelu,
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}
"""What stands behind `model.act`."""


class Block(nn.Module):
    """One layer, cut at z and at resid_mid: `mix` gives z, `write` takes z (recorded or replaced) to resid_post."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln1 = norm_of(config)
        self.attn = Attention(config)
        self.has_mlp = config.mlp_width > 0
        if self.has_mlp:
            self.ln2 = norm_of(config)
            self.mlp = MLP(config)

    def mix(
        self,
        resid_pre: Float[Tensor, "batch pos d_model"],
        at: Sites = UNTOUCHED,
        queries: Positions = EVERY,
        past: Past | None = None,
    ) -> Float[Tensor, "batch query_pos head d_head"]:
        return self.attn(self.ln1(resid_pre, at.under("ln1.")), at.under("attn."), queries, past)

    def write(
        self,
        resid_pre: Float[Tensor, "batch pos d_model"],
        z: Float[Tensor, "batch pos head d_head"],
        at: Sites = UNTOUCHED,
    ) -> Float[Tensor, "batch pos d_model"]:
        attn_out = at("hook_attn_out", self.attn.write(z, at.under("attn.")))
        return self.transform(at("hook_resid_mid", resid_pre + attn_out), at)

    def transform(
        self, resid_mid: Float[Tensor, "batch pos d_model"], at: Sites = UNTOUCHED
    ) -> Float[Tensor, "batch pos d_model"]:
        """resid_post: what the MLP writes, added."""
        return at("hook_resid_post", resid_mid + self.mlp_out(resid_mid, at))

    def mlp_out(
        self, resid_mid: Float[Tensor, "*batch pos d_model"], at: Sites = UNTOUCHED
    ) -> Float[Tensor, "*batch pos d_model"]:
        """What the MLP writes; zeros where there is none, so that every analysis may count it as a component."""
        if not self.has_mlp:
            return at("hook_mlp_out", torch.zeros_like(resid_mid))
        return at("hook_mlp_out", self.mlp(self.ln2(resid_mid, at.under("ln2.")), at.under("mlp.")))

    def forward(
        self,
        resid_pre: Float[Tensor, "batch pos d_model"],
        at: Sites = UNTOUCHED,
        queries: Positions = EVERY,
        past: Past | None = None,
    ) -> Float[Tensor, "batch query_pos d_model"]:
        """resid_post at the query positions."""
        resid_pre = at("hook_resid_pre", resid_pre)
        return self.write(resid_pre[:, queries], self.mix(resid_pre, at, queries, past), at)


class Embed(nn.Module):
    """The read-in."""

    def __init__(self, n_coordinates: int, d_model: int) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(n_coordinates, d_model))


class PosEmbed(nn.Module):
    """Learned positions, with the read-in bias in every row; a single row of bias where no positions are learned."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.W_pos = nn.Parameter(torch.empty(config.n_positions, config.d_model))


class Unembed(nn.Module):
    """The read-out, one number per token."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.W_U = nn.Parameter(torch.empty(d_model, 1))
        self.b_U = nn.Parameter(torch.zeros(1))


class Transformer(nn.Module):
    """A GPT-2 over prompts of real vectors with one real output per token.

    Args:
        config: sizes and initialisation.
        generator: draws the initial weights; the same generator state gives the same weights.
        layout: where in the token stream the predictions are read. Its instruction vectors are further rows of W_E,
            drawn from N(0, I) and never trained.

    >>> model = Transformer(ModelConfig(n_layers=1, n_heads=2, d_model=8, n_dims=3, n_ctx=6), torch.Generator())
    >>> model(torch.zeros(5, 6, 3)).shape, model.predict(torch.zeros(5, 6, 3)).shape
    (torch.Size([5, 6]), torch.Size([5, 3]))
    """

    @library_defaults()
    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None, layout: Layout = PLAIN) -> None:
        super().__init__()
        self.config = config
        self.layout = layout
        self.embed = Embed(config.n_dims + layout.n_vectors, config.d_model)
        self.pos_embed = PosEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_final = norm_of(config)
        self.unembed = Unembed(config.d_model)
        initialise(self, generator or torch.Generator().manual_seed(0))

    @property
    def layers(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]  # a ModuleList does not know what it holds

    @property
    def device(self) -> torch.device:
        return self.unembed.b_U.device

    def forward(self, prompt: Float[Tensor, "batch pos dim"], edits: Edits | None = None) -> Float[Tensor, "batch pos"]:
        """The output at every token; at the token x_i it is the prediction of y_i.

        Args:
            prompt: tokens x_1 y_1 x_2 y_2 … (`training.tasks.prompts.to_prompt`).
            edits: site name -> function from the activation there to the activation to go on with.

        Raises:
            ValueError: an edit names a site that does not exist, or the prompt does not fit the model.
        """
        at = Sites(self.check_edits(edits)) if edits else UNTOUCHED
        resid = self.run_layers(self.read_in(prompt, at), lambda layer: at.under(f"blocks.{layer}."))
        return self.read_out(resid, at)

    def predict(self, prompt: Float[Tensor, "batch pos dim"]) -> Float[Tensor, "batch point"]:
        """The predictions of y_1 … y_n: `forward(prompt)` at the x tokens, with less work.

        The last y token influences no prediction and the last layer's y tokens are read by nobody: both are skipped.
        """
        resid = self.read_in(self.needed(prompt))
        return self.read_out(self.run_layers(resid, queries=self.x_tokens(resid)))

    def run_layers(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        sites: Callable[[int], Sites] = lambda layer: UNTOUCHED,  # noqa: ARG005
        *,
        first: int = 0,
        queries: Positions = EVERY,
        past: Callable[[int], Past | None] = lambda layer: None,  # noqa: ARG005
    ) -> Float[Tensor, "batch query_pos d_model"]:
        """The residual stream after the last layer, from the one before the layer `first`.

        Args:
            resid: the stream before that layer; as it is, if there is no such layer.
            sites: by layer, its sites with their edits.
            first: the layer to begin with.
            queries: the tokens that are wanted of the last layer.
            past: by layer, keys and values of earlier tokens than those of `resid`.
        """
        for layer, block in enumerate(self.layers[first:], start=first):
            wanted = queries if layer == self.config.n_layers - 1 else EVERY
            resid = block(resid, sites(layer), wanted, past(layer))
        return resid

    def needed(self, prompt: Float[Tensor, "batch pos dim"]) -> Float[Tensor, "batch needed dim"]:
        """The tokens up to the last prediction."""
        return prompt[:, : self.layout.n_needed(prompt.shape[1])]

    def x_tokens(self, stream: Float[Tensor, "batch pos *rest"]) -> Positions:
        """Where predictions are read in a prompt of this length."""
        return self.layout.x_tokens(stream.shape[1])

    def read_in(
        self, prompt: Float[Tensor, "batch pos dim"], at: Sites = UNTOUCHED
    ) -> Float[Tensor, "batch pos d_model"]:
        config = self.config
        n_coordinates = len(self.embed.W_E)
        if prompt.shape[2] != n_coordinates or prompt.shape[1] > config.n_ctx:
            raise ValueError(
                f"prompt of {prompt.shape[1]} tokens x {prompt.shape[2]} dims: "
                f"this model takes at most {config.n_ctx} tokens x {n_coordinates} dims"
            )
        embed, pos_embed = prompt @ self.read_in_matrix(), self.pos_embed.W_pos[: prompt.shape[1]]
        if config.positions == "rotary":
            return at("hook_embed", embed + pos_embed)
        embed = at("hook_embed", embed)
        if at.wanted("hook_pos_embed"):
            pos_embed = at("hook_pos_embed", pos_embed.expand_as(embed))
        return embed + pos_embed

    def read_in_matrix(self) -> Float[Tensor, "dim d_model"]:
        """W_E; its rows for instruction vectors carry no gradient."""
        if not self.layout.n_vectors:
            return self.embed.W_E
        trained, fixed = self.embed.W_E.split((self.config.n_dims, self.layout.n_vectors))
        return torch.cat((trained, fixed.detach()))

    def read_out(self, resid: Float[Tensor, "batch pos d_model"], at: Sites = UNTOUCHED) -> Float[Tensor, "batch pos"]:
        normalized = self.ln_final(resid, at.under("ln_final."))
        return (normalized @ self.unembed.W_U + self.unembed.b_U).squeeze(-1)

    def check_edits(self, edits: Edits) -> Edits:
        """The edits, if every one of them will act: a misspelt site would otherwise do nothing, silently."""
        unknown = set(edits).difference(site_names(self.config))
        if unknown:
            raise ValueError(f"no such site: {', '.join(sorted(unknown))} (see training.model.sites.site_names)")
        return edits


def norm_of(config: ModelConfig) -> Norm:
    """A new norm of the kind that the configuration names."""
    return NORMS[config.norm](config.d_model, config.eps)


def rotate(
    vectors: Float[Tensor, "batch pos head d_head"], positions: Int[Tensor, " pos"]
) -> Float[Tensor, "batch pos head d_head"]:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864).

    Coordinates i and i + d_head / 2 are rotated by the angle position / ROTARY_BASE^(2i / d_head).

    >>> rotate(torch.ones(1, 2, 1, 2), torch.arange(2))[0, :, 0].tolist()
    [[1.0, 1.0], [-0.3011686..., 1.3817732...]]
    """
    half = vectors.shape[-1] // 2
    frequencies = ROTARY_BASE ** (-torch.arange(half, device=vectors.device, dtype=torch.float64) / half)
    angles = positions[:, None].double() * frequencies
    cos, sin = (function(angles).to(vectors.dtype)[:, None, :] for function in (torch.cos, torch.sin))
    first, second = vectors[..., :half], vectors[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def project(
    normalized: Float[Tensor, "batch pos d_model"],
    weight: Float[Tensor, "head d_model d_head"],
    bias: Float[Tensor, "head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    flat = F.linear(normalized, rearrange(weight, "head d_model d_head -> (head d_head) d_model"), bias.flatten())
    return rearrange(flat, "batch pos (head d_head) -> batch pos head d_head", head=weight.shape[0])


@torch.no_grad()
def initialise(model: Transformer, generator: torch.Generator) -> None:
    """GPT-2's initialisation, in the order of `named_parameters`.

    Weight matrices and positions are N(0, init_std²); W_O and W_out, which write into the residual stream, are divided
    by sqrt(2 n_layers); biases are 0, LayerNorm gains 1. With `read_init = "linear"` the read-in and read-out are
    torch.nn.Linear's default instead (uniform within 1/sqrt(fan_in), biases too), as in the authors' code, and the
    read-in bias is added to W_pos. Where no positions are learned, W_pos is that bias alone. Instruction vectors are
    N(0, I).
    """
    config = model.config
    residual_std = config.init_std / math.sqrt(2 * config.n_layers)
    for name, parameter in model.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if leaf.startswith("W_"):
            parameter.normal_(0, residual_std if leaf in ("W_O", "W_out") else config.init_std, generator=generator)
    if config.positions != "learned":
        model.pos_embed.W_pos.zero_()
    if config.read_init == "linear":
        in_bound, out_bound = config.n_dims**-0.5, config.d_model**-0.5
        model.embed.W_E.uniform_(-in_bound, in_bound, generator=generator)
        model.pos_embed.W_pos.add_(torch.empty(config.d_model).uniform_(-in_bound, in_bound, generator=generator))
        model.unembed.W_U.uniform_(-out_bound, out_bound, generator=generator)
        model.unembed.b_U.uniform_(-out_bound, out_bound, generator=generator)
    if model.layout.n_vectors:
        model.embed.W_E[config.n_dims :].normal_(0, 1, generator=generator)
