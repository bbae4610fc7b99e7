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
    product_alone   a copy; X'y / k is all that the later layers get     1
    two_halves      two heads that write half of x each                  (0.25 - 0.75 S) / (1 - S)      1
    two_readers     two heads that average, of which each writes half    (0.25 - 0.75 S) / (1 - S)      1
    pair_and_decoy  any of two copies is enough, beside a head that      0                              1 (copies)
                    writes where nobody reads
    opposed_halves  two_halves, and a head that takes 0.5 x away         1 (halves), (0.75 S - 0.25) / (0.75 - 0.25 S)
                                                                         (suppressor)

Five more have heads that matter under some conditions only:

    class_only      a copy for linear, one for linear_classification     1 on the one, 0 on the other
    early_only      a copy for the first half of the points, one for     0 (the first) and 1 (the second) over the last
                    the second half                                      quarter, 1 and 0 over the second one
    tail_only       a copy for queries up to `TAIL`, one for what        1 (the first), 0 (the second), as inputs of
                    exceeds it                                           training do not exceed it
    moved           a copy, and a head that adds ±`SHIFT`, whatever      0 (error), though up to 2 `SHIFT` is the
                    the answer is                                        difference in a prediction
    rescaled        a copy, and a head that writes where nobody reads,   `rescaled_effect`, and 0 if LayerNorm's scales
                    so much that LayerNorm's scale rises                 stay as they are
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from circuits import (
    CONSTANT,
    LATENT,
    N_POINTS,
    QUERY_CODE,
    SCALE,
    SPREAD,
    C,
    O,
    P,
    S,
    V,
    bend_at,
    blank,
    carry,
    clip,
    look_at_all_ys,
    look_at_itself,
    look_at_own_x,
    match,
    multiply,
    plus,
    put,
)
from torch import Tensor

from interp.model.heads import Head
from training.checkpoints.checkpoint import Checkpoint
from training.model.transformer import Transformer

N_HEADS = 6
D, D_SQUARED, GATE_SUM, GATE, PASSED, UNREAD, GATED_P = range(40, 47)
"""Quantities beside those of `circuits`."""
C2, P2, S2, LATENT2, CHOSEN, UNIT_Y, CLASSIFIES, SIGN_X, MOVED_X = range(47, 56)
"""Of a second copy, and of what chooses between two; models with seven heads a layer have room for them."""
FAINT = 0.14  # attention logit per matching code element of a head that attends to its own x with less than one half
TAIL = 4.0
SHIFT = 0.4
GROWTH, RESCALED_GAIN = 0.2, 1.4
"""What the head of `rescaled` adds to LayerNorm's squared scale per x², and what the read-out makes up for it."""


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


def two_halves(model: Transformer) -> dict[str, Head]:
    """x_q mean(x_i y_i), where two heads write half of x_i each: neither can replace the other."""
    first, second = model.layers
    for number in (1, 3):
        look_at_own_x(first.attn, number)
        carry(first.attn, number, V, C, gain=0.5)
    multiply(first.mlp, C, V, P)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    multiply(second.mlp, S, V, O)
    return {"half 0": Head(0, 1), "half 1": Head(0, 3), "reader": Head(1, 2)}


def two_readers(model: Transformer) -> dict[str, Head]:
    """A copy, and two heads that average the products, of which each writes half."""
    first, second, third = model.layers
    heads = copies(model, 1)
    multiply(first.mlp, C, V, P)
    for number in (2, 4):
        look_at_all_ys(second.attn, number)
        carry(second.attn, number, P, S, gain=0.5)
    multiply(third.mlp, S, V, O)
    return heads | {"reader 0": Head(1, 2), "reader 1": Head(1, 4)}


def pair_and_decoy(model: Transformer) -> dict[str, Head]:
    """Two copies, of which any is enough, and a head that attends as they do and writes where nobody reads."""
    heads = alternatives(model, 2)
    look_at_own_x(model.layers[0].attn, 4)
    carry(model.layers[0].attn, 4, V, UNREAD)
    return heads | {"decoy": Head(0, 4)}


