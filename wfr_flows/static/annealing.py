"""Smoothed transport on every pair, at ever smaller smoothing: often all that is needed, always a good start."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.static.bounds import DualPotentials, dual_value, shift, tighten
from wfr_flows.static.interior_point import Problem, shortfall
from wfr_flows.static.pairs import AllPairs, Pairs
from wfr_flows.static.result import StaticResult
from wfr_flows.typing import Array, Bool, Float, Int, Scalar

_FIRST_SMOOTHING = 0.4
_OPENING_STEPS = 4
_OPENING_COOLING = 0.7
_RELAXATION = 1.5
_STEPS_PER_PARTICLE = 3
_WORTH_A_LOOK = 32
_FEW_STEPS = 8
_HOPE = 2.5
_MISFIT = 0.6
# The parabola through the potentials at 4, 2 and 1 times a smoothing, at half of it.
_EXTRAPOLATION = (0.125, -0.875, 1.75)

History = tuple[DualPotentials, DualPotentials, DualPotentials]
"""Potentials of three levels, the latest last."""

Certify = Callable[[DualPotentials, Array], StaticResult]
"""Potentials and a plan on all pairs to the certificate they make together."""


class Annealed(NamedTuple):
    """Where annealing ends.

    Attributes:
      history: the potentials of the last three levels, the latest last.
      smoothing: of the last level, in units of cost.
      ahead: scaling steps that the levels still to come would take, each twice those of the one before.
      result: the certificate, once one was drawn up.
    """

    history: History
    smoothing: Scalar
    ahead: Scalar
    result: StaticResult

    @property
    def potentials(self) -> DualPotentials:
        """Those of the last level."""
        return self.history[-1]


def anneal(
    problem: Problem, certify: Certify, unknown: StaticResult, tolerance: float, least_smoothing: float
) -> Annealed:
    """Halve the smoothing until a certificate closes, little of it is left, or too much work is ahead.

    Each level solves ``min ⟨c, γ⟩ + ρ KL(γ₁|μ) + ρ KL(γ₂|ν) + ε KL(γ|μ⊗ν)``. Its solution depends smoothly on
    ``ε``: a level starts from the parabola through the last three, and settles in a fifth of the steps. A
    certificate costs as much as many steps, and is drawn up once an estimate says that it closes.

    Args:
      problem: with weights of mass about 1 and costs of order 1.
      certify: what potentials and a plan prove.
      unknown: a result that proves nothing.
      tolerance: relative gap to reach.
      least_smoothing: where to end.
    """

    # Newton's method, which solves systems of the smaller side, takes over where it would be faster.
    most_steps = _STEPS_PER_PARTICLE * min(problem.cost.shape)

    def unfinished(state: Annealed) -> Bool[Array, ""]:
        return ~state.result.converged & (state.ahead < most_steps) & (state.smoothing > least_smoothing)

    def refine(state: Annealed) -> Annealed:
        smoothing = 0.5 * state.smoothing
        start = extrapolate(state.history)
        potentials, plan, num_steps = settle(problem, AllPairs(), start, smoothing, most_steps)
        gap = jax.lax.cond(
            smoothing <= _WORTH_A_LOOK * tolerance,
            lambda: _estimate(problem, potentials, plan),
            lambda: jnp.full_like(smoothing, jnp.inf),
        )
        result = jax.lax.cond(
            gap <= _HOPE * tolerance,
            lambda: certify(potentials, plan.astype(smoothing.dtype)),
            lambda: state.result,
        )
        slow = jnp.isfinite(gap) & (num_steps > _FEW_STEPS)
        ahead = jnp.where(slow, num_steps * gap / tolerance, 0.0)
        return Annealed((*state.history[1:], potentials), smoothing, ahead, result)

    twice_first = jnp.asarray(2 * _FIRST_SMOOTHING, problem.cost.dtype)
    start = Annealed((_opening(problem),) * 3, twice_first, jnp.zeros_like(twice_first), unknown)
    return jax.lax.while_loop(unfinished, refine, start)


def extrapolate(history: History) -> DualPotentials:
    """Potentials at half the last smoothing, from those at it, at twice and at four times it."""
    return jax.tree.map(
        lambda *levels: sum(c * level for c, level in zip(_EXTRAPOLATION, levels, strict=True)), *history
    )


def _logits(problem: Problem, pairs: Pairs, potentials: DualPotentials, smoothing: Scalar) -> Array:
    """``(f_i + g_j - c_ij)/ε``, ``-inf`` where a pair is not legal."""
    slack = problem.cost - pairs.combine(jnp.add, *potentials)
    return jnp.where(problem.legal, -slack / smoothing, -jnp.inf)


def _opening(problem: Problem) -> DualPotentials:
    """A few steps in the logarithmic domain, near which no later scaling under- or overflows."""
    zero = DualPotentials(jnp.zeros_like(problem.source), jnp.zeros_like(problem.target))

    def softened(potentials: DualPotentials, smoothing: Scalar, side: int) -> Array:
        others = potentials._replace(**{DualPotentials._fields[side]: zero[side]})
        logits = _logits(problem, AllPairs(), others, smoothing)
        weight = jnp.expand_dims((problem.target, problem.source)[side], side)
        total = jax.nn.logsumexp(logits, axis=1 - side, b=weight)
        soft = -smoothing * total / (1 + smoothing * problem.inverse_penalty)
        return jnp.where(jnp.isfinite(soft), soft, 0.0)

    def step(i: Array, potentials: DualPotentials) -> DualPotentials:
        smoothing = jnp.maximum(_OPENING_COOLING**i, _FIRST_SMOOTHING).astype(problem.cost.dtype)
        potentials = potentials._replace(target=softened(potentials, smoothing, 1))
        potentials = potentials._replace(source=softened(potentials, smoothing, 0))
        return shift(potentials, problem.source, problem.target, problem.inverse_penalty)

    return jax.lax.fori_loop(0, _OPENING_STEPS, step, zero)


def settle(
    problem: Problem, pairs: Pairs, start: DualPotentials, smoothing: Scalar, most_steps: int
) -> tuple[DualPotentials, Array, Int[Array, ""]]:
    """Sinkhorn's scaling at one smoothing, over-relaxed and shifted, from potentials nearby.

    A step is two products with one kernel, which single precision serves: it moves the potentials by a few
    times the smoothing, to where they lack a small part of it.

    Returns:
      The potentials, their plan in single precision, and the steps taken, ``most_steps`` if they did not settle.
    """
    k = problem.inverse_penalty
    logits = _logits(problem, pairs, start, smoothing)
    highest = jnp.maximum(-pairs.least(-logits)[0], jnp.finfo(logits.dtype).min)
    kernel = pairs.combine(lambda row, _: row, highest, jnp.zeros_like(problem.target))
    kernel = jnp.exp((logits - kernel).astype(jnp.float32))
    to_rows, to_columns = pairs.products(kernel)
    log_source, log_target = jnp.log(problem.source) + highest, jnp.log(problem.target)

    def log_product(product: Callable[[Array], Array], log_scaling: Array) -> Array:
        level = jnp.maximum(log_scaling.max(), jnp.finfo(log_scaling.dtype).min)
        total = product(jnp.exp(log_scaling - level).astype(kernel.dtype))
        return level + jnp.log(total.astype(level.dtype))

    def move(old: Array, first: Array, log_total: Array) -> Array:
        """To where the marginal is what the potential asks for; none for a particle without partner."""
        right = (first - smoothing * log_total) / (1 + smoothing * k)
        return jnp.where(jnp.isfinite(right), right - old, 0.0)

    def step(state: tuple[DualPotentials, Int[Array, ""], Scalar]):
        (source, target), number, _ = state
        ahead = log_target + (target - start.target) / smoothing
        rows = log_product(to_rows, ahead)
        change = move(source, start.source, highest + rows)
        source += _RELAXATION * change
        ahead = log_source + (source - start.source) / smoothing
        columns = log_product(to_columns, ahead)
        target += _RELAXATION * move(target, start.target, columns)
        potentials = shift(DualPotentials(source, target), problem.source, problem.target, k)
        return potentials, number + 1, jnp.sum(problem.source * jnp.abs(change)) / smoothing

    # What the marginals lack then costs no more than the smoothing does.
    enough = _MISFIT * jnp.maximum(smoothing, jnp.sqrt(smoothing * k))

    def unsettled(state: tuple[DualPotentials, Int[Array, ""], Scalar]) -> Bool[Array, ""]:
        _, number, misfit = state
        return (misfit > enough) & (number < most_steps)

    unknown = jnp.asarray(jnp.inf, smoothing.dtype)
    potentials, number, _ = jax.lax.while_loop(unsettled, step, (start, jnp.zeros((), jnp.int32), unknown))
    source, target = (
        jnp.exp(log_weight + (now - before) / smoothing).astype(kernel.dtype)
        for log_weight, now, before in zip((log_source, log_target), potentials, start, strict=True)
    )
    return potentials, kernel * pairs.combine(jnp.multiply, source, target), number


def _estimate(problem: Problem, potentials: DualPotentials, plan: Float[Array, "n m"]) -> Scalar:
    """The relative gap between the plan, were its marginals mended, and the potentials made tight."""
    k = problem.inverse_penalty
    value = partial(dual_value, source_weight=problem.source, target_weight=problem.target, k=k)
    slackness, misfit, strays = shortfall(problem, AllPairs(), potentials, plan)
    # What is in the wrong place can be left there, or be sent elsewhere.
    mending = jnp.minimum(misfit / jnp.where(k > 0, k, jnp.finfo(k.dtype).tiny), strays)
    tight = tighten(potentials.source, problem.cost, problem.legal, problem.legal)
    lower = value(shift(tight, problem.source, problem.target, k))
    gap = value(potentials) + slackness + mending - lower
    return gap / jnp.maximum(lower + problem.rest, jnp.finfo(lower.dtype).tiny)
