"""Exact distributions: what can be sampled and, where known, evaluated."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

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
    mean = jnp.asarray(mean, jnp.result_type(float))
    return mixture(jnp.ones(1), mean[None], jnp.asarray(covariance)[None])


def standard_normal(dim: int) -> Distribution:
    """``N(0, I)`` in dimension ``dim``."""
    if dim < 1:
        raise ValueError(f"dim is {dim}; give a dimension of at least 1.")
    return gaussian(jnp.zeros(dim), jnp.eye(dim))


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
    log_weight = jnp.log(weight / weight.sum())
    factor = jnp.linalg.cholesky(covariance)
    # Inverted once: a triangular solve for every point costs far more.
    identity = jnp.broadcast_to(jnp.eye(dim, dtype=dtype), covariance.shape)
    whitener = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)), axis=1)

    def sample(key: Key, n: int) -> Particles:
        component_key, noise_key = jax.random.split(key)
        component = jax.random.categorical(component_key, log_weight, shape=(n,))
        return place(component, jax.random.normal(noise_key, (n, dim), dtype))

    def spread(key: Key, n: int) -> Particles:
        # Each component takes a run of neighbours in the lattice, which are evenly spread as well.
        component_key, noise_key = jax.random.split(key)
        point = (jnp.arange(n) + jax.random.uniform(component_key, dtype=dtype, minval=1e-6)) / n
        component = inverse_distribution(running_total(jnp.exp(log_weight)), point)
        return place(component, jax.scipy.special.ndtri(lattice(noise_key, n, dim).astype(dtype)))

    def place(component: Int[Array, " n"], noise: Float[Array, "n d"]) -> Particles:
        return equally_weighted(mean[component] + jnp.einsum("nij,nj->ni", factor[component], noise))

    def log_density(x: Float[Array, " d"]) -> Scalar:
        whitened = jnp.einsum("kij,kj->ki", whitener, x - mean, precision="highest")
        exponent = -0.5 * jnp.sum(whitened**2, axis=1) - half_log_det - 0.5 * dim * jnp.log(2 * jnp.pi)
        return jax.nn.logsumexp(log_weight + exponent)

    return Distribution(dim, sample, log_density, spread)


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
