"""Sparse transport plans: chosen from a dense one, rounded to marginals, dealt out to members of groups."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.numerics import running_total
from wfr_flows.typing import Array, Float, Int

_PER_PARTICLE = 8
_SCALING_STEPS = 10
# The length of a group of entries in integers of 64 bits, with room for twice as much.
_WHOLE = 1 << 62


class SparsePlan(NamedTuple):
    """A transport plan as a list of pairs; entries of mass 0 pad it, a pair may come up twice.

    Attributes:
      row, column: ``[k]``, indices of the source and of the target particle.
      mass: ``[k]``, non-negative.
    """

    row: Int[Array, " k"]
    column: Int[Array, " k"]
    mass: Float[Array, " k"]

    def dense(self, num_source: int, num_target: int) -> Float[Array, "n m"]:
        """The plan as a matrix ``γ_ij``."""
        return jnp.zeros((num_source, num_target), self.mass.dtype).at[self.row, self.column].add(self.mass)

    def marginals(self, num_source: int, num_target: int) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
        """``γ₁ [n]`` and ``γ₂ [m]``."""
        return (
            jax.ops.segment_sum(self.mass, self.row, num_source),
            jax.ops.segment_sum(self.mass, self.column, num_target),
        )


def heaviest(plan: Float[Array, "n m"]) -> SparsePlan:
    """The pairs of a dense plan that matter most to their row or to their column, eight for each particle."""
    n, m = plan.shape
    by_row, by_column = _largest(plan), _largest(plan.T)
    row = jnp.concatenate([jnp.repeat(jnp.arange(n, dtype=by_row.dtype), by_row.shape[1]), by_column.ravel()])
    column = jnp.concatenate(
        [by_row.ravel(), jnp.repeat(jnp.arange(m, dtype=by_row.dtype), by_column.shape[1])]
    )
    return SparsePlan(row, column, jnp.where(listed_twice(by_row, by_column), 0.0, plan[row, column]))


def listed_twice(by_row: Int[Array, "n p"], by_column: Int[Array, "m q"]) -> Array:
    """Which entries of ``by_row`` followed by ``by_column`` repeat an earlier one."""
    own = jnp.arange(by_column.shape[0], dtype=by_row.dtype)[:, None, None]
    in_rows = jnp.any(by_row[by_column] == own, axis=-1)
    return jnp.concatenate([_repeated(by_row).ravel(), (in_rows | _repeated(by_column)).ravel()])


def _repeated(lists: Int[Array, "n p"]) -> Array:
    """Which entries of a list stand in it before."""
    size = lists.shape[1]
    before = jnp.arange(size)[:, None] > jnp.arange(size)
    return jnp.any((lists[:, :, None] == lists[:, None, :]) & before, axis=-1)


def _largest(plan: Float[Array, "n m"]) -> Int[Array, "n p"]:
    # Relative to the row, so that single precision, for which selection is fast, loses no light row.
    share = plan / jnp.maximum(plan.max(axis=1, keepdims=True), jnp.finfo(plan.dtype).tiny)
    return jax.lax.top_k(share.astype(jnp.float32), min(_PER_PARTICLE, plan.shape[1]))[1]


def rounded(plan: SparsePlan, source: Float[Array, " n"], target: Float[Array, " m"]) -> SparsePlan:
    """A plan nearby with exactly the given marginals, of equal mass.

    Rows and columns are scaled to their marginals a few times over, then those with too much scaled down
    (Altschuler, Weed and Rigollet, 2017, algorithm 2). What is missing after that is sent in the order of the
    particles, by ``n + m`` pairs more.
    """
    row, column, mass = plan

    def scale(number: Array, mass: Array) -> Array:
        most = jnp.where(number < _SCALING_STEPS, jnp.inf, 1.0)
        rows, _ = plan._replace(mass=mass).marginals(source.size, target.size)
        mass = mass * jnp.minimum(ratio(source, rows), most)[row]
        _, columns = plan._replace(mass=mass).marginals(source.size, target.size)
        return mass * jnp.minimum(ratio(target, columns), most)[column]

    mass = jax.lax.fori_loop(0, _SCALING_STEPS + 1, scale, mass)
    rows, columns = plan._replace(mass=mass).marginals(source.size, target.size)
    rest = monotone(jnp.maximum(source - rows, 0.0), jnp.maximum(target - columns, 0.0))
    return SparsePlan(*(jnp.concatenate(both) for both in zip((row, column, mass), rest, strict=True)))


def monotone(source: Float[Array, " n"], target: Float[Array, " m"]) -> SparsePlan:
    """The plan between weights of equal mass that keeps their order: the north-west corner rule.

    Between weights sorted by position on the line it is optimal for every convex cost. ``n + m`` pairs, each
    one step to the next row or to the next column.
    """
    ends_source, ends_target = running_total(source), running_total(target)
    # The shorter total is stretched, so that rounding loses no mass at the end.
    ends_target = ends_target * ratio(ends_source[-1], ends_target[-1])
    ends = jnp.concatenate([ends_source, ends_target])
    order = jnp.argsort(ends)
    of_source = (order < source.size).astype(jnp.int32)
    row = jnp.cumsum(of_source) - of_source
    column = jnp.arange(order.size, dtype=row.dtype) - row
    mass = jnp.diff(ends[order], prepend=0.0)
    return SparsePlan(jnp.minimum(row, source.size - 1), jnp.minimum(column, target.size - 1), mass)


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


def ratio(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, and 0 where the denominator is not positive; finite derivatives."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)
