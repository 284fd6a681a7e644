"""Log-ratios of densities by logistic regression on weighted samples."""

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Float, Scalar


def logistic_loss(
    at_first: Float[Array, " n"],
    first_weight: Float[Array, " n"],
    at_last: Float[Array, " m"],
    last_weight: Float[Array, " m"],
) -> Scalar:
    """``Σ w log(1 + e^r) + Σ v log(1 + e^-r)``, least at ``r = log dν/dμ``, the masses included.

    Args:
      at_first, first_weight: values of ``r`` at particles of ``μ``, and their weights.
      at_last, last_weight: those of ``ν``.
    """
    return jnp.sum(first_weight * jax.nn.softplus(at_first)) + jnp.sum(
        last_weight * jax.nn.softplus(-at_last)
    )
