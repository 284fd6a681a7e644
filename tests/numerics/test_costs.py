import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import central_difference

from wfr_flows.numerics import REACH, log_cos_ratio, squared_distance, transport_cost


def _cost(squared):
    return transport_cost(squared, 0.8)[0]


def test_squared_distance_equals_the_double_loop(key):
    x, y = np.asarray(jax.random.normal(key, (4, 3))), np.asarray(jax.random.normal(key, (5, 3))) + 1
    expected = [[np.sum((a - b) ** 2) for b in y] for a in x]
    np.testing.assert_allclose(squared_distance(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-14)


def test_squared_distance_does_not_cancel_far_from_the_origin():
    x = jnp.asarray([[1e6], [1e6 + 1e-3]])
    # Expanding the square would leave nothing of 1e-6 beside 1e12.
    np.testing.assert_allclose(squared_distance(x, x)[0, 1], 1e-6, rtol=1e-6)
    assert (jnp.diagonal(squared_distance(x, x)) == 0).all()


def test_squared_distance_has_a_finite_gradient_at_coincident_points():
    gradient = jax.jit(jax.grad(lambda x: squared_distance(x, jnp.zeros((1, 2))).sum()))(jnp.zeros((1, 2)))
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0, 7.0, 1e4])
def test_transport_cost_equals_the_log_cosine(alpha):
    z = np.linspace(0.01, 0.999 * np.pi / 2, 40)
    cost, reachable = transport_cost(jnp.asarray(4 * alpha * z**2), 1 / alpha)
    assert reachable.all()
    np.testing.assert_allclose(cost, -4 * alpha * np.log(np.cos(z)), rtol=1e-11)


@pytest.mark.parametrize("alpha", np.geomspace(1e-3, 1e8, 12))
def test_transport_cost_approaches_half_the_squared_distance(alpha):
    squared = np.geomspace(1e-6, 1.0, 30)
    cost, reachable = jax.jit(transport_cost)(jnp.asarray(squared), 1 / alpha)
    q = squared / (4 * alpha)
    np.testing.assert_array_equal(reachable, q < REACH)
    ratio = np.asarray(cost)[q < 1] / (0.5 * squared[q < 1])
    # The first term of the series is q/6; all further ones together stay below q² on q < 1.
    assert (ratio - 1 >= q[q < 1] / 6 - 1e-14).all()
    assert (ratio - 1 <= q[q < 1] / 6 + q[q < 1] ** 2 + 1e-14).all()


def test_transport_cost_in_the_flat_limit_is_exact():
    squared = jnp.asarray([0.0, 1e-8, 2.0, 1e12])
    cost, reachable = transport_cost(squared, 0.0)
    np.testing.assert_array_equal(cost, 0.5 * squared)
    assert reachable.all()


def test_transport_cost_masks_beyond_reach_without_infinities():
    cost, reachable = transport_cost(jnp.asarray([0.99 * np.pi**2, 1.01 * np.pi**2, 1e30]), 1.0)
    np.testing.assert_array_equal(reachable, [True, False, False])
    np.testing.assert_array_equal(cost[1:], 0.0)
    gradient = jax.jit(jax.grad(lambda s: transport_cost(s, 1.0)[0].sum()))(jnp.asarray([0.0, 12.0, 1e30]))
    np.testing.assert_allclose(gradient, [0.5, 0.0, 0.0])


@pytest.mark.parametrize("squared", [0.0, 0.039, 0.041, 1.0, 7.0])
def test_transport_cost_derivatives_match_finite_differences(squared):
    first, second = jax.jit(jax.grad(_cost)), jax.jit(jax.grad(jax.grad(_cost)))
    np.testing.assert_allclose(first(squared), central_difference(jax.jit(_cost), squared), rtol=1e-8)
    np.testing.assert_allclose(second(squared), central_difference(first, squared), rtol=1e-6)


def test_transport_cost_derivative_in_inverse_alpha_is_finite_in_the_flat_limit():
    derivative = jax.jit(jax.grad(lambda k: transport_cost(jnp.asarray(3.0), k)[0]))(0.0)
    # c = |x-y|²/2 (1 + q/6 + ...), q = |x-y|² k / 4.
    np.testing.assert_allclose(derivative, 0.5 * 9.0 / 24.0, rtol=1e-12)


def test_transport_cost_keeps_single_precision():
    squared = jnp.asarray([0.5, 2.0], jnp.float32)
    cost, _ = transport_cost(squared, jnp.float32(1.0))
    assert cost.dtype == jnp.float32
    np.testing.assert_allclose(cost, 0.5 * squared * log_cos_ratio(squared / 4), rtol=1e-6)
