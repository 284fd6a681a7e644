"""Moderate problems, on every pair: smoothed transport, then the interior-point method."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.static.annealing import Annealed, anneal, begin_annealing, smoothed_plan
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


class _Progress(NamedTuple):
    """What there is between two certificates.

    Attributes:
      annealed: smoothed transport, as far as it went.
      path: the central path, once smoothed transport gave up.
      accuracy: the relative gap that the central path is to reach next.
      result: the last certificate.
    """

    annealed: Annealed
    path: Path
    accuracy: Scalar
    result: StaticResult


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

    return _until_certified(scaled, certify, tolerance, max_iterations)


def _until_certified(
    problem: Problem,
    certify: Callable[[DualPotentials, Array, Array], StaticResult],
    tolerance: float,
    max_iterations: int,
) -> StaticResult:
    """From certificate to certificate, until one of them suffices or nothing is left to try.

    Smoothed transport proposes one where it promises to close. Once it gave up, the central path does, from
    gap to smaller gap. A dual potential made tight and a plan made sparse prove more than the point of the
    path they come from, hence the first, generous accuracy.
    """
    pairs = AllPairs()
    first = jnp.asarray(_FIRST_TOLERANCE * tolerance, problem.cost.dtype)

    def unfinished(state: _Progress) -> Array:
        path, accuracy = state.path, state.accuracy
        # A gap of exactly 0 leaves no step to take, whatever it is that does not satisfy the certificate.
        stuck = path.stalled | (path.num_iterations >= max_iterations) | (path.gap <= 0)
        stuck |= accuracy < _LEAST_TOLERANCE * jnp.finfo(accuracy.dtype).eps
        return ~state.result.converged & ((accuracy == first) | ~stuck)

    def improve(state: _Progress) -> _Progress:
        # Of a batch, what is done waits for the others.
        before = state.annealed._replace(promising=state.result.converged)
        annealed = anneal(problem, before, tolerance)
        promising, potentials = annealed.promising, annealed.potentials
        margin = jnp.maximum(_MARGIN * annealed.smoothing, _LEAST_MARGIN)
        path = jax.lax.cond(
            ~promising & (state.accuracy == first),
            lambda: begin(problem, pairs, feasible(problem, pairs, potentials, margin)),
            lambda: state.path,
        )
        path = follow(problem, pairs, path, state.accuracy, jnp.where(promising, 0, max_iterations))
        smoothed = smoothed_plan(problem, pairs, potentials, annealed.smoothing)
        potentials, plan = jax.tree.map(
            partial(jnp.where, promising), (potentials, smoothed), (path.potentials, path.plan)
        )
        accuracy = jnp.where(promising, 1.0, _NEXT_TOLERANCE) * state.accuracy
        return _Progress(annealed, path, accuracy, certify(potentials, plan, path.num_iterations))

    annealed, no_plan = begin_annealing(problem), jnp.zeros_like(problem.cost)
    zero, no_steps = jnp.zeros_like(first), jnp.zeros((), jnp.int32)
    path = Path(annealed.potentials, no_plan, no_plan, zero, zero, no_steps, jnp.zeros((), bool))
    nothing = unknown(certify, annealed.potentials, no_plan, no_steps)
    start = _Progress(annealed, path, first, nothing)
    return jax.lax.while_loop(unfinished, improve, start).result


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
