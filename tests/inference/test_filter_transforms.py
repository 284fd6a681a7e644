"""Filters inside jit, grad and vmap: models with traced parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from helpers import numerical_gradient

from wfr_flows import measures
from wfr_flows.inference import filtering
from wfr_flows.inference.filtering import (
    LinearGaussian,
    assimilate,
    kalman_filter,
    observations,
    particle_filter,
    state_space,
)

TIMES = np.array([0.4, 0.7, 1.5])
SEEN = np.array([[1.3], [0.2], [-0.8]])


def rotating_model():
    drift, noise = jnp.array([[-0.3, 1.0], [-1.0, -0.3]]), jnp.array([[0.8, 0.0], [0.3, 0.5]])
    see, error = jnp.array([[1.0, 0.5]]), jnp.array([[0.3]])
    return LinearGaussian(drift, jnp.array([0.2, -0.1]), noise, see, error, jnp.zeros(2), jnp.eye(2))


def test_parameters_of_a_model_are_learned_through_kalmans_evidence():
    data = observations(TIMES, SEEN)

    def evidence(parameters):
        drift, error = parameters
        model = rotating_model()
        model = model._replace(drift=drift * model.drift, error=error * model.error)
        return assimilate(kalman_filter(model, 3), jax.random.key(0), data).log_evidence.sum()

    at = jnp.array([1.2, 0.8])
    found = jax.jit(jax.grad(evidence))(at)
    np.testing.assert_allclose(found, numerical_gradient(jax.jit(evidence), at, 1e-4), rtol=1e-7)

    # The model itself as the argument, its starting time among the leaves.
    @jax.jit
    def by_model(model):
        return assimilate(kalman_filter(model, 3), jax.random.key(0), data).log_evidence.sum()

    slope = jax.grad(by_model)(rotating_model()).error
    expected = numerical_gradient(
        lambda error: by_model(rotating_model()._replace(error=error)), [[0.3]], 1e-4
    )
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


def test_a_traced_linear_model_serves_every_filter_as_a_concrete_one():
    data = observations(TIMES, SEEN)

    def run(model):
        return assimilate(particle_filter(model.state_space(), 16, num_steps=2), jax.random.key(0), data)

    model = rotating_model()
    found, expected = jax.jit(run)(model), jax.jit(lambda: run(model))()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), found, expected)
    # A symmetric drift is seen to be a gradient even in a traced function, where it is not traced itself.
    even = model._replace(drift=-jnp.eye(2), noise=jnp.eye(2))
    assert jax.jit(lambda error: even._replace(error=error).state_space().potential is not None)(model.error)
    traced = jax.jit(observations)(TIMES, SEEN)
    jax.tree.map(np.testing.assert_array_equal, traced, data)


def test_moments_of_filters_that_are_mapped_over_the_noise_of_a_sensor():
    model, data = rotating_model(), observations(TIMES, np.hstack([SEEN, -SEEN]))

    def run(deviation):
        space = state_space(
            measures.gaussian(model.mean, model.covariance),
            filtering.gaussian_sensor(deviation),
            drift=lambda t, x: -x,
            noise=1.0,
        )
        # As many particles as observations, which must not be taken for each other.
        return assimilate(particle_filter(space, data.time.size, num_steps=2), jax.random.key(0), data)

    deviations = jnp.array([0.3, 1.0, 1e-200])
    mapped = jax.jit(jax.vmap(run))(deviations)
    for index, deviation in enumerate(deviations):
        alone = run(deviation)
        for name in ("mean", "covariance", "standard_deviation"):
            found = getattr(mapped, name)[index]
            assert np.all(np.isfinite(found))
            np.testing.assert_allclose(found, getattr(alone, name), atol=1e-12)
    one = jax.tree.map(lambda leaf: leaf[0, 0], mapped)
    np.testing.assert_allclose(one.mean, mapped.mean[0, 0])


def test_a_very_precise_sensor_has_the_log_density_of_a_gaussian():
    sensor = filtering.gaussian_sensor(jnp.float32(1e-30))
    value = sensor.log_likelihood(jnp.zeros(()), jnp.zeros(1, jnp.float32), jnp.full(1, 2e-30, jnp.float32))
    np.testing.assert_allclose(value, -2 + 30 * np.log(10) - 0.5 * np.log(2 * np.pi), rtol=1e-6)
