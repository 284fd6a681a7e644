"""New particles for a law that few of the old ones still stand for."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.gradient_flows import Sample
from wfr_flows.inference.filtering.filtered import too_few
from wfr_flows.inference.importance import reweighted
from wfr_flows.measures import Particles, Whitening, gaussian, resample, standard_normal, whitening
from wfr_flows.metrics import kernel_density
from wfr_flows.typing import Array, Float, Int, Key, Scalar

_WIDEST = 0.9
_WIDER = 1.3
_FEWEST = 0.25
_AT_ONCE = 256


class Kernels(NamedTuple):
    """A weighted sample, smoothed: ``x = centre + L (a z_i + width N(0, I))``, ``a² + width² = 1``.

    The centres are drawn in so that mean and covariance are those of the sample (Liu, West, 2001); the width
    is Silverman's. The laws of Gaussian samples are kept, narrow modes widen.

    Attributes:
      centres: ``a z_i`` and their weights.
      width: see above.
      whitening: of the sample.
    """

    centres: Particles
    width: Scalar
    whitening: Whitening


def kernels(measure: Particles) -> Kernels:
    """The `Kernels` of a weighted sample."""
    seen = whitening(measure)
    dim = seen.centre.size
    width = (measure.effective_sample_size * (dim + 2) / 4) ** (-1 / (dim + 4))
    width = jnp.minimum(width, _WIDEST)
    white = jnp.sqrt(1 - width**2) * seen(measure.position)
    return Kernels(measure._replace(position=white), width, seen)


def kernels_log_density(found: Kernels, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Their log-density at points, pair by pair in blocks."""
    log_density = kernel_density(found.centres, found.width)
    return jax.lax.map(log_density, found.whitening(x), batch_size=_AT_ONCE) - found.whitening.log_det


def rejuvenated(
    key: Key,
    predicted: Particles,
    updated: Particles,
    log_likelihood: Callable[[Float[Array, "n d"]], Float[Array, " n"]],
) -> tuple[Sample, Scalar]:
    """New particles where an observation has left few: of the `kernels` before it, times the likelihood.

    They are evenly spread over a Gaussian somewhat wider than the law after it, and weighted: far less noise
    than in random draws. Where that leaves fewer than a quarter effective, as for modes far apart or in many
    dimensions, they are drawn at random, from the kernels after it.

    Args:
      predicted, updated: the particles with their weights before and after the observation.
      log_likelihood: of the observation, at points.

    Returns:
      As many particles, with the log-density at each, and the log-evidence.
    """
    before, after = kernels(predicted), kernels(updated)
    size, dim = predicted.position.shape
    dtype = predicted.position.dtype

    def place(white: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return after.whitening.back(white.astype(dtype))

    def weighed(x: Float[Array, "n d"], log_proposal: Float[Array, " n"]) -> tuple[Sample, Scalar]:
        log_joint = kernels_log_density(before, x) + log_likelihood(x)
        flat = Particles(x, -log_proposal - jnp.log(size))
        particles, log_evidence = reweighted(flat, log_joint)
        return Sample(particles, log_joint - log_evidence), log_evidence

    def random() -> tuple[Sample, Scalar]:
        resample_key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (size, dim), dtype)
        x = place(resample(resample_key, after.centres, size).position + after.width * noise)
        return weighed(x, kernels_log_density(after, x))

    x = place(_WIDER * standard_normal(dim).spread(key, size).position)
    proposal = gaussian(after.whitening.centre, _WIDER**2 * after.whitening.factor @ after.whitening.factor.T)
    assert proposal.log_density is not None
    even = weighed(x, jax.vmap(proposal.log_density)(x))
    return jax.lax.cond(too_few(even[0].particles, _FEWEST), random, lambda: even)


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
