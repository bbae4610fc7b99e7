"""Attribution patching: what patching every node of a site would do to the prediction, from gradients.

A node is one head's activation (or one layer's, where a site has no heads) at a set of tokens. Patching it changes the
prediction p at the query, to first order, by

    (a_source - a_base) · dp/da,

and methods differ in where the gradient is taken (`METHODS`; Nanda 2022; Sundararajan et al. 2017, arXiv 1703.01365;
Hanna et al. 2024, arXiv 2403.17806; Kramár et al. 2024, arXiv 2403.00745). Our deviations:

- paths are sampled at the middle of their parts, which converges faster than at their ends;
- `ig-activations` moves all nodes of one layer's site together along their path, so one pass serves them all, and their
  attributions sum to the exact effect of patching the whole site of that layer (as m grows);
- GradDrop's absolute values are taken of the effects over prompts, since the exact effect has a sign over prompts, and
  averaged over the drops that leave a path from the node.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from einops import einsum, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from interp.attribution.gradients import graded, halfway_points, interpolated, replaced_by
from interp.model.engine import read_sites
from interp.patching.sites import SITES, hook_of
from training.common.errors import one_of
from training.model.transformer import Transformer

METHODS: Mapping[str, str] = {
    "gradient": "the gradient in the run that is patched (attribution patching)",
    "ig": "the mean gradient on the straight path of the read-in from base to source",
    "ig-activations": "the mean gradient while a layer's site itself moves from base to source",
    "atp": "AtP*: queries and keys through the exact softmax; sizes as means over dropped layers (GradDrop)",
}
RESIDUAL = ("resid_pre", "resid_mid", "resid_post")


class Moves(NamedTuple):
    """By how much patching each node would move the prediction at the query, to first order.

    Attributes:
        signed: the estimate; `unit` is the head, or 0 at sites without heads.
        dropped: for AtP*, the estimate with the gradient through each layer dropped, over the number of drops that
            leave a path from the node, so that absolute values need only be summed.
    """

    signed: Float[Tensor, "batch layer unit set"]
    dropped: Float[Tensor, "drop batch layer unit set"] | None = None


class Ends(NamedTuple):
    """Prompts (up to their query) of the run that is patched, and of the one that activations come from."""

    base: Float[Tensor, "batch pos dim"]
    source: Float[Tensor, "batch pos dim"]


Sets = Bool[Tensor, "set pos"]
"""Sets of tokens; each makes one node of every head."""


def check_method(name: str, valid: Iterable[str]) -> str:
    """The method behind `--method NAME`.

    Raises:
        UserError: there is none.
    """
    if name not in valid:
        raise one_of("--method", name, valid)
    return name


def node_moves(model: Transformer, ends: Ends, site: str, sets: Sets, method: str, n_steps: int) -> Moves:
    """What patching each node of a site would do, by one of `METHODS`.

    Args:
        model: the transformer.
        ends: prompts of both runs.
        site: a name in `interp.patching.sites.SITES`.
        sets: tokens of the nodes.
        method: a name in `METHODS`.
        n_steps: parts of the path, for those that follow one.
    """
    if method == "atp":
        return atp_moves(model, ends, site, sets)
    if method == "ig-activations":
        return Moves(own_path_moves(model, ends, site, sets, n_steps))
    shares = halfway_points(n_steps) if method == "ig" else [0.0]
    return Moves(linear_moves(model, ends, site, sets, list(shares)))


def linear_moves(
    model: Transformer, ends: Ends, site: str, sets: Sets, shares: list[float], cut: Sequence[str] = ()
) -> Float[Tensor, "batch layer unit set"]:
    """(a_source - a_base) · gradient, the gradient averaged over points on the path of the read-in.

    The read-in is linear, so its path is that of the prompt itself.
    """
    hooks = hooks_of(model, site)
    base, source = read_sites(model, ends.base, hooks), read_sites(model, ends.source, hooks)
    total: dict[str, Tensor] = {}
    for share in shares:
        found = graded(model, interpolated(*ends, share), hooks, cut=cut).gradients
        total = {hook: found[hook] + total.get(hook, 0) for hook in hooks}
    return by_layer(over_sets(site, (source[hook] - base[hook]) * (total[hook] / len(shares)), sets) for hook in hooks)


def own_path_moves(
    model: Transformer, ends: Ends, site: str, sets: Sets, n_steps: int
) -> Float[Tensor, "batch layer unit set"]:
    """As `linear_moves`, the gradient averaged while the site of one layer at a time moves from base to source."""
    hooks = hooks_of(model, site)
    base, source = read_sites(model, ends.base, hooks), read_sites(model, ends.source, hooks)

    def of_layer(hook: str) -> Float[Tensor, "batch unit set"]:
        own, other = base[hook], source[hook]
        gradient = torch.zeros_like(own)
        for share in halfway_points(n_steps):
            moved = replaced_by(interpolated(own, other, share))
            gradient += graded(model, ends.base, [hook], {hook: moved}).gradients[hook] / n_steps
        return over_sets(site, (other - own) * gradient, sets)

    return by_layer(of_layer(hook) for hook in hooks)


def atp_moves(model: Transformer, ends: Ends, site: str, sets: Sets) -> Moves:
    """AtP*: the QK fix for queries and keys, and GradDrop for every site."""
    moves = softmax_moves if site in ("q", "k") else first_order
    n_layers = model.config.n_layers
    dropped = torch.stack([moves(model, ends, site, sets, dropping(layer)) for layer in range(n_layers)])
    return Moves(moves(model, ends, site, sets), dropped / n_drops(site, n_layers))


def first_order(
    model: Transformer, ends: Ends, site: str, sets: Sets, cut: Sequence[str] = ()
) -> Float[Tensor, "batch layer unit set"]:
    return linear_moves(model, ends, site, sets, [0.0], cut)


def dropping(layer: int) -> list[str]:
    """Where gradients are cut so that none passes through a layer's heads and MLP, only past them."""
    return [f"blocks.{layer}.{hook}" for hook in ("hook_attn_out", "hook_mlp_out")]


