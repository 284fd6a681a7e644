from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import central_difference

from wfr_flows.measures import particles
from wfr_flows.static import (
    Diracs,
    cone_angle,
    dirac_to_measure,
    growth_cost,
    pair_cost,
    spherical_from_plain,
    spherical_geodesic,
    spherical_time,
    spherical_wfr,
    travel,
    two_diracs,
    wfr,
)

_travel = jax.jit(travel)
_two_diracs = jax.jit(two_diracs)
_spherical_time = jax.jit(spherical_time)


def _closed_form(distance, m0, m1, alpha):
    theta = np.minimum(distance / (2 * np.sqrt(alpha)), np.pi / 2)
    return 2 * alpha * (m0 + m1 - 2 * np.sqrt(m0 * m1) * np.cos(theta))


def test_a_dirac_near_a_measure_keeps_its_digits():
    target = particles([[1e-3, 0.0]])
    for alpha in (1.0, 1e4):
        found = dirac_to_measure(jnp.zeros(2), 1.0, target, alpha)
        expected = _two_diracs(jnp.zeros(2), 1.0, target.position[0], 1.0, alpha)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_semi_coupling_is_normalised_where_geodesics_are_spherical():
    pair = Diracs(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.array([3.0]), jnp.array([0.2]))
    np.testing.assert_allclose(cone_angle(pair, 1.0), 0.5, rtol=1e-12)
    state = spherical_geodesic(pair, 0.5, 1.0)
    np.testing.assert_allclose(state.position, 0.5, rtol=1e-12)


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 1.0, 50.0, 1e4])
@pytest.mark.parametrize("reach", [0.01, 0.3, 0.99, 1.01, 30.0])
def test_two_diracs_equal_the_closed_form(alpha, reach):
    distance = reach * np.pi * np.sqrt(alpha)
    for m0, m1 in ((1.0, 1.0), (0.2, 3.0), (1e-6, 1.0), (0.0, 2.0), (0.0, 0.0)):
        target = jnp.array([0.6, 0.8]) * distance
        value = _two_diracs(jnp.zeros(2), m0, target, m1, alpha)
        np.testing.assert_allclose(
            value, _closed_form(distance, m0, m1, alpha), rtol=1e-10, atol=1e-13 * alpha
        )


def test_two_diracs_do_not_cancel_where_the_closed_form_does():
    value = _two_diracs(jnp.zeros(1), 1.0, jnp.full(1, 1e-6), 1.0, 1e4)
    np.testing.assert_allclose(value, 0.5e-12, rtol=1e-8)


def test_two_diracs_in_the_wasserstein_limit():
    source, target = jnp.zeros(2), jnp.array([3.0, 4.0])
    np.testing.assert_allclose(_two_diracs(source, 2.0, target, 2.0, jnp.inf), 25.0)
    np.testing.assert_allclose(_two_diracs(source, 2.0, target, 2.0, 1e10), 25.0, rtol=1e-8)
    assert _two_diracs(source, 2.0, target, 2.1, jnp.inf) == jnp.inf


def test_two_diracs_gradient_is_finite_where_they_coincide_and_beyond_reach():
    gradient = jax.jit(jax.grad(lambda y, m: two_diracs(jnp.zeros(2), 1.0, y, m, 1.0), argnums=(0, 1)))
    for target, mass in ((jnp.zeros(2), 1.0), (jnp.full(2, 9.0), 1.0), (jnp.ones(2), 0.0)):
        assert all(np.isfinite(g).all() for g in gradient(target, mass))
    np.testing.assert_allclose(gradient(jnp.full(2, 9.0), 1.0)[0], 0.0, atol=1e-12)
    nothing = jax.jit(jax.grad(lambda m: pair_cost(jnp.ones(()), m, m, 1.0)))(jnp.zeros(()))
    assert np.isfinite(nothing)


def test_growth_cost_is_the_hellinger_distance():
    m0, m1 = jnp.array([1.0, 0.0, 2.0]), jnp.array([4.0, 9.0, 2.0])
    np.testing.assert_allclose(growth_cost(m0, m1, 0.5), [1.0, 9.0, 0.0])
    np.testing.assert_array_equal(growth_cost(m0, m1, jnp.inf), [jnp.inf, jnp.inf, 0.0])
    np.testing.assert_allclose(pair_cost(jnp.zeros(3), m0, m1, 0.5), [1.0, 9.0, 0.0])


