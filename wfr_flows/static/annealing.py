"""Smoothed transport at ever smaller smoothing: often all that is needed, always a good start."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.static.bounds import DualPotentials, dual_value, shift
from wfr_flows.static.interior_point import Problem, shortfall
from wfr_flows.static.pairs import AllPairs, Pairs, Product
from wfr_flows.typing import Array, Bool, Float, Int, Scalar

_FIRST_SMOOTHING = 0.4
_LEAST_SMOOTHING = 5e-6
_WARM_SMOOTHING = 5e-3
_SMOOTHED_TOLERANCE = 3e-5
_RELAXATION = 1.5
_STEPS_PER_PARTICLE = 4
# A smoothing costs about itself, relative to the value: between a third of that and three times as much.
_WORTH_A_LOOK = 8
_FEW_STEPS = 8
_HOPE = 2.5
_LARGEST_LOGIT = 30.0
_MISFIT = 0.6
# The parabola through the potentials at 4, 2 and 1 times a smoothing, at half of it.
_EXTRAPOLATION = (0.125, -0.875, 1.75)

History = tuple[DualPotentials, DualPotentials, DualPotentials]
"""Potentials of three levels, the latest last."""


class Annealed(NamedTuple):
    """Where annealing stands.

    Attributes:
      history: the potentials of the last three levels, the latest last.
      smoothing: of the last level, in units of cost.
      ahead: scaling steps that the levels still to come would take, each twice those of the one before, as
        the last two levels predict: one may be slow by accident.
      promising: whether a certificate of the last level is likely to close.
    """

    history: History
    smoothing: Scalar
    ahead: tuple[Scalar, Scalar]
    promising: Bool[Array, ""]

    @property
    def potentials(self) -> DualPotentials:
        """Those of the last level."""
        return self.history[-1]


def begin_annealing(problem: Problem) -> Annealed:
    """Potentials for levels to begin from. The weights have mass about 1, and costs are of order 1."""
    twice_first = jnp.asarray(2 * _FIRST_SMOOTHING, problem.cost.dtype)
    zero = DualPotentials(jnp.zeros_like(problem.source), jnp.zeros_like(problem.target))
    none = jnp.zeros_like(twice_first)
    return Annealed((zero, zero, zero), twice_first, (none, none), jnp.zeros((), bool))


def anneal(problem: Problem, state: Annealed, tolerance: float) -> Annealed:
    """Halve the smoothing until a certificate promises to close, or little of it is left, or too much to do.

    Each level solves ``min ⟨c, γ⟩ + ρ KL(γ₁|μ) + ρ KL(γ₂|ν) + ε KL(γ|μ⊗ν)``. Its solution depends smoothly on
    ``ε``: a level starts from the parabola through the last three, and settles in a fifth of the steps. A
    certificate costs as much as many steps, and is worth drawing up once an estimate says that it closes.

    Args:
      problem: as in `begin_annealing`.
      state: where annealing stands; where that is promising, it stays there.
      tolerance: relative gap to reach.
    """
    # Newton's method, which solves systems of the smaller side, takes over where it would be faster.
    most_steps = _STEPS_PER_PARTICLE * min(problem.cost.shape)
    least = least_smoothing(tolerance)

    def unfinished(state: Annealed) -> Bool[Array, ""]:
        return ~state.promising & (jnp.minimum(*state.ahead) < most_steps) & (state.smoothing > least)

    def refine(state: Annealed) -> Annealed:
        smoothing = 0.5 * state.smoothing
        start = extrapolate(state.history)
        potentials, num_steps = settle(problem, AllPairs(), start, smoothing, most_steps)
        rough = smoothing / _value(problem, potentials)
        gap = jax.lax.cond(
            rough <= _WORTH_A_LOOK * tolerance,
            lambda: _estimate(problem, potentials, smoothing),
            lambda: jnp.full_like(smoothing, jnp.inf),
        )
        ahead = jnp.where(num_steps > _FEW_STEPS, num_steps * rough / tolerance, 0.0)
        ahead = (state.ahead[1], ahead)
        return Annealed((*state.history[1:], potentials), smoothing, ahead, gap <= _HOPE * tolerance)

    return jax.lax.while_loop(unfinished, refine, state)


def least_smoothing(tolerance: float) -> float:
    """Where annealing ends: early if Newton's method will be needed anyway, and takes a good start alone."""
    return _WARM_SMOOTHING if tolerance < _SMOOTHED_TOLERANCE else _LEAST_SMOOTHING


def extrapolate(history: History) -> DualPotentials:
    """Potentials at half the last smoothing, from those at it, at twice and at four times it."""
    return jax.tree.map(
        lambda *levels: sum(c * level for c, level in zip(_EXTRAPOLATION, levels, strict=True)), *history
    )


def smoothed_plan(problem: Problem, pairs: Pairs, potentials: DualPotentials, smoothing: Scalar) -> Array:
    """``μ_i ν_j exp((f_i + g_j - c_ij)/ε)``, to single precision."""
    log_weight = pairs.combine(jnp.add, jnp.log(problem.source), jnp.log(problem.target))
    logits = _logits(problem, pairs, potentials, smoothing) + log_weight.astype(jnp.float32)
    return jnp.exp(logits).astype(problem.cost.dtype)


def _slack(problem: Problem, pairs: Pairs, potentials: DualPotentials) -> Float[Array, "*p"]:
    """``c_ij - f_i - g_j``, ``+inf`` where a pair is not legal.

    The difference is rounded to single precision, not what it is of: passes over it take half the time.
    """
    slack = problem.cost - pairs.combine(jnp.add, *potentials)
    return jnp.where(problem.legal, slack.astype(jnp.float32), jnp.inf)


