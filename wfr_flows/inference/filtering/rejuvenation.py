"""New particles for a law that few of the old ones still stand for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.geodesics import whitening
from wfr_flows.gradient_flows import Sample
from wfr_flows.measures import Particles, equally_weighted, moments, resample, standard_normal, with_moments
from wfr_flows.metrics import kernel_density
from wfr_flows.typing import Array, Float, Int, Key, Scalar

_WIDEST = 0.9
_AT_ONCE = 256


class Kernels(NamedTuple):
    """A weighted sample, smoothed: ``x = center + factor (a z_i + width N(0, I))``, ``a² + width² = 1``.

    The centers are drawn in so that mean and covariance are those of the sample (Liu, West, 2001); the width
    is Silverman's. The laws of Gaussian samples are kept, narrow modes widen.

    Attributes:
      centres: ``a z_i`` and their weights.
      width, center, factor: see above.
    """

    centres: Particles
    width: Scalar
    center: Float[Array, " d"]
    factor: Float[Array, "d d"]


def kernels(measure: Particles) -> Kernels:
    """The `Kernels` of a weighted sample."""
    center, factor = whitening(measure)
    dim = center.size
    width = (measure.effective_sample_size * (dim + 2) / 4) ** (-1 / (dim + 4))
    width = jnp.minimum(width, _WIDEST)
    white = jnp.sqrt(1 - width**2) * _whiten(measure.position, center, factor)
    return Kernels(measure._replace(position=white), width, center, factor)


def kernels_log_density(found: Kernels, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Their log-density at points, pair by pair in blocks."""
    white = _whiten(x, found.center, found.factor)
    at = jax.lax.map(kernel_density(found.centres, found.width), white, batch_size=_AT_ONCE)
    return at - jnp.sum(jnp.log(jnp.diagonal(found.factor)))


def redrawn(key: Key, measure: Particles) -> Sample:
    """As many particles of equal weight from the `kernels` of a measure, and the log-density at each.

    They are moved to have its mean and covariance exactly.
    """
    resample_key, noise_key = jax.random.split(key)
    found = kernels(measure)
    num, dim = measure.position.shape
    noise = standard_normal(dim).spread(noise_key, num).position.astype(measure.position.dtype)
    white = resample(resample_key, found.centres, num).position + found.width * noise
    x = equally_weighted(found.center + white @ found.factor.T)
    x = with_moments(x, *moments(measure)).position
    return Sample(equally_weighted(x), kernels_log_density(found, x))


def metropolis_hastings(
    key: Key, log_weight: Float[Array, " n"], num_chains: int, num_steps: int
) -> tuple[Int[Array, " chains"], Float[Array, " steps"]]:
    """Independent proposals from a pool of particles, accepted by their weights; all chains in one scan.

    A chain at ``x`` goes to ``y``, drawn evenly from the pool, with probability
    ``min(1, w(y)/w(x))``: where the pool is a sample of the prior flow and ``w`` the likelihood of all that
    was seen along a path, that is ``Π p(Y_τ|y_τ) / Π p(Y_τ|x_τ)`` ([JKO] eq. 20).

    Args:
      log_weight: of the pool.
      num_chains, num_steps: how many, and how long; they begin at particles drawn evenly.

    Returns:
      Where the chains end, as indices, and the share of proposals accepted in every step.
    """
    start_key, key = jax.random.split(key)
    num = log_weight.size

    def body(now: Array, key: Key) -> tuple[Array, Array]:
        propose_key, accept_key = jax.random.split(key)
        proposed = jax.random.randint(propose_key, (num_chains,), 0, num)
        level = jnp.log(jax.random.uniform(accept_key, (num_chains,), log_weight.dtype))
        accepted = level < log_weight[proposed] - log_weight[now]
        return jnp.where(accepted, proposed, now), jnp.mean(accepted)

    start = jax.random.randint(start_key, (num_chains,), 0, num)
    return jax.lax.scan(body, start, jax.random.split(key, num_steps))


def _whiten(x: Float[Array, "n d"], center: Float[Array, " d"], factor: Float[Array, "d d"]) -> Array:
    return jax.scipy.linalg.solve_triangular(factor, (x - center).T, lower=True).T
