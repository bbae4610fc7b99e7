"""Edge attribution patching: the change of the prediction under every edge patch, from gradients, all edges at once.

An edge patch (path patching) gives the receiver the sender's output of the source run; everything between them stays as
in the base run, and everything after the receiver is recomputed. To first order it changes the prediction at the query
by

    (sender's output in the source run - in the base run) · dp / d(the receiver's input),

summed over tokens and coordinates. The receivers' gradients are those at q, k, v of each head, at the MLP's input and
at the read-out's, transported back through the projection and LayerNorm's exact Jacobian to the residual stream.

- `eap`: gradients in the base run (Syed et al. 2023, arXiv 2310.10348): two forward passes and one backward.
- `eap-ig`: gradients averaged on the straight path of the read-in from base to source (EAP-IG-inputs, Hanna et al.
  2024, arXiv 2403.17806), sampled at the middle of its parts instead of at their ends.
"""

from collections.abc import Mapping

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from interp.attribution.gradients import (
    GradientRun,
    before_projection,
    interpolate,
    midpoints,
    run_with_gradients,
)
from interp.attribution.graph import CHANNELS, Graph
from interp.attribution.nodes import RunTokens
from interp.model.engine import read_sites
from training.model.norms import Norm
from training.model.sites import NORM_SITES, site_names
from training.model.transformer import Transformer

METHODS: Mapping[str, str] = {
    "eap": "edge attribution patching: the gradient in the run that is patched",
    "eap-ig": "EAP with the mean gradient on the straight path of the read-in from base to source",
}


def sender_outputs(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"]
) -> Float[Tensor, "sender batch pos d_model"]:
    """What every sender (`Graph.senders`) writes into the residual stream; embed with its positions, no b_O."""
    layers = range(model.config.n_layers)
    start, heads = "blocks.0.hook_resid_pre", [f"blocks.{layer}.attn.hook_result" for layer in layers]
    mlps = [f"blocks.{layer}.hook_mlp_out" for layer in layers]
    seen = read_sites(model, tokens, [start, *heads, *mlps])
    outputs = [seen[start][None]]
    for head, mlp in zip(heads, mlps, strict=True):
        outputs += [rearrange(seen[head], "batch pos head d_model -> head batch pos d_model"), seen[mlp][None]]
    return torch.cat(outputs)


def estimate_edges(
    model: Transformer, tokens: RunTokens, method: str, n_steps: int
) -> Float[Tensor, "batch receiver sender"]:
    """The change of the prediction under each edge patch, by one of `METHODS`; 0 where there is no edge.

    Args:
        model: the transformer.
        tokens: of both runs.
        method: a name in `METHODS`.
        n_steps: parts of the path, for `eap-ig`.
    """
    change = sender_outputs(model, tokens.source) - sender_outputs(model, tokens.base)
    shares = list(midpoints(n_steps)) if method == "eap-ig" else [0.0]
    total = torch.zeros((), device=model.device)
    for share in shares:
        run = run_with_gradients(model, interpolate(*tokens, share), gradient_sites(model))
        total = total + receiver_products(model, run, change)
    return total / len(shares)


def gradient_sites(model: Transformer) -> list[str]:
    """The sites of receivers' gradients and of norms' Jacobians."""
    read = (*NORM_SITES, *(f"attn.hook_{channel}" for channel in CHANNELS))
    return [site for site in site_names(model.config) if site.endswith(read)]


def receiver_products(
    model: Transformer, run: GradientRun, change: Float[Tensor, "sender batch pos d_model"]
) -> Float[Tensor, "batch receiver sender"]:
    """Every receiver's gradient times every earlier sender's change."""
    graph = Graph.of(model.config)
    products = change.new_zeros(change.shape[1], len(graph.receivers), len(graph.senders))
    axes = "receiver batch pos d_model, sender batch pos d_model -> batch receiver sender"
    for layer in range(model.config.n_layers):
        heads, mlp = slice(graph.n_before_heads(layer)), slice(graph.n_before_mlp(layer))
        products[:, graph.head_receivers(layer), heads] = einsum(head_gradients(model, run, layer), change[heads], axes)
        block = model.layers[layer]
        if block.has_mlp:
            mlp_gradient = norm_gradient(run, block.ln2, f"blocks.{layer}.ln2")[None]
            products[:, graph.mlp_receiver(layer), mlp] = einsum(mlp_gradient, change[mlp], axes)[:, 0]
    out_gradient = norm_gradient(run, model.ln_final, "ln_final")
    products[:, -1] = einsum(out_gradient[None, :, -1:], change[:, :, -1:], axes)[:, 0]
    return products


def head_gradients(model: Transformer, run: GradientRun, layer: int) -> Float[Tensor, "receiver batch pos d_model"]:
    """d prediction / d resid_pre through each q, k and v alone, in the order (channel head)."""
    block, prefix = model.layers[layer], f"blocks.{layer}"
    weights = {"q": block.attn.W_Q, "k": block.attn.W_K, "v": block.attn.W_V}
    at_norm = torch.cat(
        [before_projection(run.gradients[f"{prefix}.attn.hook_{name}"], weights[name]) for name in CHANNELS]
    )
    return pull_back(run, block.ln1, f"{prefix}.ln1", at_norm * block.ln1.gain)


def norm_gradient(run: GradientRun, norm: Norm, name: str) -> Float[Tensor, "batch pos d_model"]:
    """d prediction / d the residual stream before a norm, through that norm alone."""
    return pull_back(run, norm, name, run.gradients[f"{name}.hook_normalized"])


def pull_back(
    run: GradientRun, norm: Norm, name: str, gradient: Float[Tensor, "*axes batch pos d_model"]
) -> Float[Tensor, "*axes batch pos d_model"]:
    """A gradient at a norm's output, without its gain, as one at its input in this run."""
    if not norm.scaled:
        return gradient
    return norm.pull_back(gradient, run.values[f"{name}.hook_normalized"], run.values[f"{name}.hook_scale"])
