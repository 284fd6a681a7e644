"""Pairs of points in blocks, so that memory does not grow with their number."""

import jax
import jax.numpy as jnp

from wfr_flows.typing import Array, Float

# Numbers of one block of pairs.
_BLOCK = 1 << 22


def in_blocks(function, points: Float[Array, "m d"], row_length: int):
    """``function`` of ``points``, as many at a time as keep ``row_length`` numbers for each in memory."""
    size = max(1, min(points.shape[0], _BLOCK // row_length))
    if size == points.shape[0]:
        return function(points)
    count = -(-points.shape[0] // size)
    padded = jnp.pad(points, ((0, count * size - points.shape[0]), (0, 0)), mode="edge")
    result = jax.lax.map(function, padded.reshape(count, size, -1))
    return jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:])[: points.shape[0]], result)
