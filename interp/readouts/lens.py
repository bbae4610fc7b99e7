"""The regression lens: the prediction that the residual stream implies at every depth.

1. The plain lens applies the model's own final LayerNorm and read-out to the residual stream of every stage.
2. The tuned lens has its own read-out for every stage: an affine map of the normalised stream, fitted by ridge
   regression to the model's final prediction on reference prompts. Belrose et al. 2023 (arXiv 2303.08112) fit an affine
   map of the stream in front of the model's read-out; with one output number that is such a vector, and behind
   LayerNorm it has a closed form that equals the model at the last stage. It is not fitted to y, so that it finds what
   the model uses rather than what a better reader could make of the stream.

All tokens of a type share the tuned weights, as in the model's own read-out, but each has its own intercept. With
weights of their own, positions could be rescaled by the number of examples, which is part of what the model computes.

At the y tokens (`token="y"`) both lenses estimate the same number, the prediction of y_i, one token later: the tuned
lens is fitted to the model's prediction at x_i. As this token holds y_i itself, decoding y_i there is no achievement.

Both lenses are compared with the answer, the model's final prediction, and predictors known from the literature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from interp.display.result import Result
from interp.model.opened import opens_models
from interp.model.positions import show_points
from interp.readouts.ridge import Ridge, fit_ridges
from interp.readouts.stream import Stage, Token, choose_tokens, model_stages, read_stream, token_positions
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.errors import UserError
from training.common.progress import progress_bar
from training.common.table_rows import label_rows
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_prompts, predictions
from training.evaluation.own_prompts import OwnPrompts
from training.evaluation.own_run import open_own
from training.model.transformer import Transformer
from training.options import as_numbers
from training.pools import no_context, pool_baselines
from training.tasks.baselines.plain import best_ridge, gradient_descent, least_squares
from training.tasks.function_classes import choose_classes, function_class
from training.tasks.prompts import Prompts, last_quarter

KINDS = ("plain", "tuned")
STEPS = (1, 2, 4, 8, 16)
"""Numbers of gradient-descent steps to compare with."""
ALIKE = 0.0005
"""Squared distances over E[y²] that differ by less are printed alike."""
LEAST_PROMPTS = 16
"""With fewer prompts to fit on, the penalty could not be chosen on others."""


@dataclass(frozen=True, repr=False, eq=False)
class Lens(Result):
    """The implied predictions of one model by depth.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, stage, kind, reference and number of examples: `distance` is the squared
            distance of the implied prediction to the reference over E[y²], with its 95 % interval over prompts; for
            the reference `target` it is the NMSE.
        depth: the same over the last quarter of the points (`points`), with `gain`, the share of the model's own gain
            over the no-context optimum (rows of the reference `target`; undefined if the 95 % interval of the model's
            gain includes 0, and at y tokens), and `near`: whether the paired interval of the difference to the nearest
            predictor includes 0, or the difference is below `ALIKE`.
        n_prompts: per class.
        seed: of the prompts.
        token: the token type at which it was read, x or y.
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


@opens_models
def lens(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    steps: int | str | Sequence[int] = STEPS,
    token: Token = "x",
    n_prompts: int = 1024,
    seed: int = 0,
    prompts: OwnPrompts | None = None,
) -> Lens:
    """The implied prediction at every stage, compared with reference predictors.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        steps: numbers of gradient-descent steps to compare with.
        token: where to read the prediction of y_i: at x_i or at y_i.
        n_prompts: per class, to fit on (stream `reference`), and as many to test on (stream `test`).
        seed: of the prompts.
        prompts: of your own, in the place of `classes` (`interp.OwnPrompts`); the lens is fitted on a random half.

    Raises:
        UserError: unknown class, or too few prompts to fit on.

    >>> from interp import load
    >>> result = lens(load("zoo:mixed-0"), ["linear"], n_prompts=64)
    >>> [*result.table["stage"].unique()]
    ['embed', '0.mid', '0.post', '1.mid', '1.post', '2.mid', '2.post']
    """
    checkpoint, n_prompts = open_own(checkpoint, prompts, classes, n_prompts, is_split=True)
    check_enough(n_prompts)
    (token,) = choose_tokens([token])
    config, numbers = checkpoint.config, as_numbers("steps", steps)
    if min(numbers, default=0) < 1:
        raise UserError(f"steps={steps!r}: numbers from 1 upwards are needed")
    tables, depths = [], []
    for name in progress_bar(choose_classes(classes, config.evaluated_classes), desc="lens", unit="class"):
        distances = measure_distances(checkpoint, name, numbers, token, n_prompts, seed)
        table, depth = summarise(distances, config.data.n_points, seed)
        tables.append(table)
        depths.append(depth)
    table, depth = (
        label_rows(pd.concat(parts, ignore_index=True), checkpoint=checkpoint.name, step=checkpoint.step)
        for parts in (tables, depths)
    )
    return Lens(checkpoint.name, checkpoint.step, table, depth, n_prompts, seed, token)


