"""The problem that solvers see: distinct points of one typical length, with two probability measures on them.

Certified distances depend on units of length and of mass only through exact identities, and on coincident
particles only through their total. Both are taken out before a solver begins and put back afterwards, so that
no digits are lost at any scale and ties never reach the solver:

* ``d²(x/l, alpha/l²) = d²(x, alpha)/l²`` for a power of two ``l``, without rounding;
* ``d²(aμ, bν) = √(ab) d²(μ, ν) + 2alpha(√a - √b)²`` between probability measures ``μ, ν``, for every
  log-entropy problem with penalty ``2alpha`` (Liero, Mielke and Savaré, 2018);
* particles at one point are one particle of their total mass; its plan is dealt out to them exactly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.static.plans import ratio
from wfr_flows.typing import Array, Bool, Float, Int, Scalar

# Masses this many rounding errors apart are equal: sums of weights that were meant to be.
_EQUAL_MASSES = 32.0
# As much of the mass as two measures may differ in, in rounding errors, and still be one.
_EQUAL_MEASURES = 16.0
# The least and the greatest extent that is told apart, beside 1 and beside the root of alpha.
_EXTENTS = 1e-100, 1e100


class Reduced(NamedTuple):
    """Two probability measures on distinct points, and the way back to the given ones.

    Attributes:
      source, target: as given in units of ``length`` and with mass 1; all weight of a point is with the first
        particle there, the others have none.
      alpha: in units of ``length`` squared; ``inf`` where it is too large to tell from it.
      length: the unit of length, a power of two.
      growth: ``2alpha(√a - √b)²/√(ab)`` in units of ``length`` squared; 0 at ``alpha = inf``.
      growth_error: what rounding of the masses may do to it.
      mass_error: relative, of the masses; with how far those are apart that count as equal.
      log_mass: logarithms of the given masses ``a`` and ``b``.
      first_source, first_target: for every particle the one that has the weight of its point.
      partner: for every source particle, a target particle at the same point; 0 where there is none.
      equal: whether the two probability measures are the same, up to rounding.
    """

    source: Particles
    target: Particles
    alpha: Scalar
    length: Scalar
    growth: Scalar
    growth_error: Scalar
    mass_error: Scalar
    log_mass: tuple[Scalar, Scalar]
    first_source: Int[Array, " n"]
    first_target: Int[Array, " m"]
    partner: Int[Array, " n"]
    equal: Bool[Array, ""]


def reduce(source: Particles, target: Particles, alpha: Scalar, precision: float) -> Reduced:
    """Take units, masses and coincident particles out of a problem.

    Args:
      source, target: the measures `without_padding`, in double precision.
      alpha: length scale, likewise.
      precision: relative rounding error of the numbers that were given.
    """
    n, m = source.log_weight.size, target.log_weight.size
    carries = [measure.log_weight > -jnp.inf for measure in (source, target)]
    length = _length(source, target, alpha, *carries)
    position = jnp.concatenate([source.position, target.position]) / length
    (weight_source, log_a), (weight_target, log_b) = _shares(source.log_weight), _shares(target.log_weight)
    # Both sides in one go: half the program to compile.
    number = jnp.arange(n + m)
    side = jnp.where(number < n, 0, 1)
    index = number - n * side
    site = _sites(position)
    group = site + (n + m) * side
    size = jax.ops.segment_sum(jnp.concatenate([weight_source, weight_target]), group, 2 * (n + m))
    earliest = jax.ops.segment_min(index, group, 2 * (n + m))
    equal = jnp.sum(jnp.abs(size[: n + m] - size[n + m :])) <= _EQUAL_MEASURES * precision
    first, there = earliest[group], earliest[n + m :][site[:n]]
    log_weight = jnp.log(jnp.where(first == index, size[group], 0.0))
    merged = Particles(position[:n], log_weight[:n]), Particles(position[n:], log_weight[n:])
    units = jnp.maximum(alpha / length / length, jnp.finfo(length.dtype).tiny)
    apart = log_a - log_b
    same = jnp.abs(apart) <= _EQUAL_MASSES * precision
    quarter = 0.25 * jnp.where(same, 0.0, apart)
    penalty = 8 * jnp.where(jnp.isfinite(units), units, 0.0)
    slip = jnp.finfo(length.dtype).eps * (4 + jnp.abs(log_a) + jnp.abs(log_b))
    growth = penalty * jnp.sinh(quarter) ** 2
    growth_error = penalty * 0.25 * jnp.sinh(2 * jnp.abs(quarter)) * slip
    # Costs are at most half the dimension here, and penalties that many times as large prescribe marginals.
    flat = units >= source.position.shape[1] / jnp.finfo(length.dtype).eps
    return Reduced(
        source=merged[0],
        target=merged[1],
        alpha=jnp.where(flat, jnp.inf, units),
        length=length,
        growth=growth,
        growth_error=growth_error,
        mass_error=slip + jnp.where(same, jnp.abs(apart), 0.0),
        log_mass=(log_a, log_b),
        first_source=first[:n],
        first_target=first[n:],
        partner=jnp.where(there < m, there, 0),
        equal=equal,
    )


def without_padding(measure: Particles) -> Particles:
    """Particles of weight zero that are nowhere, in the corner of the heaviest ones."""
    nowhere = (measure.log_weight == -jnp.inf) & ~jnp.isfinite(measure.position).all(axis=1)
    heaviest = measure.log_weight == measure.log_weight.max()
    somewhere = jnp.max(jnp.where(heaviest[:, None], measure.position, -jnp.inf), axis=0)
    return measure._replace(position=jnp.where(nowhere[:, None], somewhere, measure.position))


def _length(source: Particles, target: Particles, alpha: Scalar, *carries: Array) -> Scalar:
    """The power of two at or above the extent of all particles with weight; 1 where they coincide.

    Its square, and alpha in units of that, stay far within what floats can hold: an extent beyond is as good
    as one at the limit, on the side of no distance or of none within reach.
    """
    here = jnp.concatenate(carries)[:, None]
    position = jnp.concatenate([source.position, target.position])
    high = jnp.max(jnp.where(here, position, -jnp.inf), axis=0)
    low = jnp.min(jnp.where(here, position, jnp.inf), axis=0)
    # Halves first: the difference of two large numbers may not be a number.
    extent = jnp.max(0.5 * high - 0.5 * low)
    near, far = (jnp.where(jnp.isinf(alpha), limit, jnp.sqrt(alpha) * limit) for limit in _EXTENTS)
    within = jnp.clip(extent, jnp.maximum(near, _EXTENTS[0]), jnp.minimum(far, _EXTENTS[1]))
    unit = jnp.ldexp(jnp.ones_like(extent), jnp.frexp(within)[1] + 1)
    return jnp.where((extent > 0) & jnp.isfinite(unit), unit, 1.0)


def _shares(log_weight: Float[Array, " n"]) -> tuple[Float[Array, " n"], Scalar]:
    """Weights of mass 1, and the logarithm of the mass. Relative errors do not grow with the logarithms."""
    level = jnp.max(log_weight)
    level = jnp.where(jnp.isfinite(level), level, 0.0)
    weight = jnp.exp(log_weight - level)
    total = weight.sum()
    return ratio(weight, total), level + jnp.log(total)


def _sites(position: Float[Array, "n d"]) -> Int[Array, " n"]:
    """The number of the point at which each particle is: equal numbers exactly where positions are equal.

    Particles are sorted by two hashes of their coordinates and compared with their neighbours. Should two
    points share both hashes, particles of one may get several numbers, which costs nothing but time.
    """
    # Adding zero makes -0 into 0.
    bits = jax.lax.bitcast_convert_type(position + 0.0, jnp.uint32).reshape(position.shape[0], -1)
    odd = 2 * jnp.arange(bits.shape[1], dtype=jnp.uint32)[None] + 1
    # Without the mixing of high bits into low ones, products of round numbers collide.
    mixed = (bits ^ (bits >> 15)) * (odd * jnp.uint32(0x9E3779B1))
    mixed = (mixed ^ (mixed >> 13)) * (odd * jnp.uint32(0x85EBCA77))
    hashes = (
        jnp.sum(mixed, axis=1, dtype=jnp.uint32),
        jnp.sum(mixed ^ (mixed >> 16), axis=1, dtype=jnp.uint32),
    )
    index = jnp.arange(position.shape[0])
    *_, order = jax.lax.sort((*hashes, index), num_keys=3)
    ordered = position[order]
    begins = jnp.any(ordered[1:] != ordered[:-1], axis=1)
    number = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(begins.astype(jnp.int32))])
    return jnp.zeros_like(number).at[order].set(number)
