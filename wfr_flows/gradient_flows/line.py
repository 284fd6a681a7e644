"""JKO steps on the line without sampling or learning: the reference for flows that have no closed form."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, ArrayLike, Float, Scalar

_DESCENT = 1e-4


class Cells(NamedTuple):
    """A law on the line with constant density between neighbouring edges.

    Attributes:
      edge: ``[n + 1]``, increasing.
      mass: ``[n]``, positive, of the cells between.
    """

    edge: Float[Array, " n+1"]
    mass: Float[Array, " n"]

    @property
    def density(self) -> Float[Array, " n"]:
        """Mass over width."""
        return self.mass / jnp.diff(self.edge)

    def density_at(self, x: Float[Array, " k"]) -> Float[Array, " k"]:
        """The density at points, 0 beyond the first and the last edge."""
        index = jnp.searchsorted(self.edge, x, side="right") - 1
        inside = (index >= 0) & (index < self.mass.size)
        return jnp.where(inside, self.density[jnp.clip(index, 0, self.mass.size - 1)], 0.0)


def line_jko(
    cells: Cells,
    step_size: ArrayLike,
    *,
    m: float = 1.0,
    scale: float = 1.0,
    potential: Callable[[Scalar], Scalar] | None = None,
    max_steps: int = 200,
) -> tuple[Cells, Scalar]:
    """One JKO step ``argmin W₂²(ρ_k, ρ)/2a + U(ρ) + ∫Φ dρ`` over laws of constant density on cells.

    On the line the optimal map keeps order, so that edges move and masses stay: a convex problem, solved by
    Newton's method with backtracking. ``W₂²`` and the internal energy of such laws are exact; the potential
    is averaged over the two edges of a cell.

    Args:
      cells: ``ρ_k``.
      step_size: ``a > 0``.
      m, scale: of the internal energy ``scale/(m-1) ∫ρ^m``, or ``scale ∫ρ log ρ`` at ``m = 1``.
      potential: ``Φ``, of one number; none by default.
      max_steps: of Newton's method.

    Returns:
      ``ρ_(k+1)`` and the squared Newton decrement there, 0 up to rounding where it has converged.

    Raises:
      ValueError: ``m`` below 1.
    """
    if not m >= 1:
        raise ValueError(f"m is {m}; give at least 1.")
    mass = cells.mass

    def value(edge: Float[Array, " n+1"]) -> Scalar:
        moved, width = edge - cells.edge, jnp.diff(edge)
        left, right = moved[:-1], moved[1:]
        cost = jnp.sum(mass * (left**2 + left * right + right**2)) / (6 * step_size)
        density = mass / jnp.where(width > 0, width, 1.0)
        internal = jnp.log(density) if m == 1 else density ** (m - 1) / (m - 1)
        total = cost + scale * jnp.sum(mass * internal)
        if potential is not None:
            at = jax.vmap(potential)(edge)
            total += 0.5 * jnp.sum(mass * (at[:-1] + at[1:]))
        return jnp.where(jnp.all(width > 0), total, jnp.inf)

    edge, decrement = _newton(value, cells.edge, max_steps)
    return Cells(edge, mass), decrement


def _newton(value: Callable[[Array], Scalar], start: Array, max_steps: int) -> tuple[Array, Scalar]:
    """The minimiser of a convex function that is ``inf`` outside its domain, and the squared decrement."""
    slope, curvature = jax.grad(value), jax.hessian(value)

    def body(carry: tuple[Array, Scalar, Array]) -> tuple[Array, Scalar, Array]:
        x, _, step = carry
        gradient = slope(x)
        change = -jax.scipy.linalg.solve(curvature(x), gradient, assume_a="pos")
        decrement, now = -jnp.vdot(gradient, change), value(x)
        rounding = 1e-14 * jnp.abs(now)

        def too_long(share: Scalar) -> Array:
            enough = now - _DESCENT * share * decrement + rounding
            return (share > 1e-8) & ~(value(x + share * change) <= enough)

        share = jax.lax.while_loop(too_long, lambda share: 0.5 * share, jnp.ones_like(now))
        return x + share * change, decrement, step + 1

    def unfinished(carry: tuple[Array, Scalar, Array]) -> Array:
        x, decrement, step = carry
        return (decrement > jnp.finfo(x.dtype).eps * jnp.abs(value(x))) & (step < max_steps)

    first = start, jnp.asarray(jnp.inf, start.dtype), jnp.zeros((), jnp.int32)
    x, decrement, _ = jax.lax.while_loop(unfinished, body, first)
    return x, decrement
