import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import numerical_gradient

from wfr_flows.numerics import log_det, signs, stochastic_log_det


def _positive(key, dim, *batch):
    factor = jax.random.normal(key, (*batch, dim, dim))
    return factor @ factor.mT + 0.5 * jnp.eye(dim)


@pytest.mark.parametrize("dim", [1, 4, 128])
def test_log_det_and_its_gradient(dim, key):
    matrix = _positive(key, dim, 2)
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(log_det)))(matrix)
    np.testing.assert_allclose(value, np.linalg.slogdet(matrix)[1], rtol=1e-12)
    np.testing.assert_allclose(gradient, np.linalg.inv(matrix), rtol=1e-9, atol=1e-10)


def test_second_derivative_of_log_det(key):
    matrix, direction = _positive(key, 3), jnp.eye(3)
    found = jax.grad(lambda m: jnp.vdot(jax.grad(log_det)(m), direction))(matrix)
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(found, -inverse @ inverse, rtol=1e-10)


def test_not_positive_definite_is_nan():
    assert jnp.isnan(log_det(jnp.diag(jnp.array([1.0, -1.0]))))


def test_orthogonal_probes_and_all_steps_are_exact(key):
    matrix = _positive(key, 6)
    scale = jnp.linspace(0.5, 2.0, 6)

    def estimate(scale):
        return stochastic_log_det(lambda v: scale * (matrix @ (scale * v)), 6**0.5 * jnp.eye(6))

    value, gradient = jax.jit(jax.value_and_grad(estimate))(scale)
    np.testing.assert_allclose(value, log_det(matrix) + 2 * jnp.sum(jnp.log(scale)), rtol=1e-10)
    np.testing.assert_allclose(gradient, 2 / scale, rtol=1e-8)


def test_random_probes_are_unbiased(key):
    matrix = jnp.eye(40) + 0.3 * _positive(key, 40) / 40

    def estimate(matrix, key):
        return stochastic_log_det(lambda v: matrix @ v, signs(key, 1, 40), num_steps=12)

    keys = jax.random.split(jax.random.key(1), 256)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(estimate), (None, 0)))(matrix, keys)
    error = jnp.std(values) / 16
    assert abs(jnp.mean(values) - log_det(matrix)) < 4 * error
    spread = jnp.std(jnp.trace(gradients, axis1=1, axis2=2)) / 16
    trace = jnp.trace(jnp.linalg.inv(matrix))
    assert abs(jnp.mean(jnp.trace(gradients, axis1=1, axis2=2)) - trace) < 4 * spread


def test_an_invariant_subspace_ends_lanczos_early():
    # One probe is an eigenvector; float32 besides.
    matrix = jnp.diag(jnp.array([2.0, 3.0], jnp.float32))
    probes = jnp.sqrt(2.0).astype(jnp.float32) * jnp.eye(2, dtype=jnp.float32)
    value = stochastic_log_det(lambda v: matrix @ v, probes, num_steps=2)
    np.testing.assert_allclose(value, np.log(6.0), rtol=1e-6)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="num_steps is 0"):
        stochastic_log_det(lambda v: v, jnp.ones((1, 2)), num_steps=0)


def test_gradient_against_finite_differences(key):
    matrix = _positive(key, 3)
    numerical = numerical_gradient(lambda m: log_det(0.5 * (m + m.T)), matrix, 1e-3)
    np.testing.assert_allclose(jax.grad(log_det)(matrix), numerical, rtol=1e-7)
