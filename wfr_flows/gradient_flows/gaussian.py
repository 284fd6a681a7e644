"""JKO steps that have a closed form."""

import jax.numpy as jnp

from wfr_flows.typing import Array, ArrayLike, Float


def gaussian_jko_step(
    mean: Float[Array, " d"],
    variance: Float[Array, " d"],
    target_mean: Float[Array, " d"],
    target_variance: Float[Array, " d"],
    step_size: ArrayLike,
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """The minimiser of ``KL(·|N(b, diag a⁻¹)) + W₂²(N(m, diag s²), ·)/2h``: mean and variance.

    ``m' = (m + hab)/(1 + ha)``, ``s' = (s + √(s² + 4h(1 + ha))) / (2(1 + ha))``: optimality coordinate by
    coordinate. Covariances that commute come to this in their common basis.

    Args:
      mean, variance: ``m`` and ``s²``, ``[d]``.
      target_mean, target_variance: ``b`` and ``a⁻¹``, ``[d]``.
      step_size: ``h > 0``.
    """
    shrink = 1 + step_size / target_variance
    deviation = (jnp.sqrt(variance) + jnp.sqrt(variance + 4 * step_size * shrink)) / (2 * shrink)
    return (mean + (shrink - 1) * target_mean) / shrink, deviation**2
