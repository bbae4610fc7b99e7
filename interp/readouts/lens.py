"""The regression lens: what the model would predict if it ended here.

1. The plain lens is the model's own final LayerNorm and read-out, applied to the residual stream at every stage.
2. The tuned lens has a read-out of its own at every stage: an affine map of the normalised stream, fitted by ridge to
   the model's final prediction on reference prompts. (An affine map of the stream in front of the model's read-out, as
   in Belrose et al. 2023, arXiv 2303.08112, is such a vector where the output is one number; behind LayerNorm it has a
   closed form, and at the last stage it is the model itself.) It is not fitted to y, so that it finds what the model
   uses, not what a better reader could make of the stream.

The tuned weights are shared by all tokens of a type, as the model's own read-out is, with an intercept for each:
weights of its own would let every position rescale by the number of examples, which is part of what it computes.

At the y tokens (`token="y"`) both are asked for the same number, the prediction of y_i, one token after it was made:
the tuned lens is fitted to what the model predicted at x_i. The token holds y_i itself, so there the answer is no gain.

Both are compared with the answer, the model's final prediction, and the predictors that the literature names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from interp.display.result import Result
from interp.model.positions import show_points
from interp.readouts.ridge import Ridge, fit_ridges
from interp.readouts.stream import Stage, Token, read_stream, stages, token_positions
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_prompts, predictions
from training.model.transformer import Transformer
from training.tasks.baselines.plain import best_ridge, gradient_descent, least_squares
from training.tasks.function_classes import choose_classes, function_class
from training.tasks.prompts import Prompts, last_quarter

KINDS = ("plain", "tuned")
STEPS = (1, 2, 4, 8, 16)
"""Of gradient descent."""


@dataclass(frozen=True, repr=False, eq=False)
class Lens(Result):
    """The implied predictions of one model by depth.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, stage, kind, reference and number of examples: `distance` is the squared
            distance of the implied prediction to the reference over E[y²], with its 95 % interval over prompts; to the
            reference `target` it is the NMSE.
        depth: the same over the last quarter of the points (`points`), with `gain`, the share of the model's own gain
            over the no-context optimum (rows of the reference `target`; undefined where the 95 % interval of that gain
            of the model includes 0, and at y tokens), and `near`: whether the paired interval of the
            difference to the nearest predictor includes 0.
        n_prompts: per class.
        seed: of the prompts.
        token: where it was read, x_i or y_i.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    depth: pd.DataFrame
    n_prompts: int
    seed: int
    token: Token

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"lens": self.table, "lens_depth": self.depth}


@library_defaults()
def lens(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    steps: Sequence[int] = STEPS,
    token: Token = "x",
    n_prompts: int = 1024,
    seed: int = 0,
) -> Lens:
    """The implied prediction at every stage, beside the predictors that it may be on its way to.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        steps: numbers of gradient descent steps to compare with.
        token: where to read the prediction of y_i: at x_i, or at y_i.
        n_prompts: per class, to fit on (stream `reference`) and as many to judge on (stream `test`).
        seed: of the prompts.

    Raises:
        UserError: unknown class, or too few prompts to fit on.

    >>> from interp import load
    >>> found = lens(load("zoo:mixed-0"), ["linear"], n_prompts=64)
    >>> [*found.table["stage"].unique()]
    ['embed', '0.mid', '0.post', '1.mid', '1.post', '2.mid', '2.post']
    """
    check_enough(n_prompts)
    config = checkpoint.config
    tables, depths = [], []
    for name in progress_bar(choose_classes(classes, config.evaluated_classes), desc="lens", unit="class"):
        measured = measure(checkpoint, name, steps, token, n_prompts, seed)
        table, depth = summarise(measured, config.data.n_points, seed)
        tables.append(table)
        depths.append(depth)
    table, depth = (pd.concat(rows, ignore_index=True) for rows in (tables, depths))
    for frame in (table, depth):
        frame.insert(0, "checkpoint", checkpoint.name)
        frame.insert(1, "step", checkpoint.step)
    return Lens(checkpoint.name, checkpoint.step, table, depth, n_prompts, seed, token)


def check_enough(n_prompts: int, option: str = "--prompts") -> None:
    """Refuse a fit on so few prompts that its penalty could not be chosen."""
    if n_prompts < 16:
        raise UserError(f"{option} {n_prompts}: at least 16 are needed to fit on some and choose a penalty on others")


@dataclass(frozen=True)
class Measured:
    """Squared distances on one class.

    Attributes:
        name: of the class.
        token: where it was read.
        at: the stages.
        references: their names.
        distances: from each kind's implied predictions to each reference, over E[y²].
        model_error: NMSE of the model.
        no_context_error: NMSE of the no-context optimum.
    """

    name: str
    token: Token
    at: list[Stage]
    references: list[str]
    distances: Float[np.ndarray, "stage kind reference prompt point"]
    model_error: Float[np.ndarray, "prompt point"]
    no_context_error: Float[np.ndarray, "prompt point"]


def measure(
    checkpoint: Checkpoint, name: str, steps: Sequence[int], token: Token, n_prompts: int, seed: int
) -> Measured:
    config, model = checkpoint.config, checkpoint.model
    fitted_on = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed, stream="reference")
    prompts = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed)
    at = stages(model.config.n_layers)
    readouts = tuned_readouts(model, fitted_on, at, token)
    implied = implied_predictions(model, prompts, at, readouts, token)
    references = reference_predictions(config, model, name, prompts, steps)
    unit = config.second_moment(name)
    known = np.stack(list(references.values()))
    answer = references["target"]
    return Measured(
        name,
        token,
        at,
        list(references),
        np.square(implied[:, :, None] - known) / unit,
        np.square(references["model"] - answer) / unit,
        np.square(references["no_context"] - answer) / unit,
    )


