"""Potentials quadratic in space: the flow is linear, so everything about it is known."""

import jax.numpy as jnp

from wfr_flows.potentials.base import Jet, Potential
from wfr_flows.typing import Array, Float, Key, Params, Scalar


def quadratic(dim: int) -> Potential:
    """``Φ(t, x) = ½ xᵀAx + bᵀx + c + e·t``, an oracle for flows.

    Parameters: ``curvature`` A ``[d, d]`` (symmetrised), ``slope`` b ``[d]``, ``constant`` c, ``rate`` e.
    `init` gives the zero potential. Under ``v = -∇Φ`` the flow is
    ``x(t) = exp(-At)(x + A⁻¹b) - A⁻¹b`` with log-determinant ``-t tr A``.
    """
    if dim < 1:
        raise ValueError(f"dim is {dim}; give a dimension of at least 1.")

    def init(key: Key) -> Params:
        del key
        dtype = jnp.result_type(float)
        return {
            "curvature": jnp.zeros((dim, dim), dtype),
            "slope": jnp.zeros(dim, dtype),
            "constant": jnp.zeros((), dtype),
            "rate": jnp.zeros((), dtype),
        }

    def jet(params: Params, t: Scalar, x: Float[Array, " d"]) -> Jet:
        symmetric = 0.5 * (params["curvature"] + params["curvature"].T)
        push = symmetric @ x
        value = 0.5 * jnp.vdot(x, push) + jnp.vdot(params["slope"], x) + params["constant"]
        return Jet(value + params["rate"] * t, push + params["slope"], jnp.trace(symmetric), params["rate"])

    return Potential(init, lambda params, t, x: jet(params, t, x).value, jet)
