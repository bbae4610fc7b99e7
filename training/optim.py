"""The optimiser and its learning rate, a pure function of the step."""

import math

import torch
from torch import Tensor

from training.config import RecipeConfig
from training.transformer import Transformer


class Optimizer:
    """Adam or AdamW over all parameters, in one fused kernel, with a rate that is set before every step."""

    def __init__(self, model: Transformer, recipe: RecipeConfig) -> None:
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        fixed = [model.embed.W_E] if model.layout.n_vectors else []  # decay would move its rows that are not trained
        others = [parameter for parameter in model.parameters() if all(parameter is not f for f in fixed)]
        self.inner = cls(
            [{"params": others}, *({"params": [f], "weight_decay": 0.0} for f in fixed)],
            lr=recipe.lr,
            betas=(0.9, recipe.beta2),
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def set_rate(self, rate: float) -> None:
        for group in self.inner.param_groups:
            group["lr"] = rate

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def step(self) -> None:
        self.inner.step()

    def tensors(self) -> dict[str, Tensor]:
        """The moments, by parameter index and name."""
        state = self.inner.state_dict()["state"]
        return {f"{index}.{name}": tensor for index, moments in state.items() for name, tensor in moments.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        document = self.inner.state_dict()
        document["state"] = {}
        for key, tensor in tensors.items():
            index, name = key.split(".", 1)
            document["state"].setdefault(int(index), {})[name] = tensor
        self.inner.load_state_dict(document)


def make_optimizer(model: Transformer, recipe: RecipeConfig) -> Optimizer:
    return Optimizer(model, recipe)


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
