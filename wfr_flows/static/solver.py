"""The certified static solver: log-entropy transport by translation-invariant Sinkhorn steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.numerics import inverse_alpha, saturate, sinc_squared, squared_distance, transport_cost
from wfr_flows.static.diracs import Diracs, spherical_from_plain
from wfr_flows.typing import Array, ArrayLike, Bool, Float, Scalar

_STEPS_PER_CHECK = 10
_ANNEALING = 0.5
_SMALL_CHANGE = 4e-3
_LEAST_SMOOTHING = 0.1
_LEAST_SHARE = 1e-12


class DualPotentials(NamedTuple):
    """Dual potentials in energy units (``2 alpha`` times those of the unit cone), one per particle.

    ``+inf`` marks a particle without partner within reach.
    """

    source: Float[Array, " n"]
    target: Float[Array, " m"]


class StaticResult(NamedTuple):
    """An exact distance with its certificate.

    Attributes:
      value: upper bound on d², the cost of an explicit semi-coupling; differentiable with respect to
        positions, log-weights and alpha by the envelope theorem.
      lower_bound: value of feasible dual potentials; the true d² lies in ``[lower_bound, value]``.
      gap: ``value - lower_bound``.
      potentials: the feasible dual potentials behind ``lower_bound`` (plain WFR between the measures, or
        between their normalisations for the spherical distance).
      entropic: the potentials of the smoothed problem at ``epsilon`` whose plan gave ``value``:
        ``exp((f + g - c)/epsilon) μν``, see `transport_plan`.
      epsilon: the smoothing of that plan, energy units.
      num_iterations: Sinkhorn iterations.
      converged: whether ``gap <= tolerance · value``.
    """

    value: Scalar
    lower_bound: Scalar
    gap: Scalar
    potentials: DualPotentials
    entropic: DualPotentials
    epsilon: Scalar
    num_iterations: Array
    converged: Array


class _Problem(NamedTuple):
    """Dense data of one problem: everything that does not change during the iteration."""

    squared: Float[Array, "n m"]
    cost: Float[Array, "n m"]
    reachable: Bool[Array, "n m"]
    log_source: Float[Array, " n"]
    log_target: Float[Array, " m"]
    alpha: Scalar


class _State(NamedTuple):
    entropic: DualPotentials
    potentials: DualPotentials
    epsilon: Scalar
    best_entropic: DualPotentials
    best_epsilon: Scalar
    lower: Scalar
    upper: Scalar
    num_iterations: Array


def wfr(
    source: Particles,
    target: Particles,
    alpha: ArrayLike,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 10_000,
) -> StaticResult:
    """``d²_WFR(source, target)`` between weighted point clouds of any mass, with a certificate.

    Log-entropy transport (Liero, Mielke and Savaré):
    ``min_γ ∫c dγ + 2alpha KL(γ₁|μ) + 2alpha KL(γ₂|ν)``, ``c = -4alpha log cos(min(|x-y|/2√alpha, π/2))``.
    Sinkhorn iterations in the log domain, with the exact shift along constants after each, anneal the
    smoothing until the gap between an explicit semi-coupling (upper bound) and the c-transformed
    potentials (lower bound) is below ``tolerance · value``.

    Args:
      source, target: `Particles`, ``[n, d]`` and ``[m, d]``; zero weights are legal.
      alpha: length scale ``> 0``. ``inf`` is ``½W₂²`` and needs equal masses.
      tolerance: relative gap to reach. In float32 about 1e-4 is the least that rounding allows.
      max_iterations: bound on the iterations; `StaticResult.converged` tells whether it sufficed.

    Returns:
      A `StaticResult`. Memory is ``O(nm)``.

    Raises:
      ValueError: dimensions that differ, an ``alpha`` or ``tolerance`` that is not positive.
    """
    problem = _problem(source, target, alpha)
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; give a positive relative gap.")
    fixed = jax.lax.stop_gradient(problem)
    state = jax.lax.while_loop(
        lambda s: (
            (s.num_iterations == 0)
            | ((s.upper - s.lower > tolerance * s.upper) & (s.num_iterations < max_iterations))
        ),
        lambda s: _advance(fixed, s, tolerance),
        _initial(fixed),
    )
    plan = jax.lax.stop_gradient(_plan(fixed, state.best_entropic, state.best_epsilon))
    # At the best plan found the derivatives of its cost are those of d² itself: the envelope theorem.
    value = _semi_coupling_cost(problem, plan)
    value = jnp.where(jnp.isfinite(state.upper), value - jax.lax.stop_gradient(value) + state.upper, jnp.inf)
    gap = jax.lax.stop_gradient(value) - state.lower
    return StaticResult(
        value,
        state.lower,
        gap,
        state.potentials,
        state.best_entropic,
        state.best_epsilon,
        state.num_iterations,
        gap <= tolerance * state.upper,
    )


def spherical_wfr(
    source: Particles,
    target: Particles,
    alpha: ArrayLike,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 10_000,
) -> StaticResult:
    """``d²_SWFR = 2alpha Θ²`` between the normalisations of two weighted point clouds.

    ``Θ = arccos(1 - d²_WFR/(4alpha))`` is increasing in ``d²_WFR``, so both bounds carry over [LM].
    Arguments, errors and result as in `wfr`; the potentials are those between the normalised measures.
    """
    plain = wfr(
        source.normalise(),
        target.normalise(),
        alpha,
        tolerance=0.8 * tolerance,
        max_iterations=max_iterations,
    )
    value = spherical_from_plain(plain.value, alpha)
    lower = spherical_from_plain(plain.lower_bound, alpha)
    gap = jax.lax.stop_gradient(value) - lower
    return plain._replace(value=value, lower_bound=lower, gap=gap, converged=gap <= tolerance * value)


def transport_plan(
    result: StaticResult, source: Particles, target: Particles, alpha: ArrayLike
) -> Float[Array, "n m"]:
    """The transport plan ``γ`` behind `wfr`, dense; for `spherical_wfr` pass the normalised measures."""
    return _plan(_problem(source, target, alpha), result.entropic, result.epsilon)


def semi_coupling(
    result: StaticResult,
    source: Particles,
    target: Particles,
    alpha: ArrayLike,
    *,
    num_pairs: int | None = None,
) -> Diracs:
    """The optimal semi-coupling as travelling Diracs: what moves where, what dies and what is born.

    ``γ⁰ = γ dμ/dγ₁`` leaves, ``γ¹ = γ dν/dγ₂`` arrives; their marginals are exactly μ and ν. Mass without
    partner stays in place, and dies or is born.

    Args:
      result, source, target, alpha: as given to and returned by `wfr`; for `spherical_wfr` pass the
        normalised measures.
      num_pairs: keep this many pairs, those that matter most to their row or column. The marginals stay
        exact (at ``alpha = inf`` the mass of the pairs left out is lost).
        Default: ``64(n + m)``, or all ``nm`` if that is fewer.

    Returns:
      `Diracs` of length ``num_pairs + n + m``; entries without mass pad it.
    """
    problem = _problem(source, target, alpha)
    n, m = problem.cost.shape
    size = min(64 * (n + m), n * m) if num_pairs is None else min(num_pairs, n * m)
    plan = _plan(problem, result.entropic, result.epsilon)
    share = jnp.maximum(_ratio(plan, plan.sum(axis=1, keepdims=True)), _ratio(plan, plan.sum(axis=0)))
    threshold_index = jax.lax.top_k(share.ravel(), size)[1]
    kept = jnp.zeros(n * m, bool).at[threshold_index].set(True).reshape(n, m)
    plan, u, v = _semi_coupling(problem, jnp.where(kept, plan, 0.0))
    row, column = threshold_index // m, threshold_index % m
    mass = plan[row, column]
    nobody = lambda weight, root: jnp.where(root > 0, 0.0, weight)  # noqa: E731
    return Diracs(
        jnp.concatenate([source.position[row], source.position, target.position]),
        jnp.concatenate([target.position[column], source.position, target.position]),
        jnp.concatenate([mass * u[row] ** 2, nobody(source.weight, u), jnp.zeros(m, mass.dtype)]),
        jnp.concatenate([mass * v[column] ** 2, jnp.zeros(n, mass.dtype), nobody(target.weight, v)]),
    )


def _problem(source: Particles, target: Particles, alpha: ArrayLike) -> _Problem:
    if source.position.ndim != 2 or target.position.ndim != 2:
        raise ValueError(
            f"positions have shapes {source.position.shape} and {target.position.shape}; give [n, d]."
        )
    if source.position.shape[1] != target.position.shape[1]:
        raise ValueError(
            f"source has dimension {source.position.shape[1]} and target {target.position.shape[1]};"
            " give both in the same space."
        )
    squared = squared_distance(source.position, target.position)
    alpha = jnp.asarray(alpha, squared.dtype)
    cost, reachable = transport_cost(squared, inverse_alpha(alpha))
    return _Problem(squared, cost, reachable, source.log_weight, target.log_weight, alpha)


def _initial(problem: _Problem) -> _State:
    n, m = problem.cost.shape
    dtype = problem.cost.dtype
    zero = DualPotentials(jnp.zeros(n, dtype), jnp.zeros(m, dtype))
    scale = jnp.maximum(jnp.max(problem.cost), jnp.minimum(problem.alpha, jnp.max(problem.squared)))
    epsilon = jnp.maximum(0.25 * scale, jnp.finfo(dtype).tiny ** 0.5)
    infinity = jnp.asarray(jnp.inf, dtype)
    return _State(
        zero, zero, epsilon, zero, epsilon, jnp.zeros((), dtype), infinity, jnp.zeros((), jnp.int32)
    )


def _advance(problem: _Problem, state: _State, tolerance: float) -> _State:
    """A few Sinkhorn steps, then both bounds, then less smoothing if the steps have settled.

    Smoothing costs about ``epsilon`` per unit of mass: there is nothing to gain below the tolerance.
    """

    def step(_, carry: tuple[DualPotentials, Scalar]) -> tuple[DualPotentials, Scalar]:
        before, _ = carry
        after = _sinkhorn(problem, before, state.epsilon)
        moved = jnp.where(jnp.isfinite(after.source), jnp.abs(after.source - before.source), 0.0)
        return after, jnp.max(moved)

    carry = (state.entropic, jnp.zeros((), state.epsilon.dtype))
    entropic, change = jax.lax.fori_loop(0, _STEPS_PER_CHECK, step, carry)
    potentials = _c_transform(problem, entropic)
    lower = _dual_value(problem, potentials)
    upper = _semi_coupling_cost(problem, _plan(problem, entropic, state.epsilon))
    better, tighter = lower > state.lower, upper < state.upper
    mass = jnp.exp(0.5 * (jax.nn.logsumexp(problem.log_source) + jax.nn.logsumexp(problem.log_target)))
    least = _LEAST_SMOOTHING * tolerance * lower / mass
    settled = (change < _SMALL_CHANGE * state.epsilon) & (state.epsilon > least)
    return _State(
        entropic,
        jax.tree.map(lambda new, old: jnp.where(better, new, old), potentials, state.potentials),
        jnp.where(settled, _ANNEALING, 1.0) * state.epsilon,
        jax.tree.map(lambda new, old: jnp.where(tighter, new, old), entropic, state.best_entropic),
        jnp.where(tighter, state.epsilon, state.best_epsilon),
        jnp.maximum(lower, state.lower),
        jnp.minimum(upper, state.upper),
        state.num_iterations + _STEPS_PER_CHECK,
    )


def _sinkhorn(problem: _Problem, potentials: DualPotentials, epsilon: Scalar) -> DualPotentials:
    """Both soft c-transforms, each damped by its KL penalty, then the exact shift along constants."""
    damping = 1 / (1 + 0.5 * epsilon * inverse_alpha(problem.alpha))

    def soft_transform(log_weight: Array, potential: Array, axis: int) -> Array:
        logits = jnp.expand_dims(log_weight + potential / epsilon, 1 - axis) - problem.cost / epsilon
        logits = jnp.where(problem.reachable, logits, -jnp.inf)
        return -damping * epsilon * jax.nn.logsumexp(logits, axis=axis)

    target = soft_transform(problem.log_source, potentials.source, 0)
    source = soft_transform(problem.log_target, target, 1)
    return _shift(problem, DualPotentials(source, target))


def _shift(problem: _Problem, potentials: DualPotentials) -> DualPotentials:
    """The best ``(f + ℓ, g - ℓ)``: ``ℓ = alpha log(∫exp(-f/2alpha)dμ / ∫exp(-g/2alpha)dν)``."""
    half = 0.5 * inverse_alpha(problem.alpha)

    def log_mean(log_weight: Array, potential: Array) -> Array:
        # log1p keeps the digits that alpha, large, multiplies; logsumexp the range where alpha is small.
        exponent = -potential * half
        gentle = jnp.abs(exponent) < 0.5
        near = jnp.sum(jax.nn.softmax(log_weight) * jnp.expm1(jnp.where(gentle, exponent, 0.0)))
        far = jax.nn.logsumexp(log_weight + exponent) - jax.nn.logsumexp(log_weight)
        return jnp.where(jnp.all(gentle | (log_weight == -jnp.inf)), jnp.log1p(near), far)

    log_ratio = jax.nn.logsumexp(problem.log_source) - jax.nn.logsumexp(problem.log_target)
    log_ratio += log_mean(problem.log_source, potentials.source)
    log_ratio -= log_mean(problem.log_target, potentials.target)
    offset = jnp.where(half > 0, 0.5 * log_ratio / jnp.where(half > 0, half, 1.0), 0.0)
    offset = jnp.where(jnp.isfinite(offset), offset, 0.0)
    return DualPotentials(potentials.source + offset, potentials.target - offset)


def _c_transform(problem: _Problem, potentials: DualPotentials) -> DualPotentials:
    """Feasible potentials, ``f(x) + g(y) <= c(x, y)``, the best along constants."""

    def hard_transform(log_weight: Array, potential: Array, axis: int) -> Array:
        present = problem.reachable & jnp.expand_dims(log_weight > -jnp.inf, 1 - axis)
        slack = jnp.where(present, problem.cost - jnp.expand_dims(potential, 1 - axis), jnp.inf)
        return jnp.min(slack, axis=axis)

    target = hard_transform(problem.log_source, potentials.source, 0)
    source = hard_transform(problem.log_target, target, 1)
    return _shift(problem, DualPotentials(source, target))


def _dual_value(problem: _Problem, potentials: DualPotentials) -> Scalar:
    """``∫2alpha(1 - exp(-f/2alpha))dμ + ∫2alpha(1 - exp(-g/2alpha))dν``."""

    def side(log_weight: Array, potential: Array) -> Scalar:
        weight = jnp.exp(log_weight)
        return jnp.sum(
            jnp.where(weight > 0, weight * saturate(potential, 0.5 * inverse_alpha(problem.alpha)), 0.0)
        )

    return side(problem.log_source, potentials.source) + side(problem.log_target, potentials.target)


def _plan(problem: _Problem, entropic: DualPotentials, epsilon: Scalar) -> Float[Array, "n m"]:
    """The plan of the smoothed problem, or that plan rounded to its optimal marginals where that costs less.

    At ``alpha = inf`` the marginals are prescribed, so it is always rounded.
    """
    log_source = problem.log_source + entropic.source / epsilon
    log_target = problem.log_target + entropic.target / epsilon
    logits = log_source[:, None] + log_target[None, :] - problem.cost / epsilon
    plan = jnp.where(problem.reachable, jnp.exp(logits), 0.0)
    half = 0.5 * inverse_alpha(problem.alpha)
    source = jnp.exp(problem.log_source - half * entropic.source)
    target = jnp.exp(problem.log_target - half * entropic.target)
    rounded = _round(plan, source, target)
    cheaper = _semi_coupling_cost(problem, rounded) < _semi_coupling_cost(problem, plan)
    return jnp.where(jnp.isinf(problem.alpha) | (problem.reachable.all() & cheaper), rounded, plan)


def _round(plan: Float[Array, "n m"], source: Array, target: Array) -> Float[Array, "n m"]:
    """A plan nearby with exactly the given marginals (Altschuler, Weed and Rigollet, algorithm 2)."""
    plan = plan * jnp.minimum(1.0, _ratio(source, plan.sum(axis=1)))[:, None]
    plan = plan * jnp.minimum(1.0, _ratio(target, plan.sum(axis=0)))[None, :]
    missing_source, missing_target = source - plan.sum(axis=1), target - plan.sum(axis=0)
    return plan + missing_source[:, None] * _ratio(missing_target, missing_target.sum())[None, :]


def _ratio(numerator: Array, denominator: Array) -> Array:
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)


def _semi_coupling(problem: _Problem, plan: Float[Array, "n m"]) -> tuple[Array, Array, Array]:
    """``(γ, u, v)`` with ``γu²`` and ``γv²`` the semi-coupling of a plan: ``u² = dμ/dγ₁``, ``v² = dν/dγ₂``.

    Rows and columns that the plan all but misses are left out: their mass dies or is born in place.
    """
    source, target = jnp.exp(problem.log_source), jnp.exp(problem.log_target)
    plan = jnp.where((plan.sum(axis=1) > _LEAST_SHARE * source)[:, None], plan, 0.0)
    plan = jnp.where((plan.sum(axis=0) > _LEAST_SHARE * target)[None, :], plan, 0.0)
    flat = jnp.isinf(problem.alpha)

    def root(weight: Array, marginal: Array) -> Array:
        ratio = jnp.where(flat, 1.0, _ratio(weight, marginal))
        return jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1.0)), 0.0)

    return plan, root(source, plan.sum(axis=1)), root(target, plan.sum(axis=0))


def _semi_coupling_cost(problem: _Problem, plan: Float[Array, "n m"]) -> Scalar:
    """``d²`` of the semi-coupling of a plan, an upper bound whatever the plan.

    ``Σ γ [½|x-y|² sinc²(z/2) uv + 2alpha(u - v)²]`` plus ``2alpha`` times the mass without partner: the
    closed form `pair_cost` with its row and column factors taken out of the root.
    """
    plan, u, v = _semi_coupling(problem, plan)
    angle = jnp.where(problem.reachable, 0.25 * problem.squared * inverse_alpha(problem.alpha), 0.0)
    move = 0.5 * problem.squared * sinc_squared(angle) * u[:, None] * v[None, :]
    growth = 2 * jnp.where(jnp.isinf(problem.alpha), 0.0, problem.alpha) * (u[:, None] - v[None, :]) ** 2
    source, target = jnp.exp(problem.log_source), jnp.exp(problem.log_target)
    unmatched = jnp.sum(jnp.where(u > 0, 0.0, source)) + jnp.sum(jnp.where(v > 0, 0.0, target))
    unbalanced = jnp.isinf(problem.alpha) & ~jnp.isclose(source.sum(), target.sum(), rtol=1e-4)
    alone = jnp.where(unmatched > 0, 2 * problem.alpha * jnp.where(unmatched > 0, unmatched, 1.0), 0.0)
    return jnp.sum(plan * (move + growth)) + jnp.where(unbalanced, jnp.inf, alone)
