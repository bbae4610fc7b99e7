"""Composition scores: how much of an earlier head's output a later head could read, judged by their weights alone.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". With the earlier head's W_OV = W_V W_O and, of
the later head, W_Q, W_K and W_OV' (rows are inputs, as in x W; LayerNorm's gain and centring are folded into the
weights that read the residual stream):

    Q: |W_OV W_Q W_K'| / (|W_OV| |W_Q W_K'|)
    K: |W_OV W_K W_Q'| / (|W_OV| |W_K W_Q'|)
    V: |W_OV W_OV'| / (|W_OV| |W_OV'|)

in Frobenius norms. Unrelated heads have scores above 0, too; the chance level is the score of the same heads after
random rotations of the earlier head's output in the residual stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display.result import Result
from interp.model.heads import Head, HeadSet, all_heads, show
from interp.model.opened import opens_models
from interp.scores.head_choice import HeadChoice, choose_heads
from interp.statistics.effects import permutation_p
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import stream_seed
from training.model.transformer import Block, Transformer

CHANNELS = ("q", "k", "v")
"""The inputs of a later head, in the order of figures."""


@dataclass(frozen=True, repr=False, eq=False)
class Composition(Result):
    """Composition scores of one model.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per sender and input of a later head: `sender`, `receiver` (as in `interp.patching.paths`),
            `score` (0 to 1), `chance` (mean over rotations) and `p_value`, the share of rotations that score as high.
        n_rotations: behind chance levels and p-values.
        seed: of the rotations.
    """

    checkpoint: str
    step: int | None
    table: pd.DataFrame
    n_rotations: int
    seed: int

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"composition": self.table}


@opens_models
def composition(
    checkpoint: Checkpoint, senders: HeadChoice | None = None, *, n_rotations: int = 99, seed: int = 0
) -> Composition:
    """Composition scores of heads with all heads of later layers (Elhage et al. 2021), from the weights alone.

    Args:
        checkpoint: a loaded run (`interp.load`).
        senders: earlier heads (`interp.scores.head_choice.HeadChoice`), all of the named sets; None takes every head.
        n_rotations: of the senders' output, behind chance levels and p-values.
        seed: of the rotations.

    Raises:
        UserError: there is no such head, it is an MLP, or no layer comes after it.

    >>> from interp import load
    >>> table = composition(load("zoo:mixed-0"), "0.1", n_rotations=9).table
    >>> len(table), table["score"].between(0, 1).all().item()
    (48, True)
    """
    chosen, n_layers = choose_heads(checkpoint, senders), checkpoint.model.config.n_layers
    if all(head.layer == n_layers - 1 for head in chosen):
        raise UserError(f"no head comes after {show(chosen)}: this model's last layer is {n_layers - 1}")
    table = score_pairs(checkpoint.model, chosen, n_rotations, seed)
    return Composition(checkpoint.name, checkpoint.step, table, n_rotations, seed)


def score_pairs(model: Transformer, senders: HeadSet, n_rotations: int, seed: int) -> pd.DataFrame:
    """One row per sender and input of a later head."""
    config, rows = model.config, []
    generator = torch.Generator().manual_seed(stream_seed("rotations", seed))
    random_rotations = rotations(config.d_model - model.ln_final.n_removed, n_rotations, generator)
    heads = all_heads(config.n_layers, config.n_heads)
    for sender in senders:
        written = written_directions(model, sender)
        variants = torch.cat((written[None], written @ random_rotations))
        for receiver in (head for head in heads if head.layer > sender.layer):
            for channel, scores in channel_scores(variants, model.layers[receiver.layer], receiver.number).items():
                score, null = scores[0].item(), scores[1:].numpy()
                row = {"sender": str(sender), "receiver": f"{receiver}.{channel}", "score": score}
                rows.append(row | {"chance": float(np.mean(null)), "p_value": permutation_p(score, null)})
    return pd.DataFrame(rows)


def rotations(size: int, count: int, generator: torch.Generator) -> Float[Tensor, "rotation size size"]:
    """Uniformly random orthogonal matrices."""
    q, r = torch.linalg.qr(torch.randn(count, size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]


def written_directions(model: Transformer, head: Head) -> Float[Tensor, "d_head centred"]:
    """A factor of W_OV with the same norms (R W_O with W_V = Q R) in the subspace that LayerNorm keeps."""
    block = model.layers[head.layer]
    writes = block.attn.W_O[head.number].double().cpu() @ block.ln1.visible_basis()
    return torch.linalg.qr(fold_layer_norm(block, block.attn.W_V[head.number])).R @ writes


def fold_layer_norm(block: Block, weight: Float[Tensor, "d_model d_head"]) -> Float[Tensor, "centred d_head"]:
    """The weight with LayerNorm's gain, in the subspace that LayerNorm keeps."""
    return block.ln1.visible_basis().T @ (block.ln1.gain[:, None] * weight).double().cpu()


def channel_scores(
    written: Float[Tensor, "rotation d_head centred"], block: Block, head: int
) -> dict[str, Float[Tensor, " rotation"]]:
    """The composition of each variant of an earlier head with the q, k and v of one later head."""
    q, k, v = (fold_layer_norm(block, weight[head]) for weight in (block.attn.W_Q, block.attn.W_K, block.attn.W_V))
    w_o = block.attn.W_O[head].double().cpu() @ block.ln1.visible_basis()
    norms = written.flatten(1).norm(dim=1)
    scores = {}
    for channel, (first, second) in {"q": (q, k.T), "k": (k, q.T), "v": (v, w_o)}.items():
        second = torch.linalg.qr(second.T).R.T  # the same norms, with d_head columns
        joint = (written @ first @ second).flatten(1).norm(dim=1)
        scores[channel] = joint / (norms * (first @ second).norm()).clamp(min=1e-300)
    return scores
