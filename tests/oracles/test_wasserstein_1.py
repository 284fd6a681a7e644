"""``W₁`` against POT and against quantiles."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
import scipy.stats

from wfr_flows import static
from wfr_flows.measures import padded, particles

solve = jax.jit(static.wasserstein_1)


@jax.jit
def solve_with_slope(source, target):
    """The result, and the derivative of the value in the source's positions: one program for all cases."""

    def value(position):
        result = static.wasserstein_1(source._replace(position=position), target)
        return result.value, result

    return jax.value_and_grad(value, has_aux=True)(source.position)


def clouds(dim, n=40, m=55):
    random = np.random.default_rng(dim)
    ends = random.normal(size=(n, dim)), 1.5 * random.normal(size=(m, dim)) + 0.3
    return tuple(particles(position, random.lognormal(size=len(position))).normalise() for position in ends)


def exact(source, target):
    cost = ot.dist(np.asarray(source.position), np.asarray(target.position), metric="euclidean")
    return ot.emd2(np.asarray(source.weight), np.asarray(target.weight), cost)


@pytest.mark.parametrize("dim", [2, 5])
def test_it_is_that_of_an_exact_solver(dim):
    # Coordinates that are 0 throughout change no distance.
    ends = (m._replace(position=jnp.pad(m.position, ((0, 0), (0, 5 - dim)))) for m in clouds(dim))
    source, target = ends
    (value, result), slope = solve_with_slope(source, target)
    expected = exact(source, target)
    assert result.converged
    assert result.lower_bound <= expected * (1 + 1e-9)
    np.testing.assert_allclose(value, expected, rtol=1.1e-4)
    assert np.abs(slope).max() > 0


def test_on_the_line_it_is_exact():
    source, target = clouds(1)
    result = solve(source, target)
    x, y = source.position[:, 0], target.position[:, 0]
    expected = scipy.stats.wasserstein_distance(x, y, source.weight, target.weight)
    np.testing.assert_allclose([result.lower_bound, result.value], expected, rtol=1e-10)


def test_its_gradient_is_finite_where_points_coincide():
    x = np.random.default_rng(0).normal(size=(40, 5))
    source = particles(x).normalise()
    same = padded(source, 55)
    unlike = particles(np.concatenate([x, x[:15]])).normalise()
    for target in (same, unlike):
        (value, _), slope = solve_with_slope(source, target)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def test_listed_pairs_agree_with_an_exact_solver(monkeypatch):
    source, target = clouds(2, n=150, m=180)
    expected = exact(source, target)
    monkeypatch.setattr(static.solver, "_DENSE_PAIRS", 0)
    listed = jax.jit(lambda *ends: static.wasserstein_1(*ends, tolerance=1e-3))(source, target)
    assert listed.lower_bound <= expected * (1 + 1e-9)
    assert expected <= listed.value * (1 + 1e-9)
    np.testing.assert_allclose(listed.value, expected, rtol=3e-3)
