"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024), sized like an AdamW update (Liu et al. 2025).

For every weight matrix W of the blocks, with all heads of a layer side by side as one matrix:

    M <- momentum M + (1 - momentum) G
    W <- (1 - rate · decay) W - rate · 0.2 sqrt(max(rows, columns)) · orthogonal((1 - momentum) G + momentum M)

torch.optim.Muon takes 2-D parameters only; attention's are [head d_model d_head], as HookedTransformer has them.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
TO_MATRIX = {
    "W_Q": "head d_model d_head -> d_model (head d_head)",
    "W_K": "head d_model d_head -> d_model (head d_head)",
    "W_V": "head d_model d_head -> d_model (head d_head)",
    "W_O": "head d_head d_model -> (head d_head) d_model",
}


class Muon:
    """Updates named weight matrices; those of one shape are orthogonalised together.

    Args:
        parameters: by name; the last part of a name says how it is a matrix.
        momentum: of the gradient's running mean.
        weight_decay: as in AdamW.
        dtype: of the products that orthogonalise; means and weights keep theirs.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.parameters = parameters
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.dtype = dtype
        self.means = {name: torch.zeros_like(as_matrix(name, parameter)) for name, parameter in parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for names in self.by_shape():
            gradients = torch.stack([as_matrix(name, gradient_of(self.parameters[name])) for name in names])
            means = torch.stack([self.means[name] for name in names]).lerp_(gradients, 1 - self.momentum)
            updates = orthogonal(gradients.lerp(means, self.momentum), self.dtype)
            scale = 0.2 * math.sqrt(max(updates.shape[-2:]))
            for name, mean, update in zip(names, means, updates, strict=True):
                self.means[name] = mean
                parameter = self.parameters[name]
                parameter.mul_(1 - rate * self.weight_decay)
                parameter.add_(as_parameter(name, update, parameter.shape), alpha=-rate * scale)

    def by_shape(self) -> list[list[str]]:
        groups: dict[torch.Size, list[str]] = {}
        for name, mean in self.means.items():
            groups.setdefault(mean.shape, []).append(name)
        return list(groups.values())


def orthogonal(
    matrices: Float[Tensor, "batch row column"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch row column"]:
    """U V' of each matrix U S V', roughly: five Newton-Schulz iterations bring all singular values near 1.

    Args:
        matrices: of any scale.
        dtype: of the iterations; bfloat16 changes their result by 3 % of its length, U V' being 20 % off.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrices.dtype)


def as_matrix(name: str, tensor: Float[Tensor, "..."]) -> Float[Tensor, "row column"]:
    """The matrix that a parameter is: from the residual stream to all heads, or back."""
    pattern = TO_MATRIX.get(name.rsplit(".", 1)[-1])
    return rearrange(tensor, pattern) if pattern else tensor


def as_parameter(name: str, matrix: Float[Tensor, "row column"], shape: torch.Size) -> Float[Tensor, "..."]:
    """The inverse of `as_matrix`."""
    pattern = TO_MATRIX.get(name.rsplit(".", 1)[-1])
    if pattern is None:
        return matrix
    before, after = pattern.split(" -> ")
    return rearrange(matrix, f"{after} -> {before}", head=shape[0])


def gradient_of(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
