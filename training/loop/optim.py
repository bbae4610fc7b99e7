"""The optimiser and its learning rate, a pure function of the step."""

import math

import torch
from torch import Tensor

from training.config.config import RecipeConfig
from training.loop.muon import Muon
from training.model.transformer import Transformer


class Optimizer:
    """Adam or AdamW over all parameters, in one fused kernel; or Muon for matrices of the blocks, AdamW for the rest.

    With Muon, the rate of AdamW is `recipe.lr_adamw` and only matrices decay.
    """

    def __init__(self, model: Transformer, recipe: RecipeConfig) -> None:
        named = dict(model.named_parameters())
        matrices = {name: p for name, p in named.items() if name.startswith("blocks.") and ".W_" in name}
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        is_muon = recipe.optimizer == "muon"
        self.muon = Muon(matrices, recipe.momentum, recipe.weight_decay, dtype) if is_muon else None
        if self.muon:
            named = {name: p for name, p in named.items() if name not in matrices}
        self.factor = recipe.lr_adamw / recipe.lr if self.muon else 1.0
        # decay would move instruction vectors, rows of W_E that are not trained
        exempt = [
            p
            for name, p in named.items()
            if (name == "embed.W_E" and model.layout.n_vectors) or (self.muon and p.ndim < 2)
        ]
        decayed = [p for p in named.values() if all(p is not e for e in exempt)]
        cls = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        self.inner = cls(
            [{"params": decayed}, *([{"params": exempt, "weight_decay": 0.0}] if exempt else [])],
            lr=recipe.lr,
            betas=(0.9, recipe.beta2),
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def zero_grad(self) -> None:
        self.inner.zero_grad()
        for parameter in self.muon.parameters.values() if self.muon else ():
            parameter.grad = None

    def step(self, rate: float) -> None:
        """One update from the gradients."""
        for group in self.inner.param_groups:
            group["lr"] = rate * self.factor
        self.inner.step()
        if self.muon:
            self.muon.step(rate)

    def tensors(self) -> dict[str, Tensor]:
        """The moments, by parameter and name."""
        state = self.inner.state_dict()["state"]
        moments = {
            f"{index}.{name}": tensor for index, of_parameter in state.items() for name, tensor in of_parameter.items()
        }
        means = self.muon.means if self.muon else {}
        return moments | {f"muon.{name}": mean for name, mean in means.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        document = self.inner.state_dict()
        document["state"] = {}
        for key, tensor in tensors.items():
            index, name = key.split(".", 1)
            if index == "muon" and self.muon:
                self.muon.means[name].copy_(tensor)
            else:
                document["state"].setdefault(int(index), {})[name] = tensor
        self.inner.load_state_dict(document)


def learning_rate(recipe: RecipeConfig, step: int) -> float:
    """The rate at this step, counted from 0: a linear rise over `warmup_steps`, then constant or a way down to 0.

    >>> recipe = RecipeConfig(steps=100, lr=1.0, schedule="cosine", warmup_steps=10)
    >>> [round(learning_rate(recipe, step), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    left = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return recipe.lr * left[recipe.schedule]
