"""Ridge regression in closed form: one eigendecomposition serves all penalties and targets.

Features and targets are centred at each point, so that constants of a position explain nothing, and all points share
one matrix of weights. The penalty is chosen on prompts that were not used to fit the weights. Everything is computed in
float64.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

PENALTIES = tuple(10.0**power for power in range(-9, 5))
"""In units of the mean eigenvalue of X'X."""
FITTED = 0.75
"""Share of the prompts on which weights are fitted; the penalty is chosen on the rest."""


class Ridge(NamedTuple):
    """An affine map with weights shared by all points.

    Attributes:
        weights: from features to targets.
        feature_mean: over the fitted prompts.
        target_mean: over the fitted prompts.
        penalty: in units of the mean eigenvalue of X'X.
    """

    weights: Float[np.ndarray, "feature target"]
    feature_mean: Float[np.ndarray, "point feature"]
    target_mean: Float[np.ndarray, "point target"]
    penalty: float

    def predict(self, features: Float[np.ndarray, "prompt point feature"]) -> Float[np.ndarray, "prompt point target"]:
        return (features - self.feature_mean) @ self.weights + self.target_mean


def fit_ridges(
    features: Float[np.ndarray, "prompt point feature"],
    targets: Sequence[Float[np.ndarray, "prompt point _"]],
    penalties: Sequence[float] = PENALTIES,
) -> list[Ridge]:
    """A ridge regression for every target, each with the penalty of lowest error on the last quarter of the prompts.

    Args:
        features: of every prompt; any float type.
        targets: for the same prompts.
        penalties: to choose from.

    >>> x = np.random.default_rng(0).normal(size=(400, 2, 3))
    >>> np.abs(fit_ridges(x, [x[:, :, :1] + 5])[0].weights).round(6).T.tolist()
    [[1.0, 0.0, 0.0]]
    """
    n_fitted = round(FITTED * len(features))
    feature_mean = features[:n_fitted].mean(0, dtype=np.float64)
    fitted, held_out = ((part - feature_mean).reshape(-1, features.shape[2]) for part in np.split(features, [n_fitted]))
    eigenvalues, directions = np.linalg.eigh(fitted.T @ fitted)
    eigenvalues = eigenvalues.clip(min=0)
    unit = float(eigenvalues.mean()) or 1.0  # features that do not vary
    shrinkages = [1 / (eigenvalues + penalty * unit) for penalty in penalties]
    fits = []
    for target in targets:
        target_mean = target[:n_fitted].mean(0, dtype=np.float64)
        fitted_target, held_out_target = (
            (part - target_mean).reshape(-1, target.shape[2]) for part in np.split(target, [n_fitted])
        )
        moment = directions.T @ (fitted.T @ fitted_target)
        rotated = held_out @ directions
        losses = [
            np.square(rotated @ (shrinkage[:, None] * moment) - held_out_target).mean() for shrinkage in shrinkages
        ]
        best = int(np.argmin(losses))
        weights = directions @ (shrinkages[best][:, None] * moment)
        fits.append(Ridge(weights, feature_mean, target_mean, penalties[best]))
    return fits


class Errors(NamedTuple):
    """The parts of R² = 1 - sum(residual) / sum(total) by prompt, so that prompts can be resampled.

    Attributes:
        residual: squared error of the fit.
        total: squared error of the mean over the fitted prompts.
    """

    residual: Float[np.ndarray, " prompt"]
    total: Float[np.ndarray, " prompt"]

    @property
    def r2(self) -> float:
        return float(1 - self.residual.sum() / self.total.sum())


def errors_of(
    fit: Ridge,
    features: Float[np.ndarray, "prompt point feature"],
    target: Float[np.ndarray, "prompt point target"],
) -> Errors:
    """The squared errors of a fit on other prompts, summed over points and coordinates."""
    residual = np.square(fit.predict(features) - target).sum((1, 2))
    return Errors(residual, np.square(target - fit.target_mean).sum((1, 2)))


def r2_resamples(
    residual: Float[np.ndarray, "row prompt"],
    total: Float[np.ndarray, "row prompt"],
    weights: Float[np.ndarray, "resample prompt"],
) -> Float[np.ndarray, "resample row"]:
    """R² in bootstrap resamples of prompts (`training.common.bootstrap.bootstrap_weights`)."""
    return 1 - (weights @ residual.T) / (weights @ total.T)
