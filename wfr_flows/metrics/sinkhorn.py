"""The debiased Sinkhorn divergence: smoothed transport without its bias."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles, moments
from wfr_flows.metrics.samples import centred, check_dimensions
from wfr_flows.numerics import in_blocks, squared_distance
from wfr_flows.typing import Array, ArrayLike, Bool, Float, Int, Scalar

_SHRINK = 0.5
_SWEEPS = 3  # at each greater ε: the start of the next, which needs no digits
_NUMBERS_PER_PAIR = 4
# Sweeps between two looks at how fast the error falls: enough for the slowest mode to show.
_LOOK = 20
# More relaxation is faster where it converges slowly, and leaves more rounding: 1/(2 - w) times it.
_MOST = 1.95
# A new relaxation lets the error grow before it falls; beyond this it is too much.
_GROWTH = 10.0
# What rounding leaves, of the squared extent: where error and value are down to it, more sweeps are in vain.
_ROUNDING = 0.25


class SinkhornDivergence(NamedTuple):
    """A divergence, and what tells whether its iterations have come to an end.

    Attributes:
      value: the divergence.
      marginal_error: mass, of 1, that the plan between both measures puts in a wrong place.
      converged: the error is at most the tolerance, also for the plans within each measure.
      iterations: of the plan between both measures, at the last ``ε``.
    """

    value: Scalar
    marginal_error: Scalar
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]


class _Pair(NamedTuple):
    """Dual potentials at the particles of two measures."""

    first: Float[Array, " n"]
    second: Float[Array, " m"]


class _Search(NamedTuple):
    """Potentials at the last ``ε``, their error and value now and at the last look, and what goes on."""

    pair: _Pair
    error: Scalar
    value: Scalar
    relaxation: Scalar
    settled: Bool[Array, ""]
    count: Int[Array, ""]


Sweep = Callable[[_Pair, ArrayLike, ArrayLike], tuple[_Pair, Scalar]]
"""``(pair, ε, relaxation) -> (pair, marginal error)``."""


def sinkhorn_divergence(
    a: Particles, b: Particles, *, blur: float = 0.05, tolerance: float = 5e-3, max_iterations: int = 2000
) -> SinkhornDivergence:
    """``OT_ε(a, b) - ½OT_ε(a, a) - ½OT_ε(b, b)`` with cost ``½|x - y|²``, ``ε = blur²``.

    The debiased divergence of Feydy et al. (2019), never negative, and ``½W₂²`` in the limit of no blur.
    ``OT_ε`` is the transport cost plus ``ε KL(γ|a⊗b)``. Overrelaxed iterations on the dual potentials
    (Lehmann et al., 2021), with ``ε`` halved from the squared extent of the data down, go on until the plan
    has the right marginals. Both ends times 10, with a blur times 10, have 100 times the divergence. Compares
    the probability measures; linear memory. First derivatives alone are right: the plan counts as fixed.

    Args:
      a, b: ``[n, d]`` and ``[m, d]`` weighted particles.
      blur: length ``> 0``, in the units of the positions, at which particles are seen as one.
      tolerance: mass, of 1, that the plan may put in a wrong place; the error of the value is of its square.
        In single precision rounding leaves about 1e-7 times the squared extent over ``ε``.
      max_iterations: at the last ``ε``; it takes more of them, the smaller the blur is next to the extent.

    Returns:
      A `SinkhornDivergence`. Where it has not ``converged``, give a greater ``blur``, more
      ``max_iterations``, or double precision: iterations end early where rounding stops them.

    Raises:
      ValueError: dimensions that differ, or a ``blur`` that is not positive.
    """
    check_dimensions(a, b)
    if not blur > 0:
        raise ValueError(f"blur is {blur}; give a length > 0.")
    return _divergence(a, b, blur, tolerance, max_iterations)


@jax.jit
def _divergence(
    a: Particles, b: Particles, blur: Scalar, tolerance: Scalar, max_iterations: Int[Array, ""]
) -> SinkhornDivergence:
    """One program for all lengths and tolerances."""
    a, b = centred(a, b)
    a_mean, b_mean = moments(a)[0], moments(b)[0]
    # Of measures of mean 0 the potentials are small, and keep their digits; the means add ½|x̄ - ȳ|².
    a, b = (m._replace(position=m.position - mean[None]) for m, mean in ((a, a_mean), (b, b_mean)))
    unit = jnp.linalg.norm(jnp.ptp(jax.lax.stop_gradient(jnp.concatenate([a.position, b.position])), axis=0))
    unit = jnp.where(unit > 0, unit, 1.0)
    a, b = (m._replace(position=m.position / unit) for m in (a, b))
    fixed_a, fixed_b = jax.lax.stop_gradient((a, b))
    epsilon = (blur / unit) ** 2
    cross, within_a, within_b = (
        _settled(sweep, x, y, epsilon, tolerance, max_iterations)
        for sweep, x, y in (
            (_between(fixed_a, fixed_b), fixed_a, fixed_b),
            (_within(fixed_a), fixed_a, fixed_a),
            (_within(fixed_b), fixed_b, fixed_b),
        )
    )
    value = _share(a, b, cross.pair.first, cross.pair.second, within_a.pair.first, epsilon)
    value += _share(b, a, cross.pair.second, cross.pair.first, within_b.pair.first, epsilon)
    worst = jnp.maximum(cross.error, jnp.maximum(within_a.error, within_b.error))
    return SinkhornDivergence(
        value=0.5 * jnp.sum((a_mean - b_mean) ** 2) + unit**2 * value,
        marginal_error=cross.error,
        converged=worst <= tolerance,
        iterations=cross.count,
    )


def _share(
    points: Particles, other: Particles, one: Array, across: Array, inner: Array, epsilon: Scalar
) -> Scalar:
    """One measure's part of the divergence, from potentials of both and of it alone.

    One more half-step has the derivative of the whole along the points: the rest is optimal. In the mean of
    the potential before and after it, errors of first order cancel.
    """
    fixed, seen = jax.lax.stop_gradient((points, other))
    after = _softmin(points.position, seen, across, epsilon) - _softmin(
        points.position, fixed, inner, epsilon
    )
    half = jax.lax.stop_gradient(0.5 * (one - inner - after))
    return jnp.sum(points.weight * after) + jnp.sum(fixed.weight * half)


def _between(a: Particles, b: Particles) -> Sweep:
    """Sinkhorn's half-steps in turn, each overrelaxed."""

    def sweep(pair: _Pair, epsilon: ArrayLike, relaxation: ArrayLike) -> tuple[_Pair, Scalar]:
        change = _softmin(a.position, b, pair.second, epsilon) - pair.first
        first, error = pair.first + relaxation * change, _misplaced(a, change, epsilon)
        change = _softmin(b.position, a, first, epsilon) - pair.second
        error = jnp.maximum(error, _misplaced(b, change, epsilon))
        return _Pair(first, pair.second + relaxation * change), error

    return sweep