def reference_predictions(
    config: RunConfig, model: Transformer, name: str, prompts: Prompts, steps: Sequence[int]
) -> dict[str, Float[np.ndarray, "prompt point"]]:
    """The answer, the model's prediction, and the predictors to compare with, by name.

    The class's own baseline is among them where it is another one (`single_index` knows the polynomial and seeks w).
    """
    drawn, kind = function_class(name), config.data.weights
    own = drawn.baseline(kind)
    chosen = {
        "no_context": lambda prompts: drawn.no_context(prompts.xs, kind),
        **{f"gradient_descent_{k}": partial(gradient_descent, steps=k) for k in steps},
        "ridge": best_ridge,
        "least_squares": least_squares,
        own.name: own.predict,
    }
    known = {"target": prompts.ys, "model": predictions(model, prompts)}
    known |= {key: predict(prompts) for key, predict in chosen.items()}
    return {key: value.double().numpy() for key, value in known.items()}


def tuned_readouts(model: Transformer, prompts: Prompts, at: Sequence[Stage], token: Token = "x") -> list[Ridge]:
    """For every stage the affine map from the normalised stream at the pair's token to the model's prediction."""
    positions = token_positions(prompts.layout, prompts.xs.shape[1], token)
    target = predictions(model, prompts).double().numpy()[:, :, None]
    streams = read_stream(model, prompts, list(at), positions)
    return [fit_ridges(normalised(model, stream), [target])[0] for stream in streams]


def normalised(
    model: Transformer, stream: Float[np.ndarray, "prompt point d_model"]
) -> Float[np.ndarray, "prompt point d_model"]:
    """The final norm without gain and shift, in float64."""
    return model.ln_final.normalise(torch.from_numpy(stream).double()).numpy()


@torch.no_grad()
def implied_predictions(
    model: Transformer, prompts: Prompts, at: Sequence[Stage], readouts: Sequence[Ridge], token: Token = "x"
) -> Float[np.ndarray, "stage kind prompt point"]:
    """What the plain and the tuned lens read at every stage and pair."""
    positions = token_positions(prompts.layout, prompts.xs.shape[1], token)
    read = []
    for stream, readout in zip(read_stream(model, prompts, list(at), positions), readouts, strict=True):
        plain = model.read_out(torch.from_numpy(stream).to(model.device)).double().cpu().numpy()
        read.append(np.stack([plain, readout.predict(normalised(model, stream))[:, :, 0]]))
    return np.stack(read)


def summarise(measured: Measured, n_points: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table by number of examples and the table by depth of one class."""
    rng = np.random.default_rng(stream_seed("lens", seed, measured.name))
    weights = bootstrap_weights(measured.distances.shape[3], rng)
    every = np.moveaxis(measured.distances, 3, 0)  # prompt stage kind reference point
    late = last_quarter(n_points)
    table = with_intervals(every, weights, measured, {"examples": range(n_points)})
    depth = with_intervals(every[..., late].mean(-1)[..., None], weights, measured, {"points": [show_points(late)]})
    model_error, no_context = (one[:, late].mean(1) for one in (measured.model_error, measured.no_context_error))
    least, _ = percentile_interval(weights @ (no_context - model_error)[:, None])
    gain = (no_context.mean() - depth["distance"]) / (no_context - model_error).mean()
    shown = measured.token == "x" and bool(least[0] > 0)
    depth["gain"] = gain.where((depth["reference"] == "target") & shown)
    depth["near"] = nearness(every[..., late].mean(-1), weights, measured.references).ravel()
    return table, depth


def with_intervals(
    every: Float[np.ndarray, "prompt stage kind reference place"],
    weights: Float[np.ndarray, "resample prompt"],
    measured: Measured,
    places: Mapping[str, Sequence[object]],
) -> pd.DataFrame:
    """A row per stage, kind, reference and place, with the mean distance and its interval."""
    ((column, labels),) = places.items()
    index = pd.MultiIndex.from_product(
        [[str(stage) for stage in measured.at], KINDS, measured.references, labels],
        names=["stage", "kind", "reference", column],
    )
    flat = every.reshape(len(every), -1)
    low, high = percentile_interval(weights @ flat)
    rows = pd.DataFrame({"distance": flat.mean(0), "ci_low": low, "ci_high": high}, index=index).reset_index()
    rows.insert(0, "function_class", measured.name)
    return rows


def nearness(
    late: Float[np.ndarray, "prompt stage kind reference"],
    weights: Float[np.ndarray, "resample prompt"],
    references: Sequence[str],
) -> np.ndarray:
    """[stage kind reference]: the nearest predictor, and those whose distance cannot be told from its."""
    is_predictor = np.array([name not in ("target", "model") for name in references])
    mean = np.where(is_predictor, late.mean(0), np.inf)
    nearest = mean.argmin(-1)
    least = np.take_along_axis(late, nearest[None, ..., None], axis=-1)
    differences = (late - least).reshape(len(late), -1)
    low, _ = percentile_interval(weights @ differences)
    told = low.reshape(mean.shape) > 0
    return ~told & is_predictor
