"""Distances between weighted samples.

Each compares the probability measures proportional to its arguments, whatever their masses. Particles of
weight zero do not count. Values and derivatives, in positions and log-weights, are finite where particles
coincide. Pairs are taken in blocks, so memory stays linear in the number of particles.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from wfr_flows.measures import Particles
from wfr_flows.numerics import in_blocks, running_total, squared_distance
from wfr_flows.typing import Array, ArrayLike, Float, Key, Scalar

Kernel = Callable[[Array], Array]

_AT_ONCE = 1 << 20
_NUMBERS_PER_PAIR = 16  # blocks for `in_blocks` that stay in a cache


@partial(jax.jit, static_argnames="unbiased")
def energy_distance(a: Particles, b: Particles, *, unbiased: bool = False) -> Scalar:
    """``2 E|X-Y| - E|X-X'| - E|Y-Y'|`` (Székely and Rizzo, 2013), not its square root.

    On the line this is ``2∫(F - G)²`` of the distribution functions.

    Args:
      a, b: ``[n, d]`` and ``[m, d]`` weighted particles.
      unbiased: leave out the pairs of a particle with itself, so that ``E|X-X'|`` is
        ``Σ_{i≠j} w_i w_j |x_i-x_j| / (1 - Σ w_i²)``. The mean over independent samples of fixed weights
        is then the distance of the laws, and single values may be negative. By default the diagonal counts
        (the V-statistic): up to rounding the value is at least 0, and 0 between equal measures, and a weight
        means repetition.

    Returns:
      A scalar. A measure with all its weight on one particle has no pairs to take a mean of; it counts as
      the point that it is, with ``E|X-X'| = 0``, unbiased or not.

    Raises:
      ValueError: dimensions that differ.

    >>> one, two = (Particles(jnp.array([[x]]), jnp.zeros(1)) for x in (0.0, 3.0))
    >>> float(energy_distance(one, two))
    6.0
    """
    return _kernel_distance(_negative_distance, a, b, unbiased)


@partial(jax.jit, static_argnames="unbiased")
def mmd(a: Particles, b: Particles, *, scale: ArrayLike = 1.0, unbiased: bool = True) -> Scalar:
    """Squared maximum mean discrepancy ``E k(X,X') + E k(Y,Y') - 2 E k(X,Y)`` (Gretton et al., 2012).

    The kernel is ``k(x, y) = exp(-|x-y|²/scale²)``. With the defaults and equal weights this is OT-Flow's
    metric. Its code counts the diagonal for samples of more than 20,000 numbers.

    Args:
      a, b: ``[n, d]`` and ``[m, d]`` weighted particles.
      scale: length ``> 0``.
      unbiased: leave out the pairs of a particle with itself, so that ``E k(X,X')`` is
        ``Σ_{i≠j} w_i w_j k(x_i,x_j) / (1 - Σ w_i²)``. The mean over independent samples of fixed weights
        is then the discrepancy of the laws, and single values may be negative. With ``False`` the diagonal
        counts (the V-statistic): up to rounding the value is at least 0, and 0 between equal measures, and a
        weight means repetition.

    Returns:
      A scalar. A measure with all its weight on one particle has no pairs to take a mean of; it counts as
      the point that it is, with ``E k(X,X') = 1``, unbiased or not.

    Raises:
      ValueError: dimensions that differ.
    """
    check_dimensions(a, b)
    scale = jnp.asarray(scale, a.position.dtype)
    a, b = (measure._replace(position=measure.position / scale) for measure in centred(a, b))
    return _kernel_distance(_gaussian, a, b, unbiased)


def sliced_wasserstein(key: Key, a: Particles, b: Particles, *, num_projections: int = 128) -> Scalar:
    """``E_θ W₂²(θ·X, θ·Y)`` over uniform unit vectors ``θ``: the square, not its root (Bonneel et al., 2015).

    Along each direction ``∫₀¹ (F⁻¹(u) - G⁻¹(u))² du`` is exact: both quantile functions are steps. Between
    a cloud and its translate by ``s`` the mean is ``|s|²/d``.

    Args:
      key: for the directions.
      a, b: ``[n, d]`` and ``[m, d]`` weighted particles.
      num_projections: how many directions to average over.

    Raises:
      ValueError: dimensions that differ, or no projection.

    >>> one, two = (Particles(jnp.array([[x]]), jnp.zeros(1)) for x in (0.0, 3.0))
    >>> float(sliced_wasserstein(jax.random.key(0), one, two))
    9.0
    """
    if num_projections < 1:
        raise ValueError(f"num_projections is {num_projections}; give at least 1.")
    check_dimensions(a, b)
    a, b = centred(a, b)

    @jax.checkpoint
    def along(direction: Float[Array, " d"]) -> Scalar:
        x, y = (jnp.dot(m.position, direction, precision="highest") for m in (a, b))
        return _quantile_distance(x, a.weight, y, b.weight)

    directions = _directions(key, num_projections, a.position.shape[1]).astype(a.position.dtype)
    most = max(1, min(num_projections, _AT_ONCE // (a.log_weight.size + b.log_weight.size)))
    at_once = next(size for size in range(most, 0, -1) if num_projections % size == 0)
    return jnp.mean(jax.lax.map(along, directions, batch_size=at_once))


def centred(a: Particles, b: Particles) -> tuple[Particles, Particles]:
    """`supported` measures, moved by one vector to where their positions keep their digits."""
    a, b = supported(a), supported(b)
    origin = jax.lax.stop_gradient(a.position[jnp.argmax(a.log_weight)])[None]
    return a._replace(position=a.position - origin), b._replace(position=b.position - origin)


def supported(measure: Particles) -> Particles:
    """The probability measure, with particles of weight zero moved onto the heaviest, whatever they hold."""
    measure = measure.normalise()
    heaviest = measure.position[jnp.argmax(measure.log_weight)]
    present = measure.log_weight > -jnp.inf
    return measure._replace(position=jnp.where(present[:, None], measure.position, heaviest))


def _kernel_distance(kernel: Kernel, a: Particles, b: Particles, unbiased: bool) -> Scalar:
    """``E k(X,X') + E k(Y,Y') - 2 E k(X,Y)`` for a kernel of the squared distance that is 0 at 0."""
    check_dimensions(a, b)
    a, b = centred(a, b)

    def within(measure: Particles) -> Scalar:
        mean = _mean_within(kernel, measure)
        if not unbiased:
            return mean
        pairs = _share_of_pairs(measure.weight)
        return jnp.where(pairs > 0, mean / jnp.where(pairs > 0, pairs, 1.0), 0.0)

    return within(a) + within(b) - 2 * _mean_between(kernel, a, b)


def _share_of_pairs(weight: Float[Array, " n"]) -> Scalar:
    """``Σ_{i≠j} w_i w_j = 1 - Σ w_i²``, also where one weight is 1 up to rounding."""
    heaviest = jnp.argmax(weight)
    others = weight.at[heaviest].set(0.0)
    return weight[heaviest] * jnp.sum(others) + jnp.sum(others * (1 - others))


# Derivatives by hand: reverse mode would sum over both axes of every block, and take several times longer.
@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mean_between(kernel: Kernel, a: Particles, b: Particles) -> Scalar:
    """``Σ_ij w_i v_j k(|x_i-y_j|²)``."""
    return jnp.sum(a.weight * _field(kernel, a.position, b))


@_mean_between.defjvp
def _(kernel: Kernel, measures, tangents):
    (a, b), (change_a, change_b) = measures, tangents
    at_a, slope_a = _field_and_slope(kernel, a.position, b)
    at_b, slope_b = _field_and_slope(kernel, b.position, a)
    change = _integrate(at_a, slope_a, a, change_a) + _integrate(at_b, slope_b, b, change_b)
    return jnp.sum(a.weight * at_a), change


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mean_within(kernel: Kernel, a: Particles) -> Scalar:
    """`_mean_between` of a measure and itself."""
    return _mean_between(kernel, a, a)


@_mean_within.defjvp
def _(kernel: Kernel, measures, tangents):
    (a,), (change,) = measures, tangents
    at_a, slope = _field_and_slope(kernel, a.position, a)
    return jnp.sum(a.weight * at_a), 2 * _integrate(at_a, slope, a, change)


def _integrate(field: Array, slope: Array, measure: Particles, change: Particles) -> Scalar:
    """Change of ``∫ field`` when log-weights and positions of the measure change."""
    moved = jnp.sum(slope * change.position, axis=1)
    return jnp.sum(measure.weight * (field * change.log_weight + moved))


def _field(kernel: Kernel, points: Float[Array, "n d"], measure: Particles) -> Float[Array, " n"]:
    """``Σ_j w_j k(|x-y_j|²)`` at every point, in blocks."""

    def block(some: Float[Array, "s d"]) -> Float[Array, " s"]:
        return jnp.sum(kernel(squared_distance(some, measure.position)) * measure.weight[None], axis=1)

    return in_blocks(block, points, _NUMBERS_PER_PAIR * measure.log_weight.size)


def _field_and_slope(kernel: Kernel, points: Float[Array, "n d"], measure: Particles) -> tuple[Array, Array]:
    """`_field` and its gradient ``2 Σ_j w_j k'(|x-y_j|²)(x-y_j)``, ``[n]`` and ``[n, d]``."""

    @jax.checkpoint
    def block(some: Float[Array, "s d"]) -> tuple[Float[Array, " s"], Float[Array, "s d"]]:
        squared = squared_distance(some, measure.position)
        value, derivative = jax.jvp(kernel, (squared,), (jnp.ones_like(squared),))
        pull = 2 * derivative * measure.weight[None]
        along = jax.lax.map(
            lambda axis: jnp.sum(pull * (axis[0][:, None] - axis[1][None]), axis=1),
            (some.T, measure.position.T),
        )
        return jnp.sum(value * measure.weight[None], axis=1), along.T

    return in_blocks(block, points, _NUMBERS_PER_PAIR * measure.log_weight.size)


def _negative_distance(squared: Array) -> Array:
    """``-√``, with derivative 0 where points coincide."""
    apart = squared > 0
    return jnp.where(apart, -jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def _gaussian(squared: Array) -> Array:
    """``exp(-s) - 1``: the constant cancels in the distance, and small distances keep their digits."""
    return jnp.expm1(-squared)


def _directions(key: Key, num: int, dim: int) -> Float[Array, "num dim"]:
    # In single precision whatever the data are in, so that both see the same directions.
    normal = jax.random.normal(key, (num, dim), jnp.float32)
    return normal / jnp.linalg.norm(normal, axis=1, keepdims=True)


def _quantile_distance(
    x: Float[Array, " n"], x_weight: Float[Array, " n"], y: Float[Array, " m"], y_weight: Float[Array, " m"]
) -> Scalar:
    """``∫₀¹ (F⁻¹(u) - G⁻¹(u))² du`` of two measures of mass 1 on the line.

    Both integrands are constant between neighbours among the levels of ``F`` and ``G`` together. Of such an
    interval one end is a level of ``F``, or else of ``G``; two binary searches find the other quantile.
    """
    x, x_weight = jax.lax.sort((x, x_weight), num_keys=1)
    y, y_weight = jax.lax.sort((y, y_weight), num_keys=1)
    x_level, y_level = _levels(x_weight), _levels(y_weight)

    def part(x, x_level, y, y_level, side):
        partner = jnp.searchsorted(y_level[1:], x_level[1:], side=side)
        length = x_level[1:] - jnp.maximum(x_level[:-1], y_level[partner])
        return jnp.sum(length * (x - y[jnp.minimum(partner, y.size - 1)]) ** 2)

    # Where both have a level, the interval below it counts for the first only.
    return part(x, x_level, y, y_level, "left") + part(y, y_level, x, x_level, "right")


def _levels(weight: Float[Array, " n"]) -> Float[Array, " n+1"]:
    """0 and the cumulative sums, which must not decrease; derivatives as of plain sums, quick to compile."""
    plain = jnp.cumsum(weight)
    total = running_total(jax.lax.stop_gradient(weight)) + (plain - jax.lax.stop_gradient(plain))
    return jnp.pad(total, (1, 0))


def check_dimensions(a: Particles, b: Particles) -> None:
    """Refuse measures in different spaces."""
    if a.position.shape[1] != b.position.shape[1]:
        raise ValueError(
            f"positions have shapes {a.position.shape} and {b.position.shape}; give two of one dimension."
        )
