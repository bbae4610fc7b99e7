"""A model whose circuit is known because it was written by hand.

Task: `linear` in one dimension with unit weights, so w = ±1 and y = w x. The circuit predicts x_q · mean(x_i y_i):

1. Head 0.1 attends from y_i to x_i (Hadamard codes in W_pos) and copies x_i beside y_i.
2. The first MLP multiplies: p_i = x_i y_i = w x_i².
3. Head 1.2 attends from x_q to all earlier y tokens evenly and averages p_i.
4. The second MLP multiplies that average by x_q, and the read-out takes the product.

Head 0.3 attends as head 0.1 does but has W_O = 0: a decoy. All other heads attend evenly and have W_O = 0.

How it is written: every quantity q is held as (+q, -q), so that LayerNorm subtracts nothing, and a constant `BIG` makes
LayerNorm's scale the same everywhere. A product comes from gelu(a) + gelu(-a) = sqrt(2/pi) a² + O(a⁴).
"""

import math

import pytest
import torch
from scipy.linalg import hadamard

from training.checkpoint import Checkpoint
from training.settings import from_preset
from training.transformer import MLP, Attention, Transformer

N_POINTS = 16
BIG = 1000.0
SHARP = 3.0  # attention logit per matching code element; 16 elements match
EPSILON = 0.03  # inputs of the squaring units are this small, so that the fourth-order term is too

V, C, P, S, O, PARITY, CONSTANT = range(7)  # noqa: E741  # value, copy, product, sum, output
KEY_CODE, QUERY_CODE = range(7, 23), range(23, 39)
D_MODEL, N_HEADS = 80, 5  # room for 39 quantities and their mirror images
SCALE = BIG * math.sqrt(2 / D_MODEL)  # what LayerNorm divides by


def plus(quantity: int) -> int:
    return 2 * quantity


def put(row: torch.Tensor, quantity: int, value: float | torch.Tensor) -> None:
    """Write a quantity and its mirror image into the last axis."""
    row[..., 2 * quantity] = value
    row[..., 2 * quantity + 1] = -value


def write_positions(model: Transformer) -> None:
    codes = torch.tensor(hadamard(N_POINTS), dtype=torch.float32)
    put(model.pos_embed.W_pos, CONSTANT, BIG)
    for i in range(N_POINTS):
        x, y = model.pos_embed.W_pos[2 * i], model.pos_embed.W_pos[2 * i + 1]
        put(x, PARITY, 1.0)
        put(y, PARITY, -1.0)
        for j in range(N_POINTS):
            put(x, KEY_CODE[j], codes[i, j])
            put(y, QUERY_CODE[j], codes[i, j])


def look_at_own_x(attention: Attention, head: int) -> None:
    for j in range(16):
        attention.W_Q[head, plus(QUERY_CODE[j]), j] = SCALE * SHARP * 4  # times 1/sqrt(d_head) = 1/4
        attention.W_K[head, plus(KEY_CODE[j]), j] = SCALE


def look_at_all_ys(attention: Attention, head: int) -> None:
    attention.W_Q[head, plus(PARITY), 0] = SCALE * 4 * 60
    attention.W_K[head, plus(PARITY), 0] = -SCALE


def carry(attention: Attention, head: int, source: int, target: int) -> None:
    attention.W_V[head, plus(source), 0] = SCALE
    put(attention.W_O[head, 0], target, 1.0)


def multiply(mlp: MLP, a: int, b: int, target: int) -> None:
    """target += a b, from four squaring units."""
    factor = 1 / (4 * EPSILON**2 * math.sqrt(2 / math.pi))
    for unit, (sign, of_b) in enumerate(((1, 1), (-1, 1), (1, -1), (-1, -1))):
        mlp.W_in[plus(a), unit] = sign * EPSILON * SCALE
        mlp.W_in[plus(b), unit] = sign * of_b * EPSILON * SCALE
        put(mlp.W_out[unit], target, factor * of_b)


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Checkpoint:
    sizes = [f"model.d_model={D_MODEL}", f"model.n_heads={N_HEADS}", "model.n_layers=2", "model.n_dims=1"]
    config = from_preset("tiny", "single:linear", 0, [*sizes, "data.classes=linear"])
    model = Transformer(config.model).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.endswith(".w"):
            parameter.zero_()
    put(model.embed.W_E[0], V, 1.0)
    write_positions(model)
    first, second = model.layers
    for head in range(N_HEADS):
        first.attn.W_V[head, plus(V), 0] = second.attn.W_V[head, plus(V), 0] = SCALE
    look_at_own_x(first.attn, 1)
    carry(first.attn, 1, V, C)
    look_at_own_x(first.attn, 3)
    multiply(first.mlp, C, V, P)
    second.attn.W_V[2] = 0
    look_at_all_ys(second.attn, 2)
    carry(second.attn, 2, P, S)
    multiply(second.mlp, S, V, O)
    model.unembed.W_U[plus(O), 0] = SCALE
    return Checkpoint("planted", tmp_path_factory.mktemp("planted"), config, 0, model)
