"""Circuits of the ways in which heads can share the work, written by hand and then disguised.

All solve the task of `circuits` (y = w x, w = ±1, one dimension) with its parts. Then the residual stream is rotated by
a random orthonormal basis that keeps the direction which LayerNorm subtracts, the inside of every head is rotated too,
and the heads of every layer are shuffled: what the model computes is the same up to rounding.

Effects, with S = `circuits.SPREAD` (the error of x_q mean(x_i y_i)) and mean or zero ablation:

    kind            what the heads do                                    each alone                    together
    alternatives    any of n copies is enough                            0                             1
    weak_backup     two copies, one of them attends too little to count  0 (the strong one)            1
    gated           n copies as above, and a gate that has to be open    0 (n > 1), 1 (gate)           1 (all copies)
    cancelling      a copy, and two heads that write x and -x            1 (+), > 1 (-), both > 0      0 (the two)
    suppressed      a copy, and a head that takes 0.6 of it away         (0.84 S - 0.36)/(0.64 - 0.16 S) < 0
    constant        a copy, and a head that carries the constant 1       1 (zero), 0 (mean, resample)
    null_space      a copy, and a head that writes where nobody reads    0                             0
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from circuits import (
    CONSTANT,
    LATENT,
    QUERY_CODE,
    SCALE,
    C,
    O,
    P,
    S,
    V,
    blank,
    carry,
    clip,
    look_at_all_ys,
    look_at_own_x,
    match,
    multiply,
    plus,
)
from torch import Tensor

from interp.model.heads import Head
from training.checkpoints.checkpoint import Checkpoint
from training.model.transformer import Transformer

N_HEADS = 6
D, D_SQUARED, GATE_SUM, GATE, PASSED, UNREAD, GATED_P = range(40, 47)
"""Quantities beside those of `circuits`."""
FAINT = 0.14  # attention logit per matching code element of a head that attends to its own x with less than one half


@dataclass(frozen=True)
class Disguised:
    """A model with a known circuit.

    Attributes:
        checkpoint: the model.
        heads: by role, where they are.
    """

    checkpoint: Checkpoint
    heads: Mapping[str, Head]


def alternatives(model: Transformer, n: int) -> dict[str, Head]:
    """Any of `n` copies is enough: their sum, averaged with y, is clipped to ±1."""
    first, second, third = model.layers
    heads = copies(model, n)
    multiply(first.mlp, C, V, P)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    clip(second.mlp, S, LATENT)
    multiply(third.mlp, LATENT, V, O)
    return heads | {"reader": Head(1, 2)}


def weak_backup(model: Transformer) -> dict[str, Head]:
    """Two copies, of which the second attends to its own x with less than one half."""
    heads = alternatives(model, 2)
    model.layers[0].attn.W_Q[heads["copy 1"].number] = 0
    match(model.layers[0].attn, heads["copy 1"].number, QUERY_CODE, FAINT)
    return heads


def gated(model: Transformer, n: int) -> dict[str, Head]:
    """Any of `n` copies is enough, and the answer passes only if another head copies x, too: mean(d²) opens a gate."""
    first, second, third, fourth = model.layers
    heads = copies(model, n)
    look_at_own_x(first.attn, 5)
    carry(first.attn, 5, V, D)
    multiply(first.mlp, C, V, P)
    multiply(first.mlp, D, D, D_SQUARED, first_unit=4)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    carry(second.attn, 2, D_SQUARED, GATE_SUM, channel=1)
    clip(second.mlp, S, LATENT)
    clip(second.mlp, GATE_SUM, GATE, first_unit=4)
    multiply(third.mlp, LATENT, GATE, PASSED)
    multiply(fourth.mlp, PASSED, V, O)
    return heads | {"gate": Head(0, 5), "reader": Head(1, 2)}


def cancelling(model: Transformer) -> dict[str, Head]:
    """A copy, and two heads that write x and -x beside it."""
    return beside_a_copy(model, {"plus": (1.0, C), "minus": (-1.0, C)})


def suppressed(model: Transformer) -> dict[str, Head]:
    """A copy, and a head that takes 0.6 of it away."""
    return beside_a_copy(model, {"suppressor": (-0.6, C)})


def null_space(model: Transformer) -> dict[str, Head]:
    """A copy, and a head that writes x where nobody reads."""
    return beside_a_copy(model, {"decoy": (1.0, UNREAD)})


def constant(model: Transformer) -> dict[str, Head]:
    """A copy, and a head that carries the constant 1, by which the products are multiplied before they are averaged."""
    first, second, third = model.layers
    heads = copies(model, 1)
    look_at_own_x(first.attn, 4)
    carry(first.attn, 4, CONSTANT, GATE, gain=1 / (SCALE * (model.config.d_model / 2) ** 0.5))
    multiply(first.mlp, C, V, P)
    multiply(second.mlp, P, GATE, GATED_P)
    look_at_all_ys(third.attn, 2)
    carry(third.attn, 2, GATED_P, S)
    multiply(third.mlp, S, V, O)
    return heads | {"carrier": Head(0, 4), "reader": Head(2, 2)}


def copies(model: Transformer, n: int) -> dict[str, Head]:
    """Heads 0.1 to 0.n copy x_i beside y_i."""
    for number in range(1, n + 1):
        look_at_own_x(model.layers[0].attn, number)
        carry(model.layers[0].attn, number, V, C)
    return {f"copy {number - 1}": Head(0, number) for number in range(1, n + 1)}


def beside_a_copy(model: Transformer, others: Mapping[str, tuple[float, int]]) -> dict[str, Head]:
    """x_q mean(c_i y_i), where other heads that attend as the copy does write gain · x_i into a quantity."""
    first, second = model.layers
    heads = copies(model, 1)
    for number, (role, (gain, target)) in enumerate(others.items(), start=3):
        look_at_own_x(first.attn, number)
        carry(first.attn, number, V, target, gain=gain)
        heads[role] = Head(0, number)
    multiply(first.mlp, C, V, P)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    multiply(second.mlp, S, V, O)
    return heads | {"reader": Head(1, 2)}


KINDS: Mapping[str, tuple[int, Callable[[Transformer], dict[str, Head]]]] = {
    "two alternatives": (3, lambda model: alternatives(model, 2)),
    "three alternatives": (3, lambda model: alternatives(model, 3)),
    "weak backup": (3, weak_backup),
    "gated copy": (4, lambda model: gated(model, 1)),
    "gated alternatives": (4, lambda model: gated(model, 3)),
    "cancelling pair": (2, cancelling),
    "suppressor": (2, suppressed),
    "constant carrier": (3, constant),
    "null space": (2, null_space),
}
"""By name, the number of layers and what writes the circuit into a blank model and names its heads."""


def disguised(kind: str, seed: int, directory: Path) -> Disguised:
    """One of `KINDS` in random bases, its heads in random places."""
    n_layers, write = KINDS[kind]
    plain = blank(f"{kind} {seed}", n_layers, directory, N_HEADS)
    heads = write(plain.model)
    plain.model.unembed.W_U[plus(O), 0] = SCALE
    rng = torch.Generator().manual_seed(seed)
    model = Transformer(plain.config.model).double().requires_grad_(False)
    model.load_state_dict(plain.model.state_dict())
    rotate_stream(model, rng)
    new_places = [torch.randperm(N_HEADS, generator=rng) for _ in model.layers]
    for block, order in zip(model.layers, new_places, strict=True):
        rotate_and_shuffle_heads(block.attn, order, rng)
    places = {
        role: Head(head.layer, int((new_places[head.layer] == head.number).nonzero())) for role, head in heads.items()
    }
    return Disguised(replace(plain, model=model.float()), places)


def orthonormal(size: int, rng: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=rng))[0]


def rotate_stream(model: Transformer, rng: torch.Generator) -> None:
    """Write everything in another basis; the mean over dimensions, which LayerNorm subtracts, stays what it is."""
    size = model.config.d_model
    ones = torch.ones(size, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, torch.randn(size, size - 1, dtype=torch.float64, generator=rng)], 1))[0]
    inner = torch.block_diag(torch.ones(1, 1, dtype=torch.float64), orthonormal(size - 1, rng))
    rotation = basis @ inner @ basis.T
    for name, parameter in model.named_parameters():
        if name.endswith(("W_E", "W_pos", "W_O", "W_out", "b_O", "b_out")):
            parameter.copy_(parameter @ rotation)
        elif name.endswith(("W_Q", "W_K", "W_V", "W_in", "W_U")):
            parameter.copy_(rotation.T @ parameter)


def rotate_and_shuffle_heads(attention: Any, order: Tensor, rng: torch.Generator) -> None:
    d_head = attention.W_Q.shape[-1]
    of_keys, of_values = orthonormal(d_head, rng), orthonormal(d_head, rng)
    for name in ("W_Q", "W_K", "b_Q", "b_K", "W_V", "b_V", "W_O"):
        parameter = getattr(attention, name)
        rotation = of_keys if name[-1] in "QK" else of_values
        parameter.copy_((rotation.T @ parameter if name == "W_O" else parameter @ rotation)[order])
