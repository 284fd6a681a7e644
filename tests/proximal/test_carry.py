"""Carrying particles: closed forms, the flow of the dynamics, exact and frozen gradients."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import numerical_gradient, single_precision
from wfr_flows import dynamics, measures, potentials
from wfr_flows.dynamics import Geometry, potential_field, time_grid
from wfr_flows.proximal import carry_with_costs

WASSERSTEIN = Geometry(jnp.inf)
# Φ = (½|x|² - θ·x)/(1 - t + margin) heads for θ, and solves the Hamilton-Jacobi equation up to θ.
HEADING = potentials.arrival(
    potentials.from_function(lambda params, t, x: jnp.vdot(params, x)), 2, margin=0.1
)


def bowl(params, t, x):
    return params[0] * (1 + t) * jnp.sum(x**2) + params[1] * jnp.sin(x[0]) * t


@pytest.fixture
def source(key):
    place, weight = jax.random.split(key)
    return measures.Particles(jax.random.normal(place, (6, 2)), jax.random.normal(weight, (6,))).normalise()


@pytest.mark.parametrize("num_steps", [1, 5, 64])
def test_straight_lines_end_at_one_place_whatever_the_steps(source, num_steps):
    goal = jnp.array([2.0, -1.0])
    params = {"base": goal, "quadratic": jnp.zeros((2, 2))}
    carried = carry_with_costs(
        potential_field(HEADING, WASSERSTEIN), WASSERSTEIN, params, source, time_grid(num_steps)
    )
    left = 0.1 / 1.1
    expected = left * source.position + (1 - left) * goal
    np.testing.assert_allclose(carried.trajectory.position[-1], expected, rtol=1e-12)
    way = jnp.sum((expected - source.position) ** 2, axis=1)
    np.testing.assert_allclose(carried.action, 0.5 * jnp.sum(source.weight * way), rtol=1e-12)


def test_residual_vanishes_on_a_solution_and_only_there(source):
    field = potential_field(HEADING, WASSERSTEIN)
    at_origin = {"base": jnp.zeros(2), "quadratic": jnp.zeros((2, 2))}
    assert carry_with_costs(field, WASSERSTEIN, at_origin, source, time_grid(3)).residual < 1e-12
    bent = potential_field(potentials.from_function(bowl), WASSERSTEIN)
    assert carry_with_costs(bent, WASSERSTEIN, jnp.array([0.3, 0.2]), source, time_grid(3)).residual > 0.01


@pytest.mark.parametrize("alpha", [0.7, jnp.inf])
def test_bend_is_the_variance_of_the_steps_and_steps_of_no_length_do_nothing(source, alpha):
    geometry, params = Geometry(alpha), jnp.array([0.3, 0.2])
    field = potential_field(potentials.from_function(bowl), geometry)
    grid = jnp.array([0.0, 0.2, 0.7, 1.0])
    carried = carry_with_costs(field, geometry, params, source, grid)
    path, steps = carried.trajectory.position, np.diff(grid)[:, None, None]
    velocity = np.diff(path, axis=0) / steps
    mean = np.sum(steps * velocity, axis=0)
    variance = np.sum(steps * (velocity - mean) ** 2, axis=(0, 2))
    np.testing.assert_allclose(carried.bend, 0.5 * np.sum(source.weight * variance), rtol=1e-9)
    padded = carry_with_costs(field, geometry, params, source, jnp.array([0.0, 0.2, 0.7, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(padded.trajectory.position[-1], path[-1], rtol=1e-12)
    np.testing.assert_allclose(padded[1:], carried[1:], rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.7, jnp.inf])
def test_agrees_with_the_weighted_flow(source, alpha):
    geometry, params, grid = Geometry(alpha), jnp.array([0.2, 0.4]), time_grid(40)
    potential = potentials.from_function(bowl)
    ours = carry_with_costs(
        potential_field(potential, geometry), geometry, params, source, grid, solver=dynamics.RK4()
    )
    theirs = dynamics.flow(potential, geometry, params, source, grid)
    np.testing.assert_allclose(ours.trajectory.position, theirs.position, rtol=1e-10)
    np.testing.assert_allclose(ours.trajectory.log_weight, theirs.log_weight, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(jnp.exp(ours.trajectory.log_weight), axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.7, jnp.inf])
def test_gradients_are_exact_unless_frozen(source, alpha):
    geometry, grid, start = Geometry(alpha), time_grid(3), jnp.array([0.2, 0.4])
    field = potential_field(potentials.from_function(bowl), geometry)

    @jax.jit
    def action(params):
        return carry_with_costs(field, geometry, params, source, grid).action

    frozen = jax.jit(lambda params: carry_with_costs(field, geometry, params, source, grid, frozen=True))
    exact = jax.grad(action)(start)
    np.testing.assert_allclose(exact, numerical_gradient(action, start), rtol=1e-6)
    np.testing.assert_allclose(frozen(start).action, action(start), rtol=1e-12)
    stopped = jax.grad(lambda params: frozen(params).action)(start)
    assert jnp.linalg.norm(stopped - exact) > 0.01 * jnp.linalg.norm(exact)


def test_any_mass_precision_solver_and_free_velocities(source):
    field = dynamics.free_field(2, width=4)
    heavy = single_precision(source._replace(log_weight=source.log_weight + 3))
    with jax.enable_x64(False):
        params = field.init(jax.random.key(1))
        carried = carry_with_costs(field, WASSERSTEIN, params, heavy, time_grid(2), solver=diffrax.Midpoint())
    assert carried.trajectory.position.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(jnp.exp(carried.trajectory.log_weight[-1])), 1.0, rtol=1e-5)
    assert carried.residual == 0
