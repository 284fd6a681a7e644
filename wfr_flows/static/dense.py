"""Moderate problems, on every pair: smoothed transport, then the interior-point method."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.static.annealing import Annealed, anneal, begin_annealing, smoothed_plan
from wfr_flows.static.bounds import DualPotentials, Penalised, dual_value, tighten
from wfr_flows.static.interior_point import Path, Problem, begin, between, feasible, follow, with_ties_broken
from wfr_flows.static.pairs import AllPairs
from wfr_flows.static.plans import heaviest, ratio
from wfr_flows.static.result import Assess, StaticResult, unknown
from wfr_flows.typing import Array, Bool, Scalar

_FIRST_TOLERANCE = 5.0
_NEXT_TOLERANCE = 0.1
_LEAST_TOLERANCE = 1e-6
# How much of the tolerance may be spent on making the best plan unique.
_TIES = 0.2
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
    known: Bool[Array, ""],
) -> StaticResult:
    """Smoothed transport first, and where that does not close the gap the central path from there.

    Memory is ``O(nm)``. Nothing is done where the answer is ``known``.
    """
    scaled, reachable, unit = _scaled(source, target, problem)
    # Where nobody else reaches a partner, a particle left out may: at a potential that asks little of it.
    most = jnp.max(jnp.where(scaled.legal, scaled.cost, 0.0))
    most = jnp.where(
        scaled.inverse_penalty * most > 1, ratio(jnp.ones_like(most), scaled.inverse_penalty), most
    )
    present = (source.log_weight > -jnp.inf)[:, None], (target.log_weight > -jnp.inf)[None, :]

    def certify(potentials: DualPotentials, plan: Array, num_iterations: Array) -> StaticResult:
        sparse = heaviest(plan)
        from_source, from_target = (reachable & here for here in present)
        in_units = problem._replace(inverse_penalty=scaled.inverse_penalty)
        start = jnp.where(scaled.source > 0, potentials.source, -most)
        tight = tighten(start, scaled.cost, from_source, from_target, in_units)
        potentials = DualPotentials(*(unit * potential for potential in tight))
        return assess(source, target, potentials, sparse, num_iterations)

    return _until_certified(scaled, certify, tolerance, max_iterations, known)


def _until_certified(
    problem: Problem,
    certify: Callable[[DualPotentials, Array, Array], StaticResult],
    tolerance: float,
    max_iterations: int,
    known: Bool[Array, ""],
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
        value = dual_value(potentials, problem.source, problem.target, problem.inverse_penalty)
        distinct = with_ties_broken(problem, pairs, _TIES * tolerance * jnp.maximum(value, 0.0))
        margin = jnp.maximum(_MARGIN * annealed.smoothing, _LEAST_MARGIN)
        path = jax.lax.cond(
            ~promising & (state.accuracy == first),
            lambda: begin(distinct, pairs, feasible(distinct, pairs, potentials, margin)),
            lambda: state.path,
        )
        path = follow(distinct, pairs, path, state.accuracy, jnp.where(promising, 0, max_iterations))
        smoothed = smoothed_plan(problem, pairs, potentials, annealed.smoothing)
        potentials, plan = jax.tree.map(
            partial(jnp.where, promising), (potentials, smoothed), (path.potentials, path.plan)
        )
        accuracy = jnp.where(promising, 1.0, _NEXT_TOLERANCE) * state.accuracy
        return _Progress(annealed, path, accuracy, certify(potentials, plan, path.num_iterations))

    annealed, no_plan = begin_annealing(problem), jnp.zeros_like(problem.cost)
    zero, no_steps = jnp.zeros_like(first), jnp.zeros((), jnp.int32)
    path = Path(annealed.potentials, no_plan, no_plan, zero, zero, no_steps, jnp.zeros((), bool))
    num_pairs = jax.eval_shape(heaviest, problem.cost).mass.size
    nothing = unknown(problem.cost.shape, num_pairs, problem.cost.dtype)._replace(converged=known)
    start = _Progress(annealed, path, first, nothing)
    return jax.lax.while_loop(unfinished, improve, start).result


def _scaled(
    source: Particles, target: Particles, problem: Penalised
) -> tuple[Problem, Bool[Array, "n m"], Scalar]:
    """The problem in units of a typical cost, which pairs are within reach, and the unit."""
    cost, reachable = problem.cost(source.position, target.position)
    weights = source.weight, target.weight
    # Particles lighter than rounding of the mass are left to the certificate.
    heavy = [weight > jnp.finfo(cost.dtype).eps for weight in weights]
    legal = reachable & problem.worthwhile(cost) & heavy[0][:, None] & heavy[1][None, :]
    share = jnp.where(legal, weights[0][:, None] * weights[1][None, :], 0.0)
    mean = ratio(jnp.sum(share * cost), jnp.sum(share))
    penalty = 1 / jnp.maximum(problem.inverse_penalty, jnp.finfo(cost.dtype).tiny)
    # Where islands out of reach of each other differ in mass, potentials have to find a level on each. That
    # costs the penalty, and Newton's systems resolve it beside costs that are not too small.
    lacking = jnp.where(problem.inverse_penalty > 0, _lacking(legal, *weights), 0.0)
    # Potentials reach the size of the penalty there, elsewhere that of the largest cost at most; rounding of
    # that size must stay below the unit. Costs that it swallows are as good as none.
    precision = float(jnp.finfo(cost.dtype).eps)
    largest = jnp.max(jnp.where(legal, cost, 0.0))
    islands = lacking > precision
    rounding = precision * jnp.where(islands, penalty, jnp.minimum(penalty, largest))
    unit = jnp.clip(jnp.where(mean > 0, mean, 1.0), 100 * rounding, penalty)
    unit = jnp.maximum(unit, jnp.where(islands, _LEAST_UNIT * precision**0.5 * penalty * lacking, 0.0))
    present = legal.any(axis=1), legal.any(axis=0)
    k = unit * problem.inverse_penalty
    scaled = between(source, target, cost / unit, legal, present, k, problem.growth / unit)
    return scaled, reachable, unit


def _lacking(legal: Bool[Array, "n m"], source: Array, target: Array) -> Scalar:
    """How far masses in reach of each other are apart: ``Σ (√a - √b)²`` over islands of ``a`` and ``b``."""
    legal = legal.astype(source.dtype)
    there, here = legal @ target, source @ legal
    here = ratio(legal @ (target * here), there)
    return jnp.sum(jnp.where(there > 0, source * (1 - jnp.sqrt(ratio(there, here))) ** 2, 0.0))
