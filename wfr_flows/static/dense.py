"""Moderate problems: the interior-point method on every pair, from a smoothed start."""

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.static.bounds import DualPotentials, Penalised, c_transform, shift
from wfr_flows.static.interior_point import Path, Problem, begin, feasible, follow
from wfr_flows.static.pairs import AllPairs
from wfr_flows.static.plans import heaviest, ratio
from wfr_flows.static.result import Assess, StaticResult, unknown
from wfr_flows.typing import Array, Scalar

_ROUNDING = 10.0
_FIRST_TOLERANCE = 5.0
_NEXT_TOLERANCE = 0.1
_LEAST_TOLERANCE = 1e-6
_WARM_STEPS = 12
_WARM_COOLING = 0.7
_WARM_SMOOTHING = 0.1


def solve(
    source: Particles,
    target: Particles,
    problem: Penalised,
    assess: Assess,
    tolerance: float,
    max_iterations: int,
) -> StaticResult:
    """Follow the central path from gap to smaller gap, until what ``assess`` certifies suffices.

    A dual potential made tight and a plan made sparse prove more than the point of the path they come from,
    hence the first, generous tolerance. Memory is ``O(nm)``.
    """
    scaled, unit, mass = _scaled(source, target, problem)
    pairs = AllPairs()

    def certify(path: Path) -> StaticResult:
        plan = heaviest(path.plan)
        potentials = c_transform(unit * path.potentials.source, source, target, problem)
        plan = plan._replace(mass=mass * plan.mass)
        result = assess(source, target, potentials, plan, path.num_iterations)
        return accept_rounding(result, unit * mass)

    first = jnp.asarray(_FIRST_TOLERANCE * tolerance, scaled.cost.dtype)

    def unfinished(state: tuple[Path, StaticResult, Scalar]) -> Array:
        path, result, inner = state
        # A gap of exactly 0 leaves no step to take, whatever it is that does not satisfy the certificate.
        stuck = path.stalled | (path.num_iterations >= max_iterations) | (path.gap <= 0)
        stuck |= inner < _LEAST_TOLERANCE * jnp.finfo(inner.dtype).eps
        return (inner == first) | (~result.converged & ~stuck)

    def refine(state: tuple[Path, StaticResult, Scalar]) -> tuple[Path, StaticResult, Scalar]:
        path, _, inner = state
        path = follow(scaled, pairs, path, inner, max_iterations)
        return path, certify(path), _NEXT_TOLERANCE * inner

    margin = jnp.asarray(_WARM_SMOOTHING, scaled.cost.dtype)
    path = begin(scaled, pairs, feasible(scaled, pairs, _warm_start(scaled), margin))
    return jax.lax.while_loop(unfinished, refine, (path, unknown(certify, path), first))[1]


def accept_rounding(result: StaticResult, unit: Scalar) -> StaticResult:
    """A gap of a few rounding errors is as good as none: of equal measures every relative gap is infinite."""
    floor = _ROUNDING * jnp.finfo(unit.dtype).eps * unit
    return result._replace(converged=result.converged | (result.gap <= floor))


def _scaled(source: Particles, target: Particles, problem: Penalised) -> tuple[Problem, Scalar, Scalar]:
    """The problem between the normalised measures in units of a typical cost, and the units of cost and mass.

    Masses come back as ``d²(aμ, bν) = √(ab) d²(μ, ν) + ρ(√a - √b)²`` and a shift of the potentials, and never
    mix with the transport, however much they differ.
    """
    cost, reachable = problem.cost(source.position, target.position)
    legal = reachable & (source.weight > 0)[:, None] & (target.weight > 0)[None, :]
    mass = jnp.exp(0.5 * (jax.nn.logsumexp(source.log_weight) + jax.nn.logsumexp(target.log_weight)))
    first = jnp.where(legal.any(axis=1), source.normalise().weight, 0.0)
    second = jnp.where(legal.any(axis=0), target.normalise().weight, 0.0)
    share = jnp.where(legal, first[:, None] * second[None, :], 0.0)
    mean = ratio(jnp.sum(share * cost), jnp.sum(share))
    penalty = 1 / jnp.maximum(problem.inverse_penalty, jnp.finfo(cost.dtype).tiny)
    # Potentials reach the size of the penalty, and rounding of that size must stay below the unit.
    least = jnp.where(problem.inverse_penalty > 0, 100 * jnp.finfo(cost.dtype).eps * penalty, 0.0)
    unit = jnp.clip(jnp.where(mean > 0, mean, 1.0), least, penalty)
    return Problem(cost / unit, legal, first, second, unit * problem.inverse_penalty), unit, mass


def _warm_start(problem: Problem) -> DualPotentials:
    """Potentials of the smoothed problem, by damped Sinkhorn steps at decreasing smoothing."""
    cost = jnp.where(problem.legal, problem.cost, jnp.inf)

    def transform(weight: Array, potential: Array, axis: int, smoothing: Scalar) -> Array:
        logits = jnp.expand_dims(potential, 1 - axis) - cost
        damped = smoothing / (1 + smoothing * problem.inverse_penalty)
        soft = -damped * jax.nn.logsumexp(logits / smoothing, axis=axis, b=jnp.expand_dims(weight, 1 - axis))
        return jnp.where(jnp.isfinite(soft), soft, 0.0)

    def step(i: Array, potentials: DualPotentials) -> DualPotentials:
        smoothing = jnp.maximum(_WARM_COOLING**i, _WARM_SMOOTHING).astype(cost.dtype)
        target = transform(problem.source, potentials.source, 0, smoothing)
        source = transform(problem.target, target, 1, smoothing)
        return shift(DualPotentials(source, target), problem.source, problem.target, problem.inverse_penalty)

    zero = DualPotentials(jnp.zeros_like(problem.source), jnp.zeros_like(problem.target))
    return jax.lax.fori_loop(0, _WARM_STEPS, step, zero)
