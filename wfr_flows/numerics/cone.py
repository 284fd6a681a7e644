"""Elementary functions of the metric cone, each with its flat (``alpha = inf``) limit.

Functions of a *squared* argument ``q = z²`` are analytic in ``q``, so values and derivatives of every
order are finite at ``q = 0``, where a square root would give NaN.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from scipy.special import zeta

from wfr_flows.typing import Array, ArrayLike

REACH = (math.pi / 2) ** 2
"""Squared cone angle at which transport stops paying: ``|x-y| = π√alpha``."""

_SERIES_BELOW = 1e-2
# Taylor coefficients, highest order first; zeta(s, 3/2) sums (k + 1/2)**-s over k >= 1.
_OTHER_ZEROS = tuple(float(2 / n * math.pi ** (-2 * n) * zeta(2 * n, 1.5)) for n in range(16, 0, -1))
_LOG1P = tuple(1 / (n + 1) for n in range(8, -1, -1))
_SINC_SQUARED = (1 / 1814400, -1 / 20160, 1 / 360, -1 / 12, 1.0)
_ARCSINC_SQUARED = (1024 / 21021, 128 / 2079, 128 / 1575, 4 / 35, 8 / 45, 1 / 3, 1.0)


def inverse_alpha(alpha: ArrayLike) -> Array:
    """``1/alpha`` as a float array, exactly 0 at ``alpha = inf``, the Wasserstein case.

    Args:
      alpha: the length scale, ``> 0``; may be traced.

    Raises:
      ValueError: a concrete ``alpha`` that is zero, negative or NaN. Traced values pass unchecked.

    >>> float(inverse_alpha(math.inf))
    0.0
    """
    if not isinstance(alpha, Tracer) and not np.all(np.asarray(alpha) > 0):
        raise ValueError(f"alpha is {alpha}; give a positive number, or inf for the Wasserstein case.")
    return 1.0 / jnp.asarray(alpha, jnp.result_type(alpha, float))


def known_infinite(alpha: ArrayLike) -> bool:
    """Whether ``alpha`` is known to be ``inf``, so that nothing grows; never while it is traced."""
    return not isinstance(alpha, Tracer) and bool(np.all(np.isinf(alpha)))


def _analytic(q: ArrayLike, coefficients: tuple[float, ...], closed_form: Callable[[Array], Array]) -> Array:
    """The Taylor polynomial near zero and ``closed_form(q)`` elsewhere, both branches differentiable."""
    q = jnp.asarray(q, jnp.result_type(q, float))
    small = q < _SERIES_BELOW
    near = jnp.where(small, q, jnp.zeros_like(q))
    far = jnp.where(small, jnp.full_like(q, _SERIES_BELOW), q)
    return jnp.where(small, jnp.polyval(jnp.asarray(coefficients, q.dtype), near), closed_form(far))


def log_cos_ratio(q: ArrayLike) -> Array:
    """``-2 log cos(√q) / q`` for ``0 <= q < (π/2)²``: 1 at 0.

    By the product of the cosine over its zeros: the first, where the logarithm is singular, in closed form,
    all others as a power series that converges like ``9⁻ⁿ``. No term is negative, so no digits cancel.

    >>> float(log_cos_ratio(0.0))
    1.0
    """
    q = jnp.asarray(q, jnp.result_type(q, float))
    nearest_zero = _analytic(q / REACH, _LOG1P, lambda x: -jnp.log1p(-x) / x)
    return 2 / REACH * nearest_zero + jnp.polyval(jnp.asarray(_OTHER_ZEROS, q.dtype), q)


def sinc_squared(q: ArrayLike) -> Array:
    """``(sin(√q/2) / (√q/2))²`` for ``q >= 0``: 1 at 0.

    >>> float(sinc_squared(0.0))
    1.0
    """
    return _analytic(q, _SINC_SQUARED, lambda s: 4.0 * jnp.sin(jnp.sqrt(s) / 2.0) ** 2 / s)


def arcsinc_squared(q: ArrayLike) -> Array:
    """``(arcsin(√q) / √q)²`` for ``0 <= q <= 1``: 1 at 0 and ``π²/4`` at 1.

    >>> float(arcsinc_squared(0.0))
    1.0
    """
    return _analytic(q, _ARCSINC_SQUARED, lambda s: jnp.arcsin(jnp.sqrt(s)) ** 2 / s)


def saturate(value: ArrayLike, inverse_scale: ArrayLike) -> Array:
    """``(1 - exp(-value·k)) / k``, and ``value`` itself at ``k = inverse_scale = 0``.

    The dual of the KL marginal penalty of weight ``1/k``; ``value = +inf`` is legal for ``k > 0``.

    >>> float(saturate(3.0, 0.0))
    3.0
    """
    flat = jnp.asarray(inverse_scale) == 0
    scale = jnp.where(flat, 1.0, inverse_scale)
    return jnp.where(flat, value, -jnp.expm1(-jnp.asarray(value) * scale) / scale)
