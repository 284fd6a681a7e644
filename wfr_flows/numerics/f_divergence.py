"""f-divergences ``D_f(P|Q) = E_Q f(P/Q)``: generators, conjugates, lower bounds from samples."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Float, Scalar


class FDivergence(NamedTuple):
    """One row of the table: a convex ``f`` on ``x >= 0`` and what belongs to it.

    For every function ``φ`` with values in ``domain`` (Nguyen, Wainwright and Jordan, 2010; [VWGF] eq. 8)

        ``D_f(P|Q) >= E_P[φ] - E_Q[f*(φ)]``,

    with equality at ``φ = f'(P/Q)``. A critic is therefore either ``φ`` itself, kept in ``domain``, or
    ``φ = f'(h)`` of a ratio ``h > 0`` of ``P`` to ``Q``, whose logarithm may be any number (`lower_bound`).

    Attributes:
      generator: ``f``, at 0 its limit.
      slope: ``f'``.
      conjugate: ``f*(y) = sup_x (x y - f(x))`` over ``x >= 0``; ``inf`` outside ``domain``.
      domain: where ``f*`` is finite, an interval whose ends may be infinite.
      dual: ``log h -> (f'(h), f*(f'(h)))``, the two integrands of the bound, without overflow in between.
    """

    generator: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    conjugate: Callable[[Array], Array]
    domain: tuple[float, float]
    dual: Callable[[Array], tuple[Array, Array]]


def kl() -> FDivergence:
    """``KL(P|Q) = E_P log(P/Q)``: ``f = x log x``, ``f* = exp(y - 1)``, integrands ``1 + log h``, ``h``."""
    return FDivergence(
        _entropy,
        lambda x: 1 + jnp.log(x),
        lambda y: jnp.exp(y - 1),
        (-jnp.inf, jnp.inf),
        lambda u: (1 + u, jnp.exp(u)),
    )


def reverse_kl() -> FDivergence:
    """``KL(Q|P)``: ``f = -log x``, ``f* = -1 - log(-y)`` if ``y < 0``, integrands ``-1/h``, ``log h - 1``."""

    def conjugate(y: Array) -> Array:
        inside = y < 0
        return jnp.where(inside, -1 - jnp.log(-jnp.where(inside, y, -1.0)), jnp.inf)

    return FDivergence(
        lambda x: -jnp.log(x), lambda x: -1 / x, conjugate, (-jnp.inf, 0.0), lambda u: (-jnp.exp(-u), u - 1)
    )


def chi_squared() -> FDivergence:
    """Pearson's ``E_Q (P/Q - 1)²``: ``f* = y + y²/4`` from ``y = -2`` on and -1 below it."""
    return FDivergence(
        lambda x: (x - 1) ** 2,
        lambda x: 2 * (x - 1),
        lambda y: jnp.where(y > -2, y + y**2 / 4, -1.0),
        (-jnp.inf, jnp.inf),
        lambda u: (2 * jnp.expm1(u), jnp.expm1(2 * u)),
    )


def alpha_divergence(order: float) -> FDivergence:
    """``f = (x^a - a x + a - 1)/(a (a - 1))`` with ``a = order``, Amari's family (Cichocki and Amari, 2010).

    At ``a = 2`` it is half of Pearson's. For ``a`` to 1 it tends to `kl`, for ``a`` to 0 to `reverse_kl`.

    Args:
      order: any number but 0 and 1.

    Raises:
      ValueError: 0 or 1.
    """
    a = float(order)
    if a in {0.0, 1.0}:
        raise ValueError(f"order is {order}; the limits at 0 and 1 are reverse_kl() and kl().")
    edge = -1 / (a - 1)

    def conjugate(y: Array) -> Array:
        base = 1 + (a - 1) * y
        inside = base > 0
        value = (jnp.where(inside, base, 1.0) ** (a / (a - 1)) - 1) / a
        # Beyond the slope at x = 0, or that at infinity.
        return jnp.where(inside, value, -1 / a if a > 1 else jnp.inf)

    return FDivergence(
        lambda x: (x**a - a * x + a - 1) / (a * (a - 1)),
        lambda x: (x ** (a - 1) - 1) / (a - 1),
        conjugate,
        (-jnp.inf, jnp.inf if a > 1 else edge),
        lambda u: (jnp.expm1((a - 1) * u) / (a - 1), jnp.expm1(a * u) / a),
    )


