"""What filters must survive, and what they must refuse: stiff drifts, bad likelihoods, models that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from wfr_flows import measures
from wfr_flows.inference import filtering
from wfr_flows.inference.filtering import LinearGaussian
from wfr_flows.inference.filtering.kalman_filter import moments_after


def linear(drift, noise=None, dtype=jnp.float64):
    eye = jnp.eye(len(drift), dtype=dtype)
    drift = jnp.asarray(drift, dtype)
    noise = eye if noise is None else jnp.asarray(noise, dtype)
    return LinearGaussian(drift, jnp.ones(len(drift), dtype), noise, eye, eye, eye[0], eye)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("time", [1e-3, 10.0, 1e6])
def test_moments_of_stiff_models(dtype, time):
    """Far beyond where exp(-A t) overflows: the stationary law, and a slow mode beside fast ones."""
    drift = np.array([[-10.0, 3.0, 0.0], [0.0, -1e4, 0.0], [0.0, 0.0, -1e-3]])
    noise = np.array([[1.0, 0.0], [20.0, 1.0], [0.0, 0.1]])
    model = linear(drift, noise, dtype)
    move, shift, spread = jax.jit(moments_after)(model, jnp.asarray(time, dtype))
    expected = scipy.linalg.expm(drift * time)
    stationary = scipy.linalg.solve_continuous_lyapunov(drift, -noise @ noise.T)
    tolerance = {"rtol": 2e-5, "atol": 1e-6} if dtype == jnp.float32 else {"rtol": 1e-10, "atol": 1e-13}
    np.testing.assert_allclose(move, expected, **tolerance)
    np.testing.assert_allclose(
        shift, np.linalg.solve(drift, (expected - np.eye(3)) @ np.ones(3)), **tolerance
    )
    np.testing.assert_allclose(spread, stationary - expected @ stationary @ expected.T, **tolerance)


def test_the_gradient_of_stiff_moments():
    found = jax.grad(
        lambda rate: moments_after(linear([[1.0]])._replace(drift=-rate * jnp.eye(1)), 10.0)[2][0, 0]
    )(10.0)
    # The variance is (1 - exp(-2 rate t)) / (2 rate).
    np.testing.assert_allclose(found, -1 / 200, rtol=1e-10)
