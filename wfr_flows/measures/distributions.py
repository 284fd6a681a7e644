"""Exact distributions: what can be sampled and, where known, evaluated."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows.measures.particles import Particles, equally_weighted, resample_by, shares
from wfr_flows.numerics import inverse_distribution, lattice, running_total
from wfr_flows.typing import Array, ArrayLike, Float, Int, Key, Scalar


class Distribution(NamedTuple):
    """A probability measure as pure functions.

    Attributes:
      dim: dimension ``d``.
      sample: ``(key, n) -> Particles`` of mass 1 with ``n`` particles.
      log_density: ``x: [d] -> scalar``, normalised; None where it is not known.
      spread: ``(key, n) -> Particles`` of mass 1 with at most ``n`` particles, more evenly spread than
        independent ones where that is known, so that means over them have less noise.
    """

    dim: int
    sample: Callable[[Key, int], Particles]
    log_density: Callable[[Float[Array, " d"]], Scalar] | None
    spread: Callable[[Key, int], Particles]


def gaussian(mean: ArrayLike, covariance: ArrayLike) -> Distribution:
    """``N(mean, covariance)`` with ``mean: [d]`` and ``covariance: [d, d]`` (symmetric positive definite).

    >>> gaussian(jnp.zeros(2), jnp.eye(2)).log_density(jnp.zeros(2))
    Array(-1.837877, dtype=float32)
    """
    parts = (part if isinstance(part, jax.Array) else np.asarray(part) for part in (mean, covariance))
    return mixture(np.ones(1), *(part[None] for part in parts))


def standard_normal(dim: int) -> Distribution:
    """``N(0, I)`` in dimension ``dim``."""
    if dim < 1:
        raise ValueError(f"dim is {dim}; give a dimension of at least 1.")
    return gaussian(np.zeros(dim), np.eye(dim))


def mixture(weight: ArrayLike, mean: ArrayLike, covariance: ArrayLike) -> Distribution:
    """``Σ_k weight_k N(mean_k, covariance_k)``.

    Args:
      weight: ``[k]`` non-negative; normalised here.
      mean: ``[k, d]``.
      covariance: ``[k, d, d]``, symmetric positive definite.

    Raises:
      ValueError: on shapes that do not fit.
    """
    dtype = jnp.result_type(float)
    weight, mean, covariance = (jnp.asarray(a, dtype) for a in (weight, mean, covariance))
    if mean.ndim != 2 or weight.shape != mean.shape[:1] or covariance.shape != (*mean.shape, mean.shape[1]):
        raise ValueError(
            f"weight {weight.shape}, mean {mean.shape} and covariance {covariance.shape} do not fit;"
            " give [k], [k, d] and [k, d, d]."
        )
    dim = mean.shape[1]
    parts = _parts(weight, mean, covariance)

    def sample(key: Key, n: int) -> Particles:
        return _sample(key, parts, n)

    def spread(key: Key, n: int) -> Particles:
        return _spread(key, parts, n)

    def log_density(x: Float[Array, " d"]) -> Scalar:
        return _log_density(parts, x)

    return Distribution(dim, sample, log_density, spread)


class _Parts(NamedTuple):
    # Of a mixture of Gaussians: Cholesky factors L, their inverses and half log-determinants.
    log_weight: Float[Array, " k"]
    mean: Float[Array, "k d"]
    factor: Float[Array, "k d d"]
    whitener: Float[Array, "k d d"]
    half_log_det: Float[Array, " k"]


# Compiled by the shape of the mixture: op by op, a first draw would compile some thirty programs.
@jax.jit
def _parts(weight: Array, mean: Array, covariance: Array) -> _Parts:
    factor = jnp.linalg.cholesky(covariance)
    # Inverted once: a triangular solve for every point costs far more.
    identity = jnp.broadcast_to(jnp.eye(mean.shape[1], dtype=mean.dtype), covariance.shape)
    whitener = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)), axis=1)
    return _Parts(jnp.log(weight / weight.sum()), mean, factor, whitener, half_log_det)


@partial(jax.jit, inline=True)
def _log_density(parts: _Parts, x: Float[Array, " d"]) -> Scalar:
    whitened = jnp.einsum("kij,kj->ki", parts.whitener, x[None] - parts.mean, precision="highest")
    constant = 0.5 * x.size * math.log(2 * math.pi)
    exponent = -0.5 * jnp.sum(whitened**2, axis=1) - parts.half_log_det - constant
    return jax.nn.logsumexp(parts.log_weight + exponent)


@partial(jax.jit, static_argnums=2)
def _sample(key: Key, parts: _Parts, n: int) -> Particles:
    component_key, noise_key = jax.random.split(key)
    component = jax.random.categorical(component_key, parts.log_weight, shape=(n,))
    noise = jax.random.normal(noise_key, (n, parts.mean.shape[1]), parts.mean.dtype)
    return _placed(component, noise, parts)


@partial(jax.jit, static_argnums=2)
def _spread(key: Key, parts: _Parts, n: int) -> Particles:
    # Each component takes a run of neighbours in the lattice, which are evenly spread as well.
    component_key, noise_key = jax.random.split(key)
    dim, dtype = parts.mean.shape[1], parts.mean.dtype
    point = (jnp.arange(n, dtype=dtype) + jax.random.uniform(component_key, dtype=dtype, minval=1e-6)) / n
    component = inverse_distribution(running_total(jnp.exp(parts.log_weight)), point)
    return _placed(component, jax.scipy.special.ndtri(lattice(noise_key, n, dim).astype(dtype)), parts)


def _placed(component: Int[Array, " n"], noise: Float[Array, "n d"], parts: _Parts) -> Particles:
    turned = jnp.einsum("nij,nj->ni", parts.factor[component], noise)
    return equally_weighted(parts.mean[component] + turned)


def empirical(measure: Particles) -> Distribution:
    """A weighted sample as a distribution without density.

    ``sample`` is systematic resampling; ``spread`` is all of the sample, weighted, where that is no more.
    """
    measure = measure.normalise()
    total = shares(measure)

    def sample(key: Key, n: int) -> Particles:
        return resample_by(key, measure.position, total, n)

    def spread(key: Key, n: int) -> Particles:
        return measure if measure.log_weight.size <= n else sample(key, n)

    return Distribution(measure.position.shape[1], sample, None, spread)


def spread_ends(
    source: Distribution, target: Distribution, size: int
) -> Callable[[Key], tuple[Particles, Particles]]:
    """``key -> (source, target)``, ``size`` evenly spread particles of either: batches to train on."""

    def draw(key: Key) -> tuple[Particles, Particles]:
        source_key, target_key = jax.random.split(key)
        return source.spread(source_key, size), target.spread(target_key, size)

    return draw