def check_enough(n_prompts: int, option: str = "--prompts") -> None:
    """Refuse too few prompts.

    Raises:
        UserError: there are fewer than `LEAST_PROMPTS`.
    """
    if n_prompts < LEAST_PROMPTS:
        raise UserError(
            f"{option} {n_prompts}: at least {LEAST_PROMPTS} are needed to fit on some and choose a penalty on others"
        )


@dataclass(frozen=True)
class Distances:
    """Squared distances on one class, over E[y²].

    Attributes:
        function_class: of the prompts.
        token: the token type at which the lens was read.
        stages: of the residual stream.
        references: names of the reference predictors.
        distances: from each kind's implied predictions to each reference.
        model_error: NMSE of the model.
        no_context_error: NMSE of the no-context optimum.
    """

    function_class: str
    token: Token
    stages: list[Stage]
    references: list[str]
    distances: Float[np.ndarray, "stage kind reference prompt point"]
    model_error: Float[np.ndarray, "prompt point"]
    no_context_error: Float[np.ndarray, "prompt point"]


def measure_distances(
    checkpoint: Checkpoint, class_name: str, steps: Sequence[int], token: Token, n_prompts: int, seed: int
) -> Distances:
    """Fit the tuned lens on reference prompts and compare both lenses with the references on test prompts."""
    config, model = checkpoint.config, checkpoint.model
    fit_prompts = evaluation_prompts(config, class_name, n_prompts=n_prompts, seed=seed, stream="reference")
    prompts = evaluation_prompts(config, class_name, n_prompts=n_prompts, seed=seed)
    stages = model_stages(model.config.n_layers)
    readouts = tuned_readouts(model, fit_prompts, stages, token)
    implied = implied_predictions(model, prompts, stages, readouts, token)
    references = reference_predictions(config, model, class_name, prompts, steps)
    unit, answer = config.second_moment(class_name), references["target"]
    return Distances(
        class_name,
        token,
        stages,
        list(references),
        np.square(implied[:, :, None] - np.stack(list(references.values()))) / unit,
        np.square(references["model"] - answer) / unit,
        np.square(references["no_context"] - answer) / unit,
    )


def reference_predictions(
    config: RunConfig, model: Transformer, class_name: str, prompts: Prompts, steps: Sequence[int]
) -> dict[str, Float[np.ndarray, "prompt point"]]:
    """The answer, the model's prediction, and those of the reference predictors, by name.

    The baseline of the class is among them (`single_index`, which knows the polynomial and fits w, or least squares),
    and for a run with a pool of functions those of `training.pools.pool_baselines`.
    """
    class_baseline = function_class(class_name).baseline(config.data.weights)
    predictors = {
        "no_context": partial(no_context, config, class_name),
        **{f"gradient_descent_{k}": partial(gradient_descent, steps=k) for k in steps},
        "ridge": best_ridge,
        "least_squares": least_squares,
        class_baseline.name: class_baseline.predict,
        **{informed.name: informed.predict for informed in pool_baselines(config, class_name)},
    }
    references = {"target": prompts.ys, "model": predictions(model, prompts)}
    references |= {name: predict(prompts) for name, predict in predictors.items()}
    return {name: prediction.double().numpy() for name, prediction in references.items()}


