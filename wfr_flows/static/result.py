"""What every static solver returns."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.static.bounds import DualPotentials
from wfr_flows.static.plans import SparsePlan
from wfr_flows.typing import Array, Scalar

_ROUNDING = 10.0


class StaticResult(NamedTuple):
    """An exact distance with its certificate.

    Attributes:
      value: upper bound on d², the cost of an explicit semi-coupling; differentiable with respect to
        positions, log-weights and alpha by the envelope theorem, at the cost of a sum over the plan. To first
        order only, and the other fields have derivative zero.
      lower_bound: value of feasible dual potentials; up to rounding the true d² lies in
        ``[lower_bound, value]``.
      gap: ``value - lower_bound``.
      potentials: the feasible dual potentials behind ``lower_bound`` (plain WFR between the measures, or
        between their normalisations for the spherical distance).
      plan: the transport plan behind ``value``, as a list of pairs.
      num_iterations: Newton steps, those between cells of a large problem included; 0 where smoothed
        transport alone closed the gap.
      converged: whether ``gap <= tolerance · value``.
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


def unknown(certify: Callable[..., StaticResult], *arguments) -> StaticResult:
    """A result that proves nothing, of the shapes that ``certify`` returns: what an iteration begins with."""
    shapes = jax.eval_shape(certify, *arguments)
    blank: StaticResult = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return blank._replace(value=jnp.full_like(blank.value, jnp.inf), gap=jnp.full_like(blank.gap, jnp.inf))


def rounding(size: Scalar) -> Scalar:
    """A few rounding errors of numbers of this size."""
    return _ROUNDING * jnp.finfo(size.dtype).eps * size


def accept_rounding(result: StaticResult, unit: Scalar) -> StaticResult:
    """A gap of a few rounding errors is as good as none: of equal measures every relative gap is infinite."""
    return result._replace(converged=result.converged | (jnp.abs(result.gap) <= rounding(unit)))