def _within(a: Particles) -> Sweep:
    """The mean of a potential and its half-step, which halves the error at any ``ε`` (Feydy et al., 2019)."""

    def sweep(pair: _Pair, epsilon: ArrayLike, relaxation: ArrayLike) -> tuple[_Pair, Scalar]:
        del relaxation
        change = _softmin(a.position, a, pair.first, epsilon) - pair.first
        better = pair.first + 0.5 * change
        return _Pair(better, better), _misplaced(a, change, epsilon)

    return sweep


def _misplaced(measure: Particles, change: Array, epsilon: ArrayLike) -> Scalar:
    """Distance between the measure and a marginal of the plan."""
    return jnp.sum(measure.weight * jnp.abs(jnp.expm1(-change / epsilon)))


def _settled(
    sweep: Sweep,
    a: Particles,
    b: Particles,
    smallest: Scalar,
    tolerance: Scalar,
    max_iterations: Int[Array, ""],
) -> _Search:
    """Sweeps from ``ε = 1``, the squared extent, down, and at the smallest until the marginals are right."""

    def several(pair: _Pair, epsilon: ArrayLike, relaxation: ArrayLike, count: int) -> tuple[_Pair, Scalar]:
        def body(_: Array, now: tuple[_Pair, Scalar]) -> tuple[_Pair, Scalar]:
            return sweep(now[0], epsilon, relaxation)

        return jax.lax.fori_loop(0, count, body, (pair, jnp.full_like(smallest, jnp.inf)))

    def shrink(state: tuple[_Pair, Array]) -> tuple[_Pair, Array]:
        return several(*state, 1.0, _SWEEPS)[0], _SHRINK * state[1]

    def look(now: _Search) -> _Search:
        pair, error = several(now.pair, smallest, now.relaxation, _LOOK)
        value = jnp.sum(a.weight * pair.first) + jnp.sum(b.weight * pair.second)
        rounding = _ROUNDING * jnp.finfo(error.dtype).eps
        # The squared extent is 1.
        still = (jnp.abs(value - now.value) <= rounding) & (error * smallest <= rounding)
        return _Search(
            pair=pair,
            error=error,
            value=value,
            relaxation=_relaxation(now.relaxation, error, now.error),
            settled=(error <= tolerance) | still,
            count=now.count + _LOOK,
        )

    one = jnp.ones_like(smallest)
    start = _Pair(jnp.zeros_like(a.log_weight), jnp.zeros_like(b.log_weight))
    pair, _ = jax.lax.while_loop(lambda state: state[1] > smallest, shrink, (start, one))
    begin = _Search(pair, jnp.inf * one, jnp.inf * one, one, jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(lambda now: ~now.settled & (now.count < max_iterations), look, begin)


def _relaxation(now: Scalar, error: Scalar, before: Scalar) -> Scalar:
    """The relaxation that is best for the rate at which the error falls, by Young's theory of it.

    With ``σ`` the slowest rate of plain half-steps, relaxed ones have the rate ``r`` with
    ``(r + w - 1)² = r w² σ²``, which is least, and ``w - 1``, at ``w = 2/(1 + √(1 - σ²))``.
    """
    rate = jnp.clip((error / before) ** (1 / _LOOK), 1e-3, 1.0)
    slowest = jnp.minimum((rate + now - 1) ** 2 / (rate * now**2), 1.0)
    best = jnp.clip(2 / (1 + jnp.sqrt(1 - slowest)), now, _MOST)
    falls = (error < before) & (rate > now - 1)
    less = jnp.where(error > _GROWTH * before, 1 + 0.7 * (now - 1), now)
    return jnp.where(jnp.isfinite(before), jnp.where(falls, best, less), now)


def _softmin(points: Float[Array, "n d"], other: Particles, potential: Array, epsilon) -> Float[Array, " n"]:
    """``-ε log Σ_j w_j exp((g_j - ½|x - y_j|²)/ε)`` at every point, in blocks."""

    @jax.checkpoint
    def block(some: Float[Array, "s d"]) -> Float[Array, " s"]:
        cost = 0.5 * squared_distance(some, other.position)
        exponent = (potential[None] - cost) / epsilon + other.log_weight[None]
        return -epsilon * jax.nn.logsumexp(exponent, axis=1)

    return in_blocks(block, points, _NUMBERS_PER_PAIR * other.log_weight.size)
