"""Runs a model on some of its edges: the faithfulness of a circuit by real intervention.

Every receiver has an input of its own, assembled edge by edge: over an edge of the circuit comes what the sender writes
in this run, over any other what it writes in the corrupt run. The read-in of this run is the clean one, so with all
edges it is the clean run and with none the corrupt run. Only heads that hear anything of the circuit are computed.
"""

from typing import NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.attribution.edges import written
from interp.attribution.graph import CHANNELS, Graph
from interp.model.engine import read_sites
from interp.patching.engine import QUERY
from training.model.transformer import EVERY, Attention, Block, Transformer
from training.tasks.prompts import Positions


class CorruptRun(NamedTuple):
    """What a corrupt run leaves behind.

    Attributes:
        written: by sender (`Graph.senders`), what it writes.
        resid_pre: by layer, what its heads see.
        resid_mid: by layer, what its MLP sees.
        resid_post: what the read-out sees.
    """

    written: Float[Tensor, "sender batch pos d_model"]
    resid_pre: list[Float[Tensor, "batch pos d_model"]]
    resid_mid: list[Float[Tensor, "batch pos d_model"]]
    resid_post: Float[Tensor, "batch pos d_model"]


def corrupt_run(model: Transformer, tokens: Float[Tensor, "batch pos dim"]) -> CorruptRun:
    """Run the model on corrupt prompts (up to their query) and keep what circuits are measured against."""
    layers = range(model.config.n_layers)
    pre, mid = ([f"blocks.{layer}.hook_resid_{place}" for layer in layers] for place in ("pre", "mid"))
    last = f"blocks.{layers[-1]}.hook_resid_post"
    seen = read_sites(model, tokens, [*pre, *mid, last])
    return CorruptRun(written(model, tokens), [seen[one] for one in pre], [seen[one] for one in mid], seen[last])


@torch.no_grad()
def predict_circuit(
    model: Transformer,
    clean: Float[Tensor, "batch pos dim"],
    corrupt: CorruptRun,
    edges: Bool[Tensor, "receiver sender"],
) -> Float[Tensor, " batch"]:
    """The prediction at the query with clean information on these edges only.

    Args:
        model: the transformer.
        clean: prompts up to their query.
        corrupt: the run of their corrupt partners.
        edges: the circuit; places without an edge (`Graph.allowed`) have to be False.
    """
    graph, mask = Graph.of(model.config), edges.to(corrupt.written.dtype)
    change = torch.zeros_like(corrupt.written)
    change[0] = model.read_in(clean) - corrupt.written[0]
    for layer, block in enumerate(model.layers):
        queries = QUERY if layer == model.config.n_layers - 1 else EVERY
        before = graph.n_before_heads(layer)
        rows = rearrange(
            mask[graph.of_heads(layer), :before], "(channel head) sender -> channel head sender", channel=3
        )
        heads = rows.any(2).any(0).nonzero()[:, 0]
        if len(heads):
            given = heads_given(block, corrupt.resid_pre[layer], rows[:, heads], change[:before], heads, queries)
            change[before + heads, :, queries] = given - corrupt.written[before + heads][:, :, queries]
        mlp = graph.n_before_mlp(layer)
        row = mask[graph.of_mlp(layer), None, :mlp]
        if row.any():
            resid_mid = corrupt.resid_mid[layer][:, queries] + mixed(row, change[:mlp, :, queries])[0]
            given = block.mlp_out(resid_mid)
            change[mlp][:, queries] = given - corrupt.written[mlp][:, queries]
    resid_post = corrupt.resid_post[:, QUERY] + mixed(mask[-1:], change[:, :, QUERY])[0]
    return model.read_out(resid_post)[:, -1]


def heads_given(
    block: Block,
    resid_pre: Float[Tensor, "batch pos d_model"],
    rows: Float[Tensor, "channel head sender"],
    change: Float[Tensor, "sender batch pos d_model"],
    heads: Int[Tensor, " head"],
    queries: Positions,
) -> Float[Tensor, "head batch query_pos d_model"]:
    """What some heads of a layer write when each of their q, k and v sees a residual stream of its own.

    Args:
        block: the layer.
        resid_pre: what they see in the corrupt run.
        rows: the edges into them.
        change: by earlier sender, what it writes in this run less what it writes in the corrupt run.
        heads: their numbers.
        queries: where they look from.
    """
    seen = [
        resid_pre[:, at] + mixed(row, change[:, :, at]) for row, at in zip(rows, (queries, EVERY, EVERY), strict=True)
    ]
    q, k, v = (
        projected(block.ln1(stream.flatten(0, 1)).view_as(stream), block.attn, channel, heads)
        for stream, channel in zip(seen, CHANNELS, strict=True)
    )
    z = block.attn.attend(q, k, v, queries=queries)
    pair = "batch query_pos head d_head, head d_head d_model -> head batch query_pos d_model"
    return einsum(z, block.attn.W_O[heads], pair)


def projected(
    normalized: Float[Tensor, "head batch pos d_model"], attention: Attention, channel: str, heads: Int[Tensor, " head"]
) -> Float[Tensor, "batch pos head d_head"]:
    """q, k or v of some heads, each from a stream of its own."""
    weight, bias = (getattr(attention, f"{kind}_{channel.upper()}")[heads] for kind in ("W", "b"))
    return einsum(normalized, weight, "head batch pos d_model, head d_model d_head -> batch pos head d_head") + bias


def mixed(
    rows: Float[Tensor, "receiver sender"], change: Float[Tensor, "sender batch pos d_model"]
) -> Float[Tensor, "receiver batch pos d_model"]:
    """The sum of the changes that each receiver hears of."""
    return (rows @ change.flatten(1)).unflatten(1, change.shape[1:])
