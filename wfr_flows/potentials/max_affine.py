"""Smooth maxima of affine functions: convex networks for laws with many modes."""

from functools import partial

import jax
import jax.numpy as jnp

from wfr_flows.potentials.convex import (
    ConvexJet,
    ConvexPotential,
    check_shape,
    quadratic_jet,
    quadratic_start,
)
from wfr_flows.typing import Array, Float, Key, Params


def max_affine(
    dim: int, *, units: int = 8, pieces: int = 16, strong_convexity: float = 1e-6
) -> ConvexPotential:
    """Log-sum-exps of affine functions beside a full quadratic, the identity map at the start.

    ``ψ(x) = Σ_k v_k log Σ_p exp(a_kp·x + b_kp) + ½|Rᵀx|² + r·x + ½ε|x|²`` with ``v ≥ 0``, a network of which
    one unit approximates every convex function (Calafiore, Gaubert and Possieri, IEEE TNNLS 2020, theorem 2).
    With the softmax ``p_k`` of a unit and the mean ``m_k = Σ_p p_kp a_kp`` the derivatives are closed-form:
    ``∇ψ = Σ_k v_k m_k + (RRᵀ + ε)x + r`` and ``∇²ψ = Σ_k v_k Σ_p p_kp (a_kp - m_k)(a_kp - m_k)ᵀ + RRᵀ + ε``.

    The optimal map from a broad law to one with many modes takes a convex cell to every mode: the gradient of
    a maximum of affine functions, of which one unit has as many pieces as it needs. Sums of softplus
    (`icnn`) only cut space by half-spaces. The cost per particle is ``O(K P d²)``.

    Args:
      dim: dimension ``d >= 1``, of points of spread about 1.
      units, pieces: ``K`` log-sum-exps of ``P`` affine functions.
      strong_convexity: ``ε > 0``.

    Returns:
      A `ConvexPotential` whose parameters are a flat dict in jax's default float type: ``slope``
      ``[K, P, d]``, ``bias`` ``[K, P]``, ``readout`` ``[K]``, ``root`` ``[d, d]``, ``shift`` ``[d]``.

    Raises:
      ValueError: sizes out of range; a strong convexity that is not between 0 and 1.
    """
    check_shape(strong_convexity, dim=dim, units=units, pieces=pieces)

    def jet(params: Params, x: Float[Array, " d"]) -> ConvexJet:
        value, gradient, hessian = quadratic_jet(params, x, strong_convexity)
        readout, slope = params["readout"], params["slope"]
        pieces_at = slope @ x + params["bias"]
        share = jax.nn.softmax(pieces_at)
        mean = jnp.einsum("kp,kpd->kd", share, slope)
        around = (slope - mean[:, None]).reshape(-1, x.shape[0])
        return ConvexJet(
            value + jnp.vdot(readout, jax.nn.logsumexp(pieces_at, axis=1)),
            gradient + readout @ mean,
            hessian + (around.T * (readout[:, None] * share).reshape(-1)) @ around,
        )

    def project(params: Params) -> Params:
        return params | {"readout": jnp.maximum(params["readout"], 0.0)}

    init = partial(_init, dim, units, pieces, strong_convexity)
    return ConvexPotential(init, lambda params, x: jet(params, x).value, jet, project)


# One program for all networks of one shape.
@partial(jax.jit, static_argnums=range(4))
def _init(dim: int, units: int, pieces: int, strong_convexity: float, key: Key) -> Params:
    keys, dtype = jax.random.split(key), jnp.result_type(float)
    direction = jax.random.normal(keys[0], (units, pieces, dim), dtype)
    return {
        "slope": 2 * direction / jnp.linalg.norm(direction, axis=-1, keepdims=True),
        "bias": jax.random.uniform(keys[1], (units, pieces), dtype, -2.0, 2.0),
        "readout": jnp.zeros(units, dtype),
    } | quadratic_start(dim, strong_convexity)