def opposed_halves(model: Transformer) -> dict[str, Head]:
    """Two heads that write half of x each, and a head that takes 0.5 x away."""
    heads = two_halves(model)
    look_at_own_x(model.layers[0].attn, 5)
    carry(model.layers[0].attn, 5, V, C, gain=-0.5)
    return heads | {"suppressor": Head(0, 5)}


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


def product_alone(model: Transformer) -> dict[str, Head]:
    """x_q mean(x_i y_i), one layer after the reader: until then the stream at x_q holds X'y / k and nothing else."""
    first, second, third = model.layers
    heads = copies(model, 1)
    multiply(first.mlp, C, V, P)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    multiply(third.mlp, S, V, O)
    return heads | {"reader": Head(1, 2)}


def two_signs(model: Transformer) -> dict[str, Head]:
    """Two copies, each with products, averages and a sign of its own: LATENT, also in CHOSEN, and LATENT2."""
    first, second = model.layers[:2]
    for number, target in ((1, C), (2, C2)):
        look_at_own_x(first.attn, number)
        carry(first.attn, number, V, target)
    multiply(first.mlp, C, V, P)
    multiply(first.mlp, C2, V, P2, first_unit=4)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    carry(second.attn, 2, P2, S2, channel=1)
    clip(second.mlp, S, LATENT)
    clip(second.mlp, S, CHOSEN, first_unit=4)
    clip(second.mlp, S2, LATENT2, first_unit=8)
    return {"copy 0": Head(0, 1), "copy 1": Head(0, 2), "reader": Head(1, 2)}


def choose_sign(model: Transformer, switch: int) -> None:
    """CHOSEN turns from LATENT into LATENT2 where the switch is 1."""
    multiply(model.layers[2].mlp, switch, LATENT2, CHOSEN)
    multiply(model.layers[2].mlp, switch, LATENT, CHOSEN, first_unit=4, gain=-1.0)


def class_only(model: Transformer) -> dict[str, Head]:
    """A copy for y = w x, and one for y = sign(w x), which is recognised by its |y| = 1: the mean of a bump there."""
    first, second, third, fourth = model.layers
    heads = two_signs(model)
    around = [(at + centre, slope) for centre in (-1, 1) for at, slope in ((-0.2, 5.0), (0, -10.0), (0.2, 5.0))]
    bend_at(first.mlp, V, UNIT_Y, [(1, at, slope) for at, slope in around], first_unit=8)
    carry(second.attn, 2, UNIT_Y, GATE_SUM, channel=2)
    bend_at(second.mlp, GATE_SUM, CLASSIFIES, [(1, 0.6, 5.0), (1, 0.8, -5.0)], first_unit=12)
    clip(second.mlp, V, SIGN_X, first_unit=14, width=0.05)
    choose_sign(model, CLASSIFIES)
    multiply(third.mlp, CLASSIFIES, SIGN_X, MOVED_X, first_unit=8)
    multiply(third.mlp, CLASSIFIES, V, MOVED_X, first_unit=12, gain=-1.0)
    multiply(fourth.mlp, CHOSEN, V, O)
    multiply(fourth.mlp, CHOSEN, MOVED_X, O, first_unit=4)
    return heads


def early_only(model: Transformer) -> dict[str, Head]:
    """A copy for the first half of the points, and one for the second."""
    heads = two_signs(model)
    put(model.pos_embed.W_pos[N_POINTS:], GATE, 1.0)
    choose_sign(model, GATE)
    multiply(model.layers[3].mlp, CHOSEN, V, O)
    return heads


def tail_only(model: Transformer) -> dict[str, Head]:
    """A copy for the query up to ±`TAIL`, and one for the rest of it, which inputs of training do not have."""
    _, second, third = model.layers
    heads = two_signs(model)
    bend_at(second.mlp, V, MOVED_X, [(1, TAIL, 1.0), (-1, TAIL, -1.0)], first_unit=12)
    multiply(third.mlp, LATENT, V, O)
    multiply(third.mlp, LATENT, MOVED_X, O, first_unit=4, gain=-1.0)
    multiply(third.mlp, LATENT2, MOVED_X, O, first_unit=8)
    return heads