# --- travelling ---

DIRACS = [
    # source, target, source mass, target mass: in general position, nearly at reach, growing in place, dying,
    # born, coincident and equal.
    ([0.0, 0.0], [1.0, -2.0], 1.0, 2.5),
    ([0.0, 0.0], [3.1, 0.0], 0.3, 0.2),
    ([1.0, 1.0], [1.0, 1.0], 0.5, 2.0),
    ([1.0, 1.0], [1.0, 1.0], 0.7, 0.0),
    ([1.0, 1.0], [1.0, 1.0], 0.0, 0.7),
    ([2.0, 0.0], [2.0, 0.0], 1.0, 1.0),
]


def _diracs(items=DIRACS):
    return Diracs(*(jnp.asarray(np.array(column, dtype=float)) for column in zip(*items, strict=True)))


TIMES = (0.0, 0.15, 0.5, 0.8, 1.0)


@pytest.mark.parametrize("time", TIMES)
def test_travelling_mass_is_the_formula(time):
    d = _diracs()
    theta = np.linalg.norm(np.asarray(d.target - d.source), axis=1) / 2
    m0, m1 = np.asarray(d.source_mass), np.asarray(d.target_mass)
    expected = (1 - time) ** 2 * m0 + time**2 * m1 + 2 * time * (1 - time) * np.sqrt(m0 * m1) * np.cos(theta)
    np.testing.assert_allclose(_travel(d, time, 1.0).mass, expected, rtol=1e-11, atol=1e-15)


def test_travel_starts_at_the_source_and_ends_at_the_target():
    d = _diracs()
    start, end = _travel(d, 0.0, 1.0), _travel(d, 1.0, 1.0)
    np.testing.assert_allclose(start.position, d.source, atol=1e-12)
    np.testing.assert_allclose(end.position, d.target, atol=1e-9)
    np.testing.assert_allclose(start.mass, d.source_mass, atol=1e-14)
    np.testing.assert_allclose(end.mass, d.target_mass, atol=1e-14)


def test_momentum_of_travelling_mass_is_constant():
    d = _diracs(DIRACS[:2])
    theta = np.linalg.norm(np.asarray(d.target - d.source), axis=1) / 2
    expected = 2 * np.sqrt(np.asarray(d.source_mass * d.target_mass)) * np.sin(theta)
    for time in TIMES:
        state = _travel(d, time, 1.0)
        speed = jnp.linalg.norm(state.velocity, axis=1)
        np.testing.assert_allclose(state.mass * speed, expected, rtol=1e-9)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 100.0])
