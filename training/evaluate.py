"""Error by number of in-context examples, for a model and for the predictors that give it meaning."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from training.baselines import best_ridge, least_squares
from training.checkpoint import Checkpoint
from training.config import RunConfig, stream_seed
from training.function_classes import function_class
from training.intervals import mean_interval
from training.prompts import Prompts
from training.sampling import sample_prompts
from training.transformer import Transformer

Units = Literal["nmse", "paper"]

CHUNK = 256  # prompts per forward pass: enough to keep the cores busy, small enough for any preset


def evaluation_prompts(config: RunConfig, name: str, *, n_prompts: int, seed: int, stream: str = "test") -> Prompts:
    """Prompts as in training, from a seed of their own.

    Args:
        config: the run whose inputs, weights and lengths to follow.
        name: function class.
        n_prompts: how many.
        seed: determines them together with `stream`.
        stream: `selection`, `reference` and `test` share nothing; different classes share w and x, so that they can be
            compared pair by pair.
    """
    generator = torch.Generator().manual_seed(stream_seed("evaluation", stream, seed))
    return sample_prompts(config, name, generator, n_prompts)


@torch.no_grad()
def predictions(model: Transformer, prompts: Prompts) -> Float[Tensor, "batch point"]:
    """The model's prediction of every y, on the CPU."""
    chunks = [model.predict(tokens.to(model.device)).cpu() for tokens in prompts.tokens.split(CHUNK)]
    return torch.cat(chunks)


def no_context_error(config: RunConfig, name: str, prompts: Prompts) -> Float[Tensor, "batch point"]:
    """Squared error of E[y given x], the no-context optimum, on these prompts."""
    return (function_class(name).no_context(prompts.xs, config.data.weights) - prompts.ys).square()


def error_curves(
    checkpoint: Checkpoint, classes: Sequence[str], *, n_prompts: int, seed: int, units: Units = "nmse"
) -> pd.DataFrame:
    """One row per function class, predictor and number of in-context examples.

    Columns: `checkpoint`, `step`, `function_class`, `predictor` (see `squared_errors`), `examples` (k pairs before the
    prediction), `error` with its 95 % interval `ci_low`, `ci_high` over prompts, and `units`: `nmse` = MSE / E[y²], or
    `paper` = MSE / n_dims, in which only linear has the zero predictor at 1.
    """
    tables = []
    for name in tqdm(classes, desc="evaluate", unit="class", disable=None):
        prompts = evaluation_prompts(checkpoint.config, name, n_prompts=n_prompts, seed=seed)
        unit = checkpoint.config.second_moment(name) if units == "nmse" else checkpoint.config.model.n_dims
        rng = np.random.default_rng(stream_seed("bootstrap", seed, name))
        for predictor, errors in squared_errors(checkpoint, name, prompts).items():
            scaled = errors.double().numpy() / unit
            low, high = mean_interval(scaled, rng)
            curve = {
                "examples": np.arange(scaled.shape[1]),
                "error": scaled.mean(0),
                "ci_low": low,
                "ci_high": high,
            }
            tables.append(pd.DataFrame({"function_class": name, "predictor": predictor, **curve}))
    table = pd.concat(tables, ignore_index=True).assign(units=units)
    table.insert(0, "checkpoint", checkpoint.name)
    table.insert(1, "step", checkpoint.step)
    return table


def squared_errors(checkpoint: Checkpoint, name: str, prompts: Prompts) -> dict[str, Float[Tensor, "batch point"]]:
    """Squared error of the model and of every baseline on the same prompts.

    `least_squares` and `ridge` (best penalty in hindsight) fit w·x to the examples; `no_context` is E[y given x], the
    best that can be done without them; `zero` predicts 0.
    """
    return {
        "model": (predictions(checkpoint.model, prompts) - prompts.ys).square(),
        "least_squares": (least_squares(prompts) - prompts.ys).square(),
        "ridge": (best_ridge(prompts) - prompts.ys).square(),
        "no_context": no_context_error(checkpoint.config, name, prompts),
        "zero": prompts.ys.square(),
    }
