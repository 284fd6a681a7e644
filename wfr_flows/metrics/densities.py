"""Distances between densities, and a density for weighted samples."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles, moments
from wfr_flows.metrics.samples import supported
from wfr_flows.typing import Array, ArrayLike, Float, Scalar


@jax.jit
def symmetric_kl(log_p: Float[Array, "*s"], log_q: Float[Array, "*s"], weights: Float[Array, "*s"]) -> Scalar:
    """``KL(p|q) + KL(q|p) = ∫ (p - q)(log p - log q)`` by quadrature; not halved.

    The densities count as they stand. For samples of ``p`` and ``q``, see `kernel_density`.

    Args:
      log_p, log_q: log-densities at the nodes; ``-inf`` where a density is zero.
      weights: quadrature weights of the nodes, for instance `numerics.simpson_weights`.

    Returns:
      A scalar; ``inf`` where one density is zero and the other is not.

    >>> from wfr_flows.numerics import simpson_weights
    >>> x = jnp.linspace(-8.0, 9.0, 401)
    >>> log_p, log_q = jax.scipy.stats.norm.logpdf(x), jax.scipy.stats.norm.logpdf(x, 1.0)
    >>> round(float(symmetric_kl(log_p, log_q, simpson_weights(x))), 4)
    1.0
    """
    counts = (jnp.maximum(log_p, log_q) > -jnp.inf) & (weights != 0)
    log_p, log_q = jnp.where(counts, log_p, 0.0), jnp.where(counts, log_q, 0.0)
    return jnp.sum(weights * (jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q))


def sampled_symmetric_kl(
    p: Particles, q: Particles, log_ratio: Callable[[Float[Array, "n d"]], Float[Array, " n"]]
) -> Scalar:
    """``KL(p|q) + KL(q|p) = E_p[log p/q] - E_q[log p/q]`` over samples of both.

    Args:
      p, q: weighted samples, of any mass.
      log_ratio: ``x: [n, d] -> log p(x) - log q(x)``, of normalised densities; for particles without density,
        that of `kernel_density`.

    >>> p, q = Particles(jnp.zeros((1, 1)), jnp.zeros(1)), Particles(jnp.ones((1, 1)), jnp.zeros(1))
    >>> sampled_symmetric_kl(p, q, lambda x: 0.5 - x[:, 0])
    Array(1., dtype=float32)
    """
    means = (jnp.vdot(m.normalise().weight, log_ratio(m.position)) for m in (p, q))
    return next(means) - next(means)


@jax.jit
def gaussian_symmetric_kl(
    p_mean: Float[Array, " d"],
    p_covariance: Float[Array, "d d"],
    q_mean: Float[Array, " d"],
    q_covariance: Float[Array, "d d"],
) -> Scalar:
    """``KL(p|q) + KL(q|p)`` of two Gaussians, with symmetric positive definite covariances ``P`` and ``Q``.

    ``½ tr(P⁻¹Q + Q⁻¹P - 2I) + ½ δᵀ(P⁻¹ + Q⁻¹)δ`` with ``δ`` the difference of the means.

    >>> gaussian_symmetric_kl(jnp.zeros(1), jnp.eye(1), jnp.ones(1), jnp.eye(1))
    Array(1., dtype=float32)
    """
    apart = (p_mean - q_mean)[:, None]
    p_share, q_share = (
        jnp.trace(jax.scipy.linalg.solve(one, other + apart * apart.T - one, assume_a="pos"))
        for one, other in ((p_covariance, q_covariance), (q_covariance, p_covariance))
    )
    return 0.5 * (p_share + q_share)


def kernel_density(
    measure: Particles, bandwidth: ArrayLike | None = None
) -> Callable[[Float[Array, " d"]], Scalar]:
    """Log-density of a weighted sample smoothed by a Gaussian, ``log Σ w_i N(x; x_i, H)``.

    Silverman's rule is ``H = (n_e (d+2)/4)^(-2/(d+4)) C`` with Kish's effective sample size ``n_e`` and the
    weighted covariance ``C = Σ w_i (x_i-x̄)(x_i-x̄)ᵀ / (1 - Σ w_i²)``.

    Args:
      measure: ``[n, d]`` weighted particles, of any mass; their smoothed density has mass 1.
      bandwidth: standard deviation of the kernel, a scalar or ``[d]``. Default: Silverman's rule.

    Returns:
      ``x: [d] -> scalar``. For many points, ``jax.lax.map(log_density, x, batch_size=...)`` bounds memory.
      NaN if Silverman's rule meets a singular covariance.

    Raises:
      ValueError: Silverman's rule with at most ``d`` particles, whose covariance is singular, or a bandwidth
        that is neither a scalar nor ``[d]``.

    >>> log_density = kernel_density(Particles(jnp.zeros((1, 1)), jnp.zeros(1)), 1.0)
    >>> log_density(jnp.zeros(1))
    Array(-0.9189385, dtype=float32)
    """
    num, dim = measure.position.shape
    if bandwidth is None:
        if num <= dim:
            raise ValueError(f"{num} particles have no covariance in dimension {dim}; give a bandwidth.")
    else:
        bandwidth = jnp.asarray(bandwidth, measure.position.dtype)
        if bandwidth.shape not in {(), (dim,)}:
            raise ValueError(f"bandwidth has shape {bandwidth.shape}; give a scalar or [{dim}].")
    return partial(_log_density, *_kernels(measure, bandwidth))


class _Kernels(NamedTuple):
    """Centres in units of the kernels, their log-weights, and the coordinates that have these units."""

    mean: Float[Array, " d"]
    factor: Float[Array, "d d"]
    centre: Float[Array, "n d"]
    log_weight: Float[Array, " n"]


@jax.jit
def _kernels(measure: Particles, bandwidth: Array | None) -> _Kernels:
    dim = measure.position.shape[1]
    measure = supported(measure)
    mean, covariance = moments(measure)
    if bandwidth is None:
        exponent = -1 / (dim + 4)
        shrink = (measure.effective_sample_size * (dim + 2) / 4) ** exponent
        # Independent points of fixed weights then leave no bias.
        unbiased = covariance / (1 - jnp.sum(measure.weight**2))
        factor = shrink * jnp.linalg.cholesky(unbiased)
    else:
        factor = jnp.diag(jnp.broadcast_to(bandwidth, (dim,)))
    centre = jax.vmap(partial(_whiten, factor))(measure.position - mean[None])
    return _Kernels(mean, factor, centre, measure.log_weight)


@jax.jit
def _log_density(
    mean: Float[Array, " d"],
    factor: Float[Array, "d d"],
    centre: Float[Array, "n d"],
    log_weight: Float[Array, " n"],
    x: Float[Array, " d"],
) -> Scalar:
    squared = jnp.sum((_whiten(factor, x - mean)[None] - centre) ** 2, axis=1)
    log_normaliser = jnp.sum(jnp.log(jnp.diagonal(factor))) + 0.5 * mean.size * jnp.log(2 * jnp.pi)
    return jax.nn.logsumexp(log_weight - 0.5 * squared) - log_normaliser


def _whiten(factor: Float[Array, "d d"], x: Float[Array, " d"]) -> Float[Array, " d"]:
    return jax.scipy.linalg.solve_triangular(factor, x, lower=True)
