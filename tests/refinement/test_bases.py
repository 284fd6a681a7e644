"""Bases of energy models: inverse maps, densities that integrate to 1, the Gaussian where it is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows import dynamics, measures, potentials, refinement
from wfr_flows.dynamics import Geometry
from wfr_flows.measures import Particles, equally_weighted

EDGES = np.linspace(-6.0, 6.0, 13)


@pytest.fixture(scope="module")
def sample():
    with jax.enable_x64(True):
        law = measures.gaussian(jnp.array([1.0, 0.0]), jnp.array([[1.0, 0.8], [0.8, 1.5]]))
        return law.sample(jax.random.key(0), 4000)


@pytest.fixture(scope="module")
def moved(sample):
    """A flow that is not the identity, on top of a Gaussian."""
    with jax.enable_x64(True):
        potential = potentials.moving_quadratic(2, degree=1)
        params = jax.tree.map(lambda leaf: leaf + 0.2, potential.init(jax.random.key(1)))
        field = dynamics.potential_field(potential, Geometry(jnp.inf))
        return refinement.flow_base(field, params, refinement.gaussian_base(sample))


@pytest.mark.parametrize("name", ["gaussian", "copula", "flow"])
def test_colour_undoes_whiten_and_densities_follow(name, sample, moved):
    base = {
        "gaussian": refinement.gaussian_base(sample),
        "copula": refinement.copula_base(sample, EDGES),
        "flow": moved,
    }[name]
    x = sample.position[:20]
    z, log_det = jax.jit(jax.vmap(base.whiten))(x)
    np.testing.assert_allclose(jax.jit(jax.vmap(base.colour))(z), x, atol=1e-4)
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda y: base.whiten(y)[0])))(x)
    np.testing.assert_allclose(log_det, jnp.linalg.slogdet(slope)[1], atol=1e-4)


def test_a_gaussian_base_is_the_gaussian(sample, key):
    base = refinement.base_distribution(refinement.gaussian_base(sample))
    exact = measures.gaussian(*measures.moments(sample))
    x = sample.position[:100]
    at = [jax.jit(jax.vmap(law.log_density))(x) for law in (base, exact)]
    np.testing.assert_allclose(*at, rtol=1e-8)
    drawn = jax.jit(base.sample, static_argnums=1)(key, 4000)
    for found, own in zip(measures.moments(drawn), measures.moments(sample), strict=True):
        np.testing.assert_allclose(found, own, atol=0.15)


def test_a_copula_has_mass_one_and_the_histograms(sample):
    law = refinement.base_distribution(refinement.copula_base(sample, EDGES))
    side = np.linspace(-5.99, 5.99, 240)
    x = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(jax.jit(jax.vmap(law.log_density))(x)).reshape(240, 240)
    np.testing.assert_allclose(density.sum() * (side[1] - side[0]) ** 2, 1.0, atol=0.02)
    drawn = jax.jit(law.sample, static_argnums=1)(jax.random.key(2), 4000)
    found, exact = (np.histogram(m.position[:, 0], EDGES)[0] / 4000 for m in (drawn, sample))
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert np.isneginf(jax.jit(law.log_density)(np.array([0.0, 7.0])))


def test_weights_count(sample):
    heavy = Particles(sample.position, jnp.where(sample.position[:, 0] > 1, -jnp.inf, 0.0))
    some = equally_weighted(sample.position[sample.position[:, 0] <= 1])
    for build in (refinement.gaussian_base, lambda m: refinement.copula_base(m, EDGES)):
        laws = (refinement.base_distribution(build(m)) for m in (heavy, some))
        values = [jax.jit(law.log_density)(some.position[0]) for law in laws]
        np.testing.assert_allclose(*values, atol=1e-2)


def test_edges_that_cannot_be_are_refused(sample):
    with pytest.raises(ValueError, match="do not increase"):
        refinement.copula_base(sample, [1.0, 0.0])
    with pytest.raises(ValueError, match="give wider ones"):
        refinement.copula_base(sample, [0.0, 1.0])


def test_a_flow_base_learns_what_no_gaussian_is(key):
    law = measures.mixture([0.5, 0.5], [[-2.0], [2.0]], [[[0.5]], [[0.5]]])
    draw_key, fit_key = jax.random.split(key)
    points = law.sample(draw_key, 4000)
    inner = refinement.gaussian_base(points)
    base = refinement.fit_base(
        fit_key, dynamics.free_field(1, width=16), points, inner, num_steps=400, batch=512
    )
    x = np.linspace(-4.0, 4.0, 81)[:, None]
    laws = (law, refinement.base_distribution(base), refinement.base_distribution(inner))
    exact, found, plain = (np.asarray(jax.jit(jax.vmap(each.log_density))(x)) for each in laws)
    error, before = (np.mean(np.abs(values - exact)) for values in (found, plain))
    assert error < 0.4 * before
    np.testing.assert_allclose(np.sum(np.exp(found)) * 0.1, 1.0, atol=0.03)
