"""Pairwise costs between point clouds."""

import operator
from functools import reduce

import jax.numpy as jnp

from wfr_flows.numerics.cone import REACH, log_cos_ratio
from wfr_flows.typing import Array, ArrayLike, Bool, Float

_UNROLLED_DIMENSIONS = 32


def squared_distance(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """``|x_i - y_j|²`` from squared differences: no cancellation, exactly 0 where points coincide."""
    dim = x.shape[1]
    if dim > _UNROLLED_DIMENSIONS:
        return jnp.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=-1)
    # One pair per lane, where a short last axis would leave most of a vector register empty.
    along = ((x[:, k, None] - y[None, :, k]) ** 2 for k in range(dim))
    return reduce(operator.add, along)


def transport_cost(squared: Float[Array, "*s"], inverse_alpha: ArrayLike) -> tuple[Array, Bool[Array, "*s"]]:
    """The log-entropy cost of WFR in energy units, and where it is finite.

    ``c = -4 alpha log cos(|x-y| / 2√alpha)`` while ``|x-y| < π√alpha`` (Liero-Mielke-Savare), which is
    ``½|x-y|²`` at ``inverse_alpha = 0``. Beyond reach the cost is ``+inf``: it is returned as a mask and
    the number stored there is 0.

    Args:
      squared: squared distances, any shape.
      inverse_alpha: ``1/alpha >= 0``.

    Returns:
      ``(cost, reachable)``, both of the shape of ``squared``.
    """
    angle = 0.25 * squared * inverse_alpha
    reachable = angle < REACH
    inside = jnp.where(reachable, angle, 0.0)
    return jnp.where(reachable, 0.5 * squared * log_cos_ratio(inside), 0.0), reachable
