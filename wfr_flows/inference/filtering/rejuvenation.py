"""New particles for a law that few of the old ones still stand for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.geodesics import whitening
from wfr_flows.gradient_flows import Sample
from wfr_flows.inference.filtering.filtered import too_few
from wfr_flows.measures import Particles, gaussian, moments, resample, standard_normal, with_moments
from wfr_flows.metrics import kernel_density
from wfr_flows.typing import Array, Float, Int, Key, Scalar

_WIDEST = 0.9
_WIDER = 1.3
_FEWEST = 0.25
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
    """As many new particles from the `kernels` of a measure, and the log-density at each.

    They are evenly spread over a Gaussian somewhat wider than the measure, and weighted: far less noise than
    random draws. Where that leaves fewer than a quarter effective, as for modes far apart or in many
    dimensions, they are drawn from the kernels, at random, and weigh the same.
    """
    found = kernels(measure)
    dim = found.center.size

    def place(white: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return found.center + white @ found.factor.T

    spread = standard_normal(dim).spread(key, measure.log_weight.size).position
    x = place(_WIDER * spread.astype(measure.position.dtype))
    log_density = kernels_log_density(found, x)
    proposal = gaussian(found.center, _WIDER**2 * found.factor @ found.factor.T)
    assert proposal.log_density is not None
    even = Particles(x, log_density - jax.vmap(proposal.log_density)(x)).normalise()

    def random() -> Sample:
        resample_key, noise_key = jax.random.split(key)
        drawn = resample(resample_key, found.centres, measure.log_weight.size)
        noise = jax.random.normal(noise_key, drawn.position.shape, drawn.position.dtype)
        drawn = drawn._replace(position=place(drawn.position + found.width * noise))
        drawn = with_moments(drawn, *moments(measure))
        return Sample(drawn, kernels_log_density(found, drawn.position))

    return jax.lax.cond(too_few(even, _FEWEST), random, lambda: Sample(even, log_density))


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
