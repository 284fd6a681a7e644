"""Exact potentials of geodesics against the particles that travel on them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wfr_flows.measures import particles
from wfr_flows.static import (
    cone_angle,
    end_potentials,
    potential,
    semi_coupling,
    spherical_potential,
    spherical_time,
    spherical_wfr,
    travel,
    wfr,
)

SIZE = 6


def _fields(field, time, points):
    """Values and gradients of a potential at many points."""
    gradient = jax.grad(lambda x: field(time, x).sum())(points)
    return field(time, points), gradient


@jax.jit
def _plain(source, target, alpha, time):
    result = wfr(source, target, alpha, tolerance=1e-12)
    diracs = semi_coupling(result, source, target, alpha)
    state = travel(diracs, time, alpha)
    field = partial(potential, result, source, alpha)
    value, gradient = _fields(field, time, state.position)
    rate = (field(time + 1e-5, state.position) - field(time - 1e-5, state.position)) / 2e-5
    return result, diracs, state, value, gradient, rate


@jax.jit
def _spherical(source, target, alpha, time):
    source, target = source.normalise(), target.normalise()
    result = spherical_wfr(source, target, alpha, tolerance=1e-12)
    diracs = semi_coupling(result, source, target, alpha)
    plain_time, speed = spherical_time(time, cone_angle(diracs, alpha))
    state = travel(diracs, plain_time, alpha)
    field = partial(spherical_potential, result, source, target, alpha)
    return result, state, speed, *_fields(field, time, state.position)


def _pair(mass=None):
    random = np.random.default_rng(0)
    pair = [
        particles(random.normal(size=(SIZE, 2)) + shift, random.uniform(0.3, 1.5, SIZE))
        for shift in (0.0, 0.5)
    ]
    return pair if mass is None else [m.normalise() for m in pair]


def _travelling(diracs, state):
    """Pairs that carry mass from somewhere to somewhere, others are padding or stay in place."""
    heavy = np.minimum(diracs.source_mass, diracs.target_mass) > 1e-6
    return heavy & (np.asarray(state.mass) > 0)


@pytest.mark.parametrize("alpha", [0.3, 2.0, np.inf])
@pytest.mark.parametrize("time", [0.25, 0.5])
def test_particles_move_and_grow_as_the_potential_says(alpha, time):
    result, diracs, state, value, gradient, rate = _plain(
        *_pair(1.0 if np.isinf(alpha) else None), alpha, time
    )
    assert result.gap <= 1e-9 * result.value
    some = _travelling(diracs, state)
    assert some.sum() >= SIZE - 1
    np.testing.assert_allclose(state.velocity[some], -gradient[some], atol=1e-6)
    if np.isfinite(alpha):
        np.testing.assert_allclose(state.growth[some], -value[some] / alpha, atol=1e-6)
    # Hamilton-Jacobi.
    expected = 0.5 * (gradient**2).sum(axis=1) + value**2 / (2 * alpha)
    np.testing.assert_allclose(rate[some], expected[some], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_end_potentials_are_growth_rates_at_both_ends(alpha):
    source, target = _pair()
    for time in (0.0, 1.0):
        result, diracs, state, *_ = _plain(source, target, alpha, time)
        ends = end_potentials(result, alpha)[int(time)]
        measure, places = (target, diracs.target) if time else (source, diracs.source)
        some = _travelling(diracs, state)
        own = np.argmin(np.linalg.norm(places[:, None] - measure.position[None], axis=-1), axis=1)
        np.testing.assert_allclose(state.growth[some], -ends[own[some]] / alpha, atol=1e-6)


def test_end_potentials_in_the_wasserstein_limit_are_the_duals():
    result, *_ = _plain(*_pair(1.0), jnp.inf, 0.5)
    start, end = end_potentials(result, jnp.inf)
    np.testing.assert_allclose(start, result.potentials.source, rtol=1e-12)
    np.testing.assert_allclose(end, -result.potentials.target, rtol=1e-12)


def test_dying_and_born_mass():
    source, target = _pair()
    alpha = 0.5
    # One particle of each lies out of everybody's reach.
    source = source._replace(position=source.position.at[1].set(50.0))
    target = target._replace(position=target.position.at[3].set(-50.0))
    for time in (0.25, 0.5):
        result, diracs, _, value, *_ = _plain(source, target, alpha, time)
        start, end = end_potentials(result, alpha)
        np.testing.assert_allclose(start[1], 2 * alpha, rtol=1e-12)
        np.testing.assert_allclose(end[3], -2 * alpha, rtol=1e-12)
        # Mass (1-t)² has growth rate -2/(1-t), mass t² has 2/t.
        dies = (diracs.source == 50.0).all(axis=1) & (diracs.source_mass > 0)
        born = (diracs.target == -50.0).all(axis=1) & (diracs.target_mass > 0)
        np.testing.assert_allclose(value[dies], 2 * alpha / (1 - time), rtol=1e-9)
        np.testing.assert_allclose(value[born], -2 * alpha / time, rtol=1e-9)
        assert dies.any()
        assert born.any()


@pytest.mark.parametrize("alpha", [0.3, 2.0])
@pytest.mark.parametrize("time", [0.25, 0.5])
def test_the_spherical_potential_has_mean_zero_and_the_energy_of_the_distance(alpha, time):
    result, state, speed, value, gradient = _spherical(*_pair(), alpha, time)
    weight = np.asarray(state.mass / state.mass.sum())
    # Entries without mass are padding, and their fields mean nothing.
    value, gradient = (np.where(np.atleast_1d(state.mass > 0), x.T, 0.0).T for x in (value, gradient))
    np.testing.assert_allclose(weight @ value, 0.0, atol=1e-6 * alpha)
    energy = 0.5 * weight @ ((gradient**2).sum(axis=1) + value**2 / alpha)
    np.testing.assert_allclose(energy, result.value, rtol=1e-6)
    heavy = weight > 1e-6
    np.testing.assert_allclose(speed * state.velocity[heavy], -gradient[heavy], atol=1e-6)
