"""The optimiser and its learning rate, a pure function of the step."""

import math

import torch

from training.config import RecipeConfig
from training.transformer import Transformer


def make_optimizer(model: Transformer, recipe: RecipeConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters, in one fused kernel."""
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return cls(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def learning_rate(recipe: RecipeConfig, step: int) -> float:
    """The rate at this step, counted from 0: a linear rise over `warmup_steps`, then constant or half a cosine.

    >>> recipe = RecipeConfig(steps=100, lr=1.0, schedule="cosine", warmup_steps=10)
    >>> [round(learning_rate(recipe, step), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.lr
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))