def softmax_moves(
    model: Transformer, ends: Ends, site: str, sets: Sets, cut: Sequence[str] = ()
) -> Float[Tensor, "batch layer unit set"]:
    """The QK fix: the changed attention pattern exactly, then times the gradient at the pattern.

    Queries act on their own rows of the pattern, so those of several tokens add up; keys share rows, so every set of
    them has a softmax of its own.
    """
    hooks = {name: hooks_of(model, name) for name in ("q", "k", "pattern")}
    source = read_sites(model, ends.source, hooks[site])
    run = graded(model, ends.base, [*hooks["q"], *hooks["k"], *hooks["pattern"]], cut=cut)

    def of_layer(q: str, k: str, pattern: str) -> Float[Tensor, "batch unit set"]:
        queries, keys = run.values[q], run.values[k]
        gradient = run.gradients[pattern].double()
        own = log_softmax_scores(queries, keys)
        if site == "q":
            change = log_softmax_scores(source[q], keys).exp() - own.exp()
            return (change * gradient).sum(-1) @ sets.double().T
        return of_keys(own, scores(queries, source[k]) - scores(queries, keys), gradient, sets)

    return by_layer(map(of_layer, *hooks.values()))


def of_keys(
    own: Float[Tensor, "batch head query_pos key_pos"],
    change: Float[Tensor, "batch head query_pos key_pos"],
    gradient: Float[Tensor, "batch head query_pos key_pos"],
    sets: Sets,
) -> Float[Tensor, "batch head set"]:
    """The QK fix for keys, from log P, the change of the scores if all keys were patched, and dp/dP, in float64."""
    pattern = own.exp()
    return torch.stack(
        [(((own + change * keys).softmax(-1) - pattern) * gradient).sum((-2, -1)) for keys in sets], dim=-1
    )


def scores(
    queries: Float[Tensor, "batch query_pos head d_head"], keys: Float[Tensor, "batch key_pos head d_head"]
) -> Float[Tensor, "batch head query_pos key_pos"]:
    """Attention scores in float64, before the mask."""
    pair = "batch query_pos head d_head, batch key_pos head d_head -> batch head query_pos key_pos"
    return einsum(queries.double() * queries.shape[-1] ** -0.5, keys.double(), pair)


def log_softmax_scores(
    queries: Float[Tensor, "batch query_pos head d_head"], keys: Float[Tensor, "batch key_pos head d_head"]
) -> Float[Tensor, "batch head query_pos key_pos"]:
    """The logarithm of the attention pattern in float64; -inf where a query may not look."""
    visible = torch.ones(queries.shape[1], keys.shape[1], dtype=torch.bool, device=queries.device).tril()
    return scores(queries, keys).masked_fill(~visible, -torch.inf).log_softmax(-1)


def over_sets(site: str, product: Float[Tensor, "batch ..."], sets: Sets) -> Float[Tensor, "batch unit set"]:
    """Activation differences times gradients, summed over each node's own numbers in float64."""
    if site == "pattern":
        axes = "batch unit pos key_pos -> batch unit pos"
    elif SITES[site].by_head:
        axes = "batch pos unit d_head -> batch unit pos"
    else:
        axes = "batch pos d_model -> batch 1 pos"
    return reduce(product.double(), axes, "sum") @ sets.double().T


def by_layer(layers: Iterable[Float[Tensor, "batch unit set"]]) -> Float[Tensor, "batch layer unit set"]:
    return torch.stack(list(layers), dim=1)


def hooks_of(model: Transformer, site: str) -> list[str]:
    return [hook_of(site, layer) for layer in range(model.config.n_layers)]


def n_drops(site: str, n_layers: int) -> int:
    """How many of GradDrop's passes leave a node of this site a path to the prediction.

    Dropping a layer cuts off its own heads and MLP, but not the residual stream.
    """
    return n_layers if site in RESIDUAL else max(1, n_layers - 1)
