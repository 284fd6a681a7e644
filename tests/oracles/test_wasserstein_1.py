"""``W₁`` against POT and against quantiles."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
import scipy.stats

from wfr_flows import static
from wfr_flows.measures import Particles


def clouds(dim, n=40, m=55):
    keys = jax.random.split(jax.random.key(dim), 4)
    source = Particles(jax.random.normal(keys[0], (n, dim)), jax.random.normal(keys[1], (n,)))
    target = Particles(1.5 * jax.random.normal(keys[2], (m, dim)) + 0.3, jax.random.normal(keys[3], (m,)))
    return source.normalise(), target.normalise()


@pytest.mark.parametrize("dim", [2, 5])
def test_it_is_that_of_an_exact_solver(dim):
    source, target = clouds(dim)
    result = jax.jit(static.wasserstein_1)(source, target)
    cost = ot.dist(np.asarray(source.position), np.asarray(target.position), metric="euclidean")
    exact = ot.emd2(np.asarray(source.weight), np.asarray(target.weight), cost)
    assert result.converged
    assert result.lower_bound <= exact * (1 + 1e-9)
    np.testing.assert_allclose(result.value, exact, rtol=1.1e-4)


def test_on_the_line_it_is_exact():
    source, target = clouds(1)
    result = jax.jit(static.wasserstein_1)(source, target)
    x, y = source.position[:, 0], target.position[:, 0]
    exact = scipy.stats.wasserstein_distance(x, y, source.weight, target.weight)
    np.testing.assert_allclose([result.lower_bound, result.value], exact, rtol=1e-10)


def test_its_gradient_is_finite_where_points_coincide():
    x = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    mass = jnp.log(jnp.array([0.5, 0.5]))
    slope = jax.grad(lambda p: static.wasserstein_1(Particles(p, mass), Particles(x, mass)).value)(x)
    assert jnp.isfinite(slope).all()


def test_listed_pairs_agree_with_all_pairs(monkeypatch):
    source, target = clouds(2, n=150, m=180)
    every = jax.jit(static.wasserstein_1)(source, target)
    monkeypatch.setattr(static.solver, "_DENSE_PAIRS", 0)
    listed = jax.jit(lambda *ends: static.wasserstein_1(*ends, tolerance=1e-3))(source, target)
    assert listed.lower_bound <= every.value
    assert every.lower_bound <= listed.value * (1 + 1e-9)
    np.testing.assert_allclose(listed.value, every.value, rtol=3e-3)
