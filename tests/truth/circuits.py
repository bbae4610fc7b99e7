"""Models whose circuits are known because they were written by hand.

Task of all three: `linear` in one dimension with unit weights, so w = ±1 and y = w x. What they share:

1. Head 0.1 attends from y_i to x_i (Hadamard codes in W_pos) and copies x_i beside y_i.
2. The first MLP multiplies: p_i = x_i y_i = w x_i².
3. Head 1.2 attends from x_q to all earlier y tokens evenly and averages p_i.
4. A later MLP multiplies by x_q.

Heads that have no part attend evenly and have W_O = 0.

How they are written: every quantity q is held as (+q, -q), so that LayerNorm subtracts nothing, and a constant `BIG`
makes LayerNorm's scale the same everywhere. A product comes from gelu(a) + gelu(-a) = sqrt(2/pi) a² + O(a⁴), a clip
from gelu(a) = max(a, 0) for large |a|.

Effects are (error - intact) / (no context - intact) over the last quarter of the points, k of `EXAMPLES` before x_q.
The models follow their formulas to 0.3 % on average, which moves their effects by less than 2.5 %: by the O(a⁴), and
because the reader attends a little less to large p_i, which raise LayerNorm's scale. Rounding is below 0.001.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import hadamard

from interp.model.heads import Head
from training.checkpoints.checkpoint import Checkpoint
from training.config.parse import from_preset
from training.model.sites import UNTOUCHED, Sites
from training.model.transformer import MLP, Attention, Transformer
from training.tasks.prompts import last_quarter

N_POINTS = 16
EXAMPLES = np.arange(N_POINTS)[last_quarter(N_POINTS)]
BIG = 1000.0
SHARP = 3.0  # attention logit per matching code element; 16 elements match
EPSILON = 0.03  # inputs of the squaring units are this small, so that the fourth-order term is too
STEEP = 100.0  # inputs of the clipping units are this large, so that the bend is sharp
CLIP = 0.2  # the average of p_i that counts as certain

V, C, P, S, O, PARITY, CONSTANT = range(7)  # noqa: E741  # value, copy, product, sum, output
KEY_CODE, QUERY_CODE = range(7, 23), range(23, 39)
LATENT = 39  # what stands between S and O where there is one more step
D_MODEL, N_HEADS = 80, 5  # room for 40 quantities and their mirror images
SCALE = BIG * math.sqrt(2 / D_MODEL)  # what LayerNorm divides by

COPIES = (Head(0, 1), Head(0, 3))
"""The two heads of `redundant` that do the same."""
WRITER, ERASER = Head(2, 1), Head(3, 1)
"""The heads A and B of `self_repairing`."""
SPREAD = float(np.mean(2 / EXAMPLES))
"""Error of x_q mean(x_i y_i): the variance of a mean of k squares of N(0, 1)."""


def planted(directory: Path) -> Checkpoint:
    """One copying head, one decoy.

    The second MLP multiplies the average by x_q, and the read-out takes the product: x_q mean(x_i y_i). Head 0.3
    attends as head 0.1 does but has W_O = 0: a decoy.
    """
    checkpoint = blank("planted", 2, directory)
    first, second = checkpoint.model.layers
    write_averaged_products(checkpoint.model)
    look_at_own_x(first.attn, 3)
    multiply(second.mlp, S, V, O)
    checkpoint.model.unembed.W_U[plus(O), 0] = SCALE
    return checkpoint


def redundant(directory: Path) -> Checkpoint:
    """Two copying heads, `COPIES`, of which one is enough.

    The copies add up to C, so p_i = C_i y_i is w x_i² with one and 2 w x_i² with both. The second MLP clips their
    average to s = clip(mean(p_i) / CLIP, -1, 1), which is w in either case, and the third multiplies s by x_q. The
    intact error is 0. One copy alone can be removed in every mode:

        removed        C_i            effect
        one    zero    x_i            E(1 - s)² = 0.00003, from prompts with mean(x_i²) < CLIP
               mean    x_i + mean x'  the same
            resample   x_i + x'_i     4 P(Σ (x_i + x'_i) x_i < 0) = 4 P(t_k > √k) = 0.006
        both   zero    0              1: the prediction is 0
               mean    2 mean x'      1 + E s² = 1 + mean(4 / (n k CLIP²)) for n reference prompts, if n >> 1 / CLIP²
            resample   2 x'_i         1 + E s² = 1.79: s has a sign that knows nothing of w

    The exact values are those of `redundant_effect`.
    """
    checkpoint = blank("redundant", 3, directory)
    first, second, third = checkpoint.model.layers
    write_averaged_products(checkpoint.model)
    look_at_own_x(first.attn, 3)
    carry(first.attn, 3, V, C)
    clip(second.mlp, S, LATENT)
    multiply(third.mlp, LATENT, V, O)
    checkpoint.model.unembed.W_U[plus(O), 0] = SCALE
    return checkpoint


def redundant_effect(n_removed: int, mode: str, n_reference: int) -> float:
    """What removing 1 or 2 of `COPIES` costs: Monte Carlo of E(1 - w s)², good to 0.001.

    w s = clip(((2 - n_removed) A + n_removed · foreign · B) / CLIP, -1, 1), A = mean(x_i²), B = mean(x'_i x_i).
    """
    rng = np.random.default_rng(0)
    squares = rng.chisquare(EXAMPLES, (500_000, len(EXAMPLES)))
    crossed = np.sqrt(squares) * rng.standard_normal(squares.shape)
    average = ((2 - n_removed) * squares + n_removed * foreign(mode, n_reference) * crossed) / EXAMPLES
    return float(np.mean((1 - np.clip(average / CLIP, -1, 1)) ** 2))


def self_repairing(directory: Path) -> Checkpoint:
    """A head that writes the answer, `WRITER`, and a head after it that erases half of it, `ERASER`.

    The second MLP writes ŷ = x_q mean(x_i y_i) where the read-out does not look. WRITER attends from each x token to
    itself and writes it into O; ERASER attends to itself, reads O and writes -O / 2; the read-out is 2 O. So the intact
    prediction is ŷ, with the error `SPREAD`, and without WRITER there is nothing to erase. With ŷ' of another prompt:

        removed                      prediction            effect
        writer         zero, mean    0                     1
                       resample      ŷ'                    2 / (1 - SPREAD)                   = 2.35
        writer_direct  zero, mean    2 (0 - ŷ / 2) = -ŷ    4 / (1 - SPREAD)                   = 4.70
                       resample      2 ŷ' - ŷ              (8 + 4 SPREAD) / (1 - SPREAD)      = 10.10
        eraser         zero, mean    2 ŷ                   (1 + 3 SPREAD) / (1 - SPREAD)      = 1.70
                       resample      2 ŷ - ŷ'              (2 + 4 SPREAD) / (1 - SPREAD)      = 3.05
        both           as writer

    writer_direct is the effect on the read-out alone, ERASER as in the intact run; self-repair is that minus writer.
    Nothing reads what ERASER writes, so its direct and its total effect are the same. LayerNorm's scales, frozen as in
    the intact run or not, make no difference (below 0.001 in every prediction).
    """
    checkpoint = blank("self_repairing", 4, directory)
    _, second, third, fourth = checkpoint.model.layers
    write_averaged_products(checkpoint.model)
    multiply(second.mlp, S, V, LATENT)
    look_at_itself(third.attn, WRITER.number)
    carry(third.attn, WRITER.number, LATENT, O)
    look_at_itself(fourth.attn, ERASER.number)
    carry(fourth.attn, ERASER.number, O, O, gain=-0.5)
    checkpoint.model.unembed.W_U[plus(O), 0] = 2 * SCALE
    return checkpoint


SELF_REPAIRING = {"writer": (0, 1), "writer_direct": (-1, 2), "eraser": (2, -1), "both": (0, 1)}
"""What `self_repairing` predicts without it: (a, b) for a ŷ + b ŷ', where ŷ' stands for what replaces ŷ."""


def self_repairing_effect(removed: str, mode: str, n_reference: int) -> float:
    """What removing it (a key of `SELF_REPAIRING`) costs; E ŷ² = 1 + SPREAD, E (ŷ - y)² = SPREAD."""
    of_own, of_other = SELF_REPAIRING[removed]
    of_other = of_other * foreign(mode, n_reference)
    error = (1 - of_own) ** 2 + of_own**2 * SPREAD + of_other**2 * (1 + SPREAD)
    return (error - SPREAD) / (1 - SPREAD)


def foreign(mode: str, n_reference: int) -> float:
    """Standard deviation of what replaces a z over that of the z: a mean of n prompts still has 1/√n of it."""
    return {"zero": 0.0, "mean": n_reference**-0.5, "resample": 1.0}[mode]


class Exact(Transformer):
    """A model in float64 that takes prompts in float32."""

    def read_in(self, prompt: torch.Tensor, at: Sites = UNTOUCHED) -> torch.Tensor:
        return super().read_in(prompt.double(), at)


def exact(checkpoint: Checkpoint) -> Checkpoint:
    """The same model in float64: the clip of `redundant` enlarges rounding."""
    model = Exact(checkpoint.config.model).double().requires_grad_(False)
    model.load_state_dict(checkpoint.model.state_dict())
    return replace(checkpoint, name=f"exact {checkpoint.name}", model=model)


def blank(
    name: str, n_layers: int, directory: Path, n_heads: int = N_HEADS, classes: Sequence[str] = ("linear",)
) -> Checkpoint:
    """A model that reads values and positions in and whose heads and MLPs write nothing; 16 dimensions a head."""
    sizes = [
        f"model.d_model={16 * n_heads}",
        f"model.n_heads={n_heads}",
        f"model.n_layers={n_layers}",
        "model.n_dims=1",
    ]
    curriculum = f"single:{classes[0]}" if len(classes) == 1 else "mixed"
    config = from_preset("tiny", curriculum, 0, [*sizes, f"data.classes={','.join(classes)}"])
    model = Transformer(config.model).requires_grad_(False)
    for parameter_name, parameter in model.named_parameters():
        if not parameter_name.endswith(".w"):
            parameter.zero_()
    put(model.embed.W_E[0], V, 1.0)
    write_positions(model)
    for block in model.layers:
        block.attn.W_V[:, plus(V), 0] = SCALE
    return Checkpoint(name, directory, config, 0, model)


def write_averaged_products(model: Transformer) -> None:
    """Copy (0.1), multiply (first MLP), average (1.2): S at x_q is mean(x_i y_i)."""
    first, second = model.layers[:2]
    look_at_own_x(first.attn, 1)
    carry(first.attn, 1, V, C)
    multiply(first.mlp, C, V, P)
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)


def plus(quantity: int) -> int:
    return 2 * quantity


def put(row: torch.Tensor, quantity: int, value: float | torch.Tensor) -> None:
    """Write a quantity and its mirror image into the last axis."""
    row[..., 2 * quantity] = value
    row[..., 2 * quantity + 1] = -value


def write_positions(model: Transformer) -> None:
    codes = torch.tensor(hadamard(N_POINTS), dtype=torch.float32)
    put(model.pos_embed.W_pos, CONSTANT, SCALE * math.sqrt(model.config.d_model / 2))
    for i in range(N_POINTS):
        x, y = model.pos_embed.W_pos[2 * i], model.pos_embed.W_pos[2 * i + 1]
        put(x, PARITY, 1.0)
        put(y, PARITY, -1.0)
        for j in range(N_POINTS):
            put(x, KEY_CODE[j], codes[i, j])
            put(y, QUERY_CODE[j], codes[i, j])


def look_at_own_x(attention: Attention, head: int) -> None:
    """From y_i to x_i."""
    match(attention, head, QUERY_CODE)


def look_at_itself(attention: Attention, head: int) -> None:
    """From x_i to x_i."""
    match(attention, head, KEY_CODE)


def match(attention: Attention, head: int, code: range, sharp: float = SHARP) -> None:
    for j in range(16):
        attention.W_Q[head, plus(code[j]), j] = SCALE * sharp * 4  # times 1/sqrt(d_head) = 1/4
        attention.W_K[head, plus(KEY_CODE[j]), j] = SCALE


def look_at_all_ys(attention: Attention, head: int) -> None:
    attention.W_Q[head, plus(PARITY), 0] = SCALE * 4 * 60
    attention.W_K[head, plus(PARITY), 0] = -SCALE


def carry(attention: Attention, head: int, source: int, target: int, gain: float = 1.0, channel: int = 0) -> None:
    """target += gain · source, from where the head looks; a head has several channels."""
    attention.W_V[head, :, channel] = 0
    attention.W_V[head, plus(source), channel] = SCALE
    put(attention.W_O[head, channel], target, gain)


def multiply(mlp: MLP, a: int, b: int, target: int, first_unit: int = 0, gain: float = 1.0) -> None:
    """target += gain · a b, from four squaring units."""
    factor = gain / (4 * EPSILON**2 * math.sqrt(2 / math.pi))
    for unit, (sign, of_b) in enumerate(((1, 1), (-1, 1), (1, -1), (-1, -1)), start=first_unit):
        mlp.W_in[plus(a), unit] += sign * EPSILON * SCALE
        mlp.W_in[plus(b), unit] += sign * of_b * EPSILON * SCALE
        put(mlp.W_out[unit], target, factor * of_b)


def clip(mlp: MLP, source: int, target: int, first_unit: int = 0, width: float = CLIP) -> None:
    """target += clip(source / width, -1, 1), from four bends: at ±width, and mirrored so that 0 goes to exactly 0."""
    bends = [(sign, -bend * width, sign * bend / (2 * width)) for sign in (1, -1) for bend in (1, -1)]
    bend_at(mlp, source, target, bends, first_unit)


def bend_at(mlp: MLP, source: int, target: int, bends: Sequence[tuple[int, float, float]], first_unit: int = 0) -> None:
    """target += the sum of slope · max(sign · source - at, 0) over (sign, at, slope), one unit each."""
    for unit, (sign, at, slope) in enumerate(bends, start=first_unit):
        mlp.W_in[plus(source), unit] = sign * STEEP * SCALE
        mlp.b_in[unit] = -at * STEEP
        put(mlp.W_out[unit], target, slope / STEEP)