def _logits(problem: Problem, pairs: Pairs, potentials: DualPotentials, smoothing: Scalar) -> Array:
    """``(f_i + g_j - c_ij)/ε``, ``-inf`` where a pair is not legal."""
    return -_slack(problem, pairs, potentials) / smoothing.astype(jnp.float32)


def settle(
    problem: Problem, pairs: Pairs, start: DualPotentials, smoothing: Scalar, most_steps: int
) -> tuple[DualPotentials, Int[Array, ""]]:
    """Sinkhorn's scaling at one smoothing, over-relaxed and shifted, from potentials nearby.

    A step is two products with one kernel, which single precision serves: it moves the potentials by a few
    times the smoothing, to where they lack a small part of it.

    Returns:
      The potentials, and the steps: ``most_steps`` if they did not settle.
    """
    k = problem.inverse_penalty
    weights = problem.source, problem.target
    log_weights = tuple(jnp.log(weight) for weight in weights)
    # What the marginals lack then costs no more than the smoothing does.
    enough = _MISFIT * jnp.maximum(smoothing, jnp.sqrt(smoothing * k))

    def unsettled(state: _Scaling) -> Bool[Array, ""]:
        return (state.misfit > enough) & (state.num_steps < most_steps)

    def with_one_kernel(state: _Scaling) -> _Scaling:
        # Single precision can exponentiate the largest logit of every row and column.
        start = _tightened(problem, pairs, state.potentials, _LARGEST_LOGIT * smoothing)
        kernel = jnp.exp(_logits(problem, pairs, start, smoothing))
        to_rows, to_columns = pairs.products(kernel)

        def step(state: _Scaling) -> _Scaling:
            source, target = state.potentials
            ahead = (target - start.target) / smoothing
            change = move(source, start.source, log_product(to_rows, log_weights[1] + ahead))
            source += _RELAXATION * change
            ahead = (source - start.source) / smoothing
            change_target = move(target, start.target, log_product(to_columns, log_weights[0] + ahead))
            moved = shift(DualPotentials(source, target + _RELAXATION * change_target), *weights, k)
            away = jax.tree.map(lambda new, old: jnp.max(jnp.abs(new - old)) / smoothing, moved, start)
            misfit = jnp.sum(problem.source * jnp.abs(change)) / smoothing
            return _Scaling(moved, state.num_steps + 1, misfit, jnp.maximum(*away))

        def goes_on(state: _Scaling) -> Bool[Array, ""]:
            return unsettled(state) & (state.away < _LARGEST_LOGIT)

        return jax.lax.while_loop(
            goes_on, step, state._replace(potentials=start, away=jnp.zeros_like(smoothing))
        )

    def log_product(product: Product, log_scaling: Array) -> Array:
        level = jnp.maximum(log_scaling.max(), jnp.finfo(log_scaling.dtype).min)
        total = product(jnp.exp(log_scaling - level).astype(jnp.float32))
        return level + jnp.log(total.astype(level.dtype))

    def move(old: Array, first: Array, log_total: Array) -> Array:
        """To where the marginal is what the potential asks for; none for a particle without partner."""
        right = (first - smoothing * log_total) / (1 + smoothing * k)
        return jnp.where(jnp.isfinite(right), right - old, 0.0)

    unknown = jnp.full_like(smoothing, jnp.inf)
    begun = _Scaling(start, jnp.zeros((), jnp.int32), unknown, jnp.zeros_like(smoothing))
    settled = jax.lax.while_loop(unsettled, with_one_kernel, begun)
    return settled.potentials, settled.num_steps


class _Scaling(NamedTuple):
    """Potentials, steps so far, what the source's marginal lacks, how far the kernel's own potentials are."""

    potentials: DualPotentials
    num_steps: Int[Array, ""]
    misfit: Scalar
    away: Scalar


def _tightened(
    problem: Problem, pairs: Pairs, potentials: DualPotentials, most: float | Array
) -> DualPotentials:
    """With least slacks of at most ``most``, of either sign, in rows and columns; c-transforms at 0."""

    def moved(potential: Array, slack: Array) -> Array:
        excess = slack - jnp.clip(slack, -most, most)
        return potential + jnp.where(jnp.isfinite(slack), excess, 0.0).astype(potential.dtype)

    source = moved(potentials.source, pairs.least(_slack(problem, pairs, potentials))[0])
    potentials = potentials._replace(source=source)
    return potentials._replace(
        target=moved(potentials.target, pairs.least(_slack(problem, pairs, potentials))[1])
    )


def _estimate(problem: Problem, potentials: DualPotentials, smoothing: Scalar) -> Scalar:
    """The relative gap between the plan, were its marginals mended, and the potentials made tight."""
    k = problem.inverse_penalty
    plan = smoothed_plan(problem, AllPairs(), potentials, smoothing)
    slackness, misfit, strays = shortfall(problem, AllPairs(), potentials, plan)
    # What is in the wrong place can be left there, or be sent elsewhere.
    mending = jnp.minimum(misfit / jnp.where(k > 0, k, jnp.finfo(k.dtype).tiny), strays)
    tight = _tightened(problem, AllPairs(), potentials, 0.0)
    lower = _value(problem, shift(tight, problem.source, problem.target, k))
    return (_value(problem, potentials) + slackness + mending - lower) / lower


def _value(problem: Problem, potentials: DualPotentials) -> Scalar:
    """The dual value, with what no plan can save."""
    value = dual_value(potentials, problem.source, problem.target, problem.inverse_penalty)
    return jnp.maximum(value + problem.rest, jnp.finfo(value.dtype).tiny)
