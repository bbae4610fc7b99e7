"""Attribution patching: the change of the prediction under every node patch of a site, estimated from gradients.

A node is one head's activation (or one layer's, where a site has no heads) at a set of tokens. Patching it changes the
prediction p at the query, to first order, by

    (a_source - a_base) · dp/da,

and methods differ in where the gradient is taken (`METHODS`; Nanda 2022; Sundararajan et al. 2017, arXiv 1703.01365;
Hanna et al. 2024, arXiv 2403.17806; Kramár et al. 2024, arXiv 2403.00745). Our deviations:

- paths are sampled at the middle of their parts, which converges faster than at their ends;
- `ig-activations` moves all nodes of one layer's site together along their path, so one pass serves them all, and their
  attributions sum to the exact effect of patching the whole site of that layer as the number of steps grows;
- GradDrop's absolute values are taken of the effects over prompts, since the exact effect has a sign over prompts, and
  averaged over the drops that leave a path from the node.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from einops import einsum, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from interp.attribution.gradients import interpolate, midpoints, run_with_gradients
from interp.model.engine import read_sites
from interp.patching.sites import SITES, hook_of
from training.model.transformer import Transformer

METHODS: Mapping[str, str] = {
    "gradient": "the gradient in the run that is patched (attribution patching)",
    "ig": "the mean gradient on the straight path of the read-in from base to source",
    "ig-activations": "the mean gradient while a layer's site itself moves from base to source",
    "atp": "AtP*: queries and keys through the exact softmax; sizes as means over dropped layers (GradDrop)",
}
RESIDUAL = ("resid_pre", "resid_mid", "resid_post")


class Estimates(NamedTuple):
    """First-order changes of the prediction at the query, prompt by prompt.

    Attributes:
        signed: under each node's patch; `unit` is the head, or 0 at sites without heads.
        dropped: for AtP*, the same with the gradient through each layer dropped, over the number of drops that leave a
            path from the node, so that their absolute values sum to the mean.
    """

    signed: Float[Tensor, "batch layer unit set"]
    dropped: Float[Tensor, "drop batch layer unit set"] | None = None


class RunTokens(NamedTuple):
    """Prompts (up to their query) of the run that is patched, and of the run that activations come from."""

    base: Float[Tensor, "batch pos dim"]
    source: Float[Tensor, "batch pos dim"]


TokenSets = Bool[Tensor, "set pos"]
"""Sets of tokens; each makes one node of every head."""


def estimate_nodes(
    model: Transformer, tokens: RunTokens, site: str, sets: TokenSets, method: str, n_steps: int
) -> Estimates:
    """The change of the prediction under each node's patch, by one of `METHODS`.

    Args:
        model: the transformer.
        tokens: of both runs.
        site: a name in `interp.patching.sites.SITES`.
        sets: tokens of the nodes.
        method: a name in `METHODS`.
        n_steps: parts of the path, for methods that follow one.
    """
    if method == "atp":
        return estimate_atp(model, tokens, site, sets)
    if method == "ig-activations":
        return Estimates(estimate_on_site_path(model, tokens, site, sets, n_steps))
    shares = midpoints(n_steps) if method == "ig" else [0.0]
    return Estimates(estimate_on_input_path(model, tokens, site, sets, list(shares)))


def estimate_on_input_path(
    model: Transformer, tokens: RunTokens, site: str, sets: TokenSets, shares: Sequence[float], cut: Sequence[str] = ()
) -> Float[Tensor, "batch layer unit set"]:
    """(a_source - a_base) · gradient, the gradient averaged over points on the path of the read-in.

    The read-in is linear, so its path is that of the prompt itself.
    """
    hooks = hooks_of(model, site)
    base, source = (read_sites(model, prompts, hooks) for prompts in tokens)
    total: dict[str, Tensor] = {}
    for share in shares:
        gradients = run_with_gradients(model, interpolate(*tokens, share), hooks, cut=cut).gradients
        total = {hook: gradients[hook] + total.get(hook, 0) for hook in hooks}
    return stack_layers(
        sum_over_sets(site, (source[hook] - base[hook]) * (total[hook] / len(shares)), sets) for hook in hooks
    )


def estimate_on_site_path(
    model: Transformer, tokens: RunTokens, site: str, sets: TokenSets, n_steps: int
) -> Float[Tensor, "batch layer unit set"]:
    """The same, the gradient averaged while the site of one layer at a time moves from base to source."""
    hooks = hooks_of(model, site)
    base, source = (read_sites(model, prompts, hooks) for prompts in tokens)

    def estimate_layer(hook: str) -> Float[Tensor, "batch unit set"]:
        gradient = torch.zeros_like(base[hook])
        for share in midpoints(n_steps):
            activation = interpolate(base[hook], source[hook], share)
            edits: dict[str, Callable[[Tensor], Tensor]] = {hook: lambda _, activation=activation: activation}
            gradient += run_with_gradients(model, tokens.base, [hook], edits).gradients[hook] / n_steps
        return sum_over_sets(site, (source[hook] - base[hook]) * gradient, sets)

    return stack_layers(map(estimate_layer, hooks))


def estimate_atp(model: Transformer, tokens: RunTokens, site: str, sets: TokenSets) -> Estimates:
    """AtP*: the QK fix for queries and keys, and GradDrop for every site."""
    through_softmax = partial(estimate_with_qk_fix, model, tokens, site, sets)
    first_order = partial(estimate_on_input_path, model, tokens, site, sets, [0.0])
    estimate, n_layers = through_softmax if site in ("q", "k") else first_order, model.config.n_layers
    dropped = torch.stack([estimate(cut=layer_outputs(layer)) for layer in range(n_layers)])
    return Estimates(estimate(), dropped / n_drops(site, n_layers))


def layer_outputs(layer: int) -> list[str]:
    """Where gradients are cut so that none passes through a layer's heads and MLP, only past them."""
    return [f"blocks.{layer}.{hook}" for hook in ("hook_attn_out", "hook_mlp_out")]


