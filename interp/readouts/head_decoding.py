"""What heads write about their own x: how well x_i can be decoded from what each head writes at the token y_i.

A retrospective score says where a head looks. A head that looks at x_i and writes nothing of it (W_O = 0, or values
that ignore x) has the score and not the effect, so the probe reads what is written, z W_O, and nothing else. It is one
ridge regression per head, shared by all y tokens, fitted on reference prompts, with the controls of
`interp.readouts.probes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from interp.display.result import Result
from interp.model.heads import all_heads
from interp.readouts.lens import check_enough
from interp.readouts.probes import DEFAULT, Protocol, Trial, tabulate, untrained_twin
from interp.readouts.ridge import Errors, errors_of, fit_ridges
from interp.readouts.stream import activations, token_positions
from interp.scores.score import score
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.config.config import stream_seed
from training.evaluation.evaluate import evaluation_prompts
from training.model.transformer import Attention, Transformer
from training.tasks.function_classes import choose_classes
from training.tasks.prompts import Prompts

N_PERMUTATIONS = 9999


@dataclass(frozen=True, repr=False, eq=False)
class HeadDecoding(Result):
    """How much of x_i each head of one model writes at y_i.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class and head: R² (`value`) with its controls and intervals as in
            `interp.readouts.probes.Probes`, and the head's retrospective `score`.
        agreement: one row per function class: Spearman's `rho` of `value` and `score` over heads, and `p_value` against
            random pairings of heads.
        protocol: how; its tokens and numbers of examples are not used, every y token that precedes a prediction is.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    agreement: pd.DataFrame
    protocol: Protocol

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"heads": self.table, "heads_agreement": self.agreement}


@library_defaults()
def decode_heads(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    protocol: Protocol = DEFAULT,
) -> HeadDecoding:
    """Decode x_i from what every head writes at y_i.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        protocol: how many prompts, from which seed.

    Raises:
        UserError: unknown class, or too few prompts to fit on.

    >>> from interp import load
    >>> table = decode_heads(load("zoo:mixed-0"), ["linear"], protocol=Protocol(n_prompts=32, n_fit=64)).table
    >>> best = table["value"].idxmax()
    >>> int(table["layer"][best]), int(table["head"][best])
    (0, 1)
    """
    check_enough(protocol.n_prompts)
    check_enough(protocol.n_fit, "--fit-prompts")
    tables, agreements = [], []
    for name in progress_bar(choose_classes(classes, checkpoint.config.evaluated_classes), desc="heads", unit="class"):
        table = decode_class(checkpoint, name, protocol)
        rng = np.random.default_rng(stream_seed("heads", protocol.seed, name))
        rho, p_value = rank_agreement(table["value"].to_numpy(), table["score"].to_numpy(), rng)
        tables.append(table)
        agreements.append({"function_class": name, "rho": rho, "p_value": p_value, "n_heads": len(table)})
    table, agreement = pd.concat(tables, ignore_index=True), pd.DataFrame(agreements)
    for frame in (table, agreement):
        frame.insert(0, "checkpoint", checkpoint.name)
        frame.insert(1, "step", checkpoint.step)
    return HeadDecoding(checkpoint.name, checkpoint.step, table, agreement, protocol)


class Own(NamedTuple):
    """The x of every pair but the last, to fit on and to judge on."""

    fit: Float[np.ndarray, "prompt point dim"]
    test: Float[np.ndarray, "_ point dim"]


def decode_class(checkpoint: Checkpoint, name: str, protocol: Protocol) -> pd.DataFrame:
    """One row per head, with its retrospective score."""
    config, seed = checkpoint.config, protocol.seed
    prompts = (
        evaluation_prompts(config, name, n_prompts=protocol.n_fit, seed=seed, stream="reference"),
        evaluation_prompts(config, name, n_prompts=protocol.n_prompts, seed=seed),
    )
    own = Own(*(one.xs[:, :-1].double().numpy() for one in prompts))
    rng = np.random.default_rng(stream_seed("shuffle", seed, name))
    other = Own(rng.permutation(own.fit), rng.permutation(own.test))
    trained = decode(checkpoint.model, prompts, [own, other])
    untrained = decode(untrained_twin(config, seed).to(checkpoint.model.device), prompts, [own])
    shape = (config.model.n_layers, config.model.n_heads)
    trials = [
        Trial({"function_class": name, "layer": head.layer, "head": head.number}, *trained[i], *untrained[i])
        for i, head in enumerate(all_heads(*shape))
    ]
    table = tabulate(trials, bootstrap_weights(protocol.n_prompts, rng))
    scores = score(checkpoint, [name], n_prompts=protocol.n_prompts, seed=seed).values[name]
    return table.assign(score=scores.ravel())


def decode(model: Transformer, prompts: tuple[Prompts, Prompts], targets: Sequence[Own]) -> list[list[Errors]]:
    """For every head, the errors of the probe for each target."""
    found = []
    for layer, block in enumerate(model.layers):
        fit, test = (written(model, one, layer, block.attn) for one in prompts)
        for head in range(model.config.n_heads):
            fits = fit_ridges(fit[:, :, head], [target.fit for target in targets])
            pairs = zip(fits, targets, strict=True)
            found.append([errors_of(ridge, test[:, :, head], target.test) for ridge, target in pairs])
    return found


def written(
    model: Transformer, prompts: Prompts, layer: int, attention: Attention
) -> Float[np.ndarray, "prompt point head coordinate"]:
    """What each head writes at the y tokens, z W_O, in orthonormal coordinates of the row space of W_O.

    Ridge does not see the difference to all of d_model: the other coordinates are 0.
    """
    positions = token_positions(prompts.layout, prompts.xs.shape[1], "y")[:-1]
    chunks = activations(model, prompts, [f"blocks.{layer}.attn.hook_z"], positions)
    z = torch.cat([found for (found,) in chunks])
    return einsum(
        z.double(),
        row_coordinates(attention.W_O.detach()).cpu(),
        "prompt point head d_head, head d_head coordinate -> prompt point head coordinate",
    ).numpy()


def row_coordinates(w_o: Float[Tensor, "head d_head d_model"]) -> Float[Tensor, "head d_head coordinate"]:
    """W_O times an orthonormal basis of its row space."""
    left, sizes, _ = torch.linalg.svd(w_o.double(), full_matrices=False)
    return left * sizes[:, None]


def rank_agreement(
    first: Float[np.ndarray, " head"], second: Float[np.ndarray, " head"], rng: np.random.Generator
) -> tuple[float, float]:
    """Spearman's rank correlation, and p = (k+1)/(n+1) for one at least as high against random pairings.

    >>> rank_agreement(np.array([1.0, 2, 3, 4]), np.array([0.1, 0.2, 0.4, 0.9]), np.random.default_rng(0))[0]
    1.0
    """
    ranks = [average_ranks(values) for values in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    size = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    if size == 0:
        return float("nan"), float("nan")
    rho = round(float(centred[0] @ centred[1]) / size, 12)
    shuffled = rng.permuted(np.tile(centred[1], (N_PERMUTATIONS, 1)), axis=1) @ centred[0] / size
    return rho, float((np.sum(shuffled >= rho - 1e-9) + 1) / (N_PERMUTATIONS + 1))


def average_ranks(values: Float[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Ranks from 0; equal values share the mean of theirs.

    >>> average_ranks(np.array([0.5, 0.1, 0.5])).tolist()
    [1.5, 0.0, 1.5]
    """
    below = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return below + (equal - 1) / 2
