"""Optimal ablation (Li & Janson 2024, arXiv 2409.09951): the constants that cost least in place of a head set.

Zero, mean and resample may give a model activations that it never sees; the damage that remains under the best
constants is due to the lost information alone. The constants are fitted to each set by Adam, starting from the means,
on reference prompts, and evaluated on the test prompts like every other mode.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.ablation.reference_activations import Moments
from interp.model.engine import Site, Substitutes, predict_without, removal, trace
from interp.model.heads import HeadSet
from training.model.transformer import Transformer
from training.tasks.prompts import Prompts

STEPS, RATE = 60, 0.1  # in units of each activation's standard deviation
FITTED = 512  # prompts

Offsets = Mapping[int, Float[Tensor, "variant 1 pos ..."]]
"""By index into `Moments.mean`, in standard deviations."""


def fit_constants(
    model: Transformer,
    prompts: Prompts,
    sets: Sequence[HeadSet],
    start: Moments,
    *,
    site: Site,
    tokens: Bool[Tensor, " pos"] | None,
) -> Substitutes:
    """For every set the constants at each position that minimise the squared error on these prompts.

    The best constants of all steps are kept, so that the fit is never worse than `start`, the means.
    """
    removed, run = removal(model, sets, site, tokens), trace(model, prompts.tokens)
    ys, n_layers = prompts.ys, model.config.n_layers
    offsets = {
        index: torch.zeros(len(sets), *mean.shape).to(mean).requires_grad_()
        for index, mean in enumerate(start.mean)
        if index in removed.heads or index - n_layers in removed.mlps
    }
    optimizer = torch.optim.Adam(offsets.values(), lr=RATE)
    best = {index: offset.detach().clone() for index, offset in offsets.items()}
    lowest = initial = torch.full((len(sets),), torch.inf, device=model.device)
    for step in range(STEPS + 1):
        constants = add_offsets(start, offsets, n_layers)
        losses = (predict_without(model, run, removed, constants) - ys).square().mean((1, 2))
        better = losses.detach() < lowest
        lowest = torch.where(better, losses.detach(), lowest)
        for index, offset in offsets.items():
            best[index][better] = offset.detach()[better]
        if step == 0:
            initial = losses.detach().clamp(min=1e-12)
        optimizer.zero_grad()
        (losses / initial).sum().backward()
        optimizer.step()
    return add_offsets(start, best, n_layers)


def add_offsets(start: Moments, offsets: Offsets, n_layers: int) -> Substitutes:
    constants = [
        mean[None] + offsets[index] * std if index in offsets else mean[None]
        for index, (mean, std) in enumerate(zip(start.mean, start.std, strict=True))
    ]
    return Substitutes(constants[:n_layers], constants[n_layers:])
