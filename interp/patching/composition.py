"""How much a later head could read of an earlier one by its weights alone (Elhage et al. 2021, "Composition").

With the earlier head's W_OV = W_V W_O and, of the later head, W_Q, W_K and W_OV' (rows are inputs, as in x W;
LayerNorm's gain and centring are folded into what reads the residual stream):

    Q: |W_OV W_Q W_K'| / (|W_OV| |W_Q W_K'|)
    K: |W_OV W_K W_Q'| / (|W_OV| |W_K W_Q'|)
    V: |W_OV W_OV'| / (|W_OV| |W_OV'|)

in Frobenius norms. Two heads that share no direction on purpose have a score above 0 too; the chance level is that of
the same heads with what the earlier one writes turned by random rotations of the residual stream.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.model.heads import Head, HeadSet, all_heads
from interp.statistics.effects import permutation_p
from training.checkpoints.checkpoint import Checkpoint
from training.config.config import stream_seed
from training.model.transformer import Block, Transformer

KINDS = ("q", "k", "v")


def composition(
    checkpoint: Checkpoint, senders: HeadSet | None = None, *, n_rotations: int = 99, seed: int = 0
) -> pd.DataFrame:
    """Composition scores of heads with all heads of later layers.

    Args:
        checkpoint: a loaded run.
        senders: earlier heads; None takes all.
        n_rotations: behind chance levels and p-values.
        seed: of the rotations.

    Returns:
        One row per sender and input of a later head: `sender`, `receiver` (as in `interp.patching.paths`), `score`,
        `chance` (mean over rotations) and `p_value` against them.

    >>> from interp import load
    >>> found = composition(load("zoo:mixed-0"), (Head(0, 1),), n_rotations=9)
    >>> len(found), found["score"].between(0, 1).all().item()
    (48, True)
    """
    model, rows = checkpoint.model, []
    config = model.config
    rng = torch.Generator().manual_seed(stream_seed("rotations", seed))
    turns = rotations(config.d_model - model.ln_final.n_removed, n_rotations, rng)
    every = all_heads(config.n_layers, config.n_heads)
    for sender in senders or every:
        written = written_directions(model, sender)
        turned = torch.cat((written[None], written @ turns))
        for receiver in (head for head in every if head.layer > sender.layer):
            for kind, scores in scores_of(turned, model.layers[receiver.layer], receiver.number).items():
                own, others = scores[0].item(), scores[1:].numpy()
                row: dict[str, Any] = {"sender": str(sender), "receiver": f"{receiver}.{kind}", "score": own}
                rows.append(row | {"chance": float(np.mean(others)), "p_value": permutation_p(own, others)})
    return pd.DataFrame(rows)


def rotations(size: int, count: int, rng: torch.Generator) -> Float[Tensor, "rotation size size"]:
    """Uniformly random orthogonal matrices."""
    q, r = torch.linalg.qr(torch.randn(count, size, size, generator=rng, dtype=torch.float64))
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]


def written_directions(model: Transformer, head: Head) -> Float[Tensor, "d_head seen"]:
    """A factor of W_OV with the same norms, R W_O with W_V = Q R, on what the norms let through."""
    block = model.layers[head.layer]
    writes = block.attn.W_O[head.number].double().cpu() @ block.ln1.visible_basis()
    return torch.linalg.qr(folded(block, block.attn.W_V[head.number])).R @ writes


def folded(block: Block, weight: Float[Tensor, "d_model d_head"]) -> Float[Tensor, "seen d_head"]:
    """The weight on what the norm lets it see, with the norm's gain."""
    return block.ln1.visible_basis().T @ (block.ln1.gain[:, None] * weight).double().cpu()


def scores_of(
    written: Float[Tensor, "rotation d_head seen"], block: Block, head: int
) -> dict[str, Float[Tensor, " rotation"]]:
    """By kind, the composition of each of these with one later head."""
    q, k, v = (folded(block, weight[head]) for weight in (block.attn.W_Q, block.attn.W_K, block.attn.W_V))
    pairs = {"q": (q, k.T), "k": (k, q.T), "v": (v, block.attn.W_O[head].double().cpu() @ block.ln1.visible_basis())}
    norms = written.flatten(1).norm(dim=1)
    found = {}
    for kind, (reads, then) in pairs.items():
        then = torch.linalg.qr(then.T).R.T  # the same norms, with d_head columns
        joint = (written @ reads @ then).flatten(1).norm(dim=1)
        found[kind] = joint / (norms * (reads @ then).norm()).clamp(min=1e-300)
    return found
