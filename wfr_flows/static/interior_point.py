"""Log-entropy transport by a primal-dual interior-point method, on whatever pairs a plan may use."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.static.bounds import DualPotentials, divergence, dual_value, shift
from wfr_flows.static.pairs import Pairs
from wfr_flows.static.plans import ratio
from wfr_flows.typing import Array, ArrayLike, Bool, Float, Int, Scalar

_TO_THE_BOUNDARY = 0.99
_LEAST_CENTERING = 1e-4
_SCALING_STEPS = 20
_PATIENCE = 2.0


class Problem(NamedTuple):
    """``min ⟨c, γ⟩ + ρ KL(γ₁|μ) + ρ KL(γ₂|ν)`` on given pairs.

    Attributes:
      cost: ``c``, one per pair.
      legal: pairs that a plan may use: within reach, both weights positive.
      source, target: the weights μ ``[n]`` and ν ``[m]``.
      inverse_penalty: ``1/ρ``; 0 prescribes the marginals, of equal mass.
      rest: what no plan can save, and counts where a gap is compared with the value.
    """

    cost: Float[Array, "*p"]
    legal: Bool[Array, "*p"]
    source: Float[Array, " n"]
    target: Float[Array, " m"]
    inverse_penalty: Scalar
    rest: Scalar


class Path(NamedTuple):
    """A point near the central path ``γ_ij (c_ij - f_i - g_j) = τ p_i q_j``.

    Attributes:
      potentials: strictly feasible, ``f_i + g_j < c_ij``.
      plan: one entry per pair, 0 where the pair is not legal.
      product: ``p_i q_j`` on every pair, the same all along the path.
      lower: the dual value of the potentials.
      gap: ``Σγ(c-f-g) + ρ KL(γ₁|μ e^{-f/ρ}) + ρ KL(γ₂|ν e^{-g/ρ})``: primal less dual value.
      num_iterations: Newton steps so far.
      stalled: whether the last step, spoilt by rounding, was refused.
    """

    potentials: DualPotentials
    plan: Float[Array, "*p"]
    product: Float[Array, "*p"]
    lower: Scalar
    gap: Scalar
    num_iterations: Int[Array, ""]
    stalled: Bool[Array, ""]


def between(
    source: Particles,
    target: Particles,
    cost: Array,
    legal: Array,
    present: tuple[Bool[Array, " n"], Bool[Array, " m"]],
    inverse_penalty: Scalar,
    growth: Scalar | float,
) -> Problem:
    """The problem between two probability measures, of those particles alone that are present.

    What is absent dies or is born at ``ρ`` for a unit of mass; ``growth`` is in units of cost.
    """
    first, second = (
        jnp.where(here, measure.weight, 0.0) for here, measure in zip(present, (source, target), strict=True)
    )
    alone = (source.weight.sum() - first.sum()) + (target.weight.sum() - second.sum())
    rest = growth + ratio(alone, inverse_penalty)
    return Problem(cost, legal, first, second, inverse_penalty, rest)


def with_ties_broken(problem: Problem, pairs: Pairs, size: Scalar) -> Problem:
    """The problem at costs larger by up to ``size``, by a different share of it for every pair.

    Of all plans that cost the least, which between points of a grid are very many, the central path leads to
    the middle, where every pair has mass. Here it leads to a plan on fewer than ``n + m`` pairs, which costs
    at most ``size`` for a unit of mass more than the best.
    """
    # Not to be computed while compiling.
    n, m = problem.source.size, problem.target.size
    index = jax.lax.optimization_barrier((jnp.arange(n, dtype=jnp.uint32), jnp.arange(m, dtype=jnp.uint32)))
    seed = pairs.combine(jnp.add, index[0] * jnp.uint32(0x9E3779B1), index[1] * jnp.uint32(0x85EBCA77))
    seed = (seed ^ (seed >> 15)) * jnp.uint32(0x2C1B3C6D)
    share = ((seed ^ (seed >> 13)) >> 8).astype(problem.cost.dtype) / 2**24
    return problem._replace(cost=problem.cost + share * jnp.minimum(problem.cost, size))


def begin(problem: Problem, pairs: Pairs, start: DualPotentials) -> Path:
    """The point of the central path at given, strictly feasible potentials.

    The products ``p_i q_j`` are those for which the plan has the marginals that its potentials ask for, so
    that the start lies on its path however uneven the weights.
    """
    start = shift(start, problem.source, problem.target, problem.inverse_penalty)
    product = _scaling(problem, pairs, start)
    plan = product / _slack(problem, pairs, start)
    path = _assess(problem, pairs, start, plan, product, jnp.zeros((), jnp.int32))
    return path._replace(stalled=~jnp.isfinite(path.gap))


def follow(
    problem: Problem, pairs: Pairs, path: Path, tolerance: ArrayLike, max_iterations: ArrayLike
) -> Path:
    """Follow the central path until its relative gap is below the tolerance, or steps run out.

    Predictor and corrector after Mehrotra (1992) share one factorisation.
    """

    def unfinished(path: Path) -> Bool[Array, ""]:
        wide = path.gap > tolerance * (path.lower + path.gap + problem.rest)
        return wide & ~path.stalled & (path.num_iterations < max_iterations)

    return jax.lax.while_loop(unfinished, lambda p: _step(problem, pairs, p), path)


def feasible(problem: Problem, pairs: Pairs, potentials: DualPotentials, margin: Scalar) -> DualPotentials:
    """Potentials nearby with ``f_i + g_j <= c_ij - margin``, the correction shared by both sides."""

    def room(potentials: DualPotentials) -> tuple[Array, Array]:
        slack = problem.cost - pairs.combine(jnp.add, *potentials)
        return pairs.least(jnp.where(problem.legal, slack, jnp.inf))

    source = potentials.source + 0.5 * jnp.minimum(room(potentials)[0] - margin, 0.0)
    potentials = potentials._replace(source=source)
    return potentials._replace(target=potentials.target + jnp.minimum(room(potentials)[1] - margin, 0.0))


def _step(problem: Problem, pairs: Pairs, path: Path) -> Path:
    """One predictor-corrector step."""
    aim, source, target, closing = _direction(problem, pairs, path)
    growth = ratio(aim, path.plan) + closing - 1
    length = _length(jnp.max(closing), jnp.max(-growth))
    plan = path.plan * (1 + length * growth)
    moved = DualPotentials(path.potentials.source + length * source, path.potentials.target + length * target)
    moved = shift(moved, problem.source, problem.target, problem.inverse_penalty)
    found = _assess(problem, pairs, moved, plan, path.product, path.num_iterations + 1)
    # An inexact direction may widen the gap a little, for one step; a spoilt one widens it for good.
    stalled = ~(found.gap < _PATIENCE * path.gap)
    kept = jax.tree.map(lambda new, old: jnp.where(stalled, old, new), found, path)
    return kept._replace(num_iterations=found.num_iterations, stalled=stalled)


class _Direction(NamedTuple):
    """A plan that was aimed at, the change of the potentials towards it, and the share of slack it takes."""

    aim: Float[Array, "*p"]
    source: Float[Array, " n"]
    target: Float[Array, " m"]
    closing: Float[Array, "*p"]


def _direction(problem: Problem, pairs: Pairs, path: Path) -> _Direction:
    """Predictor: aim at a plan of zero products. Corrector: at the central path, less the second order."""
    slack = _slack(problem, pairs, path.potentials)
    weight = path.plan / slack
    tilted_source, tilted_target = _tilted(problem, path.potentials)
    rows, columns = pairs.sums(weight)
    alone = lambda total: jnp.where(total > 0, total, 1.0)  # noqa: E731  particles without pairs stay put
    solve = pairs.factorise(
        weight,
        alone(tilted_source * problem.inverse_penalty + rows),
        alone(tilted_target * problem.inverse_penalty + columns),
    )
    present_source, present_target = rows > 0, columns > 0
    products = path.plan * slack
    mean = products.sum() / path.product.sum()

    def aimed(_, before: tuple[Array, _Direction]) -> tuple[Array, _Direction]:
        """The plan that it would be better to aim at, after the Newton direction to one, were slacks to stay.

        With ``e = -ds/s``, a step towards a plan of zero products has ``dγ/γ = e - 1``, and tells by how much
        products can fall, and what the second order adds to them.
        """
        aim = before[0]
        rows, columns = pairs.sums(aim)
        source, target = solve(
            jnp.where(present_source, tilted_source - rows, 0.0),
            jnp.where(present_target, tilted_target - columns, 0.0),
        )
        closing = problem.legal * pairs.combine(jnp.add, source, target) / slack
        length = _length(jnp.max(closing), jnp.max(1 - closing))
        after = jnp.sum(products * (1 - length * closing) * (1 + length * (closing - 1)))
        centering = jnp.maximum((after / products.sum()) ** 3, _LEAST_CENTERING)
        better = (centering * mean * path.product + products * closing * (closing - 1)) / slack
        return better, _Direction(aim, source, target, closing)

    zero = jnp.zeros_like(slack)
    still = jax.tree.map(jnp.zeros_like, path.potentials)
    nowhere = _Direction(zero, still.source, still.target, zero)
    return jax.lax.fori_loop(0, 2, aimed, (zero, nowhere))[1]


def _length(*closing: Scalar) -> Scalar:
    """The longest step that keeps slacks and plan positive; ``closing`` is what a full step takes off."""
    return 1 / jnp.maximum(1.0, jnp.maximum(*closing) / _TO_THE_BOUNDARY)


def _slack(problem: Problem, pairs: Pairs, potentials: DualPotentials) -> Array:
    """``c - f - g``, and 1 where a pair is not legal."""
    return jnp.where(problem.legal, problem.cost - pairs.combine(jnp.add, *potentials), 1.0)


def _tilted(problem: Problem, potentials: DualPotentials) -> tuple[Array, Array]:
    """The marginals that potentials ask of a plan, ``μ e^{-f/ρ}`` and ``ν e^{-g/ρ}``."""
    k = problem.inverse_penalty
    source, target = (jnp.exp(-potential * k) for potential in potentials)
    return problem.source * source, problem.target * target


def _scaling(problem: Problem, pairs: Pairs, potentials: DualPotentials) -> Array:
    """Products ``p_i q_j`` for which the plan ``p_i q_j / s_ij`` has the marginals its potentials ask for.

    Sinkhorn's matrix scaling: ``1/s`` varies little, so that a few steps settle it.
    """
    kernel = problem.legal / _slack(problem, pairs, potentials)
    wanted = _tilted(problem, potentials)
    ones = jax.tree.map(jnp.ones_like, potentials)

    def scale(_, factors: tuple[Array, Array]) -> tuple[Array, Array]:
        p = ratio(wanted[0], pairs.sums(kernel * pairs.combine(jnp.multiply, ones.source, factors[1]))[0])
        return p, ratio(wanted[1], pairs.sums(kernel * pairs.combine(jnp.multiply, p, ones.target))[1])

    p, q = jax.lax.fori_loop(0, _SCALING_STEPS, scale, tuple(ones))
    return jnp.where(problem.legal, pairs.combine(jnp.multiply, p, q), 0.0)


def shortfall(
    problem: Problem, pairs: Pairs, potentials: DualPotentials, plan: Array
) -> tuple[Scalar, Scalar, Scalar]:
    """What parts a plan from potentials: ``⟨c-f-g, γ⟩``, and marginals other than they ask for.

    The latter as ``KL(γ₁|μ e^{-f/ρ}) + KL(γ₂|ν e^{-g/ρ})`` and in the L1 norm. With ρ times the divergence,
    primal less dual value is their sum, exactly.
    """
    found, wanted = (jnp.concatenate(sides) for sides in (pairs.sums(plan), _tilted(problem, potentials)))
    strays = jnp.sum(jnp.abs(found - wanted))
    return jnp.sum(plan * _slack(problem, pairs, potentials)), divergence(found, wanted), strays


def _assess(
    problem: Problem,
    pairs: Pairs,
    potentials: DualPotentials,
    plan: Array,
    product: Array,
    num_iterations: Array,
) -> Path:
    """Potentials and plan with the gap between them, see `Path`."""
    k = problem.inverse_penalty
    slackness, misfit, strays = shortfall(problem, pairs, potentials, plan)
    # Prescribed marginals: what strays has to be sent again, at the largest cost if need be.
    penalty = jnp.where(k > 0, misfit / jnp.where(k > 0, k, 1.0), 0.5 * strays * jnp.max(problem.cost))
    return Path(
        potentials,
        plan,
        product,
        dual_value(potentials, problem.source, problem.target, k),
        slackness + penalty,
        num_iterations,
        jnp.zeros((), bool),
    )