def tuned_readouts(model: Transformer, prompts: Prompts, stages: Sequence[Stage], token: Token = "x") -> list[Ridge]:
    """For every stage, the affine map from the normalised stream at the pairs' tokens to the model's predictions."""
    positions = token_positions(prompts.layout, prompts.xs.shape[1], token)
    target = predictions(model, prompts).double().numpy()[:, :, None]
    streams = read_stream(model, prompts, stages, positions)
    return [fit_ridges(normalise(model, stream), [target])[0] for stream in streams]


def normalise(
    model: Transformer, stream: Float[np.ndarray, "prompt point d_model"]
) -> Float[np.ndarray, "prompt point d_model"]:
    """The final norm without gain and shift, in float64."""
    return model.ln_final.normalise(torch.from_numpy(stream).double()).numpy()


@torch.no_grad()
def implied_predictions(
    model: Transformer, prompts: Prompts, stages: Sequence[Stage], readouts: Sequence[Ridge], token: Token = "x"
) -> Float[np.ndarray, "stage kind prompt point"]:
    """The predictions of the plain and the tuned lens at every stage and pair."""
    positions = token_positions(prompts.layout, prompts.xs.shape[1], token)
    implied = []
    for stream, readout in zip(read_stream(model, prompts, stages, positions), readouts, strict=True):
        plain = model.read_out(torch.from_numpy(stream).to(model.device)).double().cpu().numpy()
        implied.append(np.stack([plain, readout.predict(normalise(model, stream))[:, :, 0]]))
    return np.stack(implied)


def summarise(measured: Distances, n_points: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One class's table by number of examples and table by depth."""
    rng = np.random.default_rng(stream_seed("lens", seed, measured.function_class))
    weights = bootstrap_weights(measured.distances.shape[3], rng)
    by_point = np.moveaxis(measured.distances, 3, 0)  # prompt stage kind reference point
    tail = last_quarter(n_points)
    late = by_point[..., tail].mean(-1)
    table = with_intervals(by_point, weights, measured, "examples", range(n_points))
    depth = with_intervals(late[..., None], weights, measured, "points", [show_points(tail)])
    model_error, no_context = (errors[:, tail].mean(1) for errors in (measured.model_error, measured.no_context_error))
    least_gain, _ = percentile_interval(weights @ (no_context - model_error)[:, None])
    gain = (no_context.mean() - depth["distance"]) / (no_context - model_error).mean()
    is_defined = measured.token == "x" and bool(least_gain[0] > 0)
    depth["gain"] = gain.where((depth["reference"] == "target") & is_defined)
    depth["near"] = nearest_predictors(late, weights, measured.references).ravel()
    return table, depth


def with_intervals(
    distances: Float[np.ndarray, "prompt stage kind reference label"],
    weights: Float[np.ndarray, "resample prompt"],
    measured: Distances,
    column: str,
    labels: Sequence[object],
) -> pd.DataFrame:
    """A row per stage, kind, reference and label of the last axis, with the mean distance and its interval."""
    index = pd.MultiIndex.from_product(
        [[str(stage) for stage in measured.stages], KINDS, measured.references, labels],
        names=["stage", "kind", "reference", column],
    )
    flat = distances.reshape(len(distances), -1)
    low, high = percentile_interval(weights @ flat)
    rows = pd.DataFrame({"distance": flat.mean(0), "ci_low": low, "ci_high": high}, index=index).reset_index()
    return label_rows(rows, function_class=measured.function_class)


def nearest_predictors(
    late: Float[np.ndarray, "prompt stage kind reference"],
    weights: Float[np.ndarray, "resample prompt"],
    references: Sequence[str],
) -> np.ndarray:
    """[stage kind reference]: the nearest predictor, and those whose distance does not differ clearly from its own, or
    by less than half of the last digit that is printed (`ALIKE`)."""
    is_predictor = np.array([name not in ("target", "model") for name in references])
    nearest = np.where(is_predictor, late.mean(0), np.inf).argmin(-1)
    least = np.take_along_axis(late, nearest[None, ..., None], axis=-1)
    excess = late - least
    low, _ = percentile_interval(weights @ excess.reshape(len(late), -1))
    is_farther = (low.reshape(late.shape[1:]) > 0) & (excess.mean(0) >= ALIKE)
    return ~is_farther & is_predictor
