"""How well x_i can be decoded from what each head writes at the token y_i.

A retrospective score measures where a head attends. A head that attends to x_i but writes nothing about it (W_O = 0, or
values that ignore x) has a high score and no effect. So the probe reads only z W_O, the head's output. It is one ridge
regression per head, shared by all y tokens and fitted on reference prompts, with the controls of
`interp.readouts.probes`.
"""

import math
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
from interp.model.opened import opens_models
from interp.readouts.probes import DEFAULT_FIT_PROMPTS, ProbeErrors, Protocol, tabulate, untrained_twin
from interp.readouts.ridge import Errors, errors_of, fit_ridges
from interp.readouts.stream import activations, token_positions
from interp.scores.score import score
from interp.statistics.agreement import spearman, tie_rounding
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights
from training.common.progress import progress_bar
from training.common.table_rows import label_rows
from training.config.config import stream_seed
from training.evaluation.evaluate import evaluation_prompts
from training.model.transformer import Attention, Transformer
from training.options import DEFAULT_PROMPTS
from training.tasks.function_classes import choose_classes
from training.tasks.prompts import Prompts

N_PERMUTATIONS = 9999


@dataclass(frozen=True, repr=False, eq=False)
class HeadDecoding(Result):
    """How much of x_i each head of one model writes at the token y_i.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class and head: R² (`value`) with its controls and intervals as in
            `interp.readouts.probes.Probes`, and the head's retrospective `score`.
        agreement: one row per function class: Spearman's `rho` of `value` and `score` over heads, and `p_value` against
            random pairings of heads.
        protocol: prompts and seed; its tokens and examples are not used: the probe reads all y tokens before the last.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    agreement: pd.DataFrame
    protocol: Protocol

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"heads": self.table, "heads_agreement": self.agreement}


@opens_models
def decode_heads(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    n_prompts: int = DEFAULT_PROMPTS,
    n_fit: int = DEFAULT_FIT_PROMPTS,
    seed: int = 0,
) -> HeadDecoding:
    """Decode x_i from what every head writes at y_i.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        n_prompts: per class, to test on.
        n_fit: per class, to fit on and to choose the penalty.
        seed: of all random draws.

    Raises:
        UserError: unknown class, or too few prompts to fit on.

    >>> from interp import load
    >>> table = decode_heads(load("zoo:mixed-0"), "linear", n_prompts=32, n_fit=64).table
    >>> best = table["value"].idxmax()
    >>> int(table["layer"][best]), int(table["head"][best])
    (0, 1)
    """
    protocol = Protocol(n_prompts=n_prompts, n_fit=n_fit, seed=seed)
    tables, agreements = [], []
    for name in progress_bar(choose_classes(classes, checkpoint.config.evaluated_classes), desc="heads", unit="class"):
        table = decode_class(checkpoint, name, protocol)
        rng = np.random.default_rng(stream_seed("heads", seed, name))
        rho, p_value = rank_agreement(table["value"].to_numpy(), table["score"].to_numpy(), rng)
        tables.append(table)
        agreements.append({"function_class": name, "rho": rho, "p_value": p_value, "n_heads": len(table)})
    table, agreement = (
        label_rows(frame, checkpoint=checkpoint.name, step=checkpoint.step)
        for frame in (pd.concat(tables, ignore_index=True), pd.DataFrame(agreements))
    )
    return HeadDecoding(checkpoint.name, checkpoint.step, table, agreement, protocol)


class PrecedingX(NamedTuple):
    """The x of every pair except the last, of prompts to fit on and to test on."""

    fit: Float[np.ndarray, "prompt point dim"]
    test: Float[np.ndarray, "_ point dim"]


def decode_class(checkpoint: Checkpoint, function_class: str, protocol: Protocol) -> pd.DataFrame:
    """One row per head, with its retrospective score."""
    config, n_prompts, seed = checkpoint.config, protocol.n_prompts, protocol.seed
    prompts = (
        evaluation_prompts(config, function_class, n_prompts=protocol.n_fit, seed=seed, stream="reference"),
        evaluation_prompts(config, function_class, n_prompts=n_prompts, seed=seed),
    )
    target = PrecedingX(*(drawn.xs[:, :-1].double().numpy() for drawn in prompts))
    rng = np.random.default_rng(stream_seed("shuffle", seed, function_class))
    shuffled = PrecedingX(rng.permutation(target.fit), rng.permutation(target.test))
    trained = decode(checkpoint.model, prompts, [target, shuffled])
    untrained = decode(untrained_twin(config, seed).to(checkpoint.model.device), prompts, [target])
    probes = [
        ProbeErrors({"function_class": function_class, "layer": layer, "head": head}, *trained[i], *untrained[i])
        for i, (layer, head) in enumerate(all_heads(config.model.n_layers, config.model.n_heads))
    ]
    scores = score(checkpoint, [function_class], n_prompts=n_prompts, seed=seed).values[function_class]
    return tabulate(probes, bootstrap_weights(n_prompts, rng)).assign(score=scores.ravel())


def decode(model: Transformer, prompts: tuple[Prompts, Prompts], targets: Sequence[PrecedingX]) -> list[list[Errors]]:
    """For every head, the errors of the probe for each target."""
    errors = []
    for layer, block in enumerate(model.layers):
        fit, test = (head_outputs(model, drawn, layer, block.attn) for drawn in prompts)
        for head in range(model.config.n_heads):
            fits = fit_ridges(fit[:, :, head], [target.fit for target in targets])
            pairs = zip(fits, targets, strict=True)
            errors.append([errors_of(ridge, test[:, :, head], target.test) for ridge, target in pairs])
    return errors


def head_outputs(
    model: Transformer, prompts: Prompts, layer: int, attention: Attention
) -> Float[np.ndarray, "prompt point head coordinate"]:
    """Each head's output z W_O at the y tokens, in orthonormal coordinates of the row space of W_O.

    A ridge regression on all d_model coordinates would give the same predictions: the other coordinates are 0.
    """
    positions = token_positions(prompts.layout, prompts.xs.shape[1], "y")[:-1]
    z = torch.cat([chunk for (chunk,) in activations(model, prompts, [f"blocks.{layer}.attn.hook_z"], positions)])
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
    """Spearman's rank correlation, and p = (k+1)/(n+1) for one at least as high among random pairings.

    >>> rank_agreement(np.array([1.0, 2, 3, 4]), np.array([0.1, 0.2, 0.4, 0.9]), np.random.default_rng(0))[0]
    1.0
    """
    first, second = tie_rounding(first), tie_rounding(second)
    rho = round(spearman(first, second).item(), 12)
    if math.isnan(rho):
        return math.nan, math.nan
    shuffled = rng.permuted(np.tile(second, (N_PERMUTATIONS, 1)), axis=1)
    n_higher = np.sum(spearman(np.broadcast_to(first, shuffled.shape), shuffled) >= rho - 1e-9)
    return rho, float((n_higher + 1) / (N_PERMUTATIONS + 1))
