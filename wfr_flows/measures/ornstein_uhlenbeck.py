"""The law of an Ornstein-Uhlenbeck process at any time."""

import jax.numpy as jnp

from wfr_flows.measures.distributions import Distribution, gaussian
from wfr_flows.typing import ArrayLike


def ornstein_uhlenbeck(mean: ArrayLike, covariance: ArrayLike, t: ArrayLike) -> Distribution:
    """The law at time ``t`` of ``dx = -C⁻¹(x - b) dt + √2 dW`` that begins at ``N(0, I)``.

    ``N((I - e^{-tA}) b, C(I - e^{-2tA}) + e^{-2tA})`` with ``A = C⁻¹``: the gradient flow
    of ``KL(·|N(b, C))``.

    Args:
      mean: ``b``, ``[d]``.
      covariance: ``C``, ``[d, d]``, symmetric positive definite.
      t: time ``>= 0``.

    >>> ornstein_uhlenbeck(jnp.ones(1), 2 * jnp.eye(1), 0.0).log_density(jnp.zeros(1))
    Array(-0.9189385, dtype=float32)
    """
    dtype = jnp.result_type(float)
    mean, covariance = jnp.asarray(mean, dtype), jnp.asarray(covariance, dtype)
    variance, basis = jnp.linalg.eigh(covariance)
    decay = jnp.exp(-jnp.asarray(t, dtype) / variance)
    now = (basis * (variance * (1 - decay**2) + decay**2)[None]) @ basis.T
    return gaussian(mean - basis @ (decay * (basis.T @ mean)), now)
