"""Interaction energies and forces: sums over pairs, derivatives, singular kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import gradient_flows, measures
from wfr_flows.measures import Particles


def kernel(z):
    return 0.25 * jnp.sum(z**2) ** 2 - jnp.exp(-jnp.sum(z**2))


@jax.jit
def _force(points, cloud):
    return gradient_flows.interaction_force(kernel, points, cloud)


@pytest.fixture
def cloud():
    generator = np.random.default_rng(0)
    return measures.particles(generator.normal(size=(7, 3)), generator.uniform(0.5, 1.0, 7)).normalise()


def test_force_and_energy_are_the_sums_over_pairs(cloud):
    points = np.array([[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]])
    place, share = np.asarray(cloud.position), np.asarray(cloud.weight)
    force = _force(points, cloud)
    pairs = jax.jit(jax.vmap(jax.vmap(jax.grad(kernel))))(points[:, None] - place)
    np.testing.assert_allclose(force, np.einsum("j,ijd->id", share, pairs), atol=1e-12)
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(kernel)))(place[:, None] - place))
    weight = np.outer(share, share) * (1 - np.eye(7))
    energy = jax.jit(lambda cloud: gradient_flows.interaction_energy(kernel, cloud))(cloud)
    np.testing.assert_allclose(energy, 0.5 * np.sum(weight * values) / np.sum(weight))


def test_force_is_the_derivative_of_the_energy(cloud):
    def energy(position):
        return gradient_flows.interaction_energy(kernel, Particles(position, cloud.log_weight))

    share = np.asarray(cloud.weight)
    expected = share[:, None] / (1 - np.sum(share**2)) * np.asarray(_force(cloud.position, cloud))
    np.testing.assert_allclose(jax.jit(jax.grad(energy))(cloud.position), expected, atol=1e-12)


def test_blocks_do_not_change_the_force(monkeypatch, cloud):
    whole = _force(cloud.position, cloud)
    monkeypatch.setattr("wfr_flows.numerics.blocks._BLOCK", 50)
    parts = jax.jit(lambda cloud: gradient_flows.interaction_force(kernel, cloud.position, cloud))(cloud)
    np.testing.assert_allclose(parts, whole, atol=1e-13)


def test_singular_kernels_are_finite_at_the_particles_themselves():
    line = measures.particles(np.array([-1.0, 0.0, 1.0]))
    kernel = lambda z: -jnp.log(jnp.abs(z[0]))  # noqa: E731
    force = jax.jit(lambda line: gradient_flows.interaction_force(kernel, line.position, line))(line)
    np.testing.assert_allclose(np.asarray(force)[:, 0], [0.5, 0.0, -0.5], atol=1e-15)
    energy = lambda x: gradient_flows.interaction_energy(kernel, Particles(x, line.log_weight))  # noqa: E731
    assert np.isfinite(jax.jit(jax.grad(energy))(line.position)).all()


def test_dimensions_must_fit(cloud):
    with pytest.raises(ValueError, match="one dimension"):
        gradient_flows.interaction_force(kernel, jnp.zeros((2, 2)), cloud)
