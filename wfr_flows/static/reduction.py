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
import numpy as np

from wfr_flows.measures import Particles
from wfr_flows.static.plans import SparsePlan, ratio
from wfr_flows.typing import Array, Bool, Float, Int, Scalar

# Masses this many rounding errors apart are equal: sums of weights that were meant to be.
_EQUAL_MASSES = 32.0
# As much of the mass as two measures may differ in, in rounding errors, and still be one.
_EQUAL_MEASURES = 16.0
# The least and the greatest extent that is told apart, beside 1 and beside the root of alpha.
_EXTENTS = 1e-100, 1e100
# The length of a group of entries in integers of 64 bits, with room for twice as much.
_WHOLE = 1 << 62


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
    side = jnp.repeat(jnp.arange(2), np.array([n, m]), total_repeat_length=n + m)
    index = jnp.arange(n + m) - n * side
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


def dealt_out(
    plan: SparsePlan,
    log_source: Float[Array, " n"],
    log_target: Float[Array, " m"],
    group_source: Int[Array, " n"],
    group_target: Int[Array, " m"],
) -> SparsePlan:
    """A plan between groups of particles, shared by all in them in proportion to their weights.

    Entries are laid end to end over the particles of their group, first on one side, then on the other:
    ``n + m`` entries more, and marginals that are exact.
    """
    n, m, k = log_source.size, log_target.size, plan.mass.size
    most, size = max(n, m), k + n + m
    # One program for both sides: what pads them is a group of its own, the last.
    groups = jnp.stack([_padded(group, most, most) for group in (group_source, group_target)])
    log_weights = jnp.stack([_padded(some, most, -jnp.inf) for some in (log_source, log_target)])
    entries = _padded(plan.row, size, most), _padded(plan.mass, size, 0.0), _padded(plan.column, size, most)

    def one_side(side: Array, entries: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        own, mass, other = _split(*entries, groups[side], log_weights[side])
        return other, mass, own

    row, mass, column = jax.lax.fori_loop(0, 2, one_side, entries)
    return SparsePlan(jnp.minimum(row, n - 1), jnp.minimum(column, m - 1), mass)


def _padded(value: Array, size: int, filling: float) -> Array:
    value = value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.int32)
    return jnp.pad(value, (0, size - value.size), constant_values=filling)


def _split(
    own: Int[Array, " k"],
    mass: Float[Array, " k"],
    other: Int[Array, " k"],
    group: Int[Array, " n"],
    log_weight: Float[Array, " n"],
) -> tuple[Int[Array, " k"], Float[Array, " k"], Int[Array, " k"]]:
    """Entries at groups, cut where the next particle of the group begins.

    What is in the group number ``n`` is padding, and goes to the end: as many entries as were given remain.
    """
    n, k = group.size, own.size
    level = jax.ops.segment_max(log_weight, group, n)[group]
    share = jnp.where(level > -jnp.inf, jnp.exp(log_weight - level), 0.0)
    total = jax.ops.segment_sum(mass, own, n + 1)
    # Entries, then particles; each ordered by group.
    key = jnp.concatenate([own, n + 1 + group])
    key, order = jax.lax.sort((key, jnp.arange(n + k, dtype=key.dtype)), num_keys=1)
    end = _ends(jnp.concatenate([mass, share])[order], key, 2 * n + 2)
    key, end, number = jax.lax.sort((key % (n + 1), end, jnp.arange(n + k, dtype=key.dtype)), num_keys=2)
    of_entry = (number < k).astype(jnp.int32)
    entry = jnp.cumsum(of_entry) - of_entry
    particle = jnp.minimum(jnp.arange(n + k, dtype=jnp.int32) - entry, n - 1)
    begins = jnp.where(jnp.diff(key, prepend=-1) == 0, jnp.roll(end, 1), 0)
    piece = total[key] * ((end - begins) / _WHOLE)
    own = jnp.where(key < n, order[k + particle] - k, n)
    return own[:k], piece[:k], other[order[jnp.minimum(entry, k - 1)]][:k]


def _ends(value: Float[Array, " k"], group: Int[Array, " k"], count: int) -> Int[Array, " k"]:
    """Where the values of each group end, laid end to end over an interval of length `_WHOLE`.

    Groups are contiguous. Integers add up without rounding, and what sums of earlier groups overflow by drops
    out of differences, so that no group loses digits to the others.
    """
    whole = jnp.asarray(_WHOLE, jnp.uint64)
    total = jax.ops.segment_sum(value, group, count, indices_are_sorted=True)[group]
    length = (ratio(value, total) * whole).astype(whole.dtype)
    running = jnp.cumsum(length)
    begins = jnp.diff(group, prepend=-1) != 0
    before = jax.ops.segment_max(jnp.where(begins, running - length, 0), group, count)[group]
    # The last of a group that has any length ends with it, whatever rounding took from the others.
    full = jax.ops.segment_sum(length, group, count)[group]
    return jnp.where(running - before == full, whole, jnp.minimum(running - before, whole))


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
