"""Interaction energies and forces: sums over pairs, derivatives, singular kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import gradient_flows, measures
from wfr_flows.measures import Particles


def kernel(z):
    return 0.25 * jnp.sum(z**2) ** 2 - jnp.exp(-jnp.sum(z**2))


@pytest.fixture
def cloud():
    generator = np.random.default_rng(0)
    return measures.particles(generator.normal(size=(7, 3)), generator.uniform(0.5, 1.0, 7)).normalise()


def test_force_and_energy_are_the_sums_over_pairs(cloud):
    points = jnp.array([[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]])
    force = gradient_flows.interaction_force(kernel, points, cloud)
    pairs = jax.vmap(lambda x: jax.vmap(lambda y: jax.grad(kernel)(x - y))(cloud.position))(points)
    np.testing.assert_allclose(force, jnp.einsum("j,ijd->id", cloud.weight, pairs), atol=1e-12)
    values = jax.vmap(lambda x: jax.vmap(lambda y: kernel(x - y))(cloud.position))(cloud.position)
    weight = jnp.outer(cloud.weight, cloud.weight) * (1 - jnp.eye(7))
    np.testing.assert_allclose(
        gradient_flows.interaction_energy(kernel, cloud), 0.5 * jnp.sum(weight * values) / jnp.sum(weight)
    )


def test_force_is_the_derivative_of_the_energy(cloud):
    def energy(position):
        return gradient_flows.interaction_energy(kernel, Particles(position, cloud.log_weight))

    scale = cloud.weight[:, None] / (1 - jnp.sum(cloud.weight**2))
    force = gradient_flows.interaction_force(kernel, cloud.position, cloud)
    np.testing.assert_allclose(jax.grad(energy)(cloud.position), scale * force, atol=1e-12)


def test_blocks_do_not_change_the_force(monkeypatch, cloud):
    whole = gradient_flows.interaction_force(kernel, cloud.position, cloud)
    monkeypatch.setattr("wfr_flows.numerics.blocks._BLOCK", 50)
    parts = gradient_flows.interaction_force(kernel, cloud.position, cloud)
    np.testing.assert_allclose(parts, whole, atol=1e-13)


def test_singular_kernels_are_finite_at_the_particles_themselves():
    line = measures.particles(np.array([-1.0, 0.0, 1.0]))
    kernel = lambda z: -jnp.log(jnp.abs(z[0]))  # noqa: E731
    force = gradient_flows.interaction_force(kernel, line.position, line)
    np.testing.assert_allclose(force[:, 0], [0.5, 0.0, -0.5], atol=1e-15)
    gradient = jax.grad(lambda x: gradient_flows.interaction_energy(kernel, Particles(x, line.log_weight)))(
        line.position
    )
    assert jnp.all(jnp.isfinite(gradient))


def test_dimensions_must_fit(cloud):
    with pytest.raises(ValueError, match="one dimension"):
        gradient_flows.interaction_force(kernel, jnp.zeros((2, 2)), cloud)
