"""Closed-form ridge against scikit-learn, and what it makes of noise."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from interp.readouts.ridge import errors_of, fit_ridges, r2_resamples
from training.common.bootstrap import bootstrap_weights, percentile_interval


def test_it_is_ridge_regression_with_an_intercept_for_every_point(rng):
    features, target = rng.normal(size=(80, 3, 5)), rng.normal(size=(80, 3, 2))
    features[:, 1] += 100  # what a position adds explains nothing
    fitted = features[:60] - features[:60].mean(0)
    for penalty in (1e-6, 0.3, 50.0):
        (fit,) = fit_ridges(features, [target], [penalty])
        unit = np.linalg.eigvalsh(np.einsum("npi,npj->ij", fitted, fitted)).mean()
        reference = Reference(alpha=penalty * unit, fit_intercept=False)
        reference.fit(fitted.reshape(-1, 5), (target[:60] - target[:60].mean(0)).reshape(-1, 2))
        np.testing.assert_allclose(fit.weights, reference.coef_.T, rtol=1e-9, atol=1e-12)
        wanted = reference.predict((features[60:] - features[:60].mean(0)).reshape(-1, 5)).reshape(20, 3, 2)
        np.testing.assert_allclose(fit.predict(features[60:]), wanted + target[:60].mean(0), rtol=1e-9, atol=1e-9)


def test_the_penalty_is_the_best_on_the_last_quarter_of_the_prompts(rng):
    features = rng.normal(size=(120, 1, 40))
    signal = features @ rng.normal(size=(40, 1))
    target = signal + 6 * rng.normal(size=signal.shape)
    penalties = [1e-6, 1e-2, 1.0, 100.0]
    (chosen,) = fit_ridges(features, [target], penalties)
    losses = [
        np.square(fit_ridges(features, [target], [one])[0].predict(features[90:]) - target[90:]).mean()
        for one in penalties
    ]
    assert chosen.penalty == penalties[int(np.argmin(losses))]
    assert chosen.penalty not in (1e-6, 100.0)


def test_targets_share_the_features_but_not_the_penalty(rng):
    features = rng.normal(size=(400, 1, 4))
    exact, noise = features[:, :, :1] * 3, rng.normal(size=(400, 1, 1))
    fits = fit_ridges(features, [exact, noise])
    assert fits[0].penalty < 1e-6
    assert fits[1].penalty > 1e-2
    assert errors_of(fits[0], features[300:], exact[300:]).r2 == pytest.approx(1, abs=1e-9)


def test_features_that_do_not_vary_predict_the_mean():
    target = np.arange(40.0).reshape(40, 1, 1)
    (fit,) = fit_ridges(np.ones((40, 1, 3)), [target])
    np.testing.assert_allclose(fit.predict(np.ones((5, 1, 3))), target[:30].mean())


def test_intervals_of_r2_cover_the_truth(rng):
    """y = x + noise of the same variance: the population R² is 1/2."""
    covered = 0
    for _ in range(60):
        x = rng.normal(size=(2000, 1, 1))
        y = x + rng.normal(size=x.shape)
        (fit,) = fit_ridges(x[:1500], [y[:1500]])
        errors = errors_of(fit, x[1500:], y[1500:])
        resamples = r2_resamples(errors.residual[None], errors.total[None], bootstrap_weights(500, rng, 400))
        low, high = percentile_interval(resamples)
        covered += low[0] <= 0.5 <= high[0]
    assert 50 <= covered <= 60


def test_noise_is_not_decodable(rng):
    """The interval of R² lies above 0 no more often than it should."""
    false_positives = 0
    for _ in range(60):
        features, target = rng.normal(size=(600, 1, 20)), rng.normal(size=(600, 1, 2))
        (fit,) = fit_ridges(features[:400], [target[:400]])
        errors = errors_of(fit, features[400:], target[400:])
        resamples = r2_resamples(errors.residual[None], errors.total[None], bootstrap_weights(200, rng, 400))
        false_positives += percentile_interval(resamples)[0][0] > 0
        assert errors.r2 < 0.05
    assert false_positives <= 6
