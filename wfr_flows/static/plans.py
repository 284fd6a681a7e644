"""Sparse transport plans: chosen from a dense one, rounded to marginals, monotone on the line."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.numerics import running_total
from wfr_flows.typing import Array, Float, Int

_PER_PARTICLE = 8
_SCALING_STEPS = 10


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


def ratio(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, and 0 where the denominator is not positive; finite derivatives."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)
