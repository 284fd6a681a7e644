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


@jax.jit
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
    log_weight = particles.log_weight
    size = min(log_weight.size // 5, math.ceil(3 * log_weight.size**0.5))
    if size < _LEAST_TAIL:
        return particles, jnp.full_like(log_weight[0], jnp.nan)
    _, log_threshold, threshold, excess = _tail(log_weight, size)
    varied = (threshold > 0) & (_quartile(excess) > 0)
    # Where there is nothing to fit, the fit is of numbers that harm no derivative.
    harmless = jnp.log1p(jnp.arange(log_weight.size, dtype=log_weight.dtype))
    smooth, shape = _smoothed(jnp.where(varied, log_weight, harmless), size)
    fitted = varied & jnp.isfinite(shape)
    out_of_range = jnp.isfinite(log_threshold) & (threshold == 0)
    otherwise = jnp.where(out_of_range, jnp.inf, jnp.nan)
    smoothed = particles._replace(log_weight=jnp.where(fitted, smooth, log_weight))
    return smoothed, jnp.where(fitted, shape, otherwise)


def _smoothed(log_weight: Float[Array, " n"], size: int) -> tuple[Float[Array, " n"], Scalar]:
    """Log-weights of the same mass with a smooth tail of some size, and its shape."""
    tail, _, threshold, excess = _tail(log_weight, size)
    shape, scale = fit_generalised_pareto(jnp.maximum(excess, jnp.finfo(excess.dtype).tiny))
    beyond = -jnp.log1p(-(jnp.arange(size, dtype=excess.dtype) + 0.5) / size)
    quantile = scale * jnp.expm1(shape * beyond) / shape
    smooth = jnp.minimum(jnp.log(threshold + quantile), 0.0) + jnp.max(log_weight)
    smooth = log_weight.at[tail].set(smooth)
    return smooth + jax.nn.logsumexp(log_weight) - jax.nn.logsumexp(smooth), shape


def _tail(log_weight: Float[Array, " n"], size: int) -> tuple[Array, Scalar, Scalar, Float[Array, " size"]]:
    """Indices of the greatest, increasing; the one below, as logarithm and as it is; what exceeds it.

    All relative to the greatest.
    """
    order = jnp.argsort(log_weight)
    relative = log_weight[order] - log_weight[order[-1]]
    threshold = jnp.exp(relative[-size - 1])
    return order[-size:], relative[-size - 1], threshold, jnp.exp(relative[-size:]) - threshold


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
