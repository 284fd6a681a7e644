import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import convergence_orders

from wfr_flows.numerics import simpson_weights

_weights = jax.jit(simpson_weights)


def _integrate_power(grid, power):
    weights = np.asarray(_weights(jnp.asarray(grid)))
    exact = (grid[-1] ** (power + 1) - grid[0] ** (power + 1)) / (power + 1)
    return weights @ grid**power, exact


def _irregular(num_intervals):
    return (
        np.cumsum(np.random.default_rng(num_intervals).uniform(0.5, 1.5, num_intervals + 1)) / num_intervals
    )


@pytest.mark.parametrize("num_intervals", [2, 4, 8])
@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_exact_on_cubics_over_a_uniform_even_grid(num_intervals, power):
    value, exact = _integrate_power(np.linspace(-0.5, 2.0, num_intervals + 1), power)
    np.testing.assert_allclose(value, exact, rtol=1e-13)


@pytest.mark.parametrize("num_intervals", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("power", [0, 1, 2])
def test_exact_on_quadratics_over_any_grid(num_intervals, power):
    value, exact = _integrate_power(_irregular(num_intervals), power)
    np.testing.assert_allclose(value, exact, rtol=1e-12)


@pytest.mark.parametrize("num_intervals", [3, 5])
def test_exact_on_quadratics_over_a_uniform_odd_grid(num_intervals):
    value, exact = _integrate_power(np.linspace(0.0, 2.0, num_intervals + 1), 2)
    np.testing.assert_allclose(value, exact, rtol=1e-13)


def test_one_interval_is_the_trapezoidal_rule():
    np.testing.assert_allclose(simpson_weights(jnp.asarray([0.5, 2.0])), [0.75, 0.75])


@pytest.mark.parametrize("odd", [0, 1])
def test_order_four(odd):
    def error(n):
        grid = np.linspace(0.0, 2.0, n + odd + 1)
        return abs(np.asarray(_weights(jnp.asarray(grid))) @ np.exp(np.sin(grid)) - 4.23653115722101)

    orders = convergence_orders([error(n) for n in (32, 64, 128)])
    # n + 1 intervals do not quite double.
    assert (orders > 3.7).all()


@pytest.mark.parametrize("num_intervals", [1, 2, 3, 4, 5])
def test_a_decreasing_grid_gives_the_signed_integral(num_intervals):
    grid = jnp.asarray(_irregular(num_intervals))
    forward = _weights(grid)
    backward = _weights(grid[::-1])
    for power in range(1 if num_intervals == 1 else 3):
        np.testing.assert_allclose(backward @ grid[::-1] ** power, -forward @ grid**power, rtol=1e-12)


@pytest.mark.parametrize("num_intervals", [1, 4, 5])
def test_weights_are_as_long_as_the_grid_and_keep_its_type(num_intervals):
    weights = simpson_weights(jnp.linspace(0.0, 1.0, num_intervals + 1, dtype=jnp.float32))
    assert weights.shape == (num_intervals + 1,)
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
