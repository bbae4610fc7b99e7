"""Runs a model on some of its edges, which measures the faithfulness of a circuit by intervention.

Every receiver gets an input of its own, assembled edge by edge: the sender's output in this run over an edge of the
circuit, its output in the corrupt run over any other. The read-in of this run is the clean one, so with all edges it is
the clean run and with none the corrupt run. Only heads with an edge of the circuit are computed.
"""

from typing import NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.attribution.edges import sender_outputs
from interp.attribution.graph import CHANNELS, Graph
from interp.model.engine import read_sites
from interp.patching.engine import QUERY
from training.model.transformer import EVERY, Attention, Block, Transformer
from training.tasks.prompts import Positions


class CorruptRun(NamedTuple):
    """What is kept of a corrupt run.

    Attributes:
        outputs: by sender (`Graph.senders`), what it writes.
        resid_pre: by layer, the input of its heads.
        resid_mid: by layer, the input of its MLP.
        resid_post: the input of the read-out.
    """

    outputs: Float[Tensor, "sender batch pos d_model"]
    resid_pre: list[Float[Tensor, "batch pos d_model"]]
    resid_mid: list[Float[Tensor, "batch pos d_model"]]
    resid_post: Float[Tensor, "batch pos d_model"]


def record_corrupt_run(model: Transformer, tokens: Float[Tensor, "batch pos dim"]) -> CorruptRun:
    """Run the model on corrupt prompts (up to their query) and keep what circuits need of it."""
    layers = range(model.config.n_layers)
    pre, mid = ([f"blocks.{layer}.hook_resid_{part}" for layer in layers] for part in ("pre", "mid"))
    last = f"blocks.{layers[-1]}.hook_resid_post"
    seen = read_sites(model, tokens, [*pre, *mid, last])
    resid_pre, resid_mid = ([seen[hook] for hook in hooks] for hooks in (pre, mid))
    return CorruptRun(sender_outputs(model, tokens), resid_pre, resid_mid, seen[last])


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
        edges: the circuit; False where the model has no edge (`Graph.allowed`).
    """
    graph, mask = Graph.of(model.config), edges.to(corrupt.outputs.dtype)
    change = torch.zeros_like(corrupt.outputs)
    change[0] = model.read_in(clean) - corrupt.outputs[0]
    for layer, block in enumerate(model.layers):
        queries = QUERY if layer == model.config.n_layers - 1 else EVERY
        before = graph.n_before_heads(layer)
        rows = rearrange(
            mask[graph.head_receivers(layer), :before], "(channel head) sender -> channel head sender", channel=3
        )
        heads = rows.any(2).any(0).nonzero()[:, 0]
        if len(heads):
            outputs = head_outputs(block, corrupt.resid_pre[layer], rows[:, heads], change[:before], heads, queries)
            change[before + heads, :, queries] = outputs - corrupt.outputs[before + heads][:, :, queries]
        mlp = graph.n_before_mlp(layer)
        row = mask[graph.mlp_receiver(layer), None, :mlp]
        if row.any():
            resid_mid = corrupt.resid_mid[layer][:, queries] + sum_changes(row, change[:mlp, :, queries])[0]
            output = block.mlp_out(resid_mid)
            change[mlp][:, queries] = output - corrupt.outputs[mlp][:, queries]
    resid_post = corrupt.resid_post[:, QUERY] + sum_changes(mask[-1:], change[:, :, QUERY])[0]
    return model.read_out(resid_post)[:, -1]


def head_outputs(
    block: Block,
    resid_pre: Float[Tensor, "batch pos d_model"],
    rows: Float[Tensor, "channel head sender"],
    change: Float[Tensor, "sender batch pos d_model"],
    heads: Int[Tensor, " head"],
    queries: Positions,
) -> Float[Tensor, "head batch query_pos d_model"]:
    """The outputs of some heads of a layer when each of their q, k and v reads a residual stream of its own.

    Args:
        block: the layer.
        resid_pre: their input in the corrupt run.
        rows: the edges into them.
        change: by earlier sender, its output in this run minus its output in the corrupt run.
        heads: their numbers.
        queries: the query positions.
    """
    streams = [
        resid_pre[:, at] + sum_changes(row, change[:, :, at])
        for row, at in zip(rows, (queries, EVERY, EVERY), strict=True)
    ]
    q, k, v = (
        project_heads(block.ln1(stream.flatten(0, 1)).view_as(stream), block.attn, channel, heads)
        for stream, channel in zip(streams, CHANNELS, strict=True)
    )
    z = block.attn.attend(q, k, v, queries=queries)
    axes = "batch query_pos head d_head, head d_head d_model -> head batch query_pos d_model"
    return einsum(z, block.attn.W_O[heads], axes)


def project_heads(
    normalized: Float[Tensor, "head batch pos d_model"], attention: Attention, channel: str, heads: Int[Tensor, " head"]
) -> Float[Tensor, "batch pos head d_head"]:
    """q, k or v of some heads, each from a stream of its own."""
    weight, bias = (getattr(attention, f"{kind}_{channel.upper()}")[heads] for kind in ("W", "b"))
    return einsum(normalized, weight, "head batch pos d_model, head d_model d_head -> batch pos head d_head") + bias


def sum_changes(
    rows: Float[Tensor, "receiver sender"], change: Float[Tensor, "sender batch pos d_model"]
) -> Float[Tensor, "receiver batch pos d_model"]:
    """By receiver, the sum of the senders' changes over its edges."""
    return (rows @ change.flatten(1)).unflatten(1, change.shape[1:])
