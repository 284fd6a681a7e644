"""The dynamic problem on a regular grid: an oracle that shares nothing with the static solver."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from wfr_flows.numerics import inverse_alpha
from wfr_flows.typing import Array, ArrayLike, Bool, Float, Int, Scalar

# In units of the typical density and of the typical squared length, where one step suits every problem.
_STEP = 0.1
_RELAXATION = 1.8
_NEWTON_STEPS = 6
_SAME_MASS = 1e-4


class GridGeodesic(NamedTuple):
    """A geodesic on a grid, in ``k`` time steps: masses per cell and what moves between cells.

    ``k (density[j+1] - density[j]) + Σ_axes diff(flux[axis][j]) = growth[j]`` to rounding; ``density[0]``
    and ``density[k]`` are the source and the target.

    Attributes:
      value: d² of the discrete problem.
      density: masses per cell at times ``j/k``, ``[k+1, *grid]``, non-negative.
      flux: one array per axis, mass per unit time through each face, midway between two times:
        ``[k, nx+1]``, or ``[k, nx+1, ny]`` and ``[k, nx, ny+1]``; 0 at the walls.
      growth: mass born per unit time in each cell, midway between two times, ``[k, *grid]``.
      continuity_residual: the largest violation of the equation above, mass per unit time.
      residual: relative fixed-point residual of the iteration; ``value`` is within a few times as much of
        the minimum of the discrete problem, relatively.
      num_iterations: proximal steps taken.
      converged: whether ``residual <= tolerance``.
    """

    value: Scalar
    density: Float[Array, "levels ..."]
    flux: tuple[Array, ...]
    growth: Float[Array, "steps ..."]
    continuity_residual: Scalar
    residual: Scalar
    num_iterations: Int[Array, ""]
    converged: Bool[Array, ""]


class _Axis(NamedTuple):
    """Operators from the ``n-1`` inner edges of one axis, time or space, to its ``n`` centres.

    Attributes:
      average, difference: ``[n, n-1]``; what the two outer edges add is data.
      inverse: ``(averageᵀ average + weight)⁻¹``, ``[n-1, n-1]``.
      cosine: the orthonormal cosine transform, which diagonalises ``difference inverse differenceᵀ``.
      symbol: its eigenvalues, ``[n]``.
    """

    average: np.ndarray
    difference: np.ndarray
    inverse: np.ndarray
    cosine: np.ndarray
    symbol: np.ndarray


class _Staggered(NamedTuple):
    """A path where continuity is exact.

    Attributes:
      edges: densities at inner times, then fluxes at inner faces; ``n-1`` long along their own axis.
      growth: at the centres, ``[k, *grid]``.
    """

    edges: tuple[Array, ...]
    growth: Array


class _Centred(NamedTuple):
    """The same path at the centres, flux and growth in one momentum, with the densities at inner times."""

    density: Array
    momentum: tuple[Array, ...]
    levels: Array


class _Problem(NamedTuple):
    """Data scaled such that the action is ``½|momentum|²/density`` whatever ``alpha`` and the spacing.

    Attributes:
      source, target: masses in units of ``scale``, the typical mass of a cell.
      axes: time, then space.
      rates: what multiplies differences: ``k`` for time, ``length/h`` for each axis of space.
      growth_rate: ``length/√alpha``.
      spherical: whether growth has mean zero at each time.
      cost: ``length² scale``, the unit of the value; ``inf`` where unequal masses cannot grow.
    """

    source: Array
    target: Array
    axes: tuple[_Axis, ...]
    rates: tuple[Any, ...]
    growth_rate: Scalar
    spherical: bool
    scale: Scalar
    cost: Scalar


def benamou_brenier(
    source: ArrayLike,
    target: ArrayLike,
    spacing: ArrayLike | tuple[ArrayLike, ...],
    alpha: ArrayLike,
    *,
    spherical: bool = False,
    num_times: int = 32,
    tolerance: float = 1e-4,
    max_iterations: int = 10_000,
) -> GridGeodesic:
    """``d² = min ∫∫ (½|m|²/ρ + ½ alpha ζ²/ρ) dx dt``, ``∂tρ + ∇·m = ζ``, on a grid with walls.

    The dynamic problem (Benamou and Brenier; with growth Chizat, Peyré, Schmitzer and Vialard) on a grid
    staggered in space and time (Papadakis, Peyré and Oudet). Douglas-Rachford splitting alternates the
    proximal map of the action, a cubic equation at each point, and the projection onto continuity, a
    Helmholtz equation solved by cosine transforms. The error of the grid is of second order where it
    resolves the densities, and of first order in time where mass is born from nothing or dies; masses as
    narrow as a cell cost a few per cent. Reverse-mode derivatives are not available.

    Args:
      source, target: masses per cell, ``[nx]`` or ``[nx, ny]``, non-negative.
      spacing: width of a cell, one number or one per axis.
      alpha: length scale ``> 0``. ``inf`` is ``½W₂²``, without growth, and needs equal masses.
      spherical: normalise both measures and let growth have mean zero at each time, so that mass stays
        1: ``d²_SWFR``.
      num_times: time steps, at least 2.
      tolerance: fixed-point residual to reach. In float32 about 1e-5 is the least that rounding allows.
      max_iterations: bound on the iterations; `GridGeodesic.converged` tells whether it sufficed.

    Returns:
      A `GridGeodesic`.

    Raises:
      ValueError: masses that are negative, not finite, all zero, of shapes that differ, or of unequal
        total at ``alpha = inf``; an ``alpha``, ``spacing`` or ``tolerance`` that is not positive; too few
        time steps. Traced values pass unchecked; unequal masses at ``alpha = inf`` then cost ``inf``.
    """
    _check(source, target, spacing, alpha, spherical, num_times, tolerance)
    dtype = jnp.result_type(jnp.asarray(source), jnp.asarray(target), float)
    data = (jnp.asarray(x, dtype) for x in (source, target, spacing, alpha))
    problem = _problem(*data, spherical=spherical, num_times=num_times)
    point, residual, num_iterations = jax.lax.while_loop(
        lambda carry: (carry[1] > tolerance) & (carry[2] < max_iterations),
        lambda carry: (*_advance(problem, carry[0]), carry[2] + 1),
        (_initial(problem), jnp.asarray(jnp.inf, dtype), jnp.zeros((), jnp.int32)),
    )
    near, path = _split(problem, point)
    # The action is linear along rays, so a subgradient times the feasible path errs to second order only.
    subgradient = jax.tree.map(lambda z, x: (z - x) / _STEP, point, near)
    action = jnp.maximum(_dot(subgradient, _centre(problem, path)) / num_times, 0.0)
    value = jnp.where(jnp.isinf(problem.cost), jnp.inf, problem.cost * action)
    converged = (residual <= tolerance) & jnp.isfinite(value)
    return GridGeodesic(value, *_unscale(problem, path), residual, num_iterations, converged)


def _check(source, target, spacing, alpha, spherical, num_times, tolerance) -> None:
    """Refuse what is not a problem, as far as values are known."""
    inverse_alpha(alpha)
    for name, mass in (("source", source), ("target", target)):
        if _known(mass):
            _check_masses(name, np.asarray(mass))
    shapes = np.shape(source), np.shape(target)
    if shapes[0] != shapes[1] or not shapes[0]:
        raise ValueError(f"source has shape {shapes[0]} and target {shapes[1]}; give masses on one grid.")
    if jnp.shape(jnp.asarray(spacing)) not in {(), (len(shapes[0]),)}:
        raise ValueError(f"spacing is {spacing}; give one cell width, or one per axis of the masses.")
    if _known(spacing) and not (np.isfinite(spacing) & (np.asarray(spacing) > 0)).all():
        raise ValueError(f"spacing is {spacing}; give positive, finite cell widths.")
    if num_times < 2:
        raise ValueError(f"num_times is {num_times}; give at least 2 time steps.")
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; give a positive residual.")
    if not spherical and _known((source, target, alpha)) and np.isinf(alpha):
        masses = float(np.sum(np.asarray(source))), float(np.sum(np.asarray(target)))
        if not np.isclose(masses[0] / masses[1], 1.0, rtol=_SAME_MASS):
            raise ValueError(f"source and target have masses {masses}; for alpha = inf normalise them.")


def _known(tree) -> bool:
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def _check_masses(name: str, mass: np.ndarray) -> None:
    if mass.dtype.kind not in "fiub" or not np.isfinite(mass).all():
        raise ValueError(f"{name} has NaN, infinite or non-numeric masses; repair them.")
    if (mass < 0).any():
        raise ValueError(f"{name} has negative masses; masses must be >= 0.")
    if not (mass > 0).any():
        raise ValueError(f"{name} has mass zero; at least one cell must be positive.")


def _problem(source, target, spacing, alpha, *, spherical: bool, num_times: int) -> _Problem:
    if spherical:
        source, target = source / jnp.sum(source), target / jnp.sum(target)
    ratio = jnp.sum(source) / jnp.sum(target)
    impossible = jnp.isinf(alpha) & ~jnp.isclose(ratio, 1.0, rtol=_SAME_MASS)
    target = target * jnp.where(jnp.isinf(alpha), ratio, 1.0)
    width = jnp.broadcast_to(spacing, (source.ndim,))
    length = _length(source, target, width, alpha)
    # The mass of the cell in which a unit of mass finds itself, on average.
    scale = 0.5 * (jnp.sum(source**2) / jnp.sum(source) + jnp.sum(target**2) / jnp.sum(target))
    return _Problem(
        source / scale,
        target / scale,
        tuple(_axis(n, source.dtype, weight=float(i == 0)) for i, n in enumerate((num_times, *source.shape))),
        (num_times, *(length / width)),
        length * jnp.sqrt(inverse_alpha(alpha)),
        spherical,
        scale,
        jnp.where(impossible, jnp.inf, length**2 * scale),
    )


def _axis(size: int, dtype, *, weight: float) -> _Axis:
    """The weight is that of a second copy of the edges in `_Centred`: 1 for densities, 0 for fluxes."""
    edge, centre = np.arange(size - 1), np.arange(size)
    average, difference = np.zeros((size, size - 1)), np.zeros((size, size - 1))
    average[edge, edge] = average[edge + 1, edge] = 0.5
    difference[edge, edge], difference[edge + 1, edge] = 1.0, -1.0
    inverse = np.linalg.inv(average.T @ average + weight * np.eye(size - 1))
    angle = 0.5 * np.pi * centre / size
    cosine = np.cos(np.outer(angle, 2 * centre + 1)) * math.sqrt(2 / size)
    cosine[0] = math.sqrt(1 / size)
    symbol = 4 * np.sin(angle) ** 2 / (np.cos(angle) ** 2 + weight)
    return _Axis(*(part.astype(dtype) for part in (average, difference, inverse, cosine, symbol)))


def _length(source: Array, target: Array, width: Array, alpha: ArrayLike) -> Scalar:
    """The scale of ``√(2d²)`` per unit of mass: ``ℓ² = E|X - Y|² + 4alpha (√M₀ - √M₁)²/√(M₀M₁)``.

    ``X`` and ``Y`` are independent, drawn from source and target. The second term is growth that no path
    avoids; there is none at ``alpha = inf``.
    """
    before, after = jnp.sum(source), jnp.sum(target)
    growth = (jnp.sqrt(before) - jnp.sqrt(after)) ** 2 / jnp.sqrt(before * after)
    # A cell is not a point: the first term is the variance within.
    squared = jnp.sum(width**2) / 6 + 4 * jnp.where(jnp.isinf(alpha), 0.0, alpha) * growth
    for axis, n in enumerate(source.shape):
        others = tuple(other for other in range(source.ndim) if other != axis)
        x = width[axis] * jnp.arange(n, dtype=width.dtype)
        p, q = (jnp.sum(mass, axis=others) / jnp.sum(mass) for mass in (source, target))
        squared += (x - x @ q) ** 2 @ p + (x - x @ q) ** 2 @ q
    return jnp.sqrt(squared)


def _initial(problem: _Problem) -> _Centred:
    """Mixing in place, without a cost yet."""
    k = problem.axes[0].symbol.shape[0]
    time = jnp.arange(1, 2 * k, dtype=problem.source.dtype).reshape(-1, *(1,) * problem.source.ndim) / (2 * k)
    mixture = (1 - time) * problem.source + time * problem.target
    return _Centred(mixture[::2], (jnp.zeros_like(mixture[::2]),) * len(problem.axes), mixture[1::2])


def _advance(problem: _Problem, point: _Centred) -> tuple[_Centred, Scalar]:
    """One over-relaxed Douglas-Rachford step, and its relative length."""
    near, path = _split(problem, point)
    step = jax.tree.map(jnp.subtract, _centre(problem, path), near)
    point = jax.tree.map(lambda z, s: z + _RELAXATION * s, point, step)
    return point, jnp.sqrt(_dot(step, step) / _dot(near, near))


def _split(problem: _Problem, point: _Centred) -> tuple[_Centred, _Staggered]:
    """``x = prox(z)`` and the projection of ``2x - z``; they agree at the solution."""
    near = _proximal(point)
    return near, _project(problem, jax.tree.map(lambda x, z: 2 * x - z, near, point))


def _proximal(point: _Centred) -> _Centred:
    """Minimiser of ``c|w|²/2ρ + ½|(ρ, w) - (ρ', w')|²`` over ``ρ >= 0``; the positive part of levels.

    ``w = ρw'/(ρ + c)``, and ``r = ρ + c`` is the positive root of ``r³ - (ρ' + c)r² - ½c|w'|²``, or ``c``
    if that is larger: there ``ρ = 0`` and nothing moves.
    """
    squared = jnp.sum(jnp.stack(point.momentum) ** 2, axis=0)
    raised = _root(point.density + _STEP, 0.5 * _STEP * squared)
    density = raised - _STEP
    momentum = tuple(density / raised * part for part in point.momentum)
    return _Centred(density, momentum, jnp.maximum(point.levels, 0.0))


def _root(a: Array, b: Array) -> Array:
    """The larger of ``_STEP`` and the positive root of ``r³ - a r² - b``, for ``b >= 0``.

    Newton's iteration descends to it from any upper bound, and this one is within a small factor.
    """
    size = jnp.maximum(jnp.abs(a), 2 * math.sqrt(jnp.finfo(a.dtype).tiny))
    positive = a + jnp.minimum(jnp.cbrt(b), b / size**2)
    negative = jnp.minimum(jnp.cbrt(b), jnp.sqrt(b / size))
    root = jnp.maximum(jnp.where(a > 0, positive, negative), _STEP)
    for _ in range(_NEWTON_STEPS):
        slope = (3 * root - 2 * a) * root
        root = jnp.maximum(root - ((root - a) * root**2 - b) / slope, _STEP)
    return root


def _project(problem: _Problem, field: _Centred) -> _Staggered:
    """The path that satisfies continuity and is, at the centres, the closest to ``field``."""
    *flux, growth = field.momentum
    parts = (field.density - _ends(problem, 0.5, 0.5), *flux)
    edges = [_along(axis.average.T, part, i) for i, axis, part in _numbered(problem, parts)]
    edges[0] += field.levels
    edges = tuple(_along(axis.inverse, edge, i) for i, axis, edge in _numbered(problem, edges))
    return _restore(problem, _Staggered(edges, _admissible(problem, growth)), range(len(edges)))


def _restore(problem: _Problem, path: _Staggered, free: Iterable[int]) -> _Staggered:
    """Satisfy continuity by the least change, at the centres, of growth and the edges of the free axes.

    The multiplier solves ``(Σ rate² D(AᵀA + weight)⁻¹Dᵀ + growth_rate²) λ = excess``, diagonal in cosines.
    """
    modes = path.growth.shape
    symbol = jnp.full(modes, problem.growth_rate**2)
    if problem.spherical:  # growth has mean zero: it does not see the constants
        symbol = symbol.at[(slice(None), *(0,) * (len(modes) - 1))].set(0.0)
    multiplier = _excess(problem, path)
    for i, axis in enumerate(problem.axes):
        multiplier = _along(axis.cosine, multiplier, i)
        if i in free:
            symbol += problem.rates[i] ** 2 * axis.symbol.reshape(-1, *(1,) * (len(modes) - 1 - i))
    # Where nothing can change, at constants when mass is conserved, there is nothing to correct.
    multiplier = jnp.where(symbol > 0, multiplier / jnp.where(symbol > 0, symbol, 1.0), 0.0)
    for i, axis in enumerate(problem.axes):
        multiplier = _along(axis.cosine.T, multiplier, i)
    edges = list(path.edges)
    for i in free:
        slope = _along(problem.axes[i].inverse @ problem.axes[i].difference.T, multiplier, i)
        edges[i] -= problem.rates[i] * slope
    return _Staggered(tuple(edges), path.growth + problem.growth_rate * _admissible(problem, multiplier))


def _excess(problem: _Problem, path: _Staggered) -> Array:
    """``∂tρ + ∇·m - ζ`` at the centres, scaled."""
    total = _ends(problem, -problem.rates[0], problem.rates[0]) - problem.growth_rate * path.growth
    for i, axis, edge in _numbered(problem, path.edges):
        total += problem.rates[i] * _along(axis.difference, edge, i)
    return total


def _centre(problem: _Problem, path: _Staggered) -> _Centred:
    density, *flux = (_along(axis.average, edge, i) for i, axis, edge in _numbered(problem, path.edges))
    return _Centred(density + _ends(problem, 0.5, 0.5), (*flux, path.growth), path.edges[0])


def _unscale(problem: _Problem, path: _Staggered) -> tuple[Array, tuple[Array, ...], Array, Array]:
    """Density, flux, growth and the residual of continuity, in masses per cell and unit of time.

    The last traces of negative density are removed; flux and growth alone then restore continuity.
    """
    levels = jnp.maximum(path.edges[0], 0.0)
    space = range(1, levels.ndim)
    mass = jnp.sum(levels, axis=tuple(space), keepdims=True)
    kept = problem.spherical | (problem.growth_rate == 0)
    levels = levels * jnp.where(kept, jnp.sum(problem.source) / mass, 1.0)
    path = _restore(problem, path._replace(edges=(levels, *path.edges[1:])), space)
    density = jnp.concatenate([problem.source[None], levels, problem.target[None]])
    walls = [[(int(i == j),) * 2 for j in range(levels.ndim)] for i in space]
    scale = problem.scale
    flux = tuple(scale * problem.rates[i] * jnp.pad(path.edges[i], walls[i - 1]) for i in space)
    growth = scale * problem.growth_rate * path.growth
    return scale * density, flux, growth, scale * jnp.max(jnp.abs(_excess(problem, path)))


def _admissible(problem: _Problem, growth: Array) -> Array:
    """The part of growth that keeps the mass, where it must be kept."""
    mean = jnp.mean(growth, axis=tuple(range(1, growth.ndim)), keepdims=True)
    return growth - mean if problem.spherical else growth


def _ends(problem: _Problem, first: float, last: float) -> Array:
    """What the prescribed source and target add at the first and last centre in time."""
    empty = jnp.zeros((problem.axes[0].symbol.shape[0], *problem.source.shape), problem.source.dtype)
    return empty.at[0].add(first * problem.source).at[-1].add(last * problem.target)


def _numbered(problem: _Problem, parts: Iterable[Array]):
    return ((i, axis, part) for i, (axis, part) in enumerate(zip(problem.axes, parts, strict=True)))


def _along(matrix: np.ndarray, array: Array, axis: int) -> Array:
    """A matrix applied along one axis."""
    return jnp.moveaxis(jnp.tensordot(matrix, array, axes=(1, axis), precision="highest"), 0, axis)


def _dot(a: _Centred, b: _Centred) -> Scalar:
    return jnp.sum(jnp.stack(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b))))
