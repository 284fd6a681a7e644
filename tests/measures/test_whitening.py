import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import measures
from wfr_flows.measures import Particles


def stretched(key):
    cloud = measures.standard_normal(2).sample(key, 400)
    position = cloud.position @ jnp.array([[3.0, 1.0], [0.0, 0.1]]) + 7.0
    return Particles(position, 0.1 * position[:, 0])


def test_whitened_particles_have_mean_zero_and_covariance_one(key):
    cloud = stretched(key)
    seen = jax.jit(measures.whitening)(cloud)
    mean, covariance = measures.moments(cloud._replace(position=seen(cloud.position)))
    np.testing.assert_allclose(mean, 0, atol=1e-4)
    np.testing.assert_allclose(covariance, np.eye(2), atol=3e-3)
    np.testing.assert_allclose(seen.back(seen(cloud.position)), cloud.position, rtol=1e-5)


def test_densities_follow_the_coordinates(key):
    cloud = stretched(key)
    seen, law = measures.whitening(cloud), measures.gaussian(jnp.full(2, 7.0), 2 * jnp.eye(2))
    z = seen(cloud.position[:5])
    slope = jax.vmap(jax.jacfwd(seen.back))(z)
    expected = jax.vmap(law.log_density)(cloud.position[:5]) + jnp.linalg.slogdet(slope)[1]
    np.testing.assert_allclose(jax.vmap(seen.log_density_of(law.log_density))(z), expected, rtol=1e-5)


def test_flat_clouds_and_single_points_are_finite():
    point = Particles(jnp.ones((3, 2)), jnp.zeros(3))
    np.testing.assert_allclose(measures.whitening(point)(jnp.array([2.0, 1.0])), [1.0, 0.0])
    line = Particles(jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.zeros(2))
    assert all(np.isfinite(leaf).all() for leaf in measures.whitening(line))


def test_coordinates_of_any_unit_and_far_from_zero_are_whitened(key):
    """Also in single precision: unit deviations around 1e6 beside deviations of a million."""
    scale, centre = np.array([1.0, 1e6, 1e-3]), np.array([1e6, 0.0, 1.0])
    z = np.asarray(measures.standard_normal(3).spread(key, 500).position)
    with jax.enable_x64(False):
        cloud = measures.particles(z * scale + centre)
        seen = measures.whitening(cloud)
        position = np.asarray(cloud.position, np.float64)
        np.testing.assert_allclose(seen.centre, position.mean(axis=0), rtol=1e-6, atol=1)
        np.testing.assert_allclose(np.diagonal(seen.factor), position.std(axis=0), rtol=1e-3)
        np.testing.assert_allclose(np.std(seen(cloud.position), axis=0), 1.0, rtol=1e-3)