def test_energy_of_travelling_mass_is_the_distance_at_every_time(alpha):
    d = _diracs()
    value = pair_cost(jnp.sum((d.source - d.target) ** 2, axis=1), d.source_mass, d.target_mass, alpha)
    for time in TIMES[1:-1]:
        s = _travel(d, time, alpha)
        energy = 0.5 * s.mass * jnp.sum(s.velocity**2, axis=1) + 0.5 * alpha * s.mass * s.growth**2
        np.testing.assert_allclose(energy, value, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("time", [0.15, 0.5, 0.8])
def test_velocity_and_growth_are_the_derivatives_in_time(time):
    d, state = _diracs(), _travel(_diracs(), time, 1.0)
    velocity = central_difference(lambda t: np.asarray(_travel(d, t, 1.0).position), time)
    growth = central_difference(lambda t: np.log(np.asarray(_travel(d, t, 1.0).mass)), time)
    np.testing.assert_allclose(state.velocity, velocity, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(state.growth, growth, rtol=1e-6, atol=1e-8)


def test_in_the_wasserstein_limit_masses_travel_straight_at_constant_speed():
    d = _diracs([([0.0, 0.0], [30.0, 40.0], 2.0, 2.0), ([1.0, 0.0], [1.0, 0.0], 1.0, 1.0)])
    for time in TIMES:
        state = _travel(d, time, jnp.inf)
        np.testing.assert_allclose(state.position, d.source + time * (d.target - d.source), rtol=1e-9)
        np.testing.assert_allclose(state.mass, d.source_mass, rtol=1e-9)
        np.testing.assert_allclose(state.velocity, d.target - d.source, rtol=1e-9)
        np.testing.assert_allclose(state.growth, 0.0, atol=1e-9)


def test_dying_and_born_mass_stays_finite_at_the_ends():
    for time in (0.0, 1.0):
        state = _travel(_diracs(), time, 1.0)
        assert all(np.isfinite(part).all() for part in state)


def test_travel_in_single_precision():
    d = jax.tree.map(lambda a: a.astype(jnp.float32), _diracs())
    rough, exact = _travel(d, jnp.float32(0.3), jnp.float32(1.0)), _travel(_diracs(), 0.3, 1.0)
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


# --- a Dirac against a cloud, and the sphere ---

_solve = jax.jit(partial(wfr, tolerance=1e-6))
_solve_spherical = jax.jit(partial(spherical_wfr, tolerance=1e-6))


@pytest.mark.parametrize("dim", [1, 3])
def test_a_dirac_against_a_measure_equals_the_solver(dim):
    position = np.random.default_rng(dim).normal(size=(5, dim))
    position[4] += 50.0  # beyond reach for the smaller alphas
    target = particles(position, [0.5, 1.0, 0.2, 0.7, 0.4])
    source = particles(np.full((1, dim), 0.3), [1.7])
    for alpha in (0.05, 1.0, 40.0, 1e4):
        result = _solve(source, target, alpha)
        exact = dirac_to_measure(source.position[0], 1.7, target, alpha)
        assert result.converged
        np.testing.assert_allclose(result.value, exact, rtol=2e-6)
        assert result.lower_bound <= exact * (1 + 1e-12)
        assert result.value >= exact * (1 - 1e-12)


def test_a_dirac_against_one_dirac_is_two_diracs():
    x, y = jnp.array([0.1, 0.2]), jnp.array([1.0, -0.5])
    value = dirac_to_measure(x, 0.7, particles(np.asarray(y)[None], [1.9]), 0.8)
    np.testing.assert_allclose(value, two_diracs(x, 0.7, y, 1.9, 0.8), rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 25.0])
def test_two_diracs_on_the_sphere(alpha):
    for reach in (0.1, 0.6, 0.95, 1.05, 3.0):
        distance = reach * np.pi * np.sqrt(alpha)
        result = _solve_spherical(particles([[0.0, 0.0]]), particles([[0.0, distance]], [3.0]), alpha)
        expected = 0.5 * distance**2 if reach < 1 else alpha * np.pi**2 / 2
        np.testing.assert_allclose(result.value, expected, rtol=1e-6)


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 10.0, 1e6])
def test_spherical_from_plain_is_two_alpha_theta_squared(alpha):
    # Above Theta ~ 1e-3 the arccos of the definition keeps enough digits to compare.
    value = np.linspace(0.01, 4.0, 9) * alpha
    theta = np.arccos(1 - value / (4 * alpha))
    np.testing.assert_allclose(spherical_from_plain(value, alpha), 2 * alpha * theta**2, rtol=1e-11)


def test_spherical_from_plain_in_its_limits():
    assert spherical_from_plain(2.5, jnp.inf) == 2.5
    assert spherical_from_plain(0.0, 1.0) == 0.0
    np.testing.assert_allclose(spherical_from_plain(2.5, 1e9), 2.5, rtol=1e-8)
    # Rounding may carry d² above its maximum 4 alpha.
    np.testing.assert_allclose(spherical_from_plain(4.0 * (1 + 1e-9), 1.0), np.pi**2 / 2, rtol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.3, 1.2, np.pi / 2])
def test_spherical_time(angle):
    np.testing.assert_allclose(_spherical_time(0.0, angle)[0], 0.0, atol=1e-15)
    np.testing.assert_allclose(_spherical_time(1.0, angle)[0], 1.0, rtol=1e-14)
    for time in (0.1, 0.5, 0.77):
        s, slope = _spherical_time(time, angle)
        np.testing.assert_allclose(s + _spherical_time(1 - time, angle)[0], 1.0, rtol=1e-12)
        difference = central_difference(lambda t: _spherical_time(t, angle)[0], time)
        np.testing.assert_allclose(slope, difference, rtol=1e-8)
        if angle == 0.0:
            np.testing.assert_allclose(s, time, rtol=1e-10)
