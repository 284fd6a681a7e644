"""Potentials quadratic in space whose coefficients move in time, and sums of potentials."""

import functools

import jax
import jax.numpy as jnp

from wfr_flows.potentials.base import Jet, Potential
from wfr_flows.typing import Array, Float, Key, Params, Scalar


def moving_quadratic(dim: int, *, degree: int = 3) -> Potential:
    """``Φ(t, x) = ½ xᵀA(t)x + b(t)ᵀx + c(t)`` with ``A``, ``b``, ``c`` polynomials of ``t``, 0 at the start.

    The geodesic between two Gaussians has such a potential, and so has the log-ratio of two Gaussians; beside
    a network (see `total`) it takes over what is linear in the flow. Coefficients are those of the Chebyshev
    polynomials ``T_j(2t - 1)``: ``curvature`` ``[d, d]`` (symmetrised), ``slope`` ``[d]`` and ``constant``
    of every ``j``.

    Args:
      dim: dimension ``d >= 1`` of space.
      degree: of the polynomials, at least 0; 0 stands still.

    Raises:
      ValueError: ``dim`` or ``degree`` too small.
    """
    if dim < 1 or degree < 0:
        raise ValueError(f"dim is {dim} and degree {degree}; give at least 1 and 0.")

    def init(key: Key) -> Params:
        del key
        dtype = jnp.result_type(float)
        return [
            {
                "curvature": jnp.zeros((dim, dim), dtype),
                "slope": jnp.zeros(dim, dtype),
                "constant": jnp.zeros((), dtype),
            }
            for _ in range(degree + 1)
        ]

    def combine(params: Params, basis: list[Array]) -> tuple[Array, Array, Scalar]:
        def at(name: str) -> Array:
            return sum((b * part[name] for b, part in zip(basis, params, strict=True)), start=jnp.zeros(()))

        curvature = at("curvature")
        return 0.5 * (curvature + curvature.T), at("slope"), at("constant")

    def value(params: Params, t: Scalar, x: Float[Array, " d"]) -> Scalar:
        curvature, slope, constant = combine(params, _chebyshev(t, degree)[0])
        return 0.5 * jnp.vdot(x, curvature @ x) + jnp.vdot(slope, x) + constant

    def jet(params: Params, t: Scalar, x: Float[Array, " d"]) -> Jet:
        basis, rates = _chebyshev(t, degree)
        curvature, slope, constant = combine(params, basis)
        bend, tilt, rise = combine(params, rates)
        push = curvature @ x
        return Jet(
            0.5 * jnp.vdot(x, push) + jnp.vdot(slope, x) + constant,
            push + slope,
            jnp.trace(curvature),
            0.5 * jnp.vdot(x, bend @ x) + jnp.vdot(tilt, x) + rise,
        )

    return Potential(init, value, jet)


def total(*parts: Potential) -> Potential:
    """The sum of potentials; its parameters are the list of theirs.

    Raises:
      ValueError: no part.
    """
    if not parts:
        raise ValueError("there is no potential to sum; give at least one.")

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(parts))
        return [part.init(own) for part, own in zip(parts, keys, strict=True)]

    def value(params: Params, t: Scalar, x: Float[Array, " d"]) -> Scalar:
        values = [part.value(own, t, x) for part, own in zip(parts, params, strict=True)]
        return sum(values[1:], start=values[0])

    def jet(params: Params, t: Scalar, x: Float[Array, " d"]) -> Jet:
        jets = [part.jet(own, t, x) for part, own in zip(parts, params, strict=True)]
        return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), jets)

    return Potential(init, value, jet)


def _chebyshev(t: Scalar, degree: int) -> tuple[list[Array], list[Array]]:
    """``T_j(2t - 1)`` and their time derivatives for ``j <= degree``."""
    t = jnp.asarray(t, jnp.result_type(float))
    s = 2 * t - 1
    values, rates = [jnp.ones_like(s), s], [jnp.zeros_like(s), jnp.full_like(s, 2.0)]
    for _ in range(degree - 1):
        values.append(2 * s * values[-1] - values[-2])
        rates.append(4 * values[-2] + 2 * s * rates[-1] - rates[-2])
    return values[: degree + 1], rates[: degree + 1]
