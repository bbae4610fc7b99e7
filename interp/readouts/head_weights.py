"""The QK and OV circuits of heads, from the weights alone: eigenvalues, norms, and whether a head copies what it reads.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". Rows are inputs, as in x W:

    W_OV = W_V W_O     what a head adds to the stream of a query, of the stream of the key that it attends to
    W_QK = W_Q W_K'    which key a query attends to: the score of streams q and k is q W_QK k'

LayerNorm's gain and centring are folded into W_Q, W_K and W_V, and W_O loses what LayerNorm takes away, as in
`interp.patching.composition`; `interp.hooked(...).OV` and `.QK` are the weights without that. Left out is what depends
on the prompt or the position: LayerNorm's scale, biases, and the rotation of rotary positions (W_QK is then that of two
tokens at the same position). W_QK is not divided by sqrt(d_head).

Both have rank d_head at most. Their eigenvalues other than 0 are those of the small products W_O W_V and W_K' W_Q. The
copying score is sum(eigenvalues) / sum(|eigenvalues|) of W_OV: 1 if all are positive, as where a head writes a subspace
back as it reads it, -1 if all are negative, about 0 for matrices that do not know each other. Elhage et al. take it of
W_E W_OV W_U, from token to token; inputs here are vectors without a vocabulary, so it is that of the stream.
A head that reads x in some directions and writes it in others copies x with any score: 0.1 of mixed-0 has -0.86.
The matching score is the same of W_QK: above 0, tokens attend to tokens like themselves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from interp.display.result import Axes, Result
from interp.model.heads import Head
from interp.model.opened import opens_models
from interp.patching.composition import fold_layer_norm, rotations
from interp.scores.head_choice import HeadChoice, choose_heads
from interp.statistics.effects import two_sided_p
from training.checkpoints.checkpoint import Checkpoint
from training.config.config import stream_seed
from training.model.transformer import Block

SCORES = {"OV": "copying", "QK": "matching"}
"""By circuit, the name of its score."""


@dataclass(frozen=True, repr=False, eq=False)
class HeadWeights(Result):
    """The QK and OV circuits of heads of one model.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per head: `layer`, `head`; `copying_score` of W_OV and `matching_score` of W_QK (-1 to 1, missing
            where all eigenvalues are 0), with `copying_p` and `matching_p`, two-sided, against random rotations of the
            stream between the two factors; `ov_norm` and `qk_norm`, Frobenius norms.
        eigenvalues: one row per head, `circuit` (OV, QK) and eigenvalue, the largest first: `real`, `imaginary`.
        n_rotations: behind the p-values.
        seed: of the rotations.
    """

    checkpoint: str
    step: int | None
    table: pd.DataFrame
    eigenvalues: pd.DataFrame
    n_rotations: int
    seed: int

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"head_weights": self.table, "head_eigenvalues": self.eigenvalues}

    def plot_eigenvalues(self) -> list[Axes]:
        """Eigenvalues in the complex plane: a column per head, W_OV above W_QK."""
        return self.view("plot_eigenvalues")


class Factors(NamedTuple):
    """A circuit as a product of thin matrices, in coordinates of the stream that LayerNorm lets through."""

    first: Float[Tensor, "visible d_head"]
    second: Float[Tensor, "d_head visible"]

    @property
    def norm(self) -> float:
        """Frobenius norm of the product."""
        return (torch.linalg.qr(self.first).R @ self.second).norm().item()


@opens_models
def head_weights(
    checkpoint: Checkpoint, heads: HeadChoice | None = None, *, n_rotations: int = 99, seed: int = 0
) -> HeadWeights:
    """Eigenvalues, norms, copying and matching scores of the OV and QK circuits of heads.

    Source: Elhage et al. 2021. LayerNorm's gain and centring are folded in (`interp.readouts.head_weights`).

    Args:
        checkpoint: a loaded run (`interp.load`).
        heads: see `interp.scores.head_choice.HeadChoice`, all heads of the named sets; None takes every head.
        n_rotations: of the stream between the two factors of a circuit, behind p-values.
        seed: of the rotations.

    Raises:
        UserError: there is no such head, or it is an MLP.

    >>> from interp import load
    >>> table = head_weights(load("zoo:mixed-0"), "0.1,0.2", n_rotations=9).table
    >>> len(table), table["copying_score"].between(-1, 1).all().item()
    (2, True)
    """
    chosen, model = choose_heads(checkpoint, heads), checkpoint.model
    size = model.config.d_model - model.ln_final.n_removed
    generator = torch.Generator().manual_seed(stream_seed("rotations", seed))
    random_rotations = rotations(size, n_rotations, generator)
    rows, eigenvalues = [], []
    for head in chosen:
        circuits = head_circuits(model.layers[head.layer], head.number)
        rows.append(score_head(head, circuits, random_rotations))
        eigenvalues += eigenvalue_rows(head, circuits)
    return HeadWeights(
        checkpoint.name, checkpoint.step, pd.DataFrame(rows), pd.DataFrame(eigenvalues), n_rotations, seed
    )


def head_circuits(block: Block, head: int) -> dict[str, Factors]:
    """W_OV and W_QK of one head, through LayerNorm."""
    attn = block.attn
    q, k, v = (fold_layer_norm(block, weight[head].detach()) for weight in (attn.W_Q, attn.W_K, attn.W_V))
    return {"OV": Factors(v, attn.W_O[head].detach().double().cpu() @ block.ln1.visible_basis()), "QK": Factors(q, k.T)}


def circuit_eigenvalues(
    factors: Factors, rotation: Float[Tensor, "*rotations visible visible"] | None = None
) -> Complex[Tensor, "*rotations d_head"]:
    """The eigenvalues of a circuit that can differ from 0, with a rotation between its factors if one is given."""
    first = factors.first if rotation is None else rotation @ factors.first
    return torch.linalg.eigvals(factors.second @ first)


def positive_share(eigenvalues: Complex[Tensor, "*rotations d_head"]) -> Float[Tensor, "*rotations"]:
    """sum(eigenvalues) / sum(|eigenvalues|), whose imaginary part is 0; NaN where all are 0.

    >>> positive_share(torch.tensor([3.0, -1.0], dtype=torch.complex128)).item()
    0.5
    """
    return eigenvalues.sum(-1).real / eigenvalues.abs().sum(-1)


def score_head(
    head: Head, circuits: Mapping[str, Factors], random_rotations: Float[Tensor, "rotation visible visible"]
) -> dict[str, Any]:
    """The row of a head."""
    row: dict[str, Any] = {"layer": head.layer, "head": head.number}
    for circuit, score in SCORES.items():
        factors = circuits[circuit]
        value = positive_share(circuit_eigenvalues(factors)).item()
        null = positive_share(circuit_eigenvalues(factors, random_rotations)).numpy()
        row |= {f"{score}_score": value, f"{score}_p": two_sided_p(value, null)}
    return row | {f"{circuit.lower()}_norm": circuits[circuit].norm for circuit in SCORES}


def eigenvalue_rows(head: Head, circuits: Mapping[str, Factors]) -> Iterator[dict[str, Any]]:
    """One row per circuit and eigenvalue, the largest first; of a conjugate pair, the one above the real axis first."""
    for circuit in SCORES:
        values = circuit_eigenvalues(circuits[circuit]).tolist()
        for value in sorted(values, key=lambda value: (-round(abs(value), 9), -value.imag)):
            row = {"layer": head.layer, "head": head.number, "circuit": circuit}
            yield row | {"real": value.real, "imaginary": value.imag}
