"""Symmetric divergence by quadrature, and kernel densities beside SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import numerical_gradient, single_precision

from wfr_flows.measures import Particles, gaussian_mixture_1d, mixture, particles
from wfr_flows.metrics import kernel_density, symmetric_kl
from wfr_flows.numerics import simpson_weights

GRID = np.linspace(-15.0, 15.0, 1001)


def _cloud(n=12, dim=2):
    random = np.random.default_rng(dim)
    return particles(random.normal(size=(n, dim)) * np.arange(1, dim + 1), random.uniform(0.2, 2.0, n))


def _on_grid(log_density):
    return jax.jit(jax.vmap(log_density))(GRID[:, None])


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1.5, 1.0), (-1.0, 0.6)])
def test_symmetric_kl_of_gaussians(mean, deviation):
    log_p, log_q = scipy.stats.norm.logpdf(GRID), scipy.stats.norm.logpdf(GRID, mean, deviation)
    expected = 0.5 * (deviation**2 + deviation**-2 + mean**2 * (1 + deviation**-2)) - 1
    weights = simpson_weights(GRID)
    np.testing.assert_allclose(symmetric_kl(log_p, log_q, weights), expected, rtol=1e-7, atol=1e-14)
    np.testing.assert_allclose(symmetric_kl(log_q, log_p, weights), expected, rtol=1e-7, atol=1e-14)


def test_symmetric_kl_where_densities_vanish():
    log_p, log_q = jnp.array([-jnp.inf, 0.0, -jnp.inf]), jnp.array([-jnp.inf, -1.0, 0.0])
    assert symmetric_kl(log_p, log_q, jnp.ones(3)) == jnp.inf
    np.testing.assert_allclose(symmetric_kl(log_p, log_q, jnp.array([1.0, 1.0, 0.0])), 1 - np.exp(-1))
    gradient = jax.grad(symmetric_kl, argnums=(0, 1, 2))(log_p, log_q, jnp.array([1.0, 1.0, 0.0]))
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    # Far out both underflow and differ by hundreds of logarithms.
    assert symmetric_kl(jnp.array([-800.0]), jnp.array([-1200.0]), jnp.ones(1)) == 0


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_kernel_density_equals_scipy(dim):
    measure = _cloud(dim=dim)
    theirs = scipy.stats.gaussian_kde(np.asarray(measure.position).T, "silverman", np.asarray(measure.weight))
    x = np.random.default_rng(0).normal(size=(8, dim)) * 2
    ours = jax.jit(jax.vmap(kernel_density(measure)))(x)
    np.testing.assert_allclose(ours, theirs.logpdf(x.T), rtol=1e-10)


@pytest.mark.parametrize("bandwidth", [0.4, [0.4, 0.7]])
def test_kernel_density_with_a_bandwidth_is_a_mixture(bandwidth):
    measure = _cloud()
    kernels = np.tile(np.diag(np.broadcast_to(np.square(bandwidth), 2)), (12, 1, 1))
    law = mixture(measure.weight, measure.position, kernels)
    x = np.random.default_rng(0).normal(size=(8, 2)) * 3
    log_density = kernel_density(measure, bandwidth)
    both = jax.jit(jax.vmap(lambda x: (log_density(x), law.log_density(x))))
    np.testing.assert_allclose(*both(x), rtol=1e-11)


def test_weighted_samples_are_compared_with_a_density_on_the_line():
    law = gaussian_mixture_1d()
    weights, exact = simpson_weights(GRID), _on_grid(law.log_density)

    def divergence(num):
        # Importance weights carry a wide sample to the mixture.
        x = 5 * np.random.default_rng(0).normal(size=(num, 1))
        log_weight = jax.jit(jax.vmap(law.log_density))(x) - scipy.stats.norm.logpdf(x[:, 0], 0.0, 5.0)
        smooth = _on_grid(kernel_density(Particles(jnp.asarray(x), log_weight), 2.0 * num**-0.2))
        np.testing.assert_allclose(np.sum(weights * np.exp(smooth)), 1.0, rtol=1e-6)
        return symmetric_kl(smooth, exact, weights)

    few, many = divergence(200), divergence(5_000)
    assert many < 0.03 < few


def test_particles_of_weight_zero_do_not_count():
    measure = _cloud()
    haunted = Particles(
        jnp.asarray(np.concatenate([measure.position, np.full((2, 2), np.nan)])),
        jnp.asarray(np.concatenate([measure.log_weight, np.full(2, -np.inf)])),
    )
    x = jnp.array([0.3, -0.2])
    np.testing.assert_allclose(kernel_density(haunted)(x), kernel_density(measure)(x), rtol=1e-12)


def test_derivatives_of_a_kernel_density():
    measure, x = _cloud(6), jnp.array([0.3, -0.2])
    at_particle = jax.grad(kernel_density(measure))(measure.position[0])
    assert np.isfinite(at_particle).all()

    @jax.jit
    def value(position, log_weight):
        return kernel_density(Particles(position, log_weight))(x)

    gradient = jax.jit(jax.grad(value, argnums=(0, 1)))(*measure)
    moved = numerical_gradient(lambda y: value(y, measure.log_weight), measure.position)
    np.testing.assert_allclose(gradient[0], moved, rtol=1e-6, atol=1e-9)
    reweighted = numerical_gradient(lambda w: value(measure.position, w), measure.log_weight)
    np.testing.assert_allclose(gradient[1], reweighted, rtol=1e-6, atol=1e-9)


def test_in_single_precision():
    measure, x = _cloud(), jnp.array([0.3, -0.2])
    value = kernel_density(single_precision(measure))(x.astype(jnp.float32))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, kernel_density(measure)(x), rtol=1e-5)
    logs = scipy.stats.norm.logpdf(GRID), scipy.stats.norm.logpdf(GRID, 1.0)
    divergence = symmetric_kl(*single_precision((*map(jnp.asarray, logs), simpson_weights(GRID))))
    assert divergence.dtype == jnp.float32
    np.testing.assert_allclose(divergence, 1.0, rtol=1e-5)


def test_too_few_particles_and_wrong_bandwidths_are_refused():
    with pytest.raises(ValueError, match="give a bandwidth"):
        kernel_density(_cloud(2))
    with pytest.raises(ValueError, match="scalar"):
        kernel_density(_cloud(), jnp.ones(3))
