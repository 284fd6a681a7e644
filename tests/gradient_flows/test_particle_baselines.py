"""Particle baselines against the law of the Ornstein-Uhlenbeck process, and Stein's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import measures
from wfr_flows.gradient_flows import (
    Sample,
    euler_maruyama,
    evolve,
    langevin,
    proximal_recursion,
    svgd,
)

MEAN, COVARIANCE = np.array([1.0, -1.0]), np.diag([0.5, 2.0])
NUM = 4000


def _start(key, num):
    return measures.standard_normal(2).sample(key, num)


@pytest.mark.parametrize("name", ["euler_maruyama", "langevin"])
def test_langevin_dynamics_have_the_law_of_the_process(name, key):
    target = measures.gaussian(MEAN, COVARIANCE).log_density
    method, steps = {
        "euler_maruyama": (euler_maruyama(target), jnp.full(200, 0.0025)),
        "langevin": (langevin(target, num_steps=4), jnp.full(5, 0.1)),
    }[name]
    # A key of its own: with the same one the noise of a step would be that of the start.
    start = _start(jax.random.key(1), NUM)
    end, _ = jax.jit(lambda key: evolve(method, key, start, steps))(key)
    true = measures.ornstein_uhlenbeck(MEAN, COVARIANCE, 0.5)
    exact_mean, exact_covariance = measures.moments(true.sample(jax.random.key(9), 400_000))
    mean, covariance = measures.moments(end)
    error = jnp.sqrt(jnp.diag(exact_covariance) / NUM)
    assert jnp.all(jnp.abs(mean - exact_mean) < 4 * error + 0.005)
    np.testing.assert_allclose(covariance, exact_covariance, atol=0.12)


def test_proximal_recursion_gives_the_density_up_to_a_constant(key):
    method = proximal_recursion(measures.gaussian(MEAN, COVARIANCE).log_density)
    particles = _start(jax.random.key(1), 400)
    start = Sample(particles, jax.vmap(measures.standard_normal(2).log_density)(particles.position))
    end, info = jax.jit(lambda key: evolve(method, key, start, jnp.full(50, 0.005)))(key)
    true = measures.ornstein_uhlenbeck(MEAN, COVARIANCE, 0.25)
    error = end.log_density - jax.vmap(true.log_density)(end.particles.position)
    before = start.log_density - jax.vmap(true.log_density)(start.particles.position)
    # Few points with a kernel of width .2: better than the density they began with, and no more.
    assert jnp.std(error) < 0.7 * jnp.std(before)
    assert jnp.all(info.change < 1e-5)


def test_stein_direction_equals_automatic_differentiation(key):
    target = measures.gaussian(MEAN, COVARIANCE)
    measure = measures.particles(_start(key, 4).position, [1.0, 2.0, 1.0, 4.0])
    method = svgd(target.log_density, optax.sgd(1.0), bandwidth=0.7)
    moved, _ = method.step(key, method.init(measure), ())
    x, weight = measure.position, measure.weight / measure.mass

    def kernel(a, b):
        return jnp.exp(-jnp.sum((a - b) ** 2) / (2 * 0.49))

    def at(point):
        terms = [
            w * (kernel(y, point) * jax.grad(target.log_density)(y) + jax.grad(kernel)(y, point))
            for w, y in zip(weight, x, strict=True)
        ]
        return sum(terms)

    expected = x + jnp.stack([at(point) for point in x])
    np.testing.assert_allclose(moved.particles.position, expected, rtol=1e-10)


def test_stein_descent_finds_a_gaussian(key):
    method = svgd(measures.gaussian(MEAN, COVARIANCE).log_density, optax.adam(0.05))
    state = method.init(_start(key, 60))
    end, size = jax.jit(lambda key: evolve(method, key, state, jnp.zeros(400)))(key)
    mean, covariance = measures.moments(end.particles)
    np.testing.assert_allclose(mean, MEAN, atol=0.05)
    np.testing.assert_allclose(jnp.diag(covariance), jnp.diag(COVARIANCE), rtol=0.25)
    assert size[-1] < 0.1 * size[0]
