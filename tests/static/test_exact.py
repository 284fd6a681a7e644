"""Values without iteration: Wasserstein on the line, Gaussian-Hellinger between Gaussians."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from wfr_flows.measures import particles
from wfr_flows.static import gaussian_hellinger, gaussian_hellinger_gaussians, wasserstein, wfr

_wasserstein = jax.jit(wasserstein)
_gaussians = jax.jit(gaussian_hellinger_gaussians)
_hellinger, _wfr = jax.jit(partial(gaussian_hellinger, tolerance=1e-6)), jax.jit(wfr)


def _linear_program(source, target):
    x, y = np.asarray(source.position), np.asarray(target.position)
    n, m = len(x), len(y)
    cost = 0.5 * ((x[:, None] - y[None]) ** 2).sum(axis=-1)
    constraints = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    marginals = np.concatenate([source.weight, target.weight])
    return scipy.optimize.linprog(cost.ravel(), A_eq=constraints, b_eq=marginals).fun


def _pair(seed, dim, sizes=(7, 5)):
    random = np.random.default_rng(seed)
    return [
        particles(random.normal(size=(n, dim)) + i, random.uniform(0.1, 1.0, n)).normalise()
        for i, n in enumerate(sizes)
    ]


def _with_zero_weights(pair):
    return [m._replace(log_weight=m.log_weight.at[jnp.array([0, 3])].set(-jnp.inf)).normalise() for m in pair]


LINES = {
    "generic": lambda: _pair(0, 1),
    "zero weights": lambda: _with_zero_weights(_pair(0, 1)),
    "ties": lambda: [m._replace(position=jnp.round(m.position)) for m in _pair(1, 1)],
    "equal weights": lambda: [m._replace(log_weight=jnp.full(5, -1.0)) for m in _pair(2, 1, (5, 5))],
    "one source": lambda: _pair(3, 1, (1, 5)),
}


@pytest.mark.parametrize("spread", [10.0, 20.0, 50.0])
def test_gaussian_hellinger_converges_where_most_pairs_are_far(spread):
    # No pair is out of reach: most cost hundreds of penalties, and no plan gains by them.
    for seed in range(3):
        random = np.random.default_rng(seed)
        source, target = (particles(spread * random.normal(size=(n, 2))) for n in (30, 20))
        result = _hellinger(source, target, 1.0)
        assert result.converged
        f, g = result.potentials
        cost = 0.5 * jnp.sum((source.position[:, None] - target.position) ** 2, axis=-1)
        assert jnp.min(cost - f[:, None] - g) >= -1e-9


@pytest.mark.parametrize("case", LINES)
def test_the_line_is_solved_to_rounding(case):
    source, target = LINES[case]()
    result = _wasserstein(source, target)
    np.testing.assert_allclose(result.value, _linear_program(source, target), rtol=1e-8)
    assert result.converged
    assert result.num_iterations == 0
    assert abs(result.gap) <= 1e-13 * (1 + result.value)
    f, g = result.potentials
    cost = 0.5 * (source.position - target.position[:, 0]) ** 2
    present = (source.weight > 0)[:, None] & (target.weight > 0)
    assert jnp.min(jnp.where(present, cost - f[:, None] - g, 0.0)) >= -1e-12


def test_in_the_plane_it_agrees_with_linear_programming():
    source, target = _pair(0, 2)
    result = _wasserstein(source, target)
    exact = _linear_program(source, target)
    assert result.converged
    assert result.lower_bound <= exact * (1 + 1e-9)
    assert result.value >= exact * (1 - 1e-9)


@pytest.mark.parametrize("dim", [1, 2])
def test_unequal_masses_are_infinitely_far_apart(dim):
    source, target = _pair(0, dim)
    result = _wasserstein(source, target._replace(log_weight=target.log_weight + 1))
    assert result.value == jnp.inf


# --- Gaussians ---


def _gaussian(seed, dim=2):
    random = np.random.default_rng(seed)
    factor = random.normal(size=(dim, dim))
    return random.normal(size=dim), factor @ factor.T + 0.3 * np.eye(dim)


def _root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


@pytest.mark.parametrize(("alpha", "masses"), [(0.5, (1.0, 1.0)), (5.0, (0.5, 2.0))])
def test_the_closed_form_agrees_with_gaussians_on_a_grid(alpha, masses):
    parameters = ((0.0, 1.0, masses[0]), (1.0, 0.6, masses[1]))
    grids = []
    for mean, deviation, mass in parameters:
        points = np.linspace(-5, 5, 120)
        weight = np.exp(-0.5 * points**2)
        grids.append(particles(mean + deviation * points, mass * weight / weight.sum()))
    arguments = [
        a for mean, sd, mass in parameters for a in (jnp.array([mean]), jnp.array([[sd**2]]), jnp.array(mass))
    ]
    result = _hellinger(*grids, alpha)
    assert result.converged
    # What is left of the difference is the width of the grids, squared.
    np.testing.assert_allclose(result.value, _gaussians(*arguments, alpha), atol=5e-4)


@pytest.mark.parametrize("seed", range(3))
def test_large_alpha_gives_the_bures_distance(seed):
    (a, first), (b, second) = _gaussian(seed), _gaussian(seed + 10)
    root = _root(first)
    bures = np.trace(first + second - 2 * _root(root @ second @ root))
    value = _gaussians(a, first, 1.0, b, second, 1.0, 1e5)
    np.testing.assert_allclose(value, 0.5 * (((a - b) ** 2).sum() + bures), rtol=1e-3)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 50.0])
def test_equal_gaussians_differ_by_mass_alone(alpha):
    mean, covariance = _gaussian(0)
    value = _gaussians(mean, covariance, 0.5, mean, covariance, 2.0, alpha)
    np.testing.assert_allclose(value, 2 * alpha * (np.sqrt(0.5) - np.sqrt(2.0)) ** 2, rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 50.0])
def test_the_closed_form_is_symmetric(alpha):
    first, second = (*_gaussian(1), 0.7), (*_gaussian(2), 1.6)
    np.testing.assert_allclose(
        _gaussians(*first, *second, alpha), _gaussians(*second, *first, alpha), rtol=1e-9
    )


@pytest.mark.parametrize("alpha", [0.05, 1.0, 50.0])
def test_the_quadratic_cost_is_never_dearer_than_that_of_the_cone(alpha):
    source, target = _pair(4, 2)
    assert _hellinger(source, target, alpha).lower_bound <= _wfr(source, target, alpha).value
