"""The edits by which training fixes what heads do (`training.config.clamping`)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from training.config.config import RunConfig
from training.config.head_names import parse_heads
from training.model.sites import Edit, Edits
from training.model.transformer import Transformer
from training.tasks.prompts import Layout


def clamping_edits(config: RunConfig) -> Edits:
    """By site, the edits of the forward pass that the run's clamping prescribes; none without clamping."""
    model, clamping = config.model, config.clamping
    if clamping.action == "none":
        return {}
    heads = parse_heads("clamping.heads", clamping.heads, model)
    if not heads:
        heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    make = {"clamp": clamp, "ablate": ablate, "forbid": forbid}[clamping.action]
    site = {"clamp": "hook_pattern", "ablate": "hook_z", "forbid": "hook_attn_scores"}[clamping.action]
    return {
        f"blocks.{layer}.attn.{site}": make([head for own, head in heads if own == layer], config.layout)
        for layer in sorted({layer for layer, _ in heads})
    }


def clamped_predict(
    model: Transformer, edits: Edits
) -> Callable[[Float[Tensor, "batch pos dim"]], Float[Tensor, "batch point"]]:
    """The predictions of y_1 … y_n with these edits."""

    def predict(tokens: Float[Tensor, "batch pos dim"]) -> Float[Tensor, "batch point"]:
        needed = model.needed(tokens)
        return model(needed, edits)[:, model.x_tokens(needed)]

    return predict


def own_x(n_pos: int, layout: Layout, device: torch.device) -> Bool[Tensor, "query_pos key_pos"]:
    """True from y_i to x_i, in the first `n_pos` tokens of a prompt.

    >>> own_x(3, Layout(), torch.device("cpu")).nonzero().tolist()
    [[1, 0]]
    """
    position = torch.arange(n_pos, device=device)
    xs, ys = position[layout.x_tokens(n_pos)], position[layout.y_tokens(n_pos)]
    target = torch.zeros(n_pos, n_pos, dtype=torch.bool, device=device)
    target[ys, xs[: len(ys)]] = True
    return target


def clamp(heads: list[int], layout: Layout) -> Edit:
    """From y_i to x_i alone; every other token attends to itself, so that the head brings it nothing from others."""

    def edit(pattern: Float[Tensor, "batch head query_pos key_pos"]) -> Float[Tensor, "batch head query_pos key_pos"]:
        target = own_x(pattern.shape[-1], layout, pattern.device)
        fixed = target.to(pattern) + torch.diag((~target.any(-1)).to(pattern))
        return torch.where(chosen(heads, pattern, axis=1), fixed, pattern)

    return edit


def ablate(heads: list[int], layout: Layout) -> Edit:  # noqa: ARG001 - as the other actions
    def edit(z: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos head d_head"]:
        return z.masked_fill(chosen(heads, z, axis=2), 0.0)

    return edit


def forbid(heads: list[int], layout: Layout) -> Edit:
    """Hidden before the softmax, which renormalises the rest."""

    def edit(scores: Float[Tensor, "batch head query_pos key_pos"]) -> Float[Tensor, "batch head query_pos key_pos"]:
        target = own_x(scores.shape[-1], layout, scores.device)
        return scores.masked_fill(target & chosen(heads, scores, axis=1), -torch.inf)

    return edit


def chosen(heads: list[int], activation: Tensor, axis: int) -> Bool[Tensor, "*axes"]:
    """True for these heads; of length 1 along every axis but that of heads."""
    is_chosen = torch.zeros(activation.shape[axis], dtype=torch.bool, device=activation.device)
    is_chosen[heads] = True
    return is_chosen.reshape([-1 if i == axis else 1 for i in range(activation.ndim)])