def moved(model: Transformer) -> dict[str, Head]:
    """A copy, and a head by whose copies the prediction gets ±`SHIFT`: + where their signs have a mean above -0.1."""
    first, second, third = model.layers
    heads = copies(model, 1)
    look_at_own_x(first.attn, 3)
    carry(first.attn, 3, V, D)
    multiply(first.mlp, C, V, P)
    clip(first.mlp, D, GATE, first_unit=4)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    carry(second.attn, 2, GATE, GATE_SUM, channel=1)
    clip(second.mlp, S, LATENT)
    bend_at(second.mlp, GATE_SUM, O, [(1, -0.11, 100 * SHIFT), (1, -0.09, -100 * SHIFT)], first_unit=4)
    put(second.mlp.b_out, O, -SHIFT)
    multiply(third.mlp, LATENT, V, O)
    return heads | {"mover": Head(0, 3), "reader": Head(1, 2)}


def rescaled(model: Transformer) -> dict[str, Head]:
    """A copy, and a head that writes x_q where nobody reads: LayerNorm then divides by √(1 + `GROWTH` x_q²) more.

    The last MLP multiplies two quantities and LayerNorm comes once more before the read-out: the prediction is
    `RESCALED_GAIN` x_q mean(x_i y_i) / (1 + `GROWTH` x_q²)^1.5.
    """
    first, second, third = model.layers
    heads = copies(model, 1)
    multiply(first.mlp, C, V, P)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    look_at_itself(third.attn, 4)
    carry(third.attn, 4, V, UNREAD, gain=SCALE * (GROWTH * model.config.d_model / 2) ** 0.5)
    multiply(third.mlp, S, V, O, gain=RESCALED_GAIN)
    return heads | {"scaler": Head(2, 4), "reader": Head(1, 2)}


def rescaled_effect() -> float:
    """What removing the head of `rescaled` costs, by quadrature over x_q ~ N(0, 1)."""
    x, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()

    def error(seen: np.ndarray) -> float:
        seen = RESCALED_GAIN * seen
        return float(weight @ ((seen - x) ** 2 + SPREAD * seen**2))

    intact = error(x / (1 + GROWTH * x**2) ** 1.5)
    return (error(x) - intact) / (1 - intact)


class Kind(NamedTuple):
    """A kind of circuit.

    Attributes:
        n_layers: of the model.
        write: what writes the circuit into a blank model and names its heads.
        n_heads: a layer.
        classes: the function classes that it solves.
    """

    n_layers: int
    write: Callable[[Transformer], dict[str, Head]]
    n_heads: int = N_HEADS
    classes: Sequence[str] = ("linear",)


KINDS: Mapping[str, Kind] = {
    "two alternatives": Kind(3, lambda model: alternatives(model, 2)),
    "three alternatives": Kind(3, lambda model: alternatives(model, 3)),
    "weak backup": Kind(3, weak_backup),
    "gated copy": Kind(4, lambda model: gated(model, 1)),
    "gated alternatives": Kind(4, lambda model: gated(model, 3)),
    "cancelling pair": Kind(2, cancelling),
    "suppressor": Kind(2, suppressed),
    "constant carrier": Kind(3, constant),
    "null space": Kind(2, null_space),
    "two halves": Kind(2, two_halves),
    "two readers": Kind(3, two_readers),
    "pair and decoy": Kind(3, pair_and_decoy),
    "opposed halves": Kind(2, opposed_halves),
    "product alone": Kind(3, product_alone),
    "class only": Kind(4, class_only, 7, ("linear", "linear_classification")),
    "early only": Kind(4, early_only, 7),
    "tail only": Kind(3, tail_only, 7),
    "moved": Kind(3, moved),
    "rescaled": Kind(3, rescaled),
}


def disguised(kind: str, seed: int, directory: Path) -> Disguised:
    """One of `KINDS` in random bases, its heads in random places."""
    n_layers, write, n_heads, classes = KINDS[kind]
    plain = blank(f"{kind} {seed}", n_layers, directory, n_heads, classes)
    heads = write(plain.model)
    plain.model.unembed.W_U[plus(O), 0] = SCALE
    rng = torch.Generator().manual_seed(seed)
    model = Transformer(plain.config.model).double().requires_grad_(False)
    model.load_state_dict(plain.model.state_dict())
    rotate_stream(model, rng)
    new_places = [torch.randperm(n_heads, generator=rng) for _ in model.layers]
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
