"""Generated samples and densities of a flow, against quadrature and each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import dynamics, geodesics, measures, potentials
from wfr_flows.measures import Particles


@pytest.fixture(scope="module")
def learned():
    with jax.enable_x64(True):
        potential = potentials.resnet(1, width=6)
        # Gentle enough for the generated measure to stay on the grid.
        return potential, jax.tree.map(lambda leaf: 0.4 * leaf, potential.init(jax.random.key(4)))


def grid():
    return jnp.linspace(-12, 12, 1501)[:, None]


def grid_measure():
    return Particles(grid(), jax.vmap(measures.standard_normal(1).log_density)(grid())).normalise()


@partial(jax.jit, static_argnums=0)
def both(potential, alpha, params, target, points):
    """Log-density at the points, and the measure generated from the target: one program for every alpha."""
    geometry, options = dynamics.Geometry(alpha), {"num_steps": 32}
    log_density = geodesics.log_density(
        potential,
        geometry,
        params,
        points,
        measures.standard_normal(1).log_density,
        log_normaliser=geodesics.log_normaliser(potential, geometry, params, target, **options),
        **options,
    )
    return log_density, geodesics.generate(potential, geometry, params, target, **options)


@pytest.mark.parametrize("alpha", [1.0, 5.0, jnp.inf])
def test_density_integrates_to_one_and_matches_generated_moments(learned, alpha):
    potential, params = learned
    points = grid()
    log_density, generated = both(potential, alpha, params, grid_measure(), points)
    density = jnp.exp(log_density)
    width = points[1, 0] - points[0, 0]
    np.testing.assert_allclose(jnp.sum(density) * width, 1, rtol=1e-4)
    np.testing.assert_allclose(generated.mass, 1, rtol=1e-12)
    for power in (1, 2):
        by_density = jnp.sum(density * points[:, 0] ** power) * width
        by_particles = jnp.sum(generated.weight * generated.position[:, 0] ** power)
        np.testing.assert_allclose(by_particles, by_density, rtol=1e-4, atol=1e-4)


def test_wasserstein_normaliser_is_zero(learned):
    potential, params = learned
    value = geodesics.log_normaliser(
        potential, dynamics.Geometry(jnp.inf), params, grid_measure(), num_steps=4
    )
    np.testing.assert_allclose(value, 0, atol=1e-12)


def test_generation_carries_target_weights(learned):
    potential, params = learned
    geometry = dynamics.Geometry(2.0)
    x = jnp.array([[-1.0], [0.5]])
    weighted = Particles(x, jnp.log(jnp.array([3.0, 1.0])))
    repeated = Particles(x[jnp.array([0, 0, 0, 1])], jnp.zeros(4))
    one = geodesics.generate(potential, geometry, params, weighted)
    two = geodesics.generate(potential, geometry, params, repeated)
    np.testing.assert_allclose(one.weight[1], two.weight[3], rtol=1e-12)


def test_generation_differentiates_and_vmaps(learned):
    potential, params = learned
    measure = Particles(grid()[::150], jnp.zeros(11))

    @jax.jit
    def mean(params, alpha):
        generated = geodesics.generate(potential, dynamics.Geometry(alpha), params, measure, num_steps=4)
        return jnp.sum(generated.weight * generated.position[:, 0] ** 2)

    gradient, by_alpha = jax.grad(mean, argnums=(0, 1))(params, 2.0)
    step = 1e-5
    difference = (mean(params, 2.0 + step) - mean(params, 2.0 - step)) / (2 * step)
    np.testing.assert_allclose(by_alpha, difference, rtol=1e-6)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert jax.vmap(mean, (None, 0))(params, jnp.array([1.0, 2.0, jnp.inf])).shape == (3,)
