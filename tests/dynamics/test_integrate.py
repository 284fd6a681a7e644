import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import central_difference, convergence_orders

from wfr_flows.dynamics import RK4, integrate, time_grid


def _logistic(t, y, params):
    # Nonlinear and not autonomous: y' = r cos(t) y (1 - y).
    return params * jnp.cos(t) * y * (1 - y)


def _logistic_exact(t, y, rate):
    odds = y / (1 - y) * np.exp(rate * np.sin(t))
    return odds / (1 + odds)


START = np.array([0.1, 0.4, 0.7])
_solve = jax.jit(lambda start, rate, grid: integrate(_logistic, start, rate, grid))


def _padded(num_steps, num_nodes=33):
    """A grid whose last nodes repeat: steps of length 0 do nothing, and one shape compiles once."""
    grid = np.ones(num_nodes)
    grid[: num_steps + 1] = np.linspace(0.0, 1.0, num_steps + 1)
    return jnp.asarray(grid)


def test_rk4_has_order_four_on_a_nonlinear_equation():
    exact = _logistic_exact(1.0, START, 2.0)
    errors = [abs(_solve(START, 2.0, _padded(n))[-1] - exact).max() for n in (4, 8, 16, 32)]
    np.testing.assert_allclose(convergence_orders(errors)[1:], 4.0, atol=0.2)
    assert errors[-1] < 1e-7


def test_one_step_is_the_classical_method():
    h, y = 0.3, 0.4

    def f(t, v):
        return 2.0 * np.cos(t) * v * (1 - v)

    k1 = f(0, y)
    k2 = f(h / 2, y + h / 2 * k1)
    k3 = f(h / 2, y + h / 2 * k2)
    k4 = f(h, y + h * k3)
    expected = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    actual = integrate(_logistic, jnp.array(y), 2.0, jnp.array([0.0, h]))
    np.testing.assert_allclose(actual, [y, expected], rtol=1e-14)


def test_tableau_says_order_four():
    assert RK4().order(None) == 4


def test_every_node_is_reported_and_the_first_is_the_start():
    grid = _padded(32)
    states = _solve(START, 2.0, grid)
    np.testing.assert_array_equal(states[0], START)
    np.testing.assert_allclose(states, _logistic_exact(np.asarray(grid)[:, None], START, 2.0), atol=1e-7)


def test_a_decreasing_grid_integrates_backward():
    end = _solve(START, 2.0, _padded(32))[-1]
    back = _solve(end, 2.0, jnp.linspace(1.0, 0.0, 33))
    np.testing.assert_allclose(back[-1], START, atol=1e-7)


def test_a_tree_of_states_is_carried(key):
    state = {"a": jnp.ones(2), "b": (jnp.zeros((3, 1)),)}
    grid = time_grid(4)
    states = jax.jit(lambda s: integrate(lambda t, y, p: jax.tree.map(jnp.ones_like, y), s, None, grid))(
        state
    )
    np.testing.assert_allclose(states["a"][:, 0], 1 + grid)
    assert states["b"][0].shape == (5, 3, 1)


def test_derivatives_in_both_modes_and_of_second_order():
    grid, one = _padded(8, 9), jnp.array(1.0)

    def end(rate):
        return integrate(_logistic, jnp.asarray(START), rate, grid)[-1].sum()

    reverse, forward, second = jax.jit(
        lambda r: (
            jax.grad(end)(r),
            jax.jvp(end, (r,), (one,))[1],
            jax.jvp(jax.grad(end), (r,), (one,))[1],
        )
    )(jnp.array(2.0))
    np.testing.assert_allclose(reverse, forward, rtol=1e-12)
    np.testing.assert_allclose(reverse, central_difference(jax.jit(end), 2.0), rtol=1e-8)
    np.testing.assert_allclose(second, central_difference(jax.jit(jax.grad(end)), 2.0), rtol=1e-7)


def test_adaptive_solve_meets_its_tolerance_and_differentiates():
    grid = jnp.array([0.0, 0.3, 1.0])

    def end(rate):
        states = integrate(_logistic, jnp.asarray(START), rate, grid, tolerance=1e-9)
        return states[-1].sum(), states

    (_, states), slope = jax.jit(jax.value_and_grad(end, has_aux=True))(2.0)
    np.testing.assert_allclose(states, _logistic_exact(np.asarray(grid)[:, None], START, 2.0), atol=1e-8)
    exact = central_difference(lambda r: _logistic_exact(1.0, START, r).sum(), 2.0)
    np.testing.assert_allclose(slope, exact, rtol=1e-6)


def test_adaptive_solve_backward():
    end = _logistic_exact(1.0, START, 2.0)
    back = integrate(_logistic, jnp.asarray(end), 2.0, jnp.array([1.0, 0.0]), tolerance=1e-9)
    np.testing.assert_allclose(back[-1], START, atol=1e-7)


def test_too_few_adaptive_steps_give_infinity_and_no_error():
    grid = jnp.array([0.0, 1.0, 50.0])
    states = integrate(_logistic, jnp.asarray(START), 9.0, grid, tolerance=1e-10, max_steps=4)
    assert np.isinf(states[-1]).all()


def test_another_solver_is_used():
    euler = integrate(_logistic, jnp.asarray(START), 2.0, jnp.array([0.0, 0.5]), solver=diffrax.Euler())
    np.testing.assert_allclose(euler[-1], START + 0.5 * 2.0 * START * (1 - START), rtol=1e-14)


@pytest.mark.parametrize("grid", [np.zeros(1), np.zeros(0), np.zeros((2, 2)), np.array(0.0)])
def test_bad_grids_are_refused(grid):
    with pytest.raises(ValueError, match="grid"):
        integrate(_logistic, jnp.asarray(START), 2.0, jnp.asarray(grid))


def test_time_grid():
    np.testing.assert_allclose(time_grid(4), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(time_grid(4, reverse=True), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_array_equal(time_grid(1), [0, 1])


@pytest.mark.parametrize("num_steps", [0, -2])
def test_time_grid_refuses_fewer_than_one_step(num_steps):
    with pytest.raises(ValueError, match="num_steps"):
        time_grid(num_steps)