def n_drops(site: str, n_layers: int) -> int:
    """How many of GradDrop's passes leave a node of this site a path to the prediction.

    Dropping a layer cuts off its own heads and MLP, but not the residual stream.
    """
    return n_layers if site in RESIDUAL else max(1, n_layers - 1)


def estimate_with_qk_fix(
    model: Transformer, tokens: RunTokens, site: str, sets: TokenSets, cut: Sequence[str] = ()
) -> Float[Tensor, "batch layer unit set"]:
    """The QK fix: the exact change of the attention pattern times the gradient at the pattern.

    Queries change their own rows of the pattern, so changes of several tokens add up; keys share rows, so the softmax
    is computed for every set of them.
    """
    hooks = {name: hooks_of(model, name) for name in ("q", "k", "pattern")}
    source = read_sites(model, tokens.source, hooks[site])
    run = run_with_gradients(model, tokens.base, [*hooks["q"], *hooks["k"], *hooks["pattern"]], cut=cut)

    def estimate_layer(q: str, k: str, pattern: str) -> Float[Tensor, "batch unit set"]:
        queries, keys = run.values[q], run.values[k]
        gradient = run.gradients[pattern].double()
        log_pattern = log_attention(queries, keys)
        if site == "q":
            change = log_attention(source[q], keys).exp() - log_pattern.exp()
            return (change * gradient).sum(-1) @ sets.double().T
        change = attention_scores(queries, source[k]) - attention_scores(queries, keys)
        patched = (((log_pattern + change * mask).softmax(-1) - log_pattern.exp()) * gradient for mask in sets)
        return torch.stack([product.sum((-2, -1)) for product in patched], dim=-1)

    return stack_layers(map(estimate_layer, *hooks.values()))


def attention_scores(
    queries: Float[Tensor, "batch query_pos head d_head"], keys: Float[Tensor, "batch key_pos head d_head"]
) -> Float[Tensor, "batch head query_pos key_pos"]:
    """Attention scores in float64, before the mask."""
    axes = "batch query_pos head d_head, batch key_pos head d_head -> batch head query_pos key_pos"
    return einsum(queries.double() * queries.shape[-1] ** -0.5, keys.double(), axes)


def log_attention(
    queries: Float[Tensor, "batch query_pos head d_head"], keys: Float[Tensor, "batch key_pos head d_head"]
) -> Float[Tensor, "batch head query_pos key_pos"]:
    """The logarithm of the attention pattern in float64; -inf at keys after the query."""
    visible = torch.ones(queries.shape[1], keys.shape[1], dtype=torch.bool, device=queries.device).tril()
    return attention_scores(queries, keys).masked_fill(~visible, -torch.inf).log_softmax(-1)


def sum_over_sets(site: str, product: Float[Tensor, "batch ..."], sets: TokenSets) -> Float[Tensor, "batch unit set"]:
    """Activation differences times gradients, summed in float64 over the coordinates and tokens of each node."""
    if site == "pattern":
        axes = "batch unit pos key_pos -> batch unit pos"
    elif SITES[site].by_head:
        axes = "batch pos unit d_head -> batch unit pos"
    else:
        axes = "batch pos d_model -> batch 1 pos"
    return reduce(product.double(), axes, "sum") @ sets.double().T


def stack_layers(layers: Iterable[Float[Tensor, "batch unit set"]]) -> Float[Tensor, "batch layer unit set"]:
    return torch.stack(list(layers), dim=1)


def hooks_of(model: Transformer, site: str) -> list[str]:
    return [hook_of(site, layer) for layer in range(model.config.n_layers)]
