"""What every static solver returns."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from wfr_flows.measures import Particles
from wfr_flows.static.bounds import DualPotentials
from wfr_flows.static.plans import SparsePlan
from wfr_flows.typing import Array, Scalar


class StaticResult(NamedTuple):
    """An exact distance with its certificate.

    Attributes:
      value: upper bound on d², the cost of an explicit semi-coupling and what rounding may have taken from
        it; differentiable with respect to positions, log-weights and alpha.
      lower_bound: value of feasible dual potentials, less what rounding may have added: the true d² lies in
        ``[lower_bound, value]``. Derivative zero, like that of the gap.
      gap: ``value - lower_bound``.
      potentials: the feasible dual potentials behind ``lower_bound`` (plain WFR between the measures, or
        between their normalisations for the spherical distance); differentiable.
      plan: the transport plan behind ``value``, as a list of pairs; its masses are differentiable.
      num_iterations: Newton steps, those between cells of a large problem included; 0 where smoothed
        transport alone closed the gap.
      converged: whether ``gap <= tolerance · value``, exactly.
    """

    value: Scalar
    lower_bound: Scalar
    gap: Scalar
    potentials: DualPotentials
    plan: SparsePlan
    num_iterations: Array
    converged: Array


Assess = Callable[[Particles, Particles, DualPotentials, SparsePlan, Array], StaticResult]
"""Measures, feasible potentials, a plan and the steps so far, to the certificate they make together."""


def outward(result: StaticResult, dtype: DTypeLike) -> StaticResult:
    """The result in another precision, with bounds that still are bounds."""

    def rounded(bound: Scalar, direction: float) -> Scalar:
        near = bound.astype(dtype)
        beyond = near.astype(bound.dtype) < bound if direction > 0 else near.astype(bound.dtype) > bound
        return jnp.where(beyond, jnp.nextafter(near, jnp.asarray(direction, dtype)), near)

    value, lower = rounded(result.value, jnp.inf), rounded(result.lower_bound, -jnp.inf)
    narrow = jax.tree.map(
        lambda leaf: leaf.astype(dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.int32),
        result._replace(converged=None),
    )
    return narrow._replace(value=value, lower_bound=lower, gap=value - lower, converged=result.converged)


def unknown(sizes: tuple[int, ...], num_pairs: int, dtype: DTypeLike) -> StaticResult:
    """A result that proves nothing: what an iteration begins with.

    Args:
      sizes: how many source and how many target particles.
      num_pairs: of the plans that are to be certified; rounding them to their marginals adds one a particle.
      dtype: of its floats.
    """
    none, infinite = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
    size = num_pairs + sum(sizes)
    no_index = jnp.zeros(size, jnp.int32)
    return StaticResult(
        value=infinite,
        lower_bound=none,
        gap=infinite,
        potentials=DualPotentials(*(jnp.zeros(count, dtype) for count in sizes)),
        plan=SparsePlan(no_index, no_index, jnp.zeros(size, dtype)),
        num_iterations=jnp.zeros((), jnp.int32),
        converged=jnp.zeros((), bool),
    )
