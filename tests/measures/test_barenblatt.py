"""Uniform laws and Barenblatt's solution: mass, samples against densities, the equation itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import measures

CENTRE = np.array([0.5, -1.0, 2.0])
LAWS = {
    "box": lambda: measures.uniform_box(CENTRE - 0.5, CENTRE + np.array([1.0, 2.0, 0.2])),
    "ball": lambda: measures.uniform_ball(CENTRE, 1.5),
    "barenblatt": lambda: measures.barenblatt(3, 2.0, 0.3),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_samples_follow_the_density(law, key):
    law = law()
    log_density = jax.jit(jax.vmap(law.log_density))
    centre, box = (np.zeros(3), 2.0) if log_density(np.zeros((1, 3)))[0] > -np.inf else (CENTRE, 2.5)
    around = measures.uniform_box(centre - box, centre + box)
    nodes = np.asarray(jax.jit(around.spread, static_argnums=1)(key, 200_000).position)
    density = np.exp(log_density(nodes)) * (2 * box) ** 3
    np.testing.assert_allclose(density.mean(), 1.0, rtol=5e-3)
    mean = (density[:, None] * nodes).mean(axis=0)
    second = (density[:, None] * (nodes - mean) ** 2).mean(axis=0)
    for draw in (law.sample, law.spread):
        position = np.asarray(jax.jit(draw, static_argnums=1)(key, 20_000).position)
        np.testing.assert_allclose(position.mean(axis=0), mean, atol=0.03)
        np.testing.assert_allclose(position.var(axis=0), second, rtol=0.04)
        assert np.all(np.asarray(log_density(position)) > -np.inf)


@pytest.mark.parametrize(("dim", "m"), [(1, 2.0), (3, 2.0), (6, 2.0), (2, 3.0)])
def test_barenblatt_solves_the_porous_medium_equation(dim, m):
    def density(time, x):
        return jnp.exp(_barenblatt_log(dim, m, time, x))

    @jax.jit
    def both_sides(x):
        step = 1e-5
        rate = (density(0.3 + step, x) - density(0.3 - step, x)) / (2 * step)
        return rate, jnp.trace(jax.hessian(lambda y: density(0.3, y) ** m)(x))

    x = 0.5 * np.asarray(measures.barenblatt_radius(dim, m, 0.3)) * np.ones(dim) / np.sqrt(dim)
    np.testing.assert_allclose(*both_sides(x), rtol=1e-6)


def _barenblatt_log(dim, m, time, x):
    return measures.barenblatt(dim, m, time).log_density(x)


def test_published_constant_has_mass_one():
    # At d = 1 and m = 2 the density at 0 is t^(-1/3) C, and C = (3/64)^(1/3).
    peak = jnp.exp(measures.barenblatt(1, 2.0, 0.002).log_density(jnp.zeros(1)))
    np.testing.assert_allclose(peak, 0.002 ** (-1 / 3) * (3 / 64) ** (1 / 3), rtol=1e-12)


def test_second_moment_of_barenblatt(key):
    dim, m = 6, 2.0
    radius = measures.barenblatt_radius(dim, m, 0.1)
    drawn = jax.jit(measures.barenblatt(dim, m, 0.1).spread, static_argnums=1)(key, 20_000)
    found = np.mean(np.sum(np.asarray(drawn.position) ** 2, axis=1))
    np.testing.assert_allclose(found, radius**2 * dim / (dim + 2 * m / (m - 1)), rtol=5e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: measures.barenblatt(0, 2.0, 1.0),
        lambda: measures.barenblatt(1, 1.0, 1.0),
        lambda: measures.barenblatt(1, 2.0, 0.0),
        lambda: measures.uniform_box(jnp.zeros(2), jnp.ones(3)),
        lambda: measures.uniform_ball(jnp.zeros((2, 2)), 1.0),
    ],
)
def test_impossible_laws_are_refused(make):
    with pytest.raises(ValueError, match="give"):
        make()
