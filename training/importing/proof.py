"""Proves an import: the source's own forward pass and this program's predict the same from random prompts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from training.checkpoints.checkpoint import check_predictions, load_tensors
from training.common.errors import CheckError, UserError
from training.config.config import RunConfig
from training.importing.settings import refused
from training.model.transformer import Transformer
from training.tasks.prompts import Prompts, one_hot_instruction

CLOSE = 1e-5
"""Of the largest prediction; what float32 leaves between two ways of computing the same."""
PROMPTS = 8
LISTED = 3
"""Names in a message."""

Weights = dict[str, Tensor]
Predict = Callable[[Prompts, int], Float[Tensor, "batch point"]]


@dataclass(frozen=True)
class Converted:
    """The weights of one file.

    Attributes:
        weights: by HookedTransformer's names, float32.
        predict: the source's own predictions of every y from prompts, and the number of their instruction.
        notes: about them.
    """

    weights: Weights
    predict: Predict
    notes: Sequence[str]


@dataclass(frozen=True)
class Snapshot:
    """One file of a source, converted and proved.

    Attributes:
        step: of its weights.
        model: with these.
        about: for the run's `source`: file, hash, step and largest relative difference.
        notes: about it.
    """

    step: int
    model: Transformer
    about: dict[str, Any]
    notes: Sequence[str]


def checked(
    given: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: object
) -> tuple[Weights, list[str]]:
    """The weights in float32, and a note if they were not; of exactly these names and shapes, and finite.

    Raises:
        UserError: they are not; with all reasons.
    """
    reasons = []
    if missing := odd_names([*shapes], [*given]):
        reasons.append(f"{path} lacks {missing}")
    if unknown := odd_names([*given], [*shapes]):
        reasons.append(f"{path} has parameters of another network: {unknown}")
    both = [name for name in shapes if name in given]
    odd = [name for name in both if tuple(given[name].shape) != shapes[name]]
    reasons += [f"{name} is {list(given[name].shape)}, not {list(shapes[name])}" for name in odd[:LISTED]]
    kinds = sorted({str(given[name].dtype).removeprefix("torch.") for name in both})
    if not all(given[name].is_floating_point() for name in both):
        reasons.append(f"its parameters are {', '.join(kinds)}, which are no real numbers")
        raise refused(path, reasons)
    weights = {name: given[name].detach().float().cpu() for name in both if name not in odd}
    if infinite := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        reasons.append(f"{infinite[0]} holds values that are not finite")
    if reasons:
        raise refused(path, reasons)
    notes = [f"weights were {', '.join(kinds)} and are float32 here"] if kinds != ["float32"] else []
    return weights, notes


def odd_names(given: Sequence[str], known: Sequence[str]) -> str:
    """The first names that are not known, and how many more there are; empty if there are none."""
    odd = sorted(set(given) - set(known))
    more = f" and {len(odd) - LISTED} more" if len(odd) > LISTED else ""
    return ", ".join(odd[:LISTED]) + more


def proved(converted: Converted, config: RunConfig, step: int, about: Mapping[str, Any], path: object) -> Snapshot:
    """The weights as a model that predicts what the source does.

    Raises:
        UserError: it does not, or its predictions are not finite.
    """
    model = Transformer(config.model, layout=config.layout)
    load_tensors(model, converted.weights, Path(str(path)))
    try:
        check_predictions(model, Path(str(path)))
    except CheckError as error:
        raise UserError(str(error)) from None
    model = model.requires_grad_(False).eval()
    difference = largest_difference(model, config, converted.predict)
    if not difference <= CLOSE:
        raise UserError(
            f"{path} cannot be imported: its own forward pass and this program's differ by {difference:.2g} of the "
            f"largest prediction on random prompts (at most {CLOSE:g} is float32's rounding)"
        )
    return Snapshot(step, model, {**about, "step": step, "largest_relative_difference": difference}, converted.notes)


@torch.no_grad()
def largest_difference(model: Transformer, config: RunConfig, predict: Predict) -> float:
    """Between the source's predictions and ours, as a share of the largest, over random prompts of full length.

    With instructions, over all of them.
    """
    generator = torch.Generator().manual_seed(0)
    n_points = (config.model.n_ctx - config.layout.n_instruction) // 2
    xs = torch.randn(PROMPTS, n_points, config.model.n_dims, generator=generator)
    ys = torch.randn(PROMPTS, n_points, generator=generator)
    differences = []
    for number in range(len(config.instruction_values) if config.instruction.kind != "none" else 1):
        prompts = Prompts(xs, ys, config.layout, proof_instruction(config, number))
        theirs, ours = predict(prompts, number), model.predict(prompts.tokens)
        largest = theirs.abs().max().clamp(min=torch.finfo(theirs.dtype).tiny)
        differences.append(float((ours - theirs).abs().max() / largest))
    return max(differences) if not any(math.isnan(difference) for difference in differences) else math.nan


def proof_instruction(config: RunConfig, number: int) -> Tensor | None:
    if config.instruction.kind == "none":
        return None
    n_dims, n_vectors = config.model.n_dims, config.layout.n_vectors
    coordinate = number + (n_dims if n_vectors else 0)
    return one_hot_instruction(coordinate, n_dims + n_vectors, PROMPTS, config.layout.n_instruction)
