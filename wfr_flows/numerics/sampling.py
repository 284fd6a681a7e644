"""Drawing indices in proportion to weights."""

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Float, Int


def running_total(weight: Float[Array, " n"]) -> Float[Array, " n"]:
    """Cumulative sums that never decrease, and rise only where there is weight.

    A parallel sum, by rounding, may fall at some entries and rise at entries of weight zero.
    """
    return jax.lax.cummax(jnp.where(weight > 0, jnp.cumsum(weight), 0.0))


def inverse_distribution(total: Float[Array, " n"], point: Float[Array, "*s"]) -> Int[Array, "*s"]:
    """The index whose share of a `running_total` holds ``point`` in (0, 1]; never one without weight.

    >>> inverse_distribution(running_total(jnp.array([0.0, 1.0, 0.0, 3.0])), jnp.array([0.1, 0.25, 0.3, 1.0]))
    Array([1, 1, 3, 3], dtype=int32)
    """
    return jnp.searchsorted(total, point * total[-1])
