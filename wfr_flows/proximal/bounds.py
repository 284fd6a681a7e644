"""Terminal costs: lower bounds of divergences from the values of one critic on samples of both measures."""

import math
from typing import Protocol

import jax
import jax.numpy as jnp

from wfr_flows.numerics import FDivergence
from wfr_flows.typing import Array, Float, Scalar


class Bound(Protocol):
    """``(φ on samples of P, φ on samples of Q, weights of both) -> scalar``, concave in ``φ``.

    Over critics of slope at most ``L`` its supremum is a divergence that is finite for any two measures.
    `numerics.donsker_varadhan` is one.
    """

    def __call__(
        self,
        critic_p: Float[Array, " n"],
        critic_q: Float[Array, " m"],
        /,
        *,
        weight_p: Float[Array, " n"],
        weight_q: Float[Array, " m"],
    ) -> Scalar: ...


def f_bound(divergence: FDivergence) -> Bound:
    """``E_P[φ] - E_Q[f*(φ)]``, of which the supremum over ``Lip_L`` is ``inf_R D_f(R|Q) + L W₁(P, R)``.

    That is the W₁-proximal of ``D_f`` ([W1W2]). Where ``f*`` is finite only below ``e``, the value ``u`` of
    the critic stands for ``φ = e - log(1 + exp(-u))``, of the same slope or less.
    """
    edge = divergence.domain[1]

    def inside(value: Array) -> Array:
        return value if math.isinf(edge) else edge - jax.nn.softplus(-value)

    def bound(critic_p: Array, critic_q: Array, /, *, weight_p: Array, weight_q: Array) -> Scalar:
        on_q = divergence.conjugate(inside(critic_q))
        return jnp.sum(weight_p * inside(critic_p)) - jnp.sum(weight_q * on_q)

    return bound


def wasserstein_bound(critic_p: Array, critic_q: Array, /, *, weight_p: Array, weight_q: Array) -> Scalar:
    """``E_P[φ] - E_Q[φ]``, of which the supremum over ``Lip_L`` is ``L W₁(P, Q)``, by Kantorovich."""
    return jnp.sum(weight_p * critic_p) - jnp.sum(weight_q * critic_q)
