"""Pareto smoothing of importance weights: the few greatest by what their distribution says, not by chance."""

import math

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.typing import Array, Float, Scalar

_LEAST_TAIL = 5
_CANDIDATES = 30
_PRIOR_SHARE = 3.0
# The prior of the shape, in observations of one half.
_PRIOR_SIZE = 10.0


def pareto_smoothed(particles: Particles) -> tuple[Particles, Scalar]:
    """Weights whose greatest ``min(n/5, 3√n)`` are the quantiles of a generalised Pareto law fitted to them.

    One sample where a density falls off too fast can carry most of the weight; smoothing takes its share down
    to what the others make plausible, and none beyond the greatest there was; then the mass is restored
    (Vehtari, Simpson, Gelman, Yao and Gabry, 2024). Weights of zero stay zero.

    Args:
      particles: weighted by density ratios.

    Returns:
      The particles, and the shape ``k`` of the law: moments of the weights of order ``1/k`` and beyond are
      infinite. Below .7 averages over the particles are reliable; above, the samples miss what the law has.
      The weights are as they were, and it is NaN, for fewer than 25 particles and for too few different or
      positive weights; ``inf``, where the greatest is beyond what floats can compare with the others.
    """
    size = min(particles.log_weight.size // 5, math.ceil(3 * particles.log_weight.size**0.5))
    if size < _LEAST_TAIL:
        return particles, jnp.full_like(particles.log_weight[0], jnp.nan)
    log_mass = jax.nn.logsumexp(particles.log_weight)
    level = jnp.max(particles.log_weight)
    order = jnp.argsort(particles.log_weight)
    tail = order[-size:]
    log_threshold = particles.log_weight[order[-size - 1]] - level
    threshold = jnp.exp(log_threshold)
    excess = jnp.exp(particles.log_weight[tail] - level) - threshold
    shape, scale = fit_generalised_pareto(jnp.where(excess > 0, excess, jnp.finfo(excess.dtype).tiny))
    beyond = -jnp.log1p(-(jnp.arange(size, dtype=excess.dtype) + 0.5) / size)
    quantile = scale * jnp.where(shape == 0, beyond, jnp.expm1(shape * beyond) / shape)
    smooth = jnp.minimum(jnp.log(threshold + quantile), 0.0) + level
    fitted = jnp.isfinite(shape) & jnp.all(jnp.isfinite(smooth)) & (threshold > 0) & (_quartile(excess) > 0)
    log_weight = particles.log_weight.at[tail].set(smooth)
    log_weight += log_mass - jax.nn.logsumexp(log_weight)
    log_weight = jnp.where(fitted, log_weight, particles.log_weight)
    out_of_range = jnp.isfinite(log_threshold) & (threshold == 0)
    otherwise = jnp.where(out_of_range, jnp.inf, jnp.nan)
    return particles._replace(log_weight=log_weight), jnp.where(fitted, shape, otherwise)


def fit_generalised_pareto(excess: Float[Array, " n"]) -> tuple[Scalar, Scalar]:
    """Shape ``k`` and scale ``σ`` of ``P(X > x) = (1 + kx/σ)^(-1/k)`` (Zhang and Stephens, 2009).

    The posterior mean of ``θ = -k/σ`` over a grid of candidates, each with its best ``k``; the shape is drawn
    towards one half as by ten observations more.

    Args:
      excess: ``[n]``, positive, increasing.
    """
    n = excess.size
    count = _CANDIDATES + int(n**0.5)
    ranks = jnp.arange(1, count + 1, dtype=excess.dtype) - 0.5
    theta = 1 / excess[-1] + (1 - jnp.sqrt(count / ranks)) / (_PRIOR_SHARE * _quartile(excess))

    def shape_of(theta: Scalar) -> Scalar:
        return jnp.mean(jnp.log1p(-theta * excess))

    shapes = jax.vmap(shape_of)(theta)
    log_likelihood = n * (jnp.log(-theta / shapes) - shapes - 1)
    best = jnp.sum(theta * jax.nn.softmax(log_likelihood))
    shape = shape_of(best)
    scale = -shape / best
    return (n * shape + 0.5 * _PRIOR_SIZE) / (n + _PRIOR_SIZE), scale


def _quartile(increasing: Float[Array, " n"]) -> Scalar:
    return increasing[int(increasing.size / 4 + 0.5) - 1]
