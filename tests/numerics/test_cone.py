import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import central_difference

from wfr_flows.numerics import (
    REACH,
    arcsinc_squared,
    inverse_alpha,
    log_cos_ratio,
    saturate,
    sinc_squared,
)


def _log_cos_ratio(q):
    # log1p keeps the digits that log(cos) loses near 0, and loses those that it keeps near reach.
    z = np.sqrt(q)
    return np.where(z < 0.8, -np.log1p(-(np.sin(z) ** 2)), -2 * np.log(np.cos(z))) / q


def _sinc_squared(q):
    return (np.sin(np.sqrt(q) / 2) / (np.sqrt(q) / 2)) ** 2


def _arcsinc_squared(q):
    return (np.arcsin(np.sqrt(q)) / np.sqrt(q)) ** 2


CONE = {
    # name: (function, closed form, largest q, first and second derivative at 0 by the Taylor series)
    "log_cos_ratio": (log_cos_ratio, _log_cos_ratio, 0.999 * REACH, 1 / 6, 4 / 45),
    "sinc_squared": (sinc_squared, _sinc_squared, 40.0, -1 / 12, 1 / 180),
    "arcsinc_squared": (arcsinc_squared, _arcsinc_squared, 0.99, 1 / 3, 16 / 45),
}
cone = pytest.mark.parametrize("name", CONE)


def _points(largest):
    # 1e-2 is where the series hands over to the closed form: look at it from both sides.
    return np.concatenate(
        [np.geomspace(1e-12, largest, 60), [0.00999, 0.0099999999, 0.01, 0.0100000001, 0.0101]]
    )


@cone
def test_cone_function_equals_its_closed_form(name):
    function, closed_form, largest, *_ = CONE[name]
    q = _points(largest)
    np.testing.assert_allclose(jax.jit(function)(q), closed_form(q), rtol=2e-13)


@cone
def test_cone_function_is_one_at_zero_with_taylor_derivatives(name):
    function, _, _, first, second = CONE[name]
    assert function(0.0) == 1.0
    np.testing.assert_allclose(jax.jit(jax.grad(function))(0.0), first, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(function)))(0.0), second, rtol=1e-12)


@cone
@pytest.mark.parametrize("order", [1, 2])
def test_cone_function_derivatives_match_finite_differences(name, order):
    function, _, largest, *_ = CONE[name]
    lower = function
    for _ in range(order - 1):
        lower = jax.grad(lower)
    q = np.concatenate([[0.0, 1e-9, 1e-4], np.linspace(0.002, 0.97 * largest, 25)])
    derivative = jax.jit(jax.vmap(jax.grad(lower)))(q)
    assert np.isfinite(derivative).all()
    # The series continues to q < 0, so the difference is central even at 0.
    expected = central_difference(jax.jit(jax.vmap(lower)), q)
    np.testing.assert_allclose(derivative, expected, rtol=2e-6, atol=2e-7)


@cone
def test_cone_function_is_accurate_in_single_precision(name):
    function, closed_form, largest, *_ = CONE[name]
    q = _points(largest).astype(np.float32)
    value = jax.jit(function)(jnp.asarray(q, jnp.float32))
    assert value.dtype == jnp.float32
    # log cos at q = 1e-2 is a small number computed from one near 1: some 20 roundings are lost there.
    np.testing.assert_allclose(value, closed_form(q.astype(np.float64)), rtol=3e-5)


@cone
def test_cone_function_accepts_integers_and_shapes(name):
    function = CONE[name][0]
    assert function(0) == 1.0
    assert function(jnp.zeros((2, 3))).shape == (2, 3)


def test_arcsinc_squared_ends_at_a_quarter_of_pi_squared():
    np.testing.assert_allclose(arcsinc_squared(1.0), math.pi**2 / 4, rtol=1e-14)


def test_sinc_squared_at_reach_and_at_its_first_zero():
    np.testing.assert_allclose(sinc_squared(REACH), 8 / math.pi**2, rtol=1e-14)
    assert sinc_squared((2 * math.pi) ** 2) < 1e-30


@pytest.mark.parametrize("value", [-2.0, -1e-3, 0.0, 1e-9, 0.7, 30.0])
@pytest.mark.parametrize("scale", [1e-8, 1e-2, 1.0, 50.0])
def test_saturate_equals_its_formula(value, scale):
    if -value * scale > 700:
        pytest.skip("overflow is the right answer")
    expected = -np.expm1(-value * scale) / scale
    np.testing.assert_allclose(saturate(value, scale), expected, rtol=1e-13, atol=1e-300)


def test_saturate_flat_limit_and_infinite_value():
    assert saturate(3.5, 0.0) == 3.5
    np.testing.assert_allclose(saturate(3.5, 1e-9), 3.5, rtol=1e-8)
    assert saturate(jnp.inf, 4.0) == 0.25


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0])
def test_saturate_derivatives_in_value_match_finite_differences(scale):
    first = jax.jit(jax.grad(saturate))
    second = jax.jit(jax.grad(jax.grad(saturate)))
    for value in (-1.0, 0.0, 2.0):
        np.testing.assert_allclose(first(value, scale), math.exp(-value * scale), rtol=1e-13)
        np.testing.assert_allclose(second(value, scale), -scale * math.exp(-value * scale), atol=1e-13)


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_saturate_derivative_in_scale_is_finite(scale):
    assert np.isfinite(jax.grad(saturate, argnums=1)(2.0, scale))


@pytest.mark.parametrize("alpha", [0, 0.0, -1.0, math.nan, np.array([1.0, -2.0])])
def test_inverse_alpha_refuses_what_is_no_length_scale(alpha):
    with pytest.raises(ValueError, match="alpha"):
        inverse_alpha(alpha)


def test_inverse_alpha_values_and_types():
    assert inverse_alpha(math.inf) == 0.0
    assert inverse_alpha(4) == 0.25
    assert inverse_alpha(jnp.float32(2)).dtype == jnp.float32
    np.testing.assert_array_equal(inverse_alpha(np.array([1.0, np.inf])), [1.0, 0.0])


def test_inverse_alpha_passes_traced_values_unchecked():
    assert jax.jit(inverse_alpha)(jnp.inf) == 0.0
    np.testing.assert_allclose(jax.grad(inverse_alpha)(2.0), -0.25)