def jensen_shannon() -> FDivergence:
    """``½ KL(P|M) + ½ KL(Q|M)`` with ``M = (P + Q)/2``, at most log 2; ``f* = -½ log(2 - exp(2y))``."""
    log_two = math.log(2.0)

    def conjugate(y: Array) -> Array:
        inside = y < log_two / 2
        return jnp.where(inside, -0.5 * jnp.log(2 - jnp.exp(2 * jnp.where(inside, y, 0.0))), jnp.inf)

    return FDivergence(
        lambda x: 0.5 * (_entropy(x) - (1 + x) * jnp.log((1 + x) / 2)),
        lambda x: 0.5 * jnp.log(2 * x / (1 + x)),
        conjugate,
        (-jnp.inf, log_two / 2),
        lambda u: (
            0.5 * (log_two - jax.nn.softplus(-u)),
            0.5 * (jax.nn.softplus(u) - log_two),
        ),
    )


def generalized_entropy(m: float) -> FDivergence:
    """``f = (x^m - x)/(m - 1)`` ([VWGF] proposition 2), integrands ``(m h^(m-1) - 1)/(m - 1)`` and ``h^m``.

    For ``Q`` uniform on a set of volume ``Ω`` that holds the support of ``P`` this is
    ``(Ω^(m-1) ∫P^m - 1)/(m - 1)``; for ``m`` to 1 it tends to `kl`.

    Args:
      m: above 1.

    Raises:
      ValueError: otherwise.
    """
    m = float(m)
    if not m > 1:
        raise ValueError(f"m is {m}; give a number above 1, or use kl() for its limit.")
    return FDivergence(
        lambda x: (x**m - x) / (m - 1),
        lambda x: (m * x ** (m - 1) - 1) / (m - 1),
        lambda y: (jnp.maximum((m - 1) * y + 1, 0.0) / m) ** (m / (m - 1)),
        (-jnp.inf, jnp.inf),
        lambda u: ((m * jnp.exp((m - 1) * u) - 1) / (m - 1), jnp.exp(m * u)),
    )


def lower_bound(
    divergence: FDivergence,
    log_ratio_p: Float[Array, " n"],
    log_ratio_q: Float[Array, " m"],
    *,
    weight_p: Float[Array, " n"] | None = None,
    weight_q: Float[Array, " m"] | None = None,
) -> Scalar:
    """``E_P[f'(h)] - E_Q[f*(f'(h))]``, at most ``D_f(P|Q)`` in the mean, from ``log h`` on samples of both.

    Args:
      divergence: of the table.
      log_ratio_p, log_ratio_q: ``log h`` at samples of ``P`` and of ``Q``.
      weight_p, weight_q: of the samples, summing to 1; equal by default.

    >>> float(lower_bound(kl(), jnp.zeros(3), jnp.zeros(5)))
    0.0
    """
    on_p, _ = divergence.dual(log_ratio_p)
    _, on_q = divergence.dual(log_ratio_q)
    return _mean(on_p, weight_p) - _mean(on_q, weight_q)


def donsker_varadhan(
    critic_p: Float[Array, " n"],
    critic_q: Float[Array, " m"],
    *,
    weight_p: Float[Array, " n"] | None = None,
    weight_q: Float[Array, " m"] | None = None,
) -> Scalar:
    """``E_P[φ] - log E_Q[exp φ] <= KL(P|Q)`` (Donsker and Varadhan, 1975), from ``φ`` on samples of both.

    The best of the bounds of `kl` over all ``φ + constant``. On finite samples of ``Q`` the logarithm of a
    mean is too small on average, so that the bound holds only in the limit of many.
    """
    weight = jnp.full_like(critic_q, 1 / critic_q.size) if weight_q is None else weight_q
    return _mean(critic_p, weight_p) - jax.nn.logsumexp(critic_q, b=weight)


def _mean(value: Array, weight: Array | None) -> Scalar:
    return jnp.mean(value) if weight is None else jnp.sum(weight * value)


def _entropy(x: Array) -> Array:
    """``x log x``, 0 at 0."""
    return jax.scipy.special.xlogy(x, x)
