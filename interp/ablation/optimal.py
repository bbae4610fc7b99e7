"""Optimal ablation (Li & Janson 2024, arXiv 2409.09951): the constants in place of a set that cost the least.

Zero, mean and resample put something in a removed component's place that the model may not be used to; the damage that
remains under the best constants is due to the lost information alone. They are fitted to each set by Adam, from the
means, on reference prompts, and judged on the test prompts like every other replacement.
"""

from collections.abc import Sequence

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

    The best constants seen are kept, so that the fit is never worse than `start`, the means.
    """
    removed, run = removal(model, sets, site, tokens), trace(model, prompts.tokens)
    ys, n_layers = prompts.ys, model.config.n_layers
    moved = {
        place: torch.zeros(len(sets), *mean.shape).to(mean).requires_grad_()
        for place, mean in enumerate(start.mean)
        if place in removed.heads or place - n_layers in removed.mlps
    }
    optimizer = torch.optim.Adam(moved.values(), lr=RATE)
    best = {place: offset.detach().clone() for place, offset in moved.items()}
    lowest = torch.full((len(sets),), torch.inf, device=model.device)
    first = lowest
    for step in range(STEPS + 1):
        given = with_offsets(start, moved, n_layers)
        losses = (predict_without(model, run, removed, given) - ys).square().mean((1, 2))
        better = losses.detach() < lowest
        lowest = torch.where(better, losses.detach(), lowest)
        for place, offset in moved.items():
            best[place][better] = offset.detach()[better]
        if step == 0:
            first = losses.detach().clamp(min=1e-12)
        optimizer.zero_grad()
        (losses / first).sum().backward()
        optimizer.step()
    return with_offsets(start, best, n_layers)


def with_offsets(start: Moments, offsets: dict[int, Float[Tensor, "variant 1 pos ..."]], n_layers: int) -> Substitutes:
    every = [
        mean[None] + offsets[place] * std if place in offsets else mean[None]
        for place, (mean, std) in enumerate(zip(start.mean, start.std, strict=True))
    ]
    return Substitutes(every[:n_layers], every[n_layers:])
