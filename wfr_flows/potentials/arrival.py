"""A potential that heads for a place: straight lines that end where they shall, even on a manifold."""

import jax.numpy as jnp

from wfr_flows.potentials.base import Jet, Potential
from wfr_flows.typing import Array, Float, Key, Params, Scalar


def arrival(base: Potential, dim: int, *, margin: float = 2e-3) -> Potential:
    """``Φ(t, x) = (½|x|² - ψ(t, x))/(1 - t + margin)`` with ``ψ(t, x) = ½ xᵀSx + base(t, x)``.

    A particle has velocity ``-∇Φ = (∇ψ - x)/(1 - t + margin)``: it heads for ``∇ψ(t, x)``, and moves on a
    straight line where ``∇ψ`` is constant along its path. By Hopf and Lax every solution of the
    Hamilton-Jacobi equation ``∂ₜΦ = ½|∇Φ|²`` has this form, with convex ``ψ`` and no margin. Where all of
    space is to arrive on a manifold the velocity has a pole at the end, which a smooth network of ``(t, x)``
    cannot have: with it a plane is met to ``margin`` times the distance, whatever the steps. Explicit stages
    at ``t = 1`` want a larger margin; Euler steps have none there.

    Args:
      base: begins at zero, as `mlp` does.
      dim: dimension ``d >= 1``.
      margin: positive, the share of the way that is left at the end.

    Returns:
      A `Potential` with parameters ``{"base": ..., "quadratic": [d, d]}``; ``S``, the symmetric part of the
      latter, is the identity at first: everything begins at rest.

    Raises:
      ValueError: a ``margin`` that is not positive, or a ``dim`` below 1.
    """
    if not margin > 0:
        raise ValueError(f"margin is {margin}; give a number > 0.")
    if dim < 1:
        raise ValueError(f"dim is {dim}; give at least 1.")

    def init(key: Key) -> Params:
        return {"base": base.init(key), "quadratic": jnp.eye(dim, dtype=jnp.result_type(float))}

    def rest(params: Params, x: Float[Array, " d"]) -> tuple[Array, Array]:
        """``x - Sx`` and the trace of ``I - S``."""
        matrix = params["quadratic"]
        return x - 0.5 * (matrix @ x + x @ matrix), dim - jnp.trace(matrix)

    def value(params: Params, t: Scalar, x: Float[Array, " d"]) -> Scalar:
        lag, _ = rest(params, x)
        return (0.5 * jnp.vdot(x, lag) - base.value(params["base"], t, x)) / (1 - t + margin)

    def jet(params: Params, t: Scalar, x: Float[Array, " d"]) -> Jet:
        (lag, trace), inner, left = rest(params, x), base.jet(params["base"], t, x), 1 - t + margin
        numerator = 0.5 * jnp.vdot(x, lag) - inner.value
        return Jet(
            numerator / left,
            (lag - inner.gradient) / left,
            (trace - inner.laplacian) / left,
            (numerator / left - inner.time_derivative) / left,
        )

    return Potential(init, value, jet)
