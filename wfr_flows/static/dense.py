"""Moderate problems, on every pair: smoothed transport, then the interior-point method."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.static.annealing import anneal
from wfr_flows.static.bounds import DualPotentials, Penalised, tighten
from wfr_flows.static.interior_point import Path, Problem, begin, between, feasible, follow
from wfr_flows.static.pairs import AllPairs
from wfr_flows.static.plans import heaviest, ratio
from wfr_flows.static.result import Assess, StaticResult, accept_rounding, unknown
from wfr_flows.typing import Array, Bool, Scalar

_FIRST_TOLERANCE = 5.0
_NEXT_TOLERANCE = 0.1
_LEAST_TOLERANCE = 1e-6
_MARGIN = 3.0
_LEAST_MARGIN = 1e-2
# Times the root of the precision: what the mass that islands lack outweighs a unit of cost by, at the most.
_LEAST_UNIT = 100.0


def solve(
    source: Particles,
    target: Particles,
    problem: Penalised,
    assess: Assess,
    tolerance: float,
    max_iterations: int,
) -> StaticResult:
    """Smoothed transport first, and where that does not close the gap the central path from there.

    Memory is ``O(nm)``.
    """
    scaled, reachable, unit, mass = _scaled(source, target, problem)
    present = (source.log_weight > -jnp.inf)[:, None], (target.log_weight > -jnp.inf)[None, :]

    def certify(potentials: DualPotentials, plan: Array, num_iterations: Array) -> StaticResult:
        sparse = heaviest(plan)
        from_source, from_target = (reachable & here for here in present)
        in_units = problem._replace(inverse_penalty=scaled.inverse_penalty)
        tight = tighten(potentials.source, scaled.cost, from_source, from_target, in_units)
        potentials = DualPotentials(*(unit * potential for potential in tight))
        sparse = sparse._replace(mass=mass * sparse.mass)
        return accept_rounding(assess(source, target, potentials, sparse, num_iterations), unit * mass)

    no_steps = jnp.zeros((), jnp.int32)
    nothing = unknown(certify, DualPotentials(scaled.source, scaled.target), scaled.cost, no_steps)
    begun = anneal(scaled, partial(certify, num_iterations=no_steps), nothing, tolerance)

    def continued() -> StaticResult:
        margin = jnp.maximum(_MARGIN * begun.smoothing, _LEAST_MARGIN)
        return _refined(scaled, begun.potentials, margin, certify, begun.result, tolerance, max_iterations)

    return jax.lax.cond(begun.result.converged, lambda: begun.result, continued)


def _refined(
    problem: Problem,
    start: DualPotentials,
    margin: Scalar,
    certify: Callable[[DualPotentials, Array, Array], StaticResult],
    nothing: StaticResult,
    tolerance: float,
    max_iterations: int,
) -> StaticResult:
    """Follow the central path from gap to smaller gap, until what ``certify`` proves suffices.

    A dual potential made tight and a plan made sparse prove more than the point of the path they come from,
    hence the first, generous tolerance.
    """
    pairs = AllPairs()
    first = jnp.asarray(_FIRST_TOLERANCE * tolerance, problem.cost.dtype)

    def unfinished(state: tuple[Path, StaticResult, Scalar]) -> Array:
        path, result, inner = state
        # A gap of exactly 0 leaves no step to take, whatever it is that does not satisfy the certificate.
        stuck = path.stalled | (path.num_iterations >= max_iterations) | (path.gap <= 0)
        stuck |= inner < _LEAST_TOLERANCE * jnp.finfo(inner.dtype).eps
        return ~result.converged & ((inner == first) | ~stuck)

    def refine(state: tuple[Path, StaticResult, Scalar]) -> tuple[Path, StaticResult, Scalar]:
        path, _, inner = state
        path = follow(problem, pairs, path, inner, max_iterations)
        return path, certify(path.potentials, path.plan, path.num_iterations), _NEXT_TOLERANCE * inner

    path = begin(problem, pairs, feasible(problem, pairs, start, margin))
    return jax.lax.while_loop(unfinished, refine, (path, nothing, first))[1]


def _scaled(
    source: Particles, target: Particles, problem: Penalised
) -> tuple[Problem, Bool[Array, "n m"], Scalar, Scalar]:
    """The problem between the normalised measures in units of a typical cost, what is in reach, both units.

    Masses come back as ``d²(aμ, bν) = √(ab) d²(μ, ν) + ρ(√a - √b)²`` and a shift of the potentials, and never
    mix with the transport, however much they differ.
    """
    cost, reachable = problem.cost(source.position, target.position)
    legal = reachable & problem.worthwhile(cost) & (source.weight > 0)[:, None] & (target.weight > 0)[None, :]
    mass = jnp.exp(0.5 * (jax.nn.logsumexp(source.log_weight) + jax.nn.logsumexp(target.log_weight)))
    weights = source.normalise().weight, target.normalise().weight
    share = jnp.where(legal, weights[0][:, None] * weights[1], 0.0)
    mean = ratio(jnp.sum(share * cost), jnp.sum(share))
    penalty = 1 / jnp.maximum(problem.inverse_penalty, jnp.finfo(cost.dtype).tiny)
    # Potentials reach the size of the penalty, and rounding of that size must stay below the unit. Costs that
    # it swallows are as good as none.
    rounding = jnp.where(problem.inverse_penalty > 0, jnp.finfo(cost.dtype).eps * penalty, 0.0)
    unit = jnp.clip(jnp.where(mean > rounding, mean, 1.0), 100 * rounding, penalty)
    # Where islands out of reach of each other differ in mass, potentials have to find a level on each. That
    # costs the penalty, and Newton's systems resolve it beside costs that are not too small.
    lacking = jnp.where(problem.inverse_penalty > 0, penalty * _lacking(legal, *weights), 0.0)
    unit = jnp.maximum(unit, _LEAST_UNIT * float(jnp.finfo(cost.dtype).eps) ** 0.5 * lacking)
    present = legal.any(axis=1), legal.any(axis=0)
    scaled = between(source, target, cost / unit, legal, present, unit * problem.inverse_penalty)
    return scaled, reachable, unit, mass


def _lacking(legal: Bool[Array, "n m"], source: Array, target: Array) -> Scalar:
    """How far masses in reach of each other are apart: ``Σ (√a - √b)²`` over islands of ``a`` and ``b``."""
    there, here = legal @ target, source @ legal
    here = ratio(legal @ (target * here), there)
    return jnp.sum(jnp.where(there > 0, source * (1 - jnp.sqrt(ratio(there, here))) ** 2, 0.0))
