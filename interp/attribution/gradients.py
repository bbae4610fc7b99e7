"""Gradients of the prediction at the query, at any named sites, and their transport back through projections.

The prediction of a prompt depends on that prompt alone, so one backward pass of the sum over prompts gives the gradient
of every prompt's own prediction.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from training.model.sites import Edit, Edits
from training.model.transformer import Transformer

READ_IN = "hook_embed"


class GradientRun(NamedTuple):
    """One forward and backward pass.

    Attributes:
        values: by site, the activation.
        gradients: by site, d prediction / d activation; zero where the prediction does not depend on it.
    """

    values: Mapping[str, Float[Tensor, "..."]]
    gradients: Mapping[str, Float[Tensor, "..."]]


def run_with_gradients(
    model: Transformer,
    tokens: Float[Tensor, "batch pos dim"],
    sites: Sequence[str],
    edits: Edits | None = None,
    cut: Sequence[str] = (),
) -> GradientRun:
    """Activations at named sites and the gradients, at them, of the prediction at the last token.

    Args:
        model: the transformer.
        tokens: prompts that end in their query.
        sites: TransformerLens hook names.
        edits: of any sites; the gradient is that at the edited activation.
        cut: sites through which no gradient passes back; the gradient at such a site is zero.

    Raises:
        ValueError: there is no such site.
    """
    edits, seen = dict(edits or {}), {}

    def keep(site: str) -> Edit:
        change = edits.get(site)

        def edit(activation: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
            activation = activation if change is None else change(activation)
            seen[site] = activation if activation.requires_grad else activation.detach().requires_grad_()
            return seen[site].detach() if site in cut else seen[site]

        return edit

    with torch.enable_grad():
        prediction = model(tokens, edits | {site: keep(site) for site in (READ_IN, *sites, *cut)})[:, -1]
        activations = [seen[site] for site in sites]
        gradients = torch.autograd.grad(prediction.sum(), activations, allow_unused=True, materialize_grads=True)
    values = [activation.detach() for activation in activations]
    return GradientRun(dict(zip(sites, values, strict=True)), dict(zip(sites, gradients, strict=True)))


def midpoints(n_steps: int) -> Iterator[float]:
    """Where a path from 0 to 1 is sampled: the middle of each of `n_steps` equal parts.

    >>> list(midpoints(2))
    [0.25, 0.75]
    """
    return ((step + 0.5) / n_steps for step in range(n_steps))


def interpolate(base: Float[Tensor, "*axes"], source: Float[Tensor, "*axes"], share: float) -> Float[Tensor, "*axes"]:
    """The point `share` of the way from base to source."""
    return base + share * (source - base)


def before_projection(
    gradient: Float[Tensor, "batch pos head d_head"], weight: Float[Tensor, "head d_model d_head"]
) -> Float[Tensor, "head batch pos d_model"]:
    """Each head's gradient at its input, from the one at its q, k or v."""
    axes = "batch pos head d_head, head d_model d_head -> head batch pos d_model"
    return einsum(gradient, weight, axes)
